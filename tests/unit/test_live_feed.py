"""The live feed: what subscribers are told, in which order, within which bounds, and what it asks of the store."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from moodline.services.live.feed import QUEUE_ITEMS, Item, LiveFeed, SubscribedStreams, Subscriber, SubscriptionFilter
from moodline.services.live.stream import EventKind, FeedEvent
from moodline.shared.errors import StoreUnavailableError
from moodline.shared.store import BucketValue, Store
from moodline.shared.streams import StreamState
from moodline.shared.timeline.bucket import pack
from moodline.shared.timeline.state import ActiveTrack, SavedState, TrackerState, save_state
from tests.support.api import NOW_US, ApiWorld, nobody, smiling
from tests.support.servers import wait_until
from tests.support.stores import Writer

EVERYTHING = SubscriptionFilter(lambda spec: True)


class CountingStore:
    """Passes on to a real store; counts calls, and fails where told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()
        self.failing: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        self.calls[name] += 1
        if name in self.failing:
            raise StoreUnavailableError("away")
        return getattr(self._store, name)  # type: ignore[no-any-return]


class Ear:
    """A subscriber that keeps all it takes."""

    def __init__(self, feed: LiveFeed, subscription_filter: SubscriptionFilter = EVERYTHING) -> None:
        self.news = threading.Event()
        self.items: list[Item] = []
        self.ended = False
        self.subscriber: Subscriber = feed.subscribe(subscription_filter, self.news.set)

    def take(self) -> None:
        items = self.subscriber.take()
        self.ended |= items is None
        self.items += items or []

    def events(self, kind: EventKind, stream_id: str | None = None) -> list[FeedEvent]:
        self.take()
        found = [item for item in self.items if isinstance(item, FeedEvent) and item.kind is kind]
        return [event for event in found if stream_id in (None, event.stream_id)]

    def subscribed(self) -> list[SubscribedStreams]:
        self.take()
        return [item for item in self.items if isinstance(item, SubscribedStreams)]

    def wait(self, count: int, kind: EventKind = EventKind.POINT, stream_id: str | None = None) -> list[FeedEvent]:
        wait_until(lambda: len(self.events(kind, stream_id)) >= count, what=f"{count} x {kind}")
        return self.events(kind, stream_id)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        yield world


@pytest.fixture
def store(world: ApiWorld) -> CountingStore:
    return CountingStore(world.store)


@pytest.fixture
def feed(world: ApiWorld, store: CountingStore) -> Iterator[LiveFeed]:
    feed = LiveFeed(store, world.clock, poll_s=0.02)  # type: ignore[arg-type]  # it has all that a store has
    yield feed
    feed.close()


def index(offset: int) -> int:
    return NOW_US // 1_000_000 + offset


def orders(events: Sequence[FeedEvent]) -> list[tuple[int, bool, int]]:
    return [event.order for event in events]


def test_scope_state_and_newest_point_come_first(world: ApiWorld, feed: LiveFeed) -> None:
    world.add("lobby")
    world.play("lobby", [smiling(), smiling(), smiling(final=False)], final=False)
    ear = Ear(feed)
    (point,) = ear.wait(1)
    assert isinstance(ear.items[0], SubscribedStreams)
    assert ear.items[0].streams.keys() == {"lobby"}
    assert [item.kind for item in ear.items[1:] if isinstance(item, FeedEvent)] == [EventKind.STATE, EventKind.POINT]
    assert point.order == (index(2), False, 5)
    assert json.loads(point.data)["point"] == world.get("/streams/lobby/timeline", resolution="1s").json()["points"][2]


def test_every_point_comes_once_it_is_final_and_equals_the_timeline(world: ApiWorld, feed: LiveFeed) -> None:
    world.add("lobby")
    ear = Ear(feed)
    ear.wait(1, EventKind.STATE)
    seconds = [smiling(), nobody(), None, smiling(share=0.3)]
    for length in (2, 4):
        world.clock.now += 1
        world.play("lobby", seconds[:length], final=False)
        wait_until(lambda length=length: any(order[0] == index(length - 1) for order in orders(ear.events(EventKind.POINT))))  # type: ignore[misc]
    world.play("lobby", seconds)
    wait_until(lambda: orders(ear.events(EventKind.POINT))[-1] == (index(3), True, 5))
    final = [event for event in ear.events(EventKind.POINT) if event.order[1]]
    stored = world.get("/streams/lobby/timeline", resolution="1s").json()["points"]
    assert [json.loads(event.data)["point"] for event in final] == [point for point in stored if point["sampled"]]
    assert orders(ear.events(EventKind.POINT)) == sorted(orders(ear.events(EventKind.POINT)))


