"""What a file's process does: it reads one file, and sends sampled frames, encoded.

Loads as little as it can, neither settings nor servers: the process that it is forked from is started with every service.
"""

import os
import socket
import threading
from pathlib import Path
from typing import Final, NoReturn

from moodline.services.ingest.file.open import FileLimits, open_source
from moodline.services.ingest.file.records import (
    FileCounts,
    FileDefect,
    FileEnded,
    FileFailed,
    FileFrame,
    FileJob,
    FileOpened,
)
from moodline.services.ingest.file.samples import FileSample, LocalSamples, Wanted
from moodline.services.ingest.process.channel import Channel, ChannelClosedError, ChannelError
from moodline.services.ingest.process.fate import EXIT_MEMORY
from moodline.services.ingest.process.limits import end_with, limit_memory
from moodline.services.ingest.stream.crashes import place_of
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

_OPENCV_NO_MEMORY: Final = -4
"""`cv2.Error.StsNoMem`, the code of OpenCV's error for it."""


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
        if getattr(error, "code", None) == _OPENCV_NO_MEMORY:
            os._exit(EXIT_MEMORY)
        try:
            channel.send(FileDefect(place=place_of(error)))
        finally:
            os._exit(0)
    os._exit(0)


def _read(job: FileJob, channel: Channel[FileJob]) -> None:
    try:
        source = open_source(job.url, FileLimits(Path(job.media_root), job.max_pixels))
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
        wanted = Wanted(job.sample_fps, job.max_side_px, job.jpeg_quality, job.first_seq, frozenset(job.dropped))
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
