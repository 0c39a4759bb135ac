"""Live events of streams: states, new timeline points, faces."""
