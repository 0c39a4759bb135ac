"""Simulated cameras: clips as RTSP in an endless loop, with faults on demand. For users without a camera, and for tests."""

from moodline.services.simulator.process import CameraSimulator

__all__ = ["CameraSimulator"]
