"""The ingest worker's name in metrics and logs."""

from typing import Final

WORKER: Final = "ingest"
