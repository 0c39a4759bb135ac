"""Watches the store for everybody who listens: one thread, however many subscribers there are.

A poll of the store takes a few batched calls for all streams that somebody listens to, and one read for each stream and
resolution with news. What is new is rendered once and handed to every subscriber that has the stream in its subscription.

A subscriber is told, in this order: its subscription (and again whenever it changes), then for each stream that has joined the
newest of what is known, then what changes. Its queue is bounded: when it is full, it is emptied, and the subscriber is told its
subscription again with `behind` set as soon as it takes from it again; it then reads from the store what it missed. Points are
absolute, so a later event for the same start replaces an earlier one.
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

POLL_S: Final = 0.2
"""Pause between two polls of the store."""

QUEUE_ITEMS: Final = 2048
"""Most items that wait for one subscriber; each is shared with all other subscribers of the stream."""

SUBSCRIBED_STREAMS: Final = 500
"""Most streams of one subscriber; of more, the first by id."""

ALERTS_LOG: Final = "alerts"
_ALERTS_AT_ONCE: Final = 500
_SPACING_S: Final = 0.01
_STOP_S: Final = 10.0
_READERS: Final = 4


@dataclass(frozen=True, slots=True)
class SubscriptionFilter:
    """The filter of a subscription.

    Attributes:
        selects: Whether a stream is in its subscription. Called in the feed's thread; must be quick and raise nothing.
        tier_s: Length of its points, in s; one of `TIERS_S`.
        faces: Whether it wants the faces that are in the picture.
    """

    selects: Callable[[StreamSpec], bool]
    tier_s: int = 1
    faces: bool = False


class SubscribedStreams(NamedTuple):
    """The streams that a subscriber hears of from here on.

    Attributes:
        streams: By id.
        alert: Number of the newest alert; later ones come as events.
        behind: What waited in the queue was dropped: read from the store what was missed.
    """

    streams: dict[str, StreamSpec]
    alert: int
    behind: bool


Item = SubscribedStreams | FeedEvent


class Subscriber:
    """One subscriber's bounded queue. `take` is called by the subscriber, everything else by the feed. Thread-safe."""

    def __init__(self, subscription_filter: SubscriptionFilter, notify: Callable[[], None]) -> None:
        self.subscription_filter = subscription_filter
        self.known: dict[str, StreamSpec] = {}
        """The subscription that it was last told."""
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
        """Return whether the feed has ended for this subscriber; another may be asked for."""
        with self._lock:
            return self._closed

    def rejoin(self) -> bool | None:
        """Return None, or that a subscription is due: True when items were dropped before it, False for a new subscriber."""
        with self._lock:
            if not self._wants_sync:
                return None
            was_behind, self._is_behind, self._wants_sync = self._is_behind, False, False
            return was_behind

    def offer(self, items: Sequence[Item]) -> None:
        """Append items; where they do not fit, drop everything until the subscriber takes again."""
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
    """The thread that watches the store. It runs while there are subscribers. Thread-safe."""

    def __init__(self, store: Store, clock: Clock, poll_s: float = POLL_S) -> None:
        """Prepare; nothing is read before the first subscriber comes."""
        self._store = store
        self._clock = clock
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._subscribers: list[Subscriber] = []
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self.readers: Final = ThreadPoolExecutor(_READERS, thread_name_prefix="live-read")
        """Threads in which subscribers read what they missed."""
        self._seen = _Seen()

    @property
    def store(self) -> Store:
        """The store that is watched."""
        return self._store

    def subscribe(self, subscription_filter: SubscriptionFilter, notify: Callable[[], None]) -> Subscriber:
        """Begin to listen.

        Args:
            subscription_filter: What to hear.
            notify: Called, in the feed's thread, when there is something to take; must be quick and raise nothing.
        """
        subscriber = Subscriber(subscription_filter, notify)
        with self._lock:
            if self._stopped.is_set():
                subscriber.close()
                return subscriber
            self._subscribers.append(subscriber)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="live-feed", daemon=True)
                self._thread.start()
        self._wake.set()
        return subscriber

    def change(self, subscriber: Subscriber, subscription_filter: SubscriptionFilter) -> None:
        """Give a subscriber another subscription; tier and faces stay as they were."""
        with self._lock:
            subscriber.subscription_filter = subscription_filter
        self._wake.set()

    def drop(self, subscriber: Subscriber) -> None:
        """Forget a subscriber. Safe to call twice."""
        with self._lock:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

    def close(self) -> None:
        """End all subscribers, and the thread. Safe to call twice."""
        with self._lock:
            self._stopped.set()
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_STOP_S)
        self._end_subscribers()
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
                self._wake.wait(self._poll_s)
                # Many who come at the same time are served by one poll.
                self._stopped.wait(_SPACING_S)
        finally:
            # Subscribers do not wait for a thread that has ended: they are closed, subscribe again, and that starts a new thread.
            with self._lock:
                is_mine = self._thread is threading.current_thread()
            if is_mine:
                self._end_subscribers()

    def _goes_on(self) -> bool:
        with self._lock:
            if self._subscribers and not self._stopped.is_set():
                return True
            self._thread = None
            self._seen = _Seen()
            return False

    def _end_subscribers(self) -> None:
        with self._lock:
            subscribers, self._subscribers, self._thread = self._subscribers, [], None
        for subscriber in subscribers:
            subscriber.close()

    def _poll(self) -> None:
        """Look at the store once, and tell every subscriber what is new."""
        with self._lock:
            subscribers = list(self._subscribers)
            subscription_filters = [subscriber.subscription_filter for subscriber in subscribers]
        seen = self._seen
        is_changed = seen.read_registry(self._store, self._clock.monotonic_s())
        for subscriber, subscription_filter in zip(subscribers, subscription_filters, strict=True):
            if is_changed or seen.subscription_filters.get(subscriber) is not subscription_filter:
                seen.choose(subscriber, subscription_filter)
        seen.forget_others(subscribers)
        seen.read_streams(self._store, self._clock.monotonic_s(), subscribers)
        seen.read_alerts(self._store)
        events, seen.events = seen.events, []
        for subscriber in subscribers:
            subscriber.offer(seen.items_for(subscriber, events))


