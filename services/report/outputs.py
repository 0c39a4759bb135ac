"""Files that a command is to write: judged before the work begins, written beside their place, and moved there when complete."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from moodline.shared.errors import OutputError

STDOUT: Final = Path("-")
"""Standard output in place of a file."""

ANNOTATED_SUFFIXES: Final = (".mp4", ".mkv", ".mov", ".webm")
"""The endings of an annotated video."""

_LEAST_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Output:
    """A file that is to be written.

    Attributes:
        option: What the user called it, such as `--json`; stands in messages.
        path: Where, as the user wrote it, or `STDOUT`.
        suffixes: The endings that it may have; any where there are none.
        need_bytes: How much room it takes at least.
    """

    option: str
    path: Path
    suffixes: tuple[str, ...] = ()
    need_bytes: int = _LEAST_BYTES


def check_outputs(outputs: Sequence[Output], inputs: Sequence[Path], *, force: bool) -> None:
    """Make sure, as far as it can be known before, that all outputs can be written and that none takes the place of an input.

    Args:
        outputs: What will be written.
        inputs: Files that are read, and never written over, whatever names and links lead to them.
        force: Files that are there may be replaced.

    Raises:
        OutputError: everything that stands in the way, in one sentence.
    """
    problems = [problem for output in outputs if (problem := _problem(output, inputs, force=force))]
    taken: dict[str, str] = {}
    for output in outputs:
        place = "-" if output.path == STDOUT else os.path.realpath(output.path)
        if place in taken and not _is_special(output.path):
            problems.append(f"{taken[place]} and {output.option} are the same file")
        taken[place] = output.option
    if problems:
        raise OutputError("; ".join(problems))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new name in the same folder; what was written there takes the place of `path` at the end, all of it or nothing.

    A link stays one: what it names is replaced. What is no regular file (a pipe, a device) is written as it is.

    Raises:
        OutputError: the file cannot be written; what was at `path` is as it was.
    """
    target = Path(os.path.realpath(path))
    if _is_special(target):
        with _as_output_errors(path):
            yield target
        return
    partial = target.parent / f".moodline-{secrets.token_hex(4)}.part"
    try:
        with _as_output_errors(path):
            yield partial
            _flush_to_disk(partial)
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_output(path: Path, content: str | bytes) -> None:
    """Write a file, replacing one that is there; CSV keeps its line ends.

    Raises:
        OutputError: the file cannot be written; what was there is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as partial:
        partial.write_bytes(data)


def shown(path: Path | str) -> str:
    """Return a path for people: what is no text in it is shown as �."""
    return os.fsencode(path).decode(errors="replace")


def _problem(output: Output, inputs: Sequence[Path], *, force: bool) -> str:
    path, name = output.path, f"{output.option} {shown(output.path)}"
    if path == STDOUT:
        return ""
    try:
        there = _stat(path)
        if there is not None and stat.S_ISDIR(there.st_mode):
            return f"{name} is a directory; give the name of a file in it"
        if output.suffixes and path.suffix.lower() not in output.suffixes:
            return f"{name}: the ending must be {_listed(output.suffixes)}"
        if there is not None and any(os.path.samestat(there, one) for one in map(_stat, inputs) if one is not None):
            return f"{name} is the input itself, which is never written over; choose another name"
        return _problem_of_place(name, path, there, output.need_bytes) or _problem_of_file(name, path, there, force=force)
    except OSError as error:
        return f"{name} cannot be written: {error.strerror or error}"


def _problem_of_place(name: str, path: Path, there: os.stat_result | None, need_bytes: int) -> str:
    if there is not None and not stat.S_ISREG(there.st_mode):
        return "" if os.access(path, os.W_OK) else f"{name} may not be written; see its permissions"
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        return f"{name}: there is no folder {shown(folder)}; make it first"
    free = shutil.disk_usage(folder).free
    if free < need_bytes:
        return f"{name}: the disk has {free / 1e6:.0f} MB left, and about {need_bytes / 1e6:.0f} MB are needed"
    probe = folder / f".moodline-{secrets.token_hex(4)}.part"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        return f"{name}: no file can be made in {shown(folder)}: {error.strerror or error}"
    return ""


def _problem_of_file(name: str, path: Path, there: os.stat_result | None, *, force: bool) -> str:
    if there is None or not stat.S_ISREG(there.st_mode):
        return ""
    if not os.access(path, os.W_OK):
        return f"{name} is there and may not be written; see its permissions"
    return "" if force else f"{name} is there already; --force replaces it"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _as_output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{shown(path)} cannot be written: {error.strerror or error}") from None


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
