"""Opens the source of a file or a synthetic scene. The scheme of the URL selects the adapter."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from moodline.services.ingest.media.frames import Cancelled, Source, never
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason


class ReadLimits(Protocol):
    """What may be read; fields as in `IngestSettings`, which is one."""

    @property
    def media_root(self) -> Path: ...

    @property
    def max_pixels(self) -> int: ...


class FileLimits(NamedTuple):
    """The same by itself."""

    media_root: Path
    max_pixels: int


SourceOpener = Callable[[str, ReadLimits, Cancelled], Source]
"""Opens the source that a URL names."""


def open_source(url: str, settings: ReadLimits, cancelled: Cancelled = never) -> Source:
    """Open the source that a URL names: `file:///absolute/path` below the media root, or `synthetic://scene?options`.

    Blocks until the first frame is decoded.

    Raises:
        SourceError: nothing there that can be read; `reason` is a `FailureReason`, the message one sentence for people.
        InvalidStreamError: an option of a synthetic scene cannot be used.
    """
    opener = SCHEMES.get(url.partition("://")[0])
    if opener is None:
        known = " or ".join(f"{scheme}://" for scheme in SCHEMES)
        raise SourceError(FailureReason.FORBIDDEN_URL, f"the URL's scheme is not supported; use {known}")
    return opener(url, settings, cancelled)


def _open_file(url: str, settings: ReadLimits, cancelled: Cancelled) -> Source:
    from moodline.services.ingest.file.content import open_content
    from moodline.services.ingest.file.media_file import open_media_file

    return open_content(open_media_file(url, settings.media_root), settings.max_pixels, cancelled)


def _open_synthetic(url: str, _settings: ReadLimits, _cancelled: Cancelled) -> Source:
    from moodline.services.ingest.file.synthetic import open_scene

    return open_scene(url)


def _open_sequence(url: str, settings: ReadLimits, cancelled: Cancelled) -> Source:
    from moodline.services.ingest.file.sequence import open_sequence

    return open_sequence(url, lambda picture: _open_file(picture, settings, cancelled), cancelled)


SCHEMES: Final[Mapping[str, SourceOpener]] = {
    "file": _open_file,
    "sequence": _open_sequence,
    "synthetic": _open_synthetic,
}
"""Scheme to adapter. Live sources (`rtsp`, `http`, …) take their places here."""
