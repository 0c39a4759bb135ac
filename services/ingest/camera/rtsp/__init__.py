"""Cameras over RTSP."""
