"""One subscriber's way through the live feed: what it missed, from the store; then what comes, without loss or repetition.

Everything here runs in an event loop, and what reads the store in a few threads that all subscribers share: a subscriber costs a
task and a queue, not a thread.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple, TypeVar

import msgspec

from moodline.services.live.cursor import Cursor, Key, key_of, write_cursor
from moodline.services.live.feed import ALERTS_LOG, Item, LiveFeed, SubscribedStreams, Subscriber, SubscriptionFilter
from moodline.services.live.stream import EventKind, FeedEvent, alert_event, point_event
from moodline.services.report.moments import iso, to_datetime
from moodline.shared.clock import Clock
from moodline.shared.errors import StoreUnavailableError
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline.bucket import unpack
from moodline.shared.timeline.models import read_models

KEEP_ALIVE_S: Final = 15.0
"""After so long without an event the subscriber is told that the connection lives."""

RENEW_S: Final = 5.0
"""Seconds between two checks whether the subscriber still may read these streams."""

_CHUNK: Final = 600
_FEW_STREAMS: Final = 16
"""Up to so many streams every point carries the subscriber's position; with more, only the last event of each batch."""

_CLOCKS_APART_US: Final = 5_000_000
_NOTHING: Final = (-1, True, 0)

Selects = Callable[[StreamSpec], bool]

_Answer = TypeVar("_Answer")


class Sent(NamedTuple):
    """One event for a subscriber. `id` is its position after this event; empty where the position does not change."""

    event: str
    data: bytes
    id: str = ""


@dataclass(slots=True)
class _Place:
    """The position of a subscriber in one stream: `order` of its newest point, None where it has none and needs none."""

    spec: StreamSpec
    key: Key
    order: tuple[int, bool, int] | None

    @property
    def next(self) -> int:
        """Index of the first point that it has not got in its final form."""
        assert self.order is not None
        return self.order[0] + int(self.order[1])


