"""The process that reads one file: forked from a host as a camera's is, with a memory limit, without the worker's environment.

What strangers send may crash a decoder, make it take gigabytes, or loop indefinitely in C code; none of that can be contained by
a thread. The process gets a `FileJob` over its socket pair and sends sampled frames, encoded; it waits while the worker does not
take them, so the worker's credit holds it back. It ends at once when the worker closes the link.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final, NoReturn, cast

import msgspec

from moodline.services.ingest.camera.process.channel import Channel, ChannelClosedError, ChannelError
from moodline.services.ingest.camera.process.host import FILE_RUNNER, CameraHost
from moodline.services.ingest.camera.process.job import end_with, limit_memory
from moodline.services.ingest.camera.process.link import EXIT_MEMORY, CameraGoneError, Fate
from moodline.services.ingest.file.samples import FileSample, LocalSamples, Wanted
from moodline.services.ingest.media.frames import Ending, SourceInfo
from moodline.services.ingest.stream.crashes import place_of
from moodline.shared.errors import MoodlineError, SourceError
from moodline.shared.settings import IngestSettings
from moodline.shared.streams import FailureReason

_SILENCE_S: Final = 120.0
"""The process tells its counts each second; after so long without a word its decoder hangs."""
_LOOK_S: Final = 0.5
_FATE_WAIT_S: Final = 1.5
_SEND_BUFFER_BYTES: Final = 1024 * 1024
_CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP})


class FileJob(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """The task of one file's process; fields as in `StreamSpec`, `IngestSettings` and `Wanted`."""

    url: str
    media_root: str
    max_pixels: int
    memory_bytes: int
    sample_fps: str
    max_side_px: int
    jpeg_quality: int
    first_seq: int
    left_out: tuple[int, ...]


class FileOpened(msgspec.Struct, frozen=True, kw_only=True, tag="file_opened"):
    """The first frame was decoded; fields as in `SourceInfo`, `fps` as a fraction in text, or ""."""

    codec: str
    width: int
    height: int
    fps: str
    duration_us: int | None
    created_at_us: int | None


class FileFrame(msgspec.Struct, frozen=True, kw_only=True, tag="file_frame"):
    """One sampled frame; fields as in `FileSample`."""

    seq: int
    at_us: int
    width: int
    height: int
    jpeg: bytes
    repeats: int
    repeats_us: int
    why: str
    decoded: int
    damaged: int


class FileCounts(msgspec.Struct, frozen=True, kw_only=True, tag="file_counts"):
    """Totals so far, about once a second."""

    decoded: int
    damaged: int


class FileEnded(msgspec.Struct, frozen=True, kw_only=True, tag="file_ended"):
    """The content was read to its end; fields as in `Samples` and `Ending`."""

    decoded: int
    damaged: int
    end_us: int
    seq: int
    reason: FailureReason | None
    detail: str
    corrupt: int
    lost: int


class FileFailed(msgspec.Struct, frozen=True, kw_only=True, tag="file_failed"):
    """The content cannot be read."""

    reason: FailureReason
    detail: str


class FileDefect(msgspec.Struct, frozen=True, kw_only=True, tag="file_defect"):
    """Moodline's own code failed; `place` as of `place_of`."""

    place: str


FileRecord = FileOpened | FileFrame | FileCounts | FileEnded | FileFailed | FileDefect


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


# The process's side


def run_file(connected: socket.socket) -> NoReturn:
    """Take the job from the socket, read its file to the end or until the worker closes the socket; then end the process."""
    channel = Channel(connected, FileJob)
    try:
        job = channel.receive(None)
    except (ChannelClosedError, ChannelError):
        os._exit(0)
    assert job is not None  # without a time-out there is no None
    limit_memory(job.memory_bytes)
    threading.Thread(target=end_with, args=(channel,), name="control", daemon=True).start()
    try:
        _read(job, channel)
    except ChannelClosedError:
        os._exit(0)
    except MemoryError:
        os._exit(EXIT_MEMORY)
    except BaseException as error:  # noqa: BLE001  # the process ends here; there is nobody above
        try:
            channel.send(FileDefect(place=place_of(error)))
        finally:
            os._exit(0)
    os._exit(0)


def _read(job: FileJob, channel: Channel[FileJob]) -> None:
    from moodline.services.ingest.file.open import open_source

    try:
        source = open_source(job.url, IngestSettings(media_root=Path(job.media_root), max_pixels=job.max_pixels))
        info = source.info
        channel.send(
            FileOpened(
                codec=info.codec,
                width=info.width,
                height=info.height,
                fps="" if info.fps is None else str(info.fps),
                duration_us=info.duration_us,
                created_at_us=info.created_at_us,
            )
        )
        wanted = Wanted(job.sample_fps, job.max_side_px, job.jpeg_quality, job.first_seq, frozenset(job.left_out))
        samples = LocalSamples(source, wanted)
        for sample in samples.frames():
            if sample is None:
                channel.send(FileCounts(decoded=samples.decoded, damaged=samples.damaged))
            else:
                channel.send(_frame(sample, samples))
        ending = samples.ending
    except SourceError as error:
        channel.send(FileFailed(reason=FailureReason(error.reason), detail=str(error)))
        return
    channel.send(
        FileEnded(
            decoded=samples.decoded,
            damaged=samples.damaged,
            end_us=samples.end_us,
            seq=samples.seq,
            reason=ending.reason,
            detail=ending.detail,
            corrupt=ending.corrupt,
            lost=ending.lost,
        )
    )


def _frame(sample: FileSample, samples: LocalSamples) -> FileFrame:
    return FileFrame(
        seq=sample.seq,
        at_us=sample.at_us,
        width=sample.width,
        height=sample.height,
        jpeg=sample.jpeg,
        repeats=sample.repeats,
        repeats_us=sample.repeats_us,
        why=sample.why,
        decoded=samples.decoded,
        damaged=samples.damaged,
    )


# The worker's side


class FileProcesses:
    """Starts one process per file. Thread-safe. Starts nothing before the first file, or `prepare`."""

    def __init__(self) -> None:
        self._host = CameraHost(FILE_RUNNER, send_buffer_bytes=_SEND_BUFFER_BYTES)

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
            left_out=tuple(wanted.left_out),
        )
        try:
            connected, fate, end = self._host.start()
        except CameraGoneError as error:
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
                record = self._channel.receive(_LOOK_S)
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
    if code in _CRASHES:
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
