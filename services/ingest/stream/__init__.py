"""What reading a stream has in common, whatever its source."""