class Subscription:
    """The events of one subscriber, in order."""

    def __init__(
        self,
        feed: LiveFeed,
        clock: Clock,
        subscription_filter: SubscriptionFilter,
        *,
        cursor: Cursor | None = None,
        named: frozenset[str] = frozenset(),
        renew: Callable[[], Awaitable[Selects | None]] | None = None,
    ) -> None:
        """Prepare; nothing is read before `batches` is iterated over.

        Args:
            feed: Where to listen.
            clock: Tells when the subscription began.
            subscription_filter: What to hear.
            cursor: Where the subscriber stands; None: it begins with the newest of each stream.
            named: Streams that it asked for by name; of those that are not there when it resumes it is told `removed`.
            renew: Returns, every `RENEW_S`, what the subscriber may hear by now: the same object where that has not changed, None
                to end.
        """
        self._feed = feed
        self._subscription_filter = subscription_filter
        self._cursor = cursor if cursor is not None and cursor.tier_s == subscription_filter.tier_s else None
        self._named = named
        self._renew = renew
        self._clock = clock
        now_us = int(clock.now_s() * 1_000_000)
        self._since_us = (self._cursor.since_us if self._cursor else now_us) - _CLOCKS_APART_US
        self._alert = self._cursor.alert if self._cursor else None
        self._places: dict[str, _Place] = {}
        self._is_greeted = False

    async def batches(self) -> AsyncIterator[list[Sent]]:
        """Yield what is new, some events at a time; an empty list says that the connection lives. Ends with the feed.

        Raises:
            StoreError: what was missed cannot be read.
        """
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and so has the subscriber
                loop.call_soon_threadsafe(news.set)

        subscriber = self._feed.subscribe(self._subscription_filter, notify)
        renewed_s = sent_s = loop.time()
        try:
            while True:
                news.clear()
                items = subscriber.take()
                if items is None:
                    return
                async for batch in self._batches_of(items):
                    yield batch
                    sent_s = loop.time()
                if loop.time() >= renewed_s + RENEW_S:
                    if not await self._is_renewed(subscriber):
                        return
                    renewed_s = loop.time()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(min(renewed_s + RENEW_S, sent_s + KEEP_ALIVE_S)):
                        await news.wait()
                if loop.time() >= sent_s + KEEP_ALIVE_S:
                    yield []
                    sent_s = loop.time()
        finally:
            self._feed.drop(subscriber)

    async def _is_renewed(self, subscriber: Subscriber) -> bool:
        if self._renew is None:
            return True
        selects = await self._renew()
        if selects is None:
            return False
        if selects is not self._subscription_filter.selects:
            self._subscription_filter = replace(self._subscription_filter, selects=selects)
            self._feed.change(subscriber, self._subscription_filter)
        return True

    async def _batches_of(self, items: Sequence[Item]) -> AsyncIterator[list[Sent]]:
        events: list[FeedEvent] = []
        for item in items:
            if isinstance(item, SubscribedStreams):
                if batch := self._batch(events):
                    yield batch
                events = []
                async for batch in self._resubscribed(item):
                    yield batch
            else:
                events.append(item)
        batch = self._batch(events)
        for place in self._places.values():
            # Nothing is stored of it: all that comes will be new.
            place.order = place.order or _NOTHING
        if batch:
            yield batch

    def _batch(self, events: Sequence[FeedEvent]) -> list[Sent]:
        """Return those events that are news for the subscriber, and note that it has them."""
        batch: list[Sent] = []
        has_moved = False
        for event in events:
            moves = event.kind in (EventKind.POINT, EventKind.ALERT)
            if moves and not self._advance(event):
                continue
            has_moved |= moves
            shows_id = moves and len(self._places) <= _FEW_STREAMS
            batch.append(Sent(event.kind, event.data, self._id() if shows_id else ""))
        if has_moved and not batch[-1].id:
            batch[-1] = batch[-1]._replace(id=self._id())
        return batch

    def _advance(self, event: FeedEvent) -> bool:
        if event.kind is EventKind.ALERT:
            is_new = self._alert is None or event.order[0] > self._alert
            self._alert = event.order[0] if is_new else self._alert
            return is_new
        place = self._places.get(event.stream_id)
        if place is None or (place.order is not None and event.order <= place.order):
            return False
        place.order = event.order
        return True

    def _id(self) -> str:
        places = {place.key: place.next for place in self._places.values() if place.order is not None}
        now_us = int(self._clock.now_s() * 1_000_000)
        return write_cursor(Cursor(tier_s=self._subscription_filter.tier_s, since_us=now_us, alert=self._alert or 0, next=places))

    async def _resubscribed(self, subscribed: SubscribedStreams) -> AsyncIterator[list[Sent]]:
        """Tell what has joined and gone, and what was missed of it."""
        removed = [Sent("removed", msgspec.json.encode({"stream": name})) for name in self._gone(subscribed)]
        head = [] if self._is_greeted else [self._hello(subscribed)]
        if head or removed:
            yield head + removed
        self._is_greeted = True
        places = {stream_id: self._place(spec) for stream_id, spec in sorted(subscribed.streams.items())}
        missed = [
            place
            for stream_id, place in places.items()
            if place.order is not None and (subscribed.behind or place is not self._places.get(stream_id))
        ]
        self._places = places
        for place in missed:
            async for batch in self._missed_points(place):
                yield batch
        async for batch in self._missed_alerts(subscribed):
            yield batch

    def _gone(self, subscribed: SubscribedStreams) -> list[str]:
        if not self._is_greeted:
            return sorted(self._named - subscribed.streams.keys()) if self._cursor else []
        return sorted(
            stream_id
            for stream_id, place in self._places.items()
            if stream_id not in subscribed.streams or key_of(subscribed.streams[stream_id]) != place.key
        )

    def _hello(self, subscribed: SubscribedStreams) -> Sent:
        answer = {
            "time": iso(to_datetime(int(self._clock.now_s() * 1_000_000))),
            "streams": sorted(subscribed.streams),
            "resolution_s": self._subscription_filter.tier_s,
            "resumed": self._cursor is not None,
        }
        return Sent("hello", msgspec.json.encode(answer))

    def _place(self, spec: StreamSpec) -> _Place:
        key, known = key_of(spec), self._places.get(spec.stream_id)
        if known is not None and known.key == key:
            known.spec = spec
            return known
        if self._cursor is not None and key in self._cursor.next:
            return _Place(spec, key, (self._cursor.next[key] - 1, True, 0))
        return _Place(spec, key, _NOTHING if spec.created_at_us >= self._since_us else None)

    async def _missed_points(self, place: _Place) -> AsyncIterator[list[Sent]]:
        start: int | None = place.next
        while start is not None:
            read = partial(_stored_points, self._feed.store, place.spec, self._subscription_filter.tier_s, start)
            events, start = await self._in_thread(read)
            if batch := self._batch(events):
                yield batch

    async def _missed_alerts(self, subscribed: SubscribedStreams) -> AsyncIterator[list[Sent]]:
        after = self._alert
        while after is not None and after < subscribed.alert:
            records = await self._in_thread(partial(self._feed.store.records, ALERTS_LOG, after, _CHUNK))
            found = [event for number, value in records if (event := alert_event(number, value)) is not None]
            if batch := self._batch([event for event in found if event.stream_id in subscribed.streams]):
                yield batch
            after = records[-1][0] if records else None
        self._alert = max(self._alert or 0, subscribed.alert)

    async def _in_thread(self, ask: Callable[[], _Answer]) -> _Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._feed.readers, ask)
        except RuntimeError:
            raise StoreUnavailableError("the service is stopping") from None


def _stored_points(store: Store, spec: StreamSpec, tier_s: int, start: int) -> tuple[list[FeedEvent], int | None]:
    """Return some stored points from `start` on, and where to go on; None where there are no more. Blocks on the store."""
    found = store.bounds(spec.stream_id, tier_s)
    if found is None or start > found[1]:
        return [], None
    first, last = found
    start = max(start, first)
    stop = min(start + _CHUNK, last + 1)
    bucket_values = store.read(spec.stream_id, "", tier_s, start, stop)
    labels = read_models(store, spec.stream_id, start * tier_s, stop * tier_s)
    events = []
    for index, value in bucket_values:
        bucket = unpack(value)
        closed = msgspec.structs.replace(bucket, final=bucket.final or index < last)
        events.append(point_event(spec, tier_s, index, closed, labels))
    return events, stop if stop <= last else None
