"""Logs: one line per event on standard error, as text or JSON. Events and fields are those of `moodline.shared.log_events`.

A thread that works on one stream binds its id, and the session once it has one: every line that it writes then carries both.
What looks like a secret is masked on its way out, wherever it comes from. That is the second lock, not the first: no event is
given a secret.
"""

import json
import logging
import math
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal

from moodline.shared.log_events import EVENTS, FOREIGN
from moodline.shared.printable import printable

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OWN: Final = "moodline"
_MASK: Final = "***"
_OFTEN: Final = frozenset(
    {"connection.refused", "loop.failed", "message.dead", "store.damaged", "stage.failed", "stage.message_failed"}
)
_NUMBERS: Final = re.compile(r"[0-9]+|0x[0-9a-f]+")
_CAUSE_LENGTH: Final = 120
_CAUSES: Final = 500
_LINES_PER_S: Final = 20
_TRACE_EVERY_S: Final = 60.0
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
        fields = " ".join(f"{key}={printable(str(value))}" for key, value in _fields(record).items())
        head = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {record.name}"
        line = f"{head}: {printable(record.getMessage().strip())} {fields}".rstrip()
        if record.exc_info:
            # Indented: whatever an error's text holds, no line of it looks like one of ours.
            line += "".join(f"\n  {printable(part)}" for part in self.formatException(record.exc_info).split("\n"))
        return masked(line)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        own = record.name.partition(".")[0] == _OWN and message in EVENTS
        line: dict[str, object] = dict(_fields(record))
        if not own:
            line["text"] = message
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        shown = {key: masked(value) if isinstance(value, str) else value for key, value in line.items()}
        head = {
            "ts": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": message if own else FOREIGN,
        }
        return json.dumps(shown | head, default=lambda value: masked(str(value)))


def masked(text: str) -> str:
    """Return a text without what looks like a secret in it."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class OncePerSecond(logging.Filter):
    """Lets one line a second through for each cause, of those lines that somebody outside can cause as often as he likes.

    These are what libraries say, refused connections, and messages that cannot be used. The next line of the same cause tells how
    many were left out. A cause is a logger, a message without its numbers and the type of an error. A trace is written once a
    minute.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._lock = threading.Lock()
        self._causes: OrderedDict[tuple[str, str, str], tuple[float, float, int]] = OrderedDict()
        self._second, self._lines = 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or (record.name.partition(".")[0] == _OWN and record.msg not in _OFTEN):
            return True
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        cause = (record.name, _NUMBERS.sub("0", str(record.msg))[:_CAUSE_LENGTH], f"{kind} {vars(record).get('reason', '')}")
        with self._lock:
            now_s = self._now_s()
            reported_s, traced_s, suppressed = self._causes.get(cause, (-math.inf, -math.inf, 0))
            if int(now_s) != self._second:
                self._second, self._lines = int(now_s), 0
            # Someone who chooses the words of a message can make any number of causes.
            if now_s - reported_s < 1.0 or self._lines >= _LINES_PER_S:
                self._causes[cause] = (reported_s, traced_s, suppressed + 1)
                self._bound()
                return False
            self._lines += 1
            with_trace = now_s - traced_s >= _TRACE_EVERY_S
            self._causes[cause] = (now_s, now_s if with_trace else traced_s, 0)
            self._causes.move_to_end(cause)
            self._bound()
        if suppressed:
            record.suppressed = suppressed
        if record.exc_info and not with_trace:
            record.msg, record.args = f"{record.getMessage().strip()} ({kind}: {record.exc_info[1]})", None
            record.exc_info = None
        return True

    def _bound(self) -> None:
        if len(self._causes) > _CAUSES:
            self._causes.popitem(last=False)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    own = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {**(_bound.get() or {}), **own}


def configure_logging(level: str, log_format: Literal["text", "json"]) -> None:
    """Send the process's logs to standard error; called once by the composition root."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(OncePerSecond())
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "uvicorn.access", "matplotlib", "PIL", "h5py", "tensorflow", "absl"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Warnings of libraries would else be lines of another form.
    logging.captureWarnings(capture=True)
