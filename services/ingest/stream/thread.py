"""A thread that reads one stream, a file's or a camera's, as the worker handles it."""

import threading
from abc import ABC, abstractmethod

from moodline.services.ingest.stream.outcome import Outcome
from moodline.shared.log import bound
from moodline.shared.streams import StreamSpec


class StreamThread(ABC):
    """Reads one stream until it is done or told to stop; then `outcome` says why."""

    def __init__(self, spec: StreamSpec, kind: str) -> None:
        self.spec = spec
        self.outcome: Outcome | None = None
        self.standstill = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run_bound, name=f"{kind}-{spec.stream_id}", daemon=True)

    @property
    @abstractmethod
    def is_decoding(self) -> bool:
        """Return whether it needs a core of this process."""

    @property
    def is_alive(self) -> bool:
        """Return whether it still reads."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def timeline_stands(self, sentence: str) -> None:
        """Take what is to be told of a timeline that stands still although frames are sent; empty when it moves."""
        self.standstill = sentence

    def stop(self) -> None:
        """Tell it to stop; returns at once."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait until it is done; False when it is not in time."""
        self._thread.join(timeout_s)
        return not self.is_alive

    def _run_bound(self) -> None:
        """Read; every line that this thread logs names the stream."""
        with bound(stream_id=self.spec.stream_id):
            self._run()

    @abstractmethod
    def _run(self) -> None:
        """Read; sets `outcome` before it returns."""
