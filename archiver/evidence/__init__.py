"""What proves that the archive is whole and unaltered."""
