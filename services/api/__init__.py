"""The HTTP API: streams are registered, and their timelines read, under `/api/v1`. `docs/api.md` is its reference."""

from typing import Final

PREFIX: Final = "/api/v1"
"""The path of every route about streams and timelines begins so. A change that breaks clients gets another prefix."""
