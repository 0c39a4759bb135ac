"""Pictures that follow one another as frames: `sequence:///folder?fps=25&name=a.png&name=b.png`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from moodline.services.ingest.media.frames import BgrImage, Cancelled, DecodedFrame, Ending, Source, SourceInfo
from moodline.shared.errors import ImageError, InvalidStreamError, SourceError
from moodline.shared.streams import FailureReason, parse_sample_fps

OpenPicture = Callable[[str], Source]
"""Opens the file that a `file://` URL names."""


def sequence_url(folder: Path, names: Sequence[str], fps: str) -> str:
    """Return the URL of pictures of one folder, in their order, so many a second.

    Raises:
        InvalidStreamError: the rate cannot be used.
    """
    _rate(fps)
    query = urlencode([("fps", fps), *(("name", name) for name in names)], errors="surrogateescape")
    return f"sequence://{quote(str(folder), errors='surrogateescape')}?{query}"


def open_sequence(url: str, open_picture: OpenPicture, cancelled: Cancelled) -> "PictureSequence":
    """Open the pictures that a URL names; blocks until the first that can be read is decoded.

    Raises:
        SourceError: none of them can be read.
        InvalidStreamError: the rate cannot be used.
    """
    parts = urlsplit(url)
    given = parse_qs(parts.query, errors="surrogateescape")
    folder, names = unquote(parts.path, errors="surrogateescape"), given.get("name", [])
    if not names or any("/" in name or name in (".", "..") for name in names):
        raise SourceError(FailureReason.FORBIDDEN_URL, "a sequence names the pictures of one folder")
    urls = [(Path(folder) / name).as_uri() for name in names]
    return PictureSequence(urls, _rate(given.get("fps", [""])[0]), open_picture, cancelled)


def _rate(fps: str) -> Fraction:
    try:
        rate = parse_sample_fps(fps)
    except InvalidStreamError:
        rate = None
    if rate is None:
        raise InvalidStreamError("fps", 'fps is how many pictures make a second, such as "25" or "30000/1001", up to 240')
    return rate


class PictureSequence:
    """Pictures as frames. Implements `Source`; a picture that cannot be read is a frame that cannot be converted."""

    def __init__(self, urls: Sequence[str], rate: Fraction, open_picture: OpenPicture, cancelled: Cancelled) -> None:
        self.damaged = 0
        self.end_s = Fraction(0)
        self._urls = urls
        self._rate = rate
        self._open = open_picture
        self._cancelled = cancelled
        self.info = self._first_info()

    def frames(self) -> Iterator[DecodedFrame]:
        for number, url in enumerate(self._urls):
            if self._cancelled():
                return
            self.end_s = (number + 1) / self._rate
            yield DecodedFrame(number / self._rate, partial(self._picture, url), self.end_s)

    @property
    def ending(self) -> Ending:
        """Corrupt where sampled pictures could not be read."""
        if not self.damaged:
            return Ending()
        some = "1 picture" if self.damaged == 1 else f"{self.damaged} pictures"
        return Ending(FailureReason.CORRUPT, f"{some} could not be read", self.damaged, self.damaged)

    def close(self) -> None:
        """Nothing is held between two pictures."""

    def _picture(self, url: str) -> BgrImage:
        try:
            with closing(self._open(url)) as source:
                for frame in source.frames():
                    return frame.to_bgr()
        except SourceError as error:
            self.damaged += 1
            raise ImageError(str(error)) from None
        raise ImageError("there is no picture in the file")

    def _first_info(self) -> SourceInfo:
        first: SourceError | None = None
        for url in self._urls:
            try:
                with closing(self._open(url)) as source:
                    info = source.info
            except SourceError as error:
                first = first or error
            else:
                duration_us = int(len(self._urls) / self._rate * 1_000_000)
                return SourceInfo(info.codec, info.width, info.height, self._rate, duration_us)
        raise first or SourceError(FailureReason.EMPTY, "there are no pictures")