def test_a_listener_more_costs_the_store_nothing(world: ApiWorld, feed: LiveFeed, store: CountingStore) -> None:
    for number in range(3):
        world.add(f"s{number}")
        world.play(f"s{number}", [smiling()], final=False)
    ears = [Ear(feed) for _ in range(20)]
    for ear in ears:
        ear.wait(3)
    store.calls.clear()
    wait_until(lambda: store.calls["load"] >= 20)
    feed.close()
    calls = store.calls
    assert calls["load"] <= calls["changes"] <= calls["load"] + 1
    assert abs(calls["statuses"] - calls["load"]) <= 1
    assert calls["read"] == calls["list_streams"] == 0, "nothing has changed"


def test_a_slow_listener_is_dropped_to_the_store(world: ApiWorld, feed: LiveFeed) -> None:
    world.add("lobby")
    slow, quick = Ear(feed), Ear(feed)
    for ear in (slow, quick):
        ear.wait(1, EventKind.STATE)
    slow.items.clear()
    writer = Writer(world.store, "lobby", add=False)
    for block in range(0, QUEUE_ITEMS + 400, 200):
        seconds = range(index(block), index(block + 200))
        writer.write(*(BucketValue("", 1, at, pack(smiling())) for at in seconds), last_event_time_us=seconds.stop * 1_000_000)
        quick.wait(block + 200)
    slow.take()
    assert len(slow.items) <= QUEUE_ITEMS
    wait_until(lambda: any(subscribed.behind for subscribed in slow.subscribed()), what="being told that it is behind")
    assert not any(subscribed.behind for subscribed in quick.subscribed())


def test_a_store_that_is_away_loses_nothing(world: ApiWorld, feed: LiveFeed, store: CountingStore) -> None:
    world.add("a")
    world.add("b")
    ear = Ear(feed)
    ear.wait(2, EventKind.STATE)
    store.failing = {"read"}
    world.play("a", [smiling(), nobody()])
    world.play("b", [smiling(), nobody()])
    store.calls.clear()
    wait_until(lambda: store.calls["read"] >= 3)
    assert ear.events(EventKind.POINT) == []
    store.failing = set()
    points = ear.wait(4)
    assert orders(points) == [(index(0), True, 5), (index(1), True, 5)] * 2


def test_a_stream_that_cannot_be_read_does_not_silence_others(world: ApiWorld, feed: LiveFeed) -> None:
    world.add("broken")
    world.add("sound")
    ear = Ear(feed)
    ear.wait(2, EventKind.STATE)
    Writer(world.store, "broken", add=False).write(BucketValue("", 1, index(0), b"\xff"), last_event_time_us=NOW_US)
    world.play("sound", [smiling()])
    assert len(ear.wait(1, stream_id="sound")) == 1
    assert ear.events(EventKind.POINT, "broken") == []


def test_states_come_at_once_and_progress_once_a_second(world: ApiWorld, feed: LiveFeed) -> None:
    world.add("lobby")
    ear = Ear(feed)
    ear.wait(1, EventKind.STATE)
    world.set_state("lobby", state=StreamState.PLAYING)
    ear.wait(2, EventKind.STATE)
    world.play("lobby", [smiling()], final=False)
    ear.wait(1)
    assert len(ear.events(EventKind.STATE)) == 2, "progress alone waits"
    world.clock.now += 1
    told = [json.loads(event.data) for event in ear.wait(3, EventKind.STATE)]
    assert [state["status"]["state"] for state in told] == ["pending", "playing", "playing"]
    assert told[2]["progress"]["frames"] == 5
    assert told[2] == world.get("/streams/lobby").json()


