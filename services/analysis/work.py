"""The folder in which an analysis keeps what it has so far, so that one that was interrupted can be gone on with.

It lies in the data directory, below `analyses`, under a name made of all that decides the result: the content, the options,
and the settings of the workers. It is removed when all outputs are written.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import IO, Final

import msgspec

from moodline import __version__
from moodline.shared.settings import Settings
from moodline.shared.streams import StreamSpec

FORGOTTEN_AFTER_S: Final = 30 * 86_400
"""The age from which on a kept analysis that nobody resumed is removed."""


class Extent(msgspec.Struct, frozen=True):
    """The part of a clip that an analysis has done: `frames` in its timeline, `media_us` of `duration_us` (None: unknown)."""

    frames: int
    media_us: int
    duration_us: int | None


@dataclass(slots=True)
class WorkFolder:
    """The folder in which one analysis works.

    Attributes:
        path: The folder.
        kept: What was in it when it was opened, if it was opened to go on; else None.
        left: The furthest interrupted analysis of the same content that is not gone on with, or None.
        keep: Set to keep the folder when it is closed.
        can_keep: Whether it lies where it would be found again.
    """

    path: Path
    kept: Extent | None = None
    left: Extent | None = None
    keep: bool = False
    can_keep: bool = True

    def record(self, extent: Extent) -> None:
        """Write down how far the analysis came."""
        (self.path / _EXTENT).write_bytes(msgspec.json.encode(extent))


_EXTENT: Final = "extent.json"
_LOCK: Final = "lock"


@contextmanager
def open_work(settings: Settings, spec: StreamSpec, *, resume: bool) -> Iterator[WorkFolder]:
    """Yield a folder for an analysis; with `resume` the one of the same content whose analysis came furthest, if there is one.

    It is removed at the end, and with it the others of the same content, unless `keep` was set, or something went wrong after
    frames were analysed. No other process has it meanwhile.
    """
    group = settings.data_path() / "analyses" / _name(settings, spec)
    try:
        group.mkdir(parents=True, exist_ok=True)
        _forget(group.parent)
        folder, lock, work = _choose(group, resume=resume)
    except OSError:
        with tempfile.TemporaryDirectory(prefix="moodline-") as directory:
            yield WorkFolder(Path(directory), can_keep=False)
        return
    with lock:
        try:
            yield work
        except BaseException:
            extent = _extent(folder)
            work.keep = work.keep or (extent is not None and extent.frames > 0)
            raise
        finally:
            if not work.keep:
                shutil.rmtree(folder, ignore_errors=True)
                _remove_idle(group)
            elif work.left is None or (_extent(folder) or work.left).frames >= work.left.frames:
                _remove_idle(group)


def _name(settings: Settings, spec: StreamSpec) -> str:
    """Return a name for everything that decides what an analysis gives."""
    parts = [__version__, spec.url, spec.sample_fps, spec.max_side_px, spec.recorded_at_us]
    workers = [settings.ingest, settings.detector, settings.classifier, settings.aggregator]
    parts += [group.model_dump_json(exclude={"threads"}) for group in workers]
    path = _path_of(spec)
    if path is not None:
        found = path.stat()
        parts += [found.st_size, found.st_mtime_ns]
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="surrogateescape")).hexdigest()[:32]


def _path_of(spec: StreamSpec) -> Path | None:
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(spec.url)
    path = Path(unquote(parts.path, errors="surrogateescape"))
    return path if parts.scheme not in ("", "synthetic") and path.is_absolute() and path.exists() else None


def _choose(group: Path, *, resume: bool) -> tuple[Path, IO[str], WorkFolder]:
    found = sorted(
        ((extent, folder) for folder in group.iterdir() if (extent := _extent(folder)) is not None),
        key=lambda pair: -pair[0].frames,
    )
    if resume:
        for extent, folder in found:
            if (lock := _locked(folder)) is not None:
                return folder, lock, WorkFolder(folder, kept=extent)
    folder = group / secrets.token_hex(4)
    folder.mkdir()
    lock = _locked(folder)
    if lock is None:
        raise OSError("a folder that was just made cannot be locked")
    return folder, lock, WorkFolder(folder, left=None if resume or not found else found[0][0])


def _locked(folder: Path) -> IO[str] | None:
    try:
        lock = (folder / _LOCK).open("w")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _extent(folder: Path) -> Extent | None:
    try:
        return msgspec.json.decode((folder / _EXTENT).read_bytes(), type=Extent)
    except (OSError, msgspec.DecodeError):
        return None


def _remove_idle(group: Path) -> None:
    """Remove the folders of a group that nobody works in and that hold no more than what was kept."""
    for folder in list(group.iterdir()):
        lock = _locked(folder)
        if lock is not None:
            with lock:
                shutil.rmtree(folder, ignore_errors=True)
    if not any(group.iterdir()):
        group.rmdir()


def _forget(root: Path) -> None:
    for group in root.iterdir():
        if group.is_dir() and time() - group.stat().st_mtime > FORGOTTEN_AFTER_S and os.access(group, os.W_OK):
            _remove_idle(group)
