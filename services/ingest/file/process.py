"""The process that reads one file: forked from a host as a camera's is, with a memory limit, without the worker's environment.

What strangers send may crash a decoder, make it take gigabytes, or loop indefinitely in C code; none of that can be contained by
a thread. The process gets a `FileJob` over its socket pair and sends sampled frames, encoded; it waits while the worker does not
take them, so the worker's credit holds it back. It ends at once when the worker closes the link.
"""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Final, cast

from moodline.services.ingest.file.records import (
    FileCounts,
    FileDefect,
    FileEnded,
    FileFailed,
    FileFrame,
    FileJob,
    FileOpened,
    FileRecord,
)
from moodline.services.ingest.file.samples import FileSample, Wanted
from moodline.services.ingest.media.frames import Ending, SourceInfo
from moodline.services.ingest.process.channel import Channel, ChannelClosedError, ChannelError
from moodline.services.ingest.process.fate import CRASHES, EXIT_MEMORY, Fate
from moodline.services.ingest.process.host import Forked, ProcessGoneError, ProcessHost
from moodline.shared.errors import MoodlineError, SourceError
from moodline.shared.settings import IngestSettings
from moodline.shared.streams import FailureReason

_RUNNER: Final = "moodline.services.ingest.file.child:run_file"
_PRELOAD: Final = ("moodline.services.ingest.file.content", "moodline.services.ingest.file.media_file")
_SILENCE_S: Final = 120.0
"""The process tells its counts each second; after so long without a word its decoder hangs."""
_POLL_S: Final = 0.5
_FATE_WAIT_S: Final = 1.5
_SEND_BUFFER_BYTES: Final = 1024 * 1024


class FileProcessError(MoodlineError):
    """The process of a file ended without a word.

    Attributes:
        reason: `corrupt`: the decoder crashed; `too_large`: it reached its memory limit; `timeout`: it hung; `internal`: it was
            ended from outside, which need not be the file's doing.
    """

    code = "file_process"

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class FileDefectError(RuntimeError):
    """A defect of Moodline in the file's process; the message is type and place."""


class FileProcesses:
    """Starts one process per file. Thread-safe. Starts nothing before the first file, or `prepare`."""

    def __init__(self) -> None:
        self._host = ProcessHost(Forked("moodline-file", _RUNNER, preload=_PRELOAD), _SEND_BUFFER_BYTES)

    def prepare(self) -> None:
        """Start what files' processes are forked from, so that the first file need not wait for it. Returns at once."""
        self._host.prepare()

    def open(self, url: str, settings: IngestSettings, wanted: Wanted, stop: threading.Event) -> "ProcessSamples":
        """Start a process that reads a file, and wait for its first frame; ends early, with `SourceError`, when `stop` is set.

        Raises:
            SourceError: the file cannot be read.
            FileProcessError: its process died.
        """
        job = FileJob(
            url=url,
            media_root=str(settings.media_root.expanduser()),
            max_pixels=settings.max_pixels,
            memory_bytes=settings.file_memory_bytes,
            sample_fps=wanted.sample_fps,
            max_side_px=wanted.max_side_px,
            jpeg_quality=wanted.jpeg_quality,
            first_seq=wanted.first_seq,
            dropped=tuple(wanted.dropped),
        )
        try:
            connected, fate, end = self._host.start()
        except ProcessGoneError as error:
            raise FileProcessError(FailureReason.INTERNAL, f"the file's process cannot be started: {error}") from None
        link = _FileLink(connected, fate, end, stop)
        try:
            link.send(job)
            return ProcessSamples(link)
        except BaseException:
            link.close()
            raise

    def close(self) -> None:
        """End all files' processes. Safe to call twice."""
        self._host.close()


