"""The folder of uploaded files: below the media root, under names that nobody can guess or choose."""

import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from moodline.shared.errors import DiskFullError
from moodline.shared.settings import Settings

log = logging.getLogger("moodline.api.uploads")

FOLDER: Final = "uploads"
_OWN_BYTES: Final = 6
_NAME_LIMIT: Final = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_OURS = re.compile(r"[0-9a-f]{32}-[A-Za-z0-9._-]+")
_PART = re.compile(r"\.[0-9a-f]{32}\.part")


class UploadFolder:
    """The folder `uploads` below the media root. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.ingest.media_root.expanduser().absolute()
        self._folder = self._root / FOLDER
        self._keep_free_bytes = settings.uploads.keep_free_bytes
        self._keep_s = settings.uploads.keep_s

    def require_room(self, coming_bytes: int) -> None:
        """Raise `DiskFullError` unless so much more can be written and enough stays free."""
        try:
            free_bytes = shutil.disk_usage(self._root).free
        except OSError as error:
            raise _unusable(error) from None
        if free_bytes < coming_bytes + self._keep_free_bytes:
            raise DiskFullError(
                f"the disk of the media root has no room: {free_bytes} bytes are free, and {self._keep_free_bytes} must stay so "
                "(MOODLINE_UPLOADS_KEEP_FREE_BYTES)"
            )

    def bytes_of(self, owner: str) -> int:
        """Return how many bytes a key's uploads have, also those that are on their way. Raises `DiskFullError`."""
        own, total = _own(owner), 0
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    # An upload that ends meanwhile changes its name, and a stream's file may be deleted.
                    with suppress(FileNotFoundError):
                        if entry.name.removeprefix(".").startswith(own):
                            total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise _unusable(error) from None
        return total

    def new_part(self, owner: str) -> Path:
        """Create an empty file to write a key's upload into, and return its path. Raises `DiskFullError`."""
        part = self._folder / f".{_own(owner)}{secrets.token_hex(16 - _OWN_BYTES)}.part"
        try:
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o750)
                self._folder.chmod(0o750)  # ingest may run as another user of the same group, whatever the process's umask is
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                os.fchmod(handle, 0o640)
            finally:
                os.close(handle)
        except OSError as error:
            raise _unusable(error) from None
        return part

    def finish(self, part: Path, name: str) -> Path:
        """Give a whole upload its final name, in one step, and return its path."""
        path = part.with_name(f"{part.name[1:33]}-{safe_name(name)}")
        part.replace(path)
        return path

    def is_upload(self, url: str) -> bool:
        """Return whether a stream's URL names a file that was uploaded."""
        return self._path_of(url) is not None

    def remove(self, url: str, used_urls: Iterable[str]) -> None:
        """Delete the uploaded file that a URL names, if it names one and no stream uses it any more."""
        path = self._path_of(url)
        if path is not None and url not in used_urls:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("upload.not_removed", extra={"file": path.name, "reason": error.strerror})

    def clean(self, used_urls: Iterable[str], now_s: float) -> int:
        """Delete what is older than `uploads.keep_s` and no stream's; return how many files went.

        Args:
            used_urls: Of all registered streams.
            now_s: Wall clock, in s since the Unix epoch.
        """
        used = {path for path in map(self._path_of, used_urls) if path is not None}
        gone = 0
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            is_ours = _OURS.fullmatch(path.name) or _PART.fullmatch(path.name)
            # An upload that ended meanwhile has changed its name.
            with suppress(OSError):
                if is_ours and path.resolve() not in used and now_s - path.lstat().st_mtime > self._keep_s:
                    path.unlink()
                    gone += 1
        return gone

    def _path_of(self, url: str) -> Path | None:
        if not url.startswith("file:///"):
            return None
        path = Path(unquote(urlsplit(url).path, errors="surrogateescape"))
        is_ours = path.parent == self._folder.resolve() and _OURS.fullmatch(path.name)
        return path if is_ours else None


def _own(owner: str) -> str:
    """Return how the names of a key's files begin; what follows are 80 random bits, so that nobody can guess one."""
    return hashlib.sha256(owner.encode()).hexdigest()[: 2 * _OWN_BYTES]


def safe_name(name: str) -> str:
    """Return a file name of letters, digits, `.`, `_` and `-` that resembles `name`; its ending stays."""
    cleaned = _UNSAFE.sub("_", name.replace("\\", "/").rpartition("/")[2]).strip("._-")
    stem, dot, ending = cleaned.rpartition(".")
    if dot and stem and len(ending) <= 10:
        return f"{stem[: _NAME_LIMIT - len(ending) - 1]}.{ending}"
    return cleaned[:_NAME_LIMIT] or "upload"


def _unusable(error: OSError) -> DiskFullError:
    return DiskFullError(f"the folder {FOLDER} below the media root cannot be written: {error.strerror}")
