"""End a command that failed: one line on standard error and exit code 1 for every kind of failure."""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Final

import typer

from moodline.errors import ApiError
from moodline.shared.errors import MoodlineError
from moodline.shared.log import masked
from moodline.shared.printable import printable

log = logging.getLogger("moodline.process")

Verbose = Annotated[bool, typer.Option("--verbose", help="Show logs, and the full trace of what was not foreseen.")]

_EXTRAS: Final = {
    "av": "ingest",
    "h11": "ingest",
    "m3u8": "ingest",
    "cv2": "pictures",
    "openvino": "classifier",
    "fastapi": "api",
    "starlette": "api",
    "uvicorn": "api",
    "nicegui": "ui",
    "websockets": "ui",
    "matplotlib": "plot",
    "skimage": "sample",
    "confluent_kafka": "kafka",
    "redis": "redis",
    "opentelemetry": "tracing",
    "onveef": "onvif",
    "pandas": "pandas",
    "pyarrow": "parquet",
    "tensorflow": "tensorflow",
    "keras": "train",
    "torch": "train",
    "onnx": "train",
    "onnxruntime": "train",
}
"""The extra that brings a package; the smallest where several do."""
_WHOLE: Final = {
    **dict.fromkeys(("analyze", "demo", "run", "camera", "push"), "embedded"),
    **dict.fromkeys(("train", "evaluate"), "train"),
}
"""Commands that need many packages name the extra that has all of them."""
_BESIDE: Final = frozenset({"onvif"})
"""Extras that no other has in it."""

_UNAUTHORIZED: Final = 401
_FLAGS: Final = {
    "emotion": "--emotion",
    "direction": "--direction",
    "threshold": "--threshold",
    "clear_threshold": "--clear-threshold",
    "for_s": "--for",
    "clear_for_s": "--clear-for",
    "window_s": "--window",
    "min_faces": "--min-faces",
    "baseline_s": "--baseline",
    "quiet_s": "--quiet",
    "stream": "--stream",
    "label": "--label",
}
"""Options of `moodline alerts` by the API's names of their fields."""

_verbose: ContextVar[bool] = ContextVar("verbose", default=False)


def note_verbose(context: typer.Context, verbose: bool) -> None:
    """Remember, until the command ends, that traces are wanted."""
    if verbose:
        token = _verbose.set(True)
        context.call_on_close(lambda: _verbose.reset(token))


def is_verbose() -> bool:
    """Return whether traces and logs are wanted."""
    return _verbose.get()


@contextmanager
def logs_only_if_wanted(wanted: bool) -> Iterator[None]:
    """Keep a command's log to itself: its last line says what went wrong."""
    before = logging.root.manager.disable
    if not wanted:
        logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def end_with(error: Exception, command: str) -> int:
    """Say on standard error in one line why a command ended; return its exit code.

    Args:
        error: What was raised.
        command: The command's name, such as `analyze`.
    """
    if is_verbose():
        sys.stderr.write(masked("".join(traceback.format_exception(error))))
    lines = masked(sentence_of(error, command)).split("\n")
    typer.echo("moodline: " + "\n".join(map(printable, lines)), err=True)
    return 1


def sentence_of(error: Exception, command: str) -> str:
    """Return what to say of an error. Of one that was not foreseen: type and place, for its text may hold a secret."""
    cause = error.__context__ if isinstance(error, MoodlineError) else error
    if isinstance(cause, ModuleNotFoundError) and (missing := _missing(cause, command)):
        return missing
    if isinstance(error, MoodlineError):
        return f"{error}{_way_out(error, command)}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    more = "" if is_verbose() else f"; `moodline --verbose {command} …` shows the trace"
    return f"unexpected {type(error).__name__}{place}; this is a defect, please report it{more}"


def _way_out(error: MoodlineError, command: str) -> str:
    """Return what to do about an error, as far as this command line has a way that the message itself does not name."""
    if isinstance(error, ApiError):
        if error.status == _UNAUTHORIZED and "MOODLINE_API_KEY" not in str(error):
            return "; give a key in MOODLINE_API_KEY; `moodline keys add NAME` makes one"
        flag = _FLAGS.get(error.field or "")
        if command == "alerts" and flag and flag not in str(error):
            return f" ({flag})"
    return ""


def _missing(error: ModuleNotFoundError, command: str) -> str:
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return ""
    extra = _EXTRAS[package]
    if extra not in _BESIDE:
        extra = _WHOLE.get(command, extra)
    return f"`moodline {command}` needs the package {package}, which is not installed: pip install 'moodline[{extra}]'"
