"""Logs: one line per event on standard error, as text or JSON. Events and fields are those of `moodline.shared.log_events`.

A thread that works on one stream binds its id, and the session once it has one: every line that it writes then carries both.
What looks like a secret is masked on its way out, wherever it comes from. That is the second lock, not the first: no event is
given a secret.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal

from moodline.shared.log_events import EVENTS, FOREIGN

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OWN: Final = "moodline"
_MASK: Final = "***"
_SECRETS: Final = (
    # user:password@ of an address, and what is given by a name that says that it is secret.
    (re.compile(r"(?<=://)[^/\s@]+(?=@)"), _MASK),
    (
        re.compile(
            r"(?i)\b([\w.-]*(?:password|passwd|secret|token|api[_-]?key|authorization)[\w-]*)(['\"]?\s*[=:]\s*['\"]?)"
            r"(?:bearer\s+|basic\s+)?[^\s&,;'\"]+"
        ),
        rf"\1\2{_MASK}",
    ),
)

_bound: ContextVar[dict[str, object] | None] = ContextVar("moodline_log_fields", default=None)


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Give every line of this thread these fields, until the end of the block."""
    token = _bound.set({**(_bound.get() or {}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def bind(**fields: object) -> None:
    """Add fields to the block of `bound` that this thread is in; without one, nothing happens."""
    inside = _bound.get()
    if inside is not None:
        inside.update(fields)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in _fields(record).items())
        head = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {record.name}"
        line = f"{head}: {record.getMessage()} {fields}".rstrip()
        return masked(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = record.getMessage()
        own = record.name.partition(".")[0] == _OWN and said in EVENTS
        line: dict[str, object] = dict(_fields(record))
        if not own:
            line["text"] = said
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        shown = {key: masked(value) if isinstance(value, str) else value for key, value in line.items()}
        head = {"ts": record.created, "level": record.levelname.lower(), "logger": record.name, "event": said if own else FOREIGN}
        return json.dumps(shown | head, default=lambda value: masked(str(value)))


def masked(text: str) -> str:
    """Return a text without what looks like a secret in it."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _fields(record: logging.LogRecord) -> dict[str, object]:
    own = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {**(_bound.get() or {}), **own}


def configure_logging(level: str, log_format: Literal["text", "json"]) -> None:
    """Send the process's logs to standard error; called once by the composition root."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "uvicorn.access", "matplotlib", "PIL", "h5py", "tensorflow", "absl"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Warnings of libraries would else be lines of another form.
    logging.captureWarnings(capture=True)
