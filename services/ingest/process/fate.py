"""How a process ended that was started for a file or a camera."""

import signal
import threading
from typing import Final

EXIT_MEMORY: Final = 77
"""Exit code of a process that ran into its memory limit."""

CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP})
"""Signals with which a decoder crashes."""


class Fate:
    """The state of one process, as its host reports it. Thread-safe."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._ended = threading.Event()
        self.pid: int | None = None
        self.status: int | None = None
        """Wait status as of `os.waitpid`; None while it runs, and when nobody is left who could know."""

    def started(self, pid: int) -> None:
        """Note that the process runs."""
        self.pid = pid
        self._started.set()

    def ended(self, status: int | None) -> None:
        """Note that the process is gone, or that nobody can tell any more."""
        if not self._ended.is_set():
            self.status = status
        self._ended.set()
        self._started.set()

    def wait_started(self, timeout_s: float) -> bool:
        """Wait until the process runs or is gone; False after the time-out."""
        return self._started.wait(timeout_s)

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until the process is gone; False after the time-out."""
        return self._ended.wait(timeout_s)

    @property
    def is_known_ended(self) -> bool:
        """Return whether the process has ended."""
        return self._ended.is_set()
