"""The common part of reading a stream, whatever its source."""

from typing import Final

WORKER: Final = "ingest"
"""The ingest worker in metrics and logs."""
