"""Frames and pictures, as all sources have them."""
