"""What a process of a file or a camera may take, and when it ends. On its own side."""

import os
import resource
import sys
from pathlib import Path
from typing import Any

from moodline.services.ingest.process.channel import Channel


def end_with(channel: Channel[Any]) -> None:
    """End the process as soon as the worker closes its end, whatever the other threads do."""
    channel.wait_closed()
    os._exit(0)


def limit_memory(memory_bytes: int) -> None:
    """Limit what the process may allocate of its own; what it shares with the host it was forked from does not count.

    Linux alone: elsewhere mapped memory is outside of the limit, so there is none.
    """
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        limit_bytes = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
