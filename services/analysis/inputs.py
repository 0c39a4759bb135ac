"""Finds the clips that a user names for an analysis: files, folders, patterns, sequences of pictures, built-in scenes."""

import glob
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from moodline.services.ingest.file.sequence import sequence_url
from moodline.services.report.outputs import shown
from moodline.shared.camera_url import register_url
from moodline.shared.errors import SourceError
from moodline.shared.messages import StreamClass
from moodline.shared.streams import LIVE_SCHEMES, FailureReason, is_pushed, stream_class_of_url

PICTURE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
VIDEO_SUFFIXES: Final = frozenset(
    {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp"}
    | {".gif", ".mxf", ".vob", ".asf"}
)
_NUMBERED: Final = re.compile(r"%(0\d+)?d")


@dataclass(frozen=True, slots=True)
class Clip:
    """Something finite to analyse.

    Attributes:
        name: For people.
        stem: For names of files about it.
        url: As in `StreamSpec`.
        folder: Where its files lie; None where it has none.
        files: All files that are read.
    """

    name: str
    stem: str
    url: str
    folder: Path | None = None
    files: tuple[Path, ...] = ()


def clips_of(given: Sequence[str], fps: str = "", *, live: bool = False) -> list[Clip]:
    """Return what the words of a user name, in their order.

    Args:
        given: Paths, `file://` and `synthetic://` URLs, folders, and patterns such as `*.mp4` or `img%03d.png`.
        fps: Pictures are frames of a sequence, so many a second; empty: each picture is a file of its own.
        live: Take the addresses of cameras, too.

    Raises:
        SourceError: one of them names nothing that can be analysed here; the message says what would do it.
    """
    clips: list[Clip] = []
    pictures: list[Path] = []
    for word in given:
        if word.startswith("synthetic:"):
            clips.append(Clip(word, "scene", word))
            continue
        if live and stream_class_of_url(word) is StreamClass.LIVE and not is_pushed(word):
            clips.append(Clip(register_url(word).url, "camera", word))
            continue
        for path in _paths(word, fps):
            if fps and path.suffix.lower() in PICTURE_SUFFIXES:
                pictures.append(path)
            else:
                clips.append(_file(path))
    return clips + _sequences(pictures, fps)


def _paths(word: str, fps: str) -> list[Path]:
    path = _path_of(word)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _of_pattern(path, word, fps)
    except OSError as error:
        raise SourceError(FailureReason.NOT_FOUND, f"{shown(word)}: {error.strerror or error}") from None
    if stat.S_ISDIR(found.st_mode):
        return _of_folder(path, word, fps)
    if not stat.S_ISREG(found.st_mode):
        raise _pipe(word)
    return [path]


def _path_of(word: str) -> Path:
    if word == "-":
        raise _pipe("standard input")
    if not word:
        raise SourceError(FailureReason.NOT_FOUND, "an empty text names no file")
    scheme, is_url, _ = word.partition("://")
    if word.startswith("file:"):
        parts = urlsplit(word)
        if parts.netloc not in ("", "localhost"):
            raise SourceError(FailureReason.FORBIDDEN_URL, f"{shown(word)}: a file's URL has no host: file:///absolute/path")
        return Path(unquote(parts.path, errors="surrogateescape"))
    if is_url and scheme.lower() in LIVE_SCHEMES:
        raise _live(scheme.lower())
    if is_url and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme, re.IGNORECASE) and not os.path.lexists(word):
        raise SourceError(
            FailureReason.FORBIDDEN_URL,
            f"{scheme}:// is not read here; give a file's path, file:///absolute/path or synthetic://",
        )
    return Path(word).expanduser()


def _live(scheme: str) -> SourceError:
    # Without the address: it may hold a password.
    return SourceError(
        FailureReason.FORBIDDEN_URL,
        f"{scheme}:// names a camera or a page, which comes to no end, and analyze reads files; give --seconds 60 to look at its "
        f"next minute, or register it with a running service: `moodline streams add ID {scheme}://…`; download what is a file",
    )


def _pipe(word: str) -> SourceError:
    return SourceError(
        FailureReason.FORBIDDEN_URL,
        f"{shown(word)} is a pipe or a device, and a video is read from a file, parts of it twice; save it into a file first",
    )


def _of_folder(folder: Path, word: str, fps: str) -> list[Path]:
    files = sorted((path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")), key=_natural)
    pictures = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES]
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if fps and pictures:
        return pictures
    if videos:
        return videos
    if pictures:
        raise SourceError(
            FailureReason.NOT_FOUND,
            f"{shown(word)} is a folder with {len(pictures)} pictures and no video; --fps 25 takes them as frames, 25 a second",
        )
    raise SourceError(FailureReason.NOT_FOUND, f"{shown(word)} is a folder in which there is neither a video nor a picture")


def _of_pattern(path: Path, word: str, fps: str) -> list[Path]:
    if _NUMBERED.search(path.name):
        if not fps:
            raise SourceError(
                FailureReason.NOT_FOUND,
                f"{shown(word)} is a pattern of pictures; say with --fps 25 how many of them make a second",
            )
        return _numbered(path, word)
    if any(character in str(path) for character in "*?["):
        found = sorted((Path(name) for name in glob.glob(str(path))), key=_natural)  # noqa: PTH207  # absolute patterns too
        if found := [one for one in found if one.is_file()]:
            return found
        raise SourceError(FailureReason.NOT_FOUND, f"{shown(word)}: no file matches this pattern")
    raise SourceError(FailureReason.NOT_FOUND, f"{shown(word)}: there is no such file")


def _numbered(path: Path, word: str) -> list[Path]:
    match = _NUMBERED.search(path.name)
    assert match is not None
    before, after = path.name[: match.start()].replace("%%", "%"), path.name[match.end() :].replace("%%", "%")
    width = int(match[1] or 1)
    wanted = re.compile(f"{re.escape(before)}(\\d{{{width},}}){re.escape(after)}")
    if not path.parent.is_dir():
        raise SourceError(FailureReason.NOT_FOUND, f"{shown(word)}: there is no folder {shown(path.parent)}")
    numbers = {int(found[1]): one for one in path.parent.iterdir() if (found := wanted.fullmatch(one.name))}
    if not numbers:
        raise SourceError(FailureReason.NOT_FOUND, f"{shown(word)}: no picture matches this pattern")
    return [numbers[number] for number in sorted(numbers)]


def _file(path: Path) -> Clip:
    resolved = path.resolve()
    return Clip(shown(path.name), path.stem, resolved.as_uri(), resolved.parent, (resolved,))


def _sequences(pictures: Sequence[Path], fps: str) -> list[Clip]:
    """Return a sequence for each folder, in the order in which the folders came."""
    folders: dict[Path, list[Path]] = {}
    for path in pictures:
        resolved = path.resolve()
        folders.setdefault(resolved.parent, []).append(resolved)
    return [
        Clip(
            shown(folder.name),
            folder.name or "pictures",
            sequence_url(folder, [path.name for path in paths], fps),
            folder,
            tuple(paths),
        )
        for folder, paths in folders.items()
    ]


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort `img2` before `img10`."""
    return [(int(part), "") if part.isdigit() and part.isascii() else (-1, part) for part in re.split(r"(\d+)", path.name)]
