"""Files: each frame is read once, in order, no further ahead than the credit allows."""
