"""The HTTP API: streams are registered, and their timelines read, under `/api/v1`. `docs/api.md` is its reference."""

from typing import Final

PREFIX: Final = "/api/v1"
"""Of every route about streams and timelines; a change that clients cannot take gets a new one."""
