"""Cameras over HTTP: MJPEG, snapshots and HLS."""
