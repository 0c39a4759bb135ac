"""What reading a stream has in common, whatever its source."""

from typing import Final

WORKER: Final = "ingest"
"""The ingest worker in metrics and logs."""
