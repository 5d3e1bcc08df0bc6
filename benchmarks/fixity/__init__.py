"""What it takes to read everything again, beside programs that do nothing else."""
