"""The client of the HTTP API."""

from moodline.client._client import Client

__all__ = ["Client"]
