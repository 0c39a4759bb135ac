"""Opening a registered file: only regular files below the media root, whatever the URL and symbolic links say."""

import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason


def open_media_file(url: str, media_root: Path) -> int:
    """Open `file:///absolute/path` for reading and return its file descriptor, which the caller must close.

    Raises:
        SourceError: `forbidden_url` (no such URL, or outside the media root after links are resolved), `not_found` (missing,
            or a directory), `auth` (no permission to read), `unreachable` (the file system failed).
    """
    path = _path_of(url)
    root = os.path.realpath(media_root.expanduser())
    resolved = os.path.realpath(path)
    # Containment comes first, so that nothing can be learnt about files elsewhere.
    if os.path.commonpath((root, resolved)) != root:
        raise _refuse("the file is not below the media root (MOODLINE_INGEST_MEDIA_ROOT)")
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer. O_NOFOLLOW: the path was resolved, a link appeared since.
        descriptor = os.open(resolved, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except PermissionError:
        raise SourceError(FailureReason.AUTH, "the file may not be read by the service; check its permissions") from None
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(FailureReason.NOT_FOUND, "the file does not exist") from None
    except OSError as error:
        raise SourceError(FailureReason.UNREACHABLE, f"the file cannot be opened: {error.strerror}") from None
    try:
        _require_regular(os.fstat(descriptor).st_mode)
    except SourceError:
        os.close(descriptor)
        raise
    return descriptor


def _path_of(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _refuse("the URL is not well-formed; use file:///absolute/path") from None
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise _refuse("a file's URL has no host and an absolute path: file:///absolute/path")
    if parts.query or parts.fragment:
        raise _refuse("a file's URL has no query and no fragment; write ? as %3F and # as %23")
    path = unquote(parts.path, errors="surrogateescape")
    if "\0" in path:
        raise _refuse("the URL holds a NUL character")
    return path


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise SourceError(FailureReason.NOT_FOUND, "the path is a directory, not a file")
    if stat.S_ISFIFO(mode):
        raise _refuse("the path is a pipe; write what comes out of it into a file, and give that")
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise _refuse("the path is a device; a camera is registered as device://0")
    if not stat.S_ISREG(mode):
        raise _refuse("the path is no file: it is a socket, or of another special kind")


def _refuse(message: str) -> SourceError:
    return SourceError(FailureReason.FORBIDDEN_URL, message)
