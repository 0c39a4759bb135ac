"""Processes that files and cameras are read in: how they start, what they may take, how they talk, how they end."""
