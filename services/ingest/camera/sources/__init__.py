"""Opens a camera by its URL."""
