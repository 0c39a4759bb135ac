"""Watches the store for everybody who listens: one thread, however many listeners there are.

A look at the store takes a few batched calls for all streams that somebody listens to, and one read for each stream and
resolution with news. What is new is rendered once and handed to every listener that has the stream in its scope.

A listener is told, in this order: its scope (and again whenever it changes), then for each stream that has joined the newest of
what is known, then what changes. Its queue is bounded: when it is full, it is emptied, and the listener is told its scope again
with `behind` set as soon as it takes from it again; it then reads from the store what it missed. Points are absolute, so a later
event for the same start replaces an earlier one.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from moodline.services.live.stream import EventKind, FeedEvent, WatchedStream, alert_event
from moodline.shared.clock import Clock
from moodline.shared.errors import StoreError, StoreUnavailableError
from moodline.shared.store import Store
from moodline.shared.store.registry_view import RegistryView
from moodline.shared.streams import StreamSpec

log = logging.getLogger("moodline.feed")

LOOK_S: Final = 0.2
"""Pause between two looks at the store."""

QUEUE_ITEMS: Final = 2048
"""Most items that wait for one listener; each is shared with all other listeners of the stream."""

SCOPE_STREAMS: Final = 500
"""Most streams of one listener; of more, the first by id."""

ALERTS_LOG: Final = "alerts"
_ALERTS_AT_ONCE: Final = 500
_SPACING_S: Final = 0.01
_STOP_S: Final = 10.0
_READERS: Final = 4


@dataclass(frozen=True, slots=True)
class SubscriptionFilter:
    """The filter of a subscription.

    Attributes:
        selects: Whether a stream is in its scope. Called in the feed's thread; must be quick and raise nothing.
        level_s: Length of its points, in s; one of `LEVELS_S`.
        faces: Whether it wants the faces that are in the picture.
    """

    selects: Callable[[StreamSpec], bool]
    level_s: int = 1
    faces: bool = False


class SubscriptionScope(NamedTuple):
    """The streams that a listener hears of from here on.

    Attributes:
        streams: By id.
        alert: Number of the newest alert; later ones come as events.
        behind: What waited in the queue was dropped: read from the store what was missed.
    """

    streams: dict[str, StreamSpec]
    alert: int
    behind: bool


Item = SubscriptionScope | FeedEvent


class Subscriber:
    """One listener's bounded queue. `take` is called by the listener, everything else by the feed. Thread-safe."""

    def __init__(self, wish: SubscriptionFilter, notify: Callable[[], None]) -> None:
        self.wish = wish
        self.known: dict[str, StreamSpec] = {}
        """The scope that it was last told."""
        self._notify = notify
        self._lock = threading.Lock()
        self._queue: deque[Item] = deque()
        self._closed = False
        self._is_behind = False
        self._wants_sync = True

    def take(self) -> list[Item] | None:
        """Return what is new, without waiting; None when the feed has ended, after everything was taken."""
        with self._lock:
            items = list(self._queue)
            self._queue.clear()
            if self._is_behind:
                self._wants_sync = True
            return None if self._closed and not items else items

    @property
    def closed(self) -> bool:
        """Return whether the feed has ended for this listener; another may be asked for."""
        with self._lock:
            return self._closed

    def rejoin(self) -> bool | None:
        """Return None, or that a scope is due: True when items were dropped before it, False for a new listener."""
        with self._lock:
            if not self._wants_sync:
                return None
            was_behind, self._is_behind, self._wants_sync = self._is_behind, False, False
            return was_behind

    def offer(self, items: Sequence[Item]) -> None:
        """Append items; where they do not fit, drop everything until the listener takes again."""
        with self._lock:
            if self._is_behind or not items:
                return
            if len(self._queue) + len(items) > max(QUEUE_ITEMS, 4 * len(self.known) + 1):
                self._queue.clear()
                self._is_behind = True
            else:
                self._queue.extend(items)
        self._notify()

    def close(self) -> None:
        """End: `take` returns None once everything was taken."""
        with self._lock:
            self._closed = True
        self._notify()


