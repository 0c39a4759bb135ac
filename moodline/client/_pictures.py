"""Methods about pictures and single faces: classify pictures, look at a stream, read its faces."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from moodline.answers import Classified, FacePage, FaceRow, Picture
from moodline.client._frame import faces_frame_of
from moodline.client._given import When, query, stream_path, when
from moodline.client._link import PREFIX, Link
from moodline.errors import ClientError

if TYPE_CHECKING:
    import pandas as pd

_PAGE: Final = 5000
_WAITED_S: Final = 120.0
"""The models are loaded at the first picture, and others may be before it."""
_LARGEST_PICTURE: Final = 64 * 1024 * 1024
_LONGEST_HEAD: Final = 64 * 1024


class Pictures(Iterator[bytes]):
    """Iterates over pictures of a stream, as JPEGs, as they are analysed. Blocks until there is one. Also a context manager.

    It ends when the service ends it: the stream's preview was switched off, the stream deleted, or the key removed.
    """

    def __init__(self, link: Link, path: str, asked: dict[str, Any]) -> None:
        self._link = link
        self._path = path
        self._asked = asked
        self._pictures = self._watch()

    def __next__(self) -> bytes:
        """Return the next picture.

        Raises:
            ApiError: the API refuses, is not there, or no picture came within the client's `timeout_s`.
        """
        return next(self._pictures)

    def close(self) -> None:
        """End watching. Safe to call twice."""
        self._pictures.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self) -> Generator[bytes, None, None]:
        with self._link.stream("GET", PREFIX + self._path, params=self._asked) as answer:
            held = b""
            for piece in answer.iter_bytes():
                held += piece
                while (found := self._first(held)) is not None:
                    picture, held = found
                    yield picture

    def _first(self, held: bytes) -> tuple[bytes, bytes] | None:
        """Return the first picture of what has come, and what follows it; None: it is not complete."""
        end = held.find(b"\r\n\r\n")
        if end < 0:
            if len(held) > _LONGEST_HEAD:
                raise self._link.bad_answer(200)
            return None
        head, start = held[:end].lower().partition(b"content-length:")[2].strip(), end + 4
        digits = head.split(b"\r\n", 1)[0].strip()
        if not digits.isdigit() or not 0 < int(digits) <= _LARGEST_PICTURE:
            raise self._link.bad_answer(200)
        stop = start + int(digits)
        return (held[start:stop], held[stop:]) if len(held) >= stop else None


class PictureMethods:
    """Part of `Client`."""

    _link: Link

    def classify(self, *pictures: bytes | Path | str) -> list[Picture]:
        """Return the faces of pictures and their emotions, for each picture in their order. Nothing of them is kept.

        Args:
            pictures: JPEG, PNG or WebP: bytes, or paths of files here.

        Raises:
            ClientError: a file cannot be read, or there are no pictures.
            ApiError: one is no picture, they are too large, or too many others ask (`BusyError`).
        """
        if not pictures:
            raise ClientError("classify needs at least one picture")
        files = [("image", _named(picture)) for picture in pictures]
        timeout = httpx.Timeout(self._link.timeout_s, read=max(self._link.timeout_s, _WAITED_S))
        return self._link.ask(Classified, "POST", "/classify", files=files, timeout=timeout).pictures

    def snapshot(self, stream_id: str, *, boxes: bool = False) -> bytes:
        """Return the newest analysed picture of a stream whose `preview` is on, as a JPEG.

        Args:
            stream_id: Which stream.
            boxes: Draw boxes and leading emotions.

        Raises:
            ConflictError: its preview is off.
            ServiceError: `no_picture`: none was analysed in the last seconds.
        """
        asked = query(boxes="true" if boxes else None)
        return self._link.send("GET", PREFIX + stream_path(stream_id, "snapshot.jpg"), params=asked).content

    def watch(self, stream_id: str, *, boxes: bool = False) -> Pictures:
        """Iterate over the pictures of a stream whose `preview` is on, as they are analysed. Arguments as for `snapshot`."""
        return Pictures(self._link, stream_path(stream_id, "live.mjpg"), query(boxes="true" if boxes else None))

    def list_faces(self, stream_id: str, *, start: When | None = None, end: When | None = None) -> Iterator[FaceRow]:
        """Iterate over each face of each sampled frame in a window, and over the frames without a face, in order of time.

        They are kept only where the service has a retention for them; otherwise it raises `NotFoundError` (`faces_not_kept`).
        """
        asked = query(from_=when(start), to=when(end), limit=_PAGE)
        while True:
            page = self._link.ask(FacePage, "GET", stream_path(stream_id, "faces"), params=asked)
            yield from page.faces
            if page.next_cursor is None:
                return
            asked["cursor"] = page.next_cursor

    def faces_frame(self, stream_id: str, *, start: When | None = None, end: When | None = None) -> "pd.DataFrame":
        """Return what `list_faces` gives as a pandas frame; needs the extra `pandas`.

        Columns are those of `moodline analyze --faces`: one row for each face, and one for each frame without.

        Raises:
            ClientError: pandas is not installed.
        """
        return faces_frame_of(self.list_faces(stream_id, start=start, end=end))


def _named(picture: bytes | Path | str) -> tuple[str, bytes]:
    if isinstance(picture, bytes):
        return "picture", picture
    path = Path(picture)
    try:
        return path.name, path.read_bytes()
    except OSError as error:
        raise ClientError(f"{path} cannot be read: {error.strerror or error}") from None
