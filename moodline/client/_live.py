"""Methods that listen to streams, and that bring frames and files."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from moodline.answers import Pushed, PushTotals, Upload
from moodline.client._events import Events
from moodline.client._given import Names, names, query, stream_path, when
from moodline.client._link import Link
from moodline.errors import BusyError, ClientError, ServiceError, UnreachableError

_CHUNK_BYTES: Final = 256 * 1024
_VIEWED_S: Final = 300.0
"""The service looks at a file's end before it answers."""
_LOST_PAUSE_S: Final = 0.5
_PATIENCE_S: Final = 60.0

Frame = bytes | tuple[bytes, datetime]
"""A JPEG, or a JPEG and when it was taken."""


class LiveMethods:
    """Part of `Client`."""

    _link: Link

    def events(
        self,
        *,
        streams: Names = (),
        labels: Names = (),
        resolution: str = "1s",
        faces: bool = False,
        last_event_id: str | None = None,
        patience_s: float | None = None,
    ) -> Events:
        """Listen to streams: iterate over the answer, for as long as you want.

        Args:
            streams: Ids; all that the key may see unless given.
            labels: `key=value`, or `key`; a stream must have all of them.
            resolution: Length of a point.
            faces: Also tell which faces are in the picture.
            last_event_id: Go on where another listener with this `last_event_id` stopped.
            patience_s: Raise `UnreachableError` when a lost connection cannot be made again for so long; None: try indefinitely.
        """
        asked = query(stream=names(streams), label=names(labels), resolution=resolution, faces="true" if faces else None)
        return Events(self._link, asked, last_event_id, patience_s)

    def push_frame(self, stream_id: str, jpeg: bytes, *, captured_at: datetime | None = None) -> Pushed:
        """Bring one frame of a stream with the url `push://`.

        Args:
            stream_id: Which stream.
            jpeg: The picture, as a JPEG.
            captured_at: When it was taken, with a time zone; the present unless given.
        """
        headers = {"Content-Type": "image/jpeg"} | query(**{"Captured-At": when(captured_at)})
        return self._link.ask(Pushed, "POST", stream_path(stream_id, "frames"), content=jpeg, headers=headers)

    def push_frames(self, stream_id: str, frames: Iterable[Frame]) -> PushTotals:
        """Bring frames as they come, until there are no more. Blocks.

        Live, so the newest counts: frames that the service would leave out are not sent, and what comes while it is busy, or not
        there for a moment, is lost.

        Raises:
            ApiError: the first frame cannot be brought, none could for a minute, or the stream takes none.
        """
        clock, free_s = self._link.clock, 0.0
        taken_s: float | None = None
        sent = sampled = spared = lost = 0
        for frame in frames:
            jpeg, captured_at = frame if isinstance(frame, tuple) else (frame, None)
            if clock.monotonic_s() < free_s:
                spared += 1
                continue
            try:
                answer = self.push_frame(stream_id, jpeg, captured_at=captured_at)
            except (BusyError, ServiceError, UnreachableError) as error:
                now_s = clock.monotonic_s()
                if not isinstance(error, BusyError) and (taken_s is None or now_s - taken_s > _PATIENCE_S):
                    raise
                lost, free_s = lost + 1, now_s + (error.retry_after_s or _LOST_PAUSE_S)
                continue
            taken_s = clock.monotonic_s()
            sent, sampled, free_s = sent + 1, sampled + answer.sampled, taken_s + answer.wait_ms / 1000
        return PushTotals(sent=sent, sampled=sampled, spared=spared, lost=lost)

    def upload(
        self,
        path: Path | str,
        *,
        progress: Callable[[int, int], None] | None = None,
        stream_id: str | None = None,
        labels: Names = (),
        recorded_at: datetime | str | None = None,
        sample_fps: str | float | None = None,
    ) -> Upload:
        """Bring a file to where the service reads files from; at once register it, if a `stream_id` is given. Blocks.

        Args:
            path: The file, here.
            progress: Is told after every piece how many bytes were sent, and how many there are.
            stream_id: Register the file as a stream of this id.
            labels: `key=value` of that stream.
            recorded_at: When its recording began.
            sample_fps: Frames per second to analyse, or `all`.

        Raises:
            ClientError: the file cannot be read.
            ApiError: it is no video, too large, and so on.
        """
        path = Path(path)
        stream = query(stream=stream_id, label=names(labels), recorded_at=when(recorded_at), sample_fps=sample_fps)
        timeout = httpx.Timeout(self._link.timeout_s, read=max(self._link.timeout_s, _VIEWED_S))
        try:
            with path.open("rb") as file:
                total = path.stat().st_size
                return self._link.ask(
                    Upload,
                    "POST",
                    "/uploads",
                    params={"name": path.name, **stream},
                    content=_pieces(file, total, progress),
                    headers={"Content-Type": "application/octet-stream", "Content-Length": str(total)},
                    timeout=timeout,
                )
        except OSError as error:
            raise ClientError(f"{path} cannot be read: {error.strerror or error}") from None


def _pieces(file: BinaryIO, total: int, progress: Callable[[int, int], None] | None) -> Iterator[bytes]:
    """Yield so many bytes of a file, also when it has grown since."""
    sent = 0
    while sent < total:
        piece = file.read(min(_CHUNK_BYTES, total - sent))
        if not piece:
            raise ClientError("the file became shorter while it was sent")
        yield piece
        sent += len(piece)
        if progress is not None:
            progress(sent, total)
