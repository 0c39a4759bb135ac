"""Live answers: Server-Sent Events, listened to for as long as the user wants, over lost connections and restarts."""

from collections.abc import Generator, Iterable, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

import httpx
import msgspec

from moodline.answers import Alert, Answer, Point, Shares, Stream
from moodline.client._link import PREFIX, Link
from moodline.errors import ApiError, BusyError, ServiceError, UnreachableError

_SILENCE_S: Final = 45.0
"""The service says something every 15 s: after three times that, the connection is dead."""

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_LONGEST_LINE_BYTES: Final = 16 * 1024 * 1024
_PASSING: Final = (UnreachableError, ServiceError, BusyError)
"""After these the connection is made again."""


class Hello(Answer, frozen=True, kw_only=True):
    """The first event of every connection: the service's time, the streams in scope, and whether it goes on (`resumed`)."""

    time: datetime
    streams: list[str]
    resolution_s: int
    resumed: bool


class StateEvent(Answer, frozen=True, kw_only=True):
    """A stream's definition, state or progress has changed."""

    stream: Stream


class PointEvent(Answer, frozen=True, kw_only=True):
    """A point of a stream's timeline, whole; a later one for the same start replaces an earlier one."""

    stream: str
    resolution_s: int
    point: Point


class Face(Answer, frozen=True, kw_only=True):
    """A face that is in the picture.

    Attributes:
        track: Number of its track.
        box: Left, top, right, bottom, 0 to 1 of the picture.
        last: When it was last seen.
        dominant: Its leading emotion; None where it could not be read when it was last seen.
        smoothed: Its probabilities, smoothed over time; None as `dominant` is.
    """

    track: int
    box: tuple[float, float, float, float]
    last: datetime
    dominant: str | None = None
    smoothed: Shares | None = None


class FacesEvent(Answer, frozen=True, kw_only=True):
    """The faces in the picture; `time` is the time of the last frame."""

    stream: str
    time: datetime | None
    faces: list[Face]


class AlertEvent(Answer, frozen=True, kw_only=True):
    """Something happened to an alert."""

    alert: Alert


class RemovedEvent(Answer, frozen=True, kw_only=True):
    """A stream was deleted, or has left the scope."""

    stream: str


Event = Hello | StateEvent | PointEvent | FacesEvent | AlertEvent | RemovedEvent


class Message(NamedTuple):
    """One event on the wire."""

    event: str
    data: bytes
    id: str | None = None
    retry_ms: int | None = None


class Events(Iterator[Event]):
    """Iterates over what happens, without end. Blocks until something does. Also a context manager.

    A lost connection is made again by itself, later and later (1 s to 30 s), and goes on where it was: nothing is missed.
    Each connection begins with a `Hello`.

    Attributes:
        last_event_id: Where the listener stands; give it to `Client.events` to go on there, also in another process.
    """

    def __init__(self, link: Link, asked: dict[str, Any], last_event_id: str | None, patience_s: float | None) -> None:
        self.last_event_id = last_event_id
        self._link = link
        self._asked = asked
        self._patience_s = patience_s
        self._pause_s = self._first_pause_s = _FIRST_PAUSE_S
        self._is_heard = False
        self._events = self._listen()

    def __next__(self) -> Event:
        """Return the next event.

        Raises:
            ApiError: the API refuses, cannot be reached at first, or was not there again within `patience_s`.
        """
        return next(self._events)

    def close(self) -> None:
        """End listening. Safe to call twice."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> Generator[Event, None, None]:
        clock = self._link.clock
        lost_s: float | None = None
        while True:
            error: ApiError | None = None
            try:
                for event in self._connection():
                    lost_s, self._pause_s = None, self._first_pause_s
                    yield event
            except _PASSING as passing:
                error = passing
            now_s = clock.monotonic_s()
            lost_s = now_s if lost_s is None else lost_s
            is_late = self._patience_s is not None and now_s + self._pause_s - lost_s > self._patience_s
            if error is not None and (is_late or not self._is_heard):
                raise error
            clock.sleep(self._pause_s)
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    def _connection(self) -> Iterator[Event]:
        """Yield what comes over one connection, until that ends."""
        headers = {"Accept": "text/event-stream"}
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        timeout = httpx.Timeout(self._link.timeout_s, read=_SILENCE_S)
        with self._link.stream("GET", f"{PREFIX}/events", params=self._asked, headers=headers, timeout=timeout) as answer:
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                raise self._link.bad_answer(answer.status_code)
            for message in messages_of(answer.iter_bytes()):
                if message.retry_ms is not None:
                    self._pause_s = self._first_pause_s = max(message.retry_ms / 1000, _FIRST_PAUSE_S)
                event = self._event(message, answer.status_code)
                self.last_event_id = message.id or self.last_event_id
                if event is not None:
                    self._is_heard = True
                    yield event

    def _event(self, message: Message, status: int) -> Event | None:
        """Return what a message tells; None for one that this version does not know."""
        try:
            if message.event == "state":
                return StateEvent(stream=msgspec.json.decode(message.data, type=Stream))
            if message.event == "alert":
                return AlertEvent(alert=msgspec.json.decode(message.data, type=Alert))
            kind = _KINDS.get(message.event)
            return None if kind is None else msgspec.json.decode(message.data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._link.bad_answer(status) from None


_KINDS: Final[dict[str, type[Hello | PointEvent | FacesEvent | RemovedEvent]]] = {
    "hello": Hello,
    "point": PointEvent,
    "faces": FacesEvent,
    "removed": RemovedEvent,
}


def messages_of(chunks: Iterable[bytes]) -> Iterator[Message]:
    """Yield the messages of an event stream, as the WHATWG's standard reads it. What is cut off at the end is dropped.

    Raises:
        UnreachableError: a line is longer than 16 MiB.
    """
    event, last_id, retry_ms = "", None, None
    data: list[bytes] = []
    for line in _lines(chunks):
        name, _, text = line.partition(b":")
        text = text.removeprefix(b" ")
        if not line:
            if data or retry_ms is not None:
                yield Message(event or "message" if data else "", b"\n".join(data), last_id, retry_ms)
            event, data, last_id, retry_ms = "", [], None, None
        elif name == b"event":
            event = text.decode(errors="replace")
        elif name == b"data":
            data.append(text)
        elif name == b"id" and b"\0" not in text:
            last_id = text.decode(errors="replace")
        elif name == b"retry" and text.isdigit():
            retry_ms = int(text)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines that end with LF or CR LF."""
    rest = b""
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        rest += first
        for other in others:
            yield rest.removesuffix(b"\r")
            rest = other
        if len(rest) > _LONGEST_LINE_BYTES:
            raise UnreachableError("unreachable", "an event is longer than 16 MiB; this is no Moodline of this version")