def test_streams_join_leave_and_are_replaced(world: ApiWorld, feed: LiveFeed) -> None:
    world.add("a", labels={"site": "berlin"})
    world.add("b", labels={"site": "paris"})
    ear = Ear(feed, SubscriptionFilter(lambda spec: spec.labels.get("site") == "berlin"))
    ear.wait(1, EventKind.STATE)
    world.http.patch("/api/v1/streams/b", json={"labels": {"site": "berlin"}})
    wait_until(lambda: ear.subscribed()[-1].streams.keys() == {"a", "b"})
    world.http.patch("/api/v1/streams/a", json={"labels": {"site": "rome"}})
    wait_until(lambda: ear.subscribed()[-1].streams.keys() == {"b"})
    world.http.delete("/api/v1/streams/b")
    world.clock.now += 1
    world.add("b", labels={"site": "berlin"})
    wait_until(lambda: [spec.created_at_us for spec in ear.subscribed()[-1].streams.values()] == [NOW_US + 1_000_000])
    assert [json.loads(event.data)["id"] for event in ear.wait(3, EventKind.STATE)][-1] == "b"
    assert not [event for event in ear.items if isinstance(event, FeedEvent) and event.stream_id not in "ab"]


def test_faces_come_only_to_those_who_want_them(world: ApiWorld, feed: LiveFeed) -> None:
    world.add("lobby")
    plain, curious = Ear(feed), Ear(feed, SubscriptionFilter(lambda spec: True, faces=True))
    plain.wait(1, EventKind.STATE)
    track = ActiveTrack(3, (0, 16_384, 32_768, 65_536), NOW_US, (0, 0, 0, 3 << 16, 0, 0, 1 << 16))
    state = save_state(SavedState(TrackerState(4, NOW_US, [track])))
    writer = Writer(world.store, "lobby", add=False)
    writer.write(last_event_time_us=NOW_US, state=state)
    (event,) = curious.wait(1, EventKind.FACES)
    answer = json.loads(event.data)
    assert answer.pop("faces") == [
        {
            "track": 3,
            "box": [0.0, 0.25, 0.5, 1.0],
            "last": "2026-05-01T12:00:00Z",
            "dominant": "happy",
            "smoothed": dict.fromkeys(("angry", "disgust", "fear", "sad", "surprise"), 0.0) | {"happy": 0.75, "neutral": 0.25},
        }
    ]
    assert answer == {"stream": "lobby", "time": "2026-05-01T12:00:00Z"}
    writer.write(last_event_time_us=NOW_US, state=save_state(SavedState(TrackerState(4, NOW_US))))
    assert json.loads(curious.wait(2, EventKind.FACES)[1].data)["faces"] == []
    assert plain.events(EventKind.FACES) == []


def test_alerts_come_from_the_log(world: ApiWorld, feed: LiveFeed) -> None:
    world.add("lobby")
    world.add("yard")
    world.store.append_record("alerts", b'{"stream":"lobby","rule":"old"}', 10)
    ear = Ear(feed, SubscriptionFilter(lambda spec: spec.stream_id == "lobby"))
    ear.wait(1, EventKind.STATE)
    for record in (b'{"stream":"yard"}', b"not JSON", b'{"stream":"lobby","rule":"new"}'):
        number = world.store.append_record("alerts", record, 10)
    (alert,) = ear.wait(1, EventKind.ALERT)
    assert (alert.data, alert.order[0]) == (b'{"stream":"lobby","rule":"new"}', number)


def test_the_thread_lives_as_long_as_somebody_listens(feed: LiveFeed) -> None:
    def is_running() -> bool:
        return any(thread.name == "live-feed" and thread.is_alive() for thread in threading.enumerate())

    assert not is_running()
    ear = Ear(feed)
    wait_until(is_running)
    feed.drop(ear.subscriber)
    wait_until(lambda: not is_running())
    again = Ear(feed)
    wait_until(is_running)
    feed.close()
    again.take()
    again.take()
    assert again.ended
    assert not is_running()
    late = Ear(feed)
    late.take()
    assert late.ended


def test_another_scope_for_a_listener(world: ApiWorld, feed: LiveFeed) -> None:
    world.add("a")
    world.add("b")
    ear = Ear(feed, SubscriptionFilter(lambda spec: spec.stream_id == "a"))
    ear.wait(1, EventKind.STATE)
    feed.change(ear.subscriber, SubscriptionFilter(lambda spec: spec.stream_id == "b"))
    wait_until(lambda: ear.subscribed()[-1].streams.keys() == {"b"})
