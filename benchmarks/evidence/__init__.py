"""What the evidence costs."""
