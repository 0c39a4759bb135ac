"""The common part of cameras and pushed streams: the newest frame counts."""