@dataclass(slots=True)
class _Seen:
    """The state of the store as of the feed's last poll."""

    view: RegistryView | None = None
    specs: dict[str, StreamSpec] = field(default_factory=dict)
    streams: dict[str, WatchedStream] = field(default_factory=dict)
    subscription_filters: dict[Subscriber, SubscriptionFilter] = field(default_factory=dict)
    """The streams and labels that each subscriber's subscription was chosen by."""
    subscribed: dict[Subscriber, dict[str, StreamSpec]] = field(default_factory=dict)
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

    def choose(self, subscriber: Subscriber, subscription_filter: SubscriptionFilter) -> None:
        """Find a subscriber's subscription."""
        chosen = [stream_id for stream_id, spec in self.specs.items() if subscription_filter.selects(spec)]
        self.subscription_filters[subscriber] = subscription_filter
        self.subscribed[subscriber] = {stream_id: self.specs[stream_id] for stream_id in sorted(chosen)[:SUBSCRIBED_STREAMS]}

    def forget_others(self, subscribers: Iterable[Subscriber]) -> None:
        """Drop what is kept for subscribers that have gone."""
        present = set(subscribers)
        for subscriber in self.subscribed.keys() - present:
            del self.subscribed[subscriber], self.subscription_filters[subscriber]

    def read_streams(self, store: Store, now_s: float, subscribers: Sequence[Subscriber]) -> None:
        """Read what is new of every stream in anybody's subscription."""
        tiers: dict[str, set[int]] = {}
        for subscriber in subscribers:
            for stream_id in self.subscribed[subscriber]:
                tiers.setdefault(stream_id, set()).add(self.subscription_filters[subscriber].tier_s)
        self.streams = {stream_id: self._watched(stream_id) for stream_id in tiers}
        ids = list(tiers)
        if not ids:
            return
        # The status first: what a reader said is never newer than the timeline that is shown with it.
        for stream_id, status, progress in zip(ids, store.statuses(ids), store.load(ids), strict=True):
            if progress is None:
                continue  # removed just now: the next look at the registry tells
            try:
                self.events += self.streams[stream_id].poll(store, tiers[stream_id], status, progress, now_s)
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
        """Read alerts since the last poll; at the first one only where the log ends."""
        if self.alert is None:
            newest = store.records(ALERTS_LOG, limit=1, newest_first=True)
            self.alert = newest[0][0] if newest else 0
            return
        records = store.records(ALERTS_LOG, self.alert, _ALERTS_AT_ONCE)
        if records:
            self.alert = records[-1][0]
        self.events += [event for number, value in records if (event := alert_event(number, value)) is not None]

    def items_for(self, subscriber: Subscriber, events: Sequence[FeedEvent]) -> list[Item]:
        """Return what one subscriber is to be told now."""
        subscribed, known, subscription_filter = (
            self.subscribed[subscriber],
            subscriber.known,
            self.subscription_filters[subscriber],
        )
        behind = subscriber.rejoin()
        if behind is None and subscribed is known:
            return [event for event in events if event.stream_id in subscribed and _is_wanted(event, subscription_filter)]
        joined = {
            stream_id
            for stream_id, spec in subscribed.items()
            if behind is not None or stream_id not in known or known[stream_id].created_at_us != spec.created_at_us
        }
        subscriber.known = subscribed
        items: list[Item] = []
        if behind is not None or joined or subscribed.keys() != known.keys():
            items.append(SubscribedStreams(subscribed, self.alert or 0, bool(behind)))
        for stream_id in subscribed:
            if stream_id in joined:
                items += [
                    event
                    for event in self.streams[stream_id].newest(subscription_filter.tier_s)
                    if _is_wanted(event, subscription_filter)
                ]
        items += [
            event
            for event in events
            if event.stream_id in subscribed and event.stream_id not in joined and _is_wanted(event, subscription_filter)
        ]
        return items


def _is_wanted(event: FeedEvent, subscription_filter: SubscriptionFilter) -> bool:
    if event.kind is EventKind.POINT:
        return event.tier_s == subscription_filter.tier_s
    return subscription_filter.faces or event.kind is not EventKind.FACES
