"""The newest analysed picture of streams whose preview is switched on: from detectors to the API, in memory only.

Only while somebody looks: in one process a board holds it, between processes it travels by Redis' publish and subscribe, which
stores nothing. Pictures are never written to the store: its server may write that to a disk.
"""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from moodline.shared.clock import Clock

log = logging.getLogger("moodline.previews")

KEPT_S: Final = 10.0
"""A picture is shown for this time after it was analysed."""
_BOARD_BYTES: Final = 64 * 1024 * 1024
_PICTURES: Final = 4
_RESULTS: Final = 256
_STREAMS: Final = 1000
_UNREAD_S: Final = 1.0
_VIEWED_S: Final = 30.0
"""A stream stays subscribed for this time after the last request."""
_INTERVAL_S: Final = 0.5
_PAUSE_S: Final = 2.0
_CHANNEL: Final = "moodline.preview."


Box = tuple[int, int, int, int]
"""Left, top, right, bottom in 1/65536 of width and height."""

Read = tuple[Box, tuple[int, ...]]
"""A face's box, and the seven integers that the model gave it."""


class Preview(msgspec.Struct, frozen=True, kw_only=True, tag="picture"):
    """One picture.

    Attributes:
        stream_id, epoch, seq: Which frame it is.
        time_us: Event time, microseconds since the Unix epoch.
        jpeg: As it was analysed, or smaller.
        boxes: Of the faces.
        faces: What was read of them; None where the answer has not come.
    """

    stream_id: str
    epoch: int = msgspec.field(default=0, name="session")
    seq: int = 0
    time_us: int
    jpeg: bytes
    boxes: tuple[Box, ...] = ()
    faces: tuple[Read, ...] | None = None


class PreviewResult(msgspec.Struct, frozen=True, tag="faces"):
    """The results for the faces of one frame."""

    stream_id: str
    epoch: int = msgspec.field(name="session")
    seq: int
    faces: tuple[Read, ...]


_decoder: Final = msgspec.msgpack.Decoder(Preview | PreviewResult)


class Previews(Protocol):
    """Carries pictures. Thread-safe."""

    def wanted(self, stream_ids: Iterable[str]) -> set[str]:
        """Return those of these streams that somebody may be looking at. May block for a moment."""
        ...

    def publish(self, preview: Preview) -> None:
        """Show a picture; the one before it is forgotten. Never raises: a picture that is lost is followed by another."""
        ...

    def publish_result(self, result: PreviewResult) -> None:
        """Publish the results for a frame's faces. Never raises."""
        ...

    def newest(self, stream_id: str, wait_s: float, after_us: int | None = None) -> Preview | None:
        """Return the newest picture, if there is one that is fresh and later than `after_us`; waits for one. Blocks.

        One whose faces have been read comes first; one that has waited for that for a second comes without.
        """
        ...

    def close(self) -> None:
        """Release connections and threads. Safe to call twice."""
        ...