class ProcessSamples:
    """The sampled frames that a file's process sends. Implements `Samples`."""

    def __init__(self, link: "_FileLink") -> None:
        self.decoded = 0
        self.damaged = 0
        self.end_us = 0
        self.seq = 0
        self.ending = Ending()
        self._link = link
        opened = self._next()
        if not isinstance(opened, FileOpened):
            raise _out_of_order()
        fps = Fraction(opened.fps) if opened.fps else None
        self.info = SourceInfo(opened.codec, opened.width, opened.height, fps, opened.duration_us, opened.created_at_us)

    def frames(self) -> Iterator[FileSample | None]:
        """Yield the sampled frames."""
        while True:
            record = self._next()
            if record is None:
                yield None
                continue
            if not isinstance(record, FileFrame | FileCounts | FileEnded):
                raise _out_of_order()
            self.decoded, self.damaged = record.decoded, record.damaged
            if isinstance(record, FileEnded):
                self.end_us, self.seq = record.end_us, record.seq
                self.ending = Ending(record.reason, record.detail, record.corrupt, record.lost)
                return
            if isinstance(record, FileCounts):
                yield None
            else:
                yield FileSample(
                    record.seq,
                    record.at_us,
                    record.width,
                    record.height,
                    record.jpeg,
                    record.repeats,
                    record.repeats_us,
                    record.why,
                )

    def close(self) -> None:
        """End the process."""
        self._link.close()

    def _next(self) -> FileRecord | None:
        record = self._link.next()
        if isinstance(record, FileFailed):
            raise SourceError(record.reason, record.detail)
        if isinstance(record, FileDefect):
            raise FileDefectError(record.place)
        return record


class _FileLink:
    """The worker's end of one file's process. Used by one thread."""

    def __init__(self, connected: socket.socket, fate: Fate, end: Callable[[], None], stop: threading.Event) -> None:
        self._channel: Channel[FileRecord] = Channel(connected, cast("type[FileRecord]", FileRecord))
        self._fate = fate
        self._end = end
        self._stop = stop
        self._closed = False

    def send(self, job: FileJob) -> None:
        """Send the one record that goes this way."""
        try:
            self._channel.send(job)
        except (ChannelClosedError, ChannelError):
            raise self._death() from None

    def next(self) -> FileRecord | None:
        """Return the next record; None when `stop` was set first. Raises `FileProcessError`."""
        deadline_s = time.monotonic() + _SILENCE_S
        while not self._stop.is_set():
            try:
                record = self._channel.receive(_POLL_S)
            except ChannelClosedError:
                raise self._death() from None
            except ChannelError:
                raise FileProcessError(FailureReason.CORRUPT, "the file's process sent something that makes no sense") from None
            if record is not None:
                return record
            if time.monotonic() > deadline_s:
                raise FileProcessError(
                    FailureReason.TIMEOUT, f"the decoder gave nothing for {_SILENCE_S:g} s, so its process was ended"
                )
        return None

    def close(self) -> None:
        """End the process at once; it is gone within about 1 s, whatever it does."""
        if not self._closed:
            self._closed = True
            self._end()
            self._channel.shut()
            self._channel.close()

    def _death(self) -> FileProcessError:
        self._fate.wait_ended(_FATE_WAIT_S)
        return death_of(self._fate.status)


def death_of(status: int | None) -> FileProcessError:
    """Return what is to be said of a process that ended with this wait status (as of `os.waitpid`), or with an unknown one."""
    code = 0 if status is None else status & 0x7F
    if code in CRASHES:
        return FileProcessError(FailureReason.CORRUPT, f"the file crashes its decoder (signal {code})")
    if status is not None and status >> 8 == EXIT_MEMORY:
        return FileProcessError(
            FailureReason.TOO_LARGE,
            "the file needs more memory than its reading may take (MOODLINE_INGEST_FILE_MEMORY_BYTES)",
        )
    if code == signal.SIGKILL:
        return FileProcessError(
            FailureReason.INTERNAL, "the file's process was killed (signal 9): most likely the machine ran out of memory"
        )
    how = "" if status is None else f" (signal {code})" if code else f" (exit code {status >> 8})"
    return FileProcessError(FailureReason.INTERNAL, f"the file's process ended without a reason{how}")


def _out_of_order() -> FileProcessError:
    return FileProcessError(FailureReason.INTERNAL, "the file's process sent something out of order")
