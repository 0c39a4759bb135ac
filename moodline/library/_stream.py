"""A camera in this process: frames with faces, tracks and smoothed emotions, as they come."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from moodline.errors import ClientError
from moodline.library._faces import Face, face_of
from moodline.library._settings import settings_of
from moodline.services.analysis.inputs import clips_of
from moodline.services.analysis.live import STREAM_ID, LiveRun, run_live
from moodline.services.analysis.spec import with_media_root
from moodline.services.report.moments import to_datetime
from moodline.shared.errors import InvalidStreamError
from moodline.shared.messages import StreamClass
from moodline.shared.streams import StreamSpec, Transport, parse_sample_fps, stream_class_of_url

_SIZE_EVERY: Final = 25


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """One sampled frame.

    Attributes:
        number: Counts from 0; of a camera again with each connection.
        time: When it was captured, UTC; of a file counted from 1970-01-01.
        position_s: Media time of a file, in s; None for cameras.
        faces: Its faces, with track and smoothed emotions; boxes in px of the camera's picture.
        skipped: Why it was not looked at (`expired`, `overloaded`, `corrupt`, `lost`); empty: it was.
    """

    number: int
    time: datetime
    position_s: float | None
    faces: tuple[Face, ...]
    skipped: str


def stream(  # one for each option
    source: str | os.PathLike[str],
    *,
    sample_fps: str | float | None = None,
    seconds: float | None = None,
    first_frame_s: float = 30.0,
    transport: str = "tcp",
    threads: int | None = None,
    model: str | None = None,
) -> "Stream":
    """Return an iterator over a camera's frames, as they are looked at: `for frame in moodline.stream("rtsp://…")`.

    A camera that goes away is tried again and again; frames that come faster than they can be looked at are left out, and said
    to be (`skipped`). The workers end with the iteration; use it as a context manager where it is left early.

    Args:
        source: `rtsp://`, `rtsps://`, `http://`, `https://` or `device://0`, with user and password in it if need be; or a
            file, which is read as fast as it goes, every sampled frame of it.
        sample_fps: Frames per second to look at; by default 5.
        seconds: End after so much time; by default a camera comes to no end.
        first_frame_s: Give up a camera of which no frame came for so long.
        transport: `tcp` or `udp`, for RTSP.
        threads: For each of the two networks, 1 to 256; by default one for each processor.
        model: Name of the classifier's model.

    Raises:
        SourceError, while iterating: it cannot be read; the message says why.
        InvalidStreamError: an option cannot be used; while iterating: the address cannot be used.
        ClientError: `threads`, `seconds` or `first_frame_s` cannot be used, or a package is missing.
    """
    settings = settings_of(threads, model)
    rate = settings.ingest.sample_fps if sample_fps is None else str(sample_fps)
    parse_sample_fps(rate)
    _require_seconds("first_frame_s", first_frame_s)
    if seconds is not None:
        _require_seconds("seconds", seconds)
    if not isinstance(source, str | os.PathLike):
        raise ClientError(f"a source is a path or an address, not {type(source).__name__}; pictures go to moodline.analyze()")
    url = os.fspath(source)
    if stream_class_of_url(url) is StreamClass.FILE:
        clips = clips_of([url])
        if len(clips) != 1:
            raise ClientError(f"{url} names {len(clips)} videos; take them one by one")
        url = clips[0].url
        settings = with_media_root(settings, clips[0].folder)
    spec = StreamSpec(
        stream_id=STREAM_ID,
        url=url,
        sample_fps=rate,
        max_side_px=settings.ingest.max_side_px,
        transport=_transport(transport),
    )
    stack = ExitStack()
    return Stream(stack, lambda: stack.enter_context(run_live(settings, spec, first_frame_s=first_frame_s)), seconds)


def _transport(given: str) -> Transport:
    if given not in tuple(Transport):
        raise InvalidStreamError("transport", f"transport is {' or '.join(Transport)}, not {given!r}")
    return Transport(given)


def _require_seconds(name: str, given: object) -> None:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
        raise ClientError(f"{name} is a number of seconds over 0, not {given!r}")


class Stream:
    """Frames of one source; an iterator and a context manager. Used by one thread."""

    def __init__(self, stack: ExitStack, open_run: Callable[[], LiveRun], seconds: float | None) -> None:
        self._stack = stack
        self._open_run = open_run
        self._seconds = seconds
        self._frames: Iterator[LiveFrame] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> LiveFrame:
        if self._frames is None:
            self._frames = self._read()
        return next(self._frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        self._stack.close()

    def _read(self) -> Iterator[LiveFrame]:
        with self._stack:
            run: LiveRun = self._open_run()
            first_us: int | None = None
            size_px = (0, 0)
            for message, tracked in run.frames():
                first_us = message.event_time_us if first_us is None else first_us
                if self._seconds is not None and message.event_time_us - first_us >= self._seconds * 1e6:
                    return
                # The size is known once frames come, and may change with another connection.
                size_px = run.size_px() if message.faces and (message.seq % _SIZE_EVERY == 0 or not all(size_px)) else size_px
                shown_px = size_px if all(size_px) else (message.width, message.height)
                faces = tuple(
                    face_of(face, shown_px, readable=seen.is_readable, tracked=(seen.track_id, seen.smoothed))
                    for face, seen in zip(message.faces, tracked, strict=True)
                )
                is_file = message.lane is StreamClass.FILE
                yield LiveFrame(
                    number=message.seq,
                    time=to_datetime(message.event_time_us),
                    position_s=message.event_time_us / 1e6 if is_file else None,
                    faces=faces,
                    skipped=str(message.skip or ""),
                )