class LiveFeed:
    """The thread that watches the store. It runs while there are listeners. Thread-safe."""

    def __init__(self, store: Store, clock: Clock, look_s: float = LOOK_S) -> None:
        """Prepare; nothing is read before the first listener comes."""
        self._store = store
        self._clock = clock
        self._look_s = look_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._listeners: list[Subscriber] = []
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self.readers: Final = ThreadPoolExecutor(_READERS, thread_name_prefix="live-read")
        """Threads in which listeners read what they missed."""
        self._seen = _Seen()

    @property
    def store(self) -> Store:
        """The store that is watched."""
        return self._store

    def listen(self, wish: SubscriptionFilter, notify: Callable[[], None]) -> Subscriber:
        """Begin to listen.

        Args:
            wish: What to hear.
            notify: Called, in the feed's thread, when there is something to take; must be quick and raise nothing.
        """
        listener = Subscriber(wish, notify)
        with self._lock:
            if self._stopped.is_set():
                listener.close()
                return listener
            self._listeners.append(listener)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="live-feed", daemon=True)
                self._thread.start()
        self._wake.set()
        return listener

    def change(self, listener: Subscriber, wish: SubscriptionFilter) -> None:
        """Give a listener another scope; level and faces stay as they were."""
        with self._lock:
            listener.wish = wish
        self._wake.set()

    def drop(self, listener: Subscriber) -> None:
        """Forget a listener. Safe to call twice."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def close(self) -> None:
        """End all listeners, and the thread. Safe to call twice."""
        with self._lock:
            self._stopped.set()
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_STOP_S)
        self._end_listeners()
        self.readers.shutdown(wait=False)

    def _run(self) -> None:
        problem = ""
        try:
            while self._goes_on():
                self._wake.clear()
                try:
                    self._poll()
                    problem = ""
                except StoreError as error:
                    if str(error) != problem:
                        log.warning("feed.store", extra={"reason": str(error)})
                    problem = str(error)
                self._wake.wait(self._look_s)
                # Many who come at the same time are served by one look.
                self._stopped.wait(_SPACING_S)
        finally:
            # However the thread ends, nobody waits for it in vain: who was ended comes again, and starts another.
            with self._lock:
                is_mine = self._thread is threading.current_thread()
            if is_mine:
                self._end_listeners()

    def _goes_on(self) -> bool:
        with self._lock:
            if self._listeners and not self._stopped.is_set():
                return True
            self._thread = None
            self._seen = _Seen()
            return False

    def _end_listeners(self) -> None:
        with self._lock:
            listeners, self._listeners, self._thread = self._listeners, [], None
        for listener in listeners:
            listener.close()

    def _poll(self) -> None:
        """Look at the store once, and tell every listener what is new."""
        with self._lock:
            listeners = list(self._listeners)
            wishes = [listener.wish for listener in listeners]
        seen = self._seen
        is_changed = seen.read_registry(self._store, self._clock.monotonic_s())
        for listener, wish in zip(listeners, wishes, strict=True):
            if is_changed or seen.wishes.get(listener) is not wish:
                seen.choose(listener, wish)
        seen.forget_others(listeners)
        seen.read_streams(self._store, self._clock.monotonic_s(), listeners)
        seen.read_alerts(self._store)
        events, seen.events = seen.events, []
        for listener in listeners:
            listener.offer(seen.items_for(listener, events))


@dataclass(slots=True)
class _Seen:
    """The state of the store as of the feed's last poll."""

    view: RegistryView | None = None
    specs: dict[str, StreamSpec] = field(default_factory=dict)
    streams: dict[str, WatchedStream] = field(default_factory=dict)
    wishes: dict[Subscriber, SubscriptionFilter] = field(default_factory=dict)
    """The streams and labels that each listener's scope was chosen by."""
    scopes: dict[Subscriber, dict[str, StreamSpec]] = field(default_factory=dict)
    alert: int | None = None
    events: list[FeedEvent] = field(default_factory=list)
    """Changes that have not been sent yet; they are kept where the store fails half-way."""
    unreadable: dict[str, str] = field(default_factory=dict)

    def read_registry(self, store: Store, now_s: float) -> bool:
        """Read the definitions that have changed; return whether any has."""
        if self.view is None:
            self.view = RegistryView(store)
        if not self.view.refresh(now_s):
            return False
        self.specs = dict(self.view.specs)
        return True

    def choose(self, listener: Subscriber, wish: SubscriptionFilter) -> None:
        """Find a listener's scope."""
        chosen = [stream_id for stream_id, spec in self.specs.items() if wish.selects(spec)]
        self.wishes[listener] = wish
        self.scopes[listener] = {stream_id: self.specs[stream_id] for stream_id in sorted(chosen)[:SCOPE_STREAMS]}

    def forget_others(self, listeners: Iterable[Subscriber]) -> None:
        """Drop what is kept for listeners that have gone."""
        present = set(listeners)
        for listener in self.scopes.keys() - present:
            del self.scopes[listener], self.wishes[listener]

    def read_streams(self, store: Store, now_s: float, listeners: Sequence[Subscriber]) -> None:
        """Read what is new of every stream in anybody's scope."""
        levels: dict[str, set[int]] = {}
        for listener in listeners:
            for stream_id in self.scopes[listener]:
                levels.setdefault(stream_id, set()).add(self.wishes[listener].level_s)
        self.streams = {stream_id: self._watched(stream_id) for stream_id in levels}
        ids = list(levels)
        if not ids:
            return
        # The status first: what a reader said is never newer than the timeline that is shown with it.
        for stream_id, status, progress in zip(ids, store.statuses(ids), store.load(ids), strict=True):
            if progress is None:
                continue  # removed just now: the next look at the registry tells
            try:
                self.events += self.streams[stream_id].poll(store, levels[stream_id], status, progress, now_s)
            except StoreUnavailableError:
                raise
            except StoreError as error:
                # One stream that cannot be read must not silence the others.
                self._report_unreadable(stream_id, str(error))

    def _report_unreadable(self, stream_id: str, reason: str) -> None:
        if self.unreadable.get(stream_id) != reason:
            log.warning("feed.stream", extra={"stream_id": stream_id, "reason": reason})
            self.unreadable[stream_id] = reason

    def _watched(self, stream_id: str) -> WatchedStream:
        spec, known = self.specs[stream_id], self.streams.get(stream_id)
        if known is None or known.spec.created_at_us != spec.created_at_us:
            return WatchedStream(spec)
        known.spec = spec
        return known

    def read_alerts(self, store: Store) -> None:
        """Read alerts since the last look; at the first one only where the log ends."""
        if self.alert is None:
            newest = store.records(ALERTS_LOG, limit=1, newest_first=True)
            self.alert = newest[0][0] if newest else 0
            return
        records = store.records(ALERTS_LOG, self.alert, _ALERTS_AT_ONCE)
        if records:
            self.alert = records[-1][0]
        self.events += [event for number, value in records if (event := alert_event(number, value)) is not None]

    def items_for(self, listener: Subscriber, events: Sequence[FeedEvent]) -> list[Item]:
        """Return what one listener is to be told now."""
        scope, known, wish = self.scopes[listener], listener.known, self.wishes[listener]
        behind = listener.rejoin()
        if behind is None and scope is known:
            return [event for event in events if event.stream_id in scope and _is_wanted(event, wish)]
        joined = {
            stream_id
            for stream_id, spec in scope.items()
            if behind is not None or stream_id not in known or known[stream_id].created_at_us != spec.created_at_us
        }
        listener.known = scope
        items: list[Item] = []
        if behind is not None or joined or scope.keys() != known.keys():
            items.append(SubscriptionScope(scope, self.alert or 0, bool(behind)))
        for stream_id in scope:
            if stream_id in joined:
                items += [event for event in self.streams[stream_id].newest(wish.level_s) if _is_wanted(event, wish)]
        items += [
            event for event in events if event.stream_id in scope and event.stream_id not in joined and _is_wanted(event, wish)
        ]
        return items


def _is_wanted(event: FeedEvent, wish: SubscriptionFilter) -> bool:
    if event.kind is EventKind.POINT:
        return event.level_s == wish.level_s
    return wish.faces or event.kind is not EventKind.FACES
