"""Cameras: RTSP, HTTP and local devices, each read in a process of its own."""
