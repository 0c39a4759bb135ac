"""The worker's end of one camera's process."""

import signal
import socket
import threading
from collections.abc import Callable
from typing import Final, cast

from moodline.services.ingest.live.records import Job, Record
from moodline.services.ingest.process.channel import Channel, ChannelClosedError, ChannelError
from moodline.services.ingest.process.fate import CRASHES, EXIT_MEMORY, Fate
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

_FATE_WAIT_S: Final = 1.5
"""How long the end of a process may take to be known after its socket closed."""


class CameraGoneError(SourceError):
    """The camera's process ended without saying why. The reason is `corrupt`: most likely what the camera sent did it."""

    def __init__(self, message: str) -> None:
        super().__init__(FailureReason.CORRUPT, message)


def sentence_of(status: int | None) -> str:
    """Return what is said about a process that ended with this wait status (as of `os.waitpid`), or with an unknown one."""
    if status is None:
        return "the camera's process ended, because the process that all cameras are started from ended"
    # Python has no name for the parts of a wait status that is portable but this.
    code = status & 0x7F
    if code in CRASHES:
        return f"the camera's process ended (signal {code}): what the camera sends crashes the decoder"
    if code == signal.SIGKILL:
        return "the camera's process was killed (signal 9): most likely the machine ran out of memory"
    if code:
        return f"the camera's process was ended from outside (signal {code})"
    exit_code = status >> 8
    if exit_code == EXIT_MEMORY:
        return "the camera's process reached its memory limit and was ended"
    return f"the camera's process ended without a reason (exit code {exit_code})"


class CameraLink:
    """One camera's process. One thread reads with `next`; `close` may come from any thread."""

    def __init__(self, connected: socket.socket, fate: Fate, end: Callable[[], None]) -> None:
        """Take over the worker's end of the socket pair.

        Args:
            connected: The socket.
            fate: Told by the camera host when the process starts and ends.
            end: Tells the camera host to see to it that the process ends; does not block.
        """
        self._channel: Channel[Record] = Channel(connected, cast("type[Record]", Record))
        self._fate = fate
        self._end = end
        self._reading = threading.Lock()
        self._closing = threading.Lock()
        self._closed = False

    @property
    def fate(self) -> Fate:
        """What the host reports of the process."""
        return self._fate

    @property
    def pid(self) -> int | None:
        """The process's id; None when it never ran."""
        return self._fate.pid

    @property
    def has_ended(self) -> bool:
        """Return whether the process is known to have ended."""
        return self._fate.is_known_ended

    def send(self, job: Job) -> None:
        """Send the one record that goes this way. Raises `CameraGoneError`."""
        try:
            self._channel.send(job)
        except ChannelClosedError:
            raise CameraGoneError(self._sentence()) from None
        except ChannelError:
            raise SourceError(FailureReason.FORBIDDEN_URL, "the camera's address is too long") from None

    def next(self, timeout_s: float) -> Record | None:
        """Return the next record, or None when none is there within `timeout_s`.

        Raises:
            CameraGoneError: the process is gone, `close` was called, or what it sends makes no sense.
        """
        with self._reading:
            if self._closed:
                raise CameraGoneError("the connection to the camera's process was closed")
            try:
                return self._channel.receive(timeout_s)
            except ChannelClosedError:
                raise CameraGoneError(self._sentence()) from None
            except ChannelError:
                raise CameraGoneError("the camera's process sent something that makes no sense") from None

    def close(self) -> None:
        """End the process at once; it is gone within about 1 s whatever it does. Does not wait for it. Safe to call twice."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._end()
        # Wakes a `next` that waits, so the lock is free in a moment; closing under it would free its number for another socket.
        self._channel.shut()
        with self._reading:
            self._channel.close()

    def _sentence(self) -> str:
        if self._closed:
            return "the connection to the camera's process was closed"
        if not self._fate.wait_ended(_FATE_WAIT_S):
            return "the camera's process closed its connection"
        return sentence_of(self._fate.status)
