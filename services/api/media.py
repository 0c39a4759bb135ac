"""Checks URLs of files: below the media root, or a synthetic scene. For cameras see `services/api/cameras.py`."""

import os
import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from moodline.shared.camera_url import URL_LIMIT
from moodline.shared.errors import InvalidStreamError

_SYNTHETIC = re.compile(r"synthetic://[a-z0-9][a-z0-9._-]*(\?[A-Za-z0-9._=&,:/%+-]*)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def checked_url(given: str, media_root: Path) -> str:
    """Return the canonical URL of what a user gave: `file:///absolute/path` with links resolved, or `synthetic://…`.

    Args:
        given: A path (a relative one counts from the media root), a `file://` URL, or a `synthetic://` URL.
        media_root: Directory below which files must lie, also after links are resolved.

    Raises:
        InvalidStreamError: for field `url`. Its message never repeats what was given: that may hold a password.
    """
    if not given or len(given) > URL_LIMIT or _CONTROL.search(given) or _SURROGATE.search(given):
        raise _refuse(f"url must have 1 to {URL_LIMIT} characters, no control characters and no lone surrogates")
    if "://" not in given and not given.startswith("file:"):
        return _file_url(Path(given), media_root)
    parts = _split(given)
    if "@" in parts.netloc:
        raise _refuse("url holds a user name or password; this kind of url takes none")
    if parts.scheme == "file":
        return _file_url(_path_of(parts), media_root)
    if parts.scheme == "synthetic":
        if not _SYNTHETIC.fullmatch(given):
            raise _refuse("a synthetic url looks like synthetic://name or synthetic://name?option=value&option=value")
        return given
    raise _refuse(
        "url has a scheme that is not supported; give a path, file:///absolute/path, synthetic://name, "
        "rtsp://, rtsps://, http://, https://, device://0, or push://"
    )


def _split(given: str) -> SplitResult:
    try:
        return urlsplit(given)
    except ValueError:
        raise _refuse("url is not well-formed") from None


def _path_of(parts: SplitResult) -> Path:
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise _refuse("a file url has no host and an absolute path: file:///absolute/path")
    if parts.query or parts.fragment:
        raise _refuse("a file url has no query and no fragment; write ? as %3F and # as %23")
    path = unquote(parts.path, errors="surrogateescape")
    if _CONTROL.search(path):
        raise _refuse("url holds a control character")
    return Path(path)


def _file_url(path: Path, media_root: Path) -> str:
    try:
        root = media_root.expanduser().resolve()
        resolved = (root / path).resolve()
    except (OSError, RuntimeError):
        # RuntimeError: a loop of symbolic links.
        raise _refuse("the path cannot be resolved") from None
    # Containment comes first, so that nothing can be learnt about files elsewhere.
    if not resolved.is_relative_to(root):
        raise _refuse(f"files may be registered only below the media root {root} (MOODLINE_INGEST_MEDIA_ROOT)")
    try:
        is_file = resolved.is_file()
    except OSError:
        is_file = False
    if not is_file:
        raise _refuse("there is no such file below the media root")
    if not os.access(resolved, os.R_OK):
        raise _refuse("the file cannot be read by the service; check its permissions")
    return resolved.as_uri()


def _refuse(message: str) -> InvalidStreamError:
    return InvalidStreamError("url", message)
