"""What the archiver tells of itself."""
