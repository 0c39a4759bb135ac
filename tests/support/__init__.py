"""Real servers for tests, and the fixtures that hand them out."""