class PreviewBoard:
    """Pictures in this process: a few of each stream, and of bounded size together."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: OrderedDict[str, deque[tuple[Preview, float]]] = OrderedDict()
        self._results: dict[str, deque[PreviewResult]] = {}
        self._bytes = 0
        self._viewed: dict[str, float] = {}
        self._changed = threading.Condition()

    def wanted(self, stream_ids: Iterable[str]) -> set[str]:
        return self.looked_at().intersection(stream_ids)

    def looked_at(self) -> set[str]:
        """Return the streams whose newest picture was asked for in the last 30 s."""
        since_s = self._clock.monotonic_s() - _VIEWED_S
        with self._changed:
            self._viewed = {name: asked_s for name, asked_s in self._viewed.items() if asked_s >= since_s}
            return set(self._viewed)

    def publish(self, preview: Preview) -> None:
        now_s = self._clock.monotonic_s()
        with self._changed:
            held = self._held.setdefault(preview.stream_id, deque())
            self._held.move_to_end(preview.stream_id)
            held.append((preview, now_s))
            self._bytes += len(preview.jpeg)
            while len(held) > _PICTURES:
                self._bytes -= len(held.popleft()[0].jpeg)
            while self._held and (self._bytes > _BOARD_BYTES or self._oldest()[-1][1] < now_s - KEPT_S):
                self._drop(next(iter(self._held)))
            self._changed.notify_all()

    def publish_result(self, result: PreviewResult) -> None:
        with self._changed:
            if result.stream_id not in self._results and len(self._results) >= _STREAMS:
                self._results.pop(next(iter(self._results)))
            self._results.setdefault(result.stream_id, deque(maxlen=_RESULTS)).append(result)
            self._changed.notify_all()

    def newest(self, stream_id: str, wait_s: float, after_us: int | None = None) -> Preview | None:
        until_s = time.monotonic() + wait_s
        with self._changed:
            self._viewed[stream_id] = self._clock.monotonic_s()
            while True:
                found = self._fresh(stream_id, after_us)
                left_s = until_s - time.monotonic()
                if found is not None or left_s <= 0:
                    return found
                self._changed.wait(min(left_s, _UNREAD_S / 4))

    def close(self) -> None:
        with self._changed:
            self._held.clear()
            self._results.clear()
            self._viewed.clear()
            self._bytes = 0

    def _fresh(self, stream_id: str, after_us: int | None) -> Preview | None:
        now_s = self._clock.monotonic_s()
        held = [
            (preview, shown_s)
            for preview, shown_s in self._held.get(stream_id, ())
            if shown_s >= now_s - KEPT_S and (after_us is None or preview.time_us > after_us)
        ]
        read = {(result.epoch, result.seq): result.faces for result in self._results.get(stream_id, ())}
        for preview, shown_s in reversed(held):
            faces = read.get((preview.epoch, preview.seq))
            if faces is not None or not preview.boxes:
                return msgspec.structs.replace(preview, faces=faces or ())
            if now_s - shown_s >= _UNREAD_S:
                return preview
        return None

    def _oldest(self) -> deque[tuple[Preview, float]]:
        return next(iter(self._held.values()))

    def _drop(self, stream_id: str) -> None:
        self._bytes -= sum(len(preview.jpeg) for preview, _ in self._held.pop(stream_id, ()))
        self._results.pop(stream_id, None)


class RedisPreviews:
    """Pictures by Redis' publish and subscribe. A publisher sends only what somebody has subscribed to."""

    def __init__(self, url: str, clock: Clock) -> None:
        """Remember where Redis is; nothing is connected yet."""
        self._url = url
        self._clock = clock
        self._board = PreviewBoard(clock)
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._client: Any = None
        self._close_client: Callable[[], None] | None = None
        self._stop = threading.Event()

    def wanted(self, stream_ids: Iterable[str]) -> set[str]:
        names = list(stream_ids)
        if not names:
            return set()
        found = self._try(lambda client: client.pubsub_numsub(*(f"{_CHANNEL}{name}" for name in names))) or []
        listened_to = {_text(channel).removeprefix(_CHANNEL) for channel, count in found if count}
        return {name for name in names if name in listened_to}

    def publish(self, preview: Preview) -> None:
        encoded = msgspec.msgpack.encode(preview)
        self._try(lambda client: client.publish(f"{_CHANNEL}{preview.stream_id}", encoded))

    def publish_result(self, result: PreviewResult) -> None:
        encoded = msgspec.msgpack.encode(result)
        self._try(lambda client: client.publish(f"{_CHANNEL}{result.stream_id}", encoded))

    def newest(self, stream_id: str, wait_s: float, after_us: int | None = None) -> Preview | None:
        with self._lock:
            if self._reader is None and not self._stop.is_set():
                self._reader = threading.Thread(target=self._read, name="previews", daemon=True)
                self._reader.start()
        return self._board.newest(stream_id, wait_s, after_us)

    def close(self) -> None:
        self._stop.set()
        reader = self._reader
        if reader is not None:
            reader.join(_PAUSE_S * 2)
        with self._lock:
            close, self._close_client, self._client = self._close_client, None, None
        if close is not None:
            close()
        self._board.close()

    def _open(self) -> Any:
        from moodline.shared.store.redis_address import parse_redis_url

        with self._lock:
            if self._client is None:
                self._client, self._close_client = parse_redis_url(self._url).open()
            return self._client

    def _try(self, ask: Callable[[Any], Any]) -> Any:
        from redis.exceptions import RedisClusterException, RedisError

        try:
            return ask(self._open())
        except (RedisError, RedisClusterException, OSError) as error:
            log.warning("previews.interrupted", extra={"reason": type(error).__name__})
            return None

    def _read(self) -> None:
        while not self._stop.is_set():
            self._try(self._listen)
            self._stop.wait(_PAUSE_S)

    def _listen(self, client: Any) -> None:
        """Put on the board what comes of the streams that are looked at; raises where the connection ends."""
        known: set[str] = set()
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        try:
            while not self._stop.is_set():
                wanted = self._board.looked_at()
                for names, act in ((wanted - known, pubsub.subscribe), (known - wanted, pubsub.unsubscribe)):
                    if names:
                        act(*(f"{_CHANNEL}{name}" for name in names))
                known = wanted
                if not known:
                    self._stop.wait(_INTERVAL_S / 5)
                    continue
                message = pubsub.get_message(timeout=_INTERVAL_S / 5)
                while message is not None:
                    with suppress(msgspec.MsgspecError, TypeError):
                        decoded = _decoder.decode(message["data"])
                        if isinstance(decoded, Preview):
                            self._board.publish(decoded)
                        else:
                            self._board.publish_result(decoded)
                    message = pubsub.get_message(timeout=0.0)
        finally:
            pubsub.close()


def open_previews(store_url: str, clock: Clock) -> Previews:
    """Return what carries pictures between the processes that share a store."""
    return PreviewBoard(clock) if store_url.startswith("sqlite:") else RedisPreviews(store_url, clock)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
