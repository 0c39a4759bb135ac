"""Live answers over HTTP: events as they come, positions to go on from, scopes, rights, and the end."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moodline.services.api.events import EventParameters, subscribe
from moodline.services.api.server import ApiServer
from moodline.services.auth.callers import LOCAL, Caller, Role
from moodline.services.live.cursor import Cursor, read_cursor, write_cursor
from moodline.services.live.subscription import Sent
from moodline.shared.clock import SystemClock
from moodline.shared.errors import QueryError, StreamNotFoundError
from moodline.shared.settings import ApiSettings
from tests.support.access import make_key
from tests.support.api import ApiWorld, nobody, smiling
from tests.support.listening import Heard, Listening, take

SECONDS = [smiling(), nobody(), smiling(share=0.3), None, smiling(), smiling(2), nobody(), smiling(share=0.6)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        yield world


@pytest.fixture
def server(world: ApiWorld) -> Iterator[ApiServer]:
    with ApiServer(world.app, "127.0.0.1", 0) as server:
        yield server


def points_of(world: ApiWorld, stream_id: str = "lobby") -> list[dict[str, Any]]:
    points = world.get(f"/streams/{stream_id}/timeline", resolution="1s").json()["points"]
    return [point for point in points if point["sampled"]]


def heard(world: ApiWorld, count: int, last_event_id: str | None = None, event: str = "point", **asked: Any) -> list[Sent]:
    """Listen in process until so many events of a kind have come."""

    async def listen() -> list[Sent]:
        return await take(subscribe(world.app.state.context, LOCAL, EventParameters(**asked), last_event_id), count, event)

    return asyncio.run(listen())


def points_in(events: list[Sent]) -> list[dict[str, Any]]:
    return [json.loads(sent.data)["point"] for sent in events if sent.event == "point"]


def last_id(events: list[Sent]) -> str:
    return [sent.id for sent in events if sent.id][-1]


def test_events_as_a_browser_gets_them(world: ApiWorld, server: ApiServer) -> None:
    world.add("lobby")
    with Listening(server.url) as ear:
        hello, state = ear.wait(1, "hello")[0], ear.wait(1, "state")[0]
        assert hello.data == {"time": "2026-05-01T12:00:00Z", "streams": ["lobby"], "resolution_s": 1, "resumed": False}
        assert state.data == world.get("/streams/lobby").json()
        world.play("lobby", SECONDS)
        points = ear.wait(7)
        assert [point.data["point"] for point in points] == points_of(world)
        assert all(point.id and point.data["stream"] == "lobby" and point.data["resolution_s"] == 1 for point in points)
        world.http.delete("/api/v1/streams/lobby")
        assert ear.wait(1, "removed") == [Heard("removed", "", {"stream": "lobby"})]
    assert ear.status == 200


def test_coarser_points(world: ApiWorld, server: ApiServer) -> None:
    world.add("lobby")
    world.play("lobby", SECONDS)
    with Listening(server.url, resolution="10s") as ear:
        (point,) = ear.wait(1)
    assert point.data["point"] == world.get("/streams/lobby/timeline", resolution="10s").json()["points"][0]


@pytest.mark.parametrize("in_query", [True, False])
def test_resumes_without_loss_and_without_repetition(world: ApiWorld, server: ApiServer, in_query: bool) -> None:
    world.add("lobby")
    world.add("yard")
    with Listening(server.url) as ear:
        ear.wait(1, "hello")
        # As the aggregator does: what more can be added to is stored as not final.
        world.play("lobby", [*SECONDS[:2], smiling(share=0.3, final=False)], final=False)
        position = ear.wait(3)[-1].id
    world.play("lobby", SECONDS)
    world.play("yard", SECONDS)
    given: dict[str, Any] = {"last_event_id": position} if in_query else {"headers": {"Last-Event-ID": position}}
    with Listening(server.url, **given) as ear:
        assert ear.wait(1, "hello")[0].data["resumed"] is True
        missed = [point.data["point"] for point in ear.wait(5, stream="lobby")]
        assert missed == points_of(world)[2:], "the one that was not final comes again, none before it"
        assert [point.data["point"] for point in ear.wait(7, stream="yard")] == points_of(world, "yard")


def test_resumes_from_every_point(world: ApiWorld) -> None:
    world.add("lobby")
    world.play("lobby", [smiling(final=False)], final=False)
    first = heard(world, 1)
    world.play("lobby", SECONDS)
    everything = points_of(world)
    rest = heard(world, 7, last_id(first))
    assert points_in(rest) == everything
    for sent, at in zip([sent for sent in rest if sent.event == "point"], range(6), strict=False):
        assert points_in(heard(world, 6 - at, sent.id)) == everything[at + 1 :]


def test_many_missed_points_come_in_order(world: ApiWorld) -> None:
    world.add("lobby")
    world.play("lobby", [smiling(final=False)], final=False)
    position = last_id(heard(world, 1))
    seconds = [smiling(1 + at % 3) if at % 7 else None for at in range(1500)]
    seconds[0] = smiling()
    world.play("lobby", seconds)
    stored = [second for second in seconds if second is not None]
    points = points_in(heard(world, len(stored), position))
    assert [point["faces"] for point in points] == [second.faces for second in stored]
    assert points == sorted(points, key=lambda point: str(point["start"]))


def test_streams_that_were_registered_meanwhile_come_whole(world: ApiWorld) -> None:
    world.add("lobby")
    world.play("lobby", SECONDS)
    position = last_id(heard(world, 1))
    world.clock.now += 3600
    world.add("later")
    world.play("later", SECONDS)
    assert points_in(heard(world, 7, position)) == points_of(world, "later")
    # A listener without a position is told the newest point alone.
    world.clock.now += 3600
    fresh = heard(world, 2)
    assert points_in(fresh) == [points_of(world, name)[-1] for name in ("later", "lobby")]


def test_a_stream_registered_anew_is_another_one(world: ApiWorld) -> None:
    world.add("lobby")
    world.play("lobby", SECONDS)
    position = last_id(heard(world, 1))
    world.http.delete("/api/v1/streams/lobby")
    world.clock.now += 60
    world.add("lobby")
    world.play("lobby", SECONDS[:2])
    assert points_in(heard(world, 2, position)) == points_of(world)


def test_a_named_stream_that_is_gone_on_resuming_is_told(world: ApiWorld) -> None:
    world.add("lobby")
    world.play("lobby", SECONDS)
    position = last_id(heard(world, 1, stream=["lobby"]))
    world.http.delete("/api/v1/streams/lobby")
    assert heard(world, 1, position, "removed", stream=["lobby"])[-1] == Sent("removed", b'{"stream":"lobby"}')
    with pytest.raises(StreamNotFoundError):
        heard(world, 1, stream=["lobby"])


def test_missed_alerts_come_on_resuming(world: ApiWorld) -> None:
    world.add("lobby")
    world.play("lobby", SECONDS)
    position = last_id(heard(world, 1))
    for number in range(3):
        world.store.append_record("alerts", b'{"stream":"lobby","number":%d}' % number, 10)
    world.store.append_record("alerts", b'{"stream":"hidden"}', 10)
    events = heard(world, 3, position, "alert")
    assert [json.loads(sent.data)["number"] for sent in events if sent.event == "alert"] == [0, 1, 2]
    rest = heard(world, 1, [sent.id for sent in events if sent.event == "alert"][1], "alert")
    assert [json.loads(sent.data)["number"] for sent in rest if sent.event == "alert"] == [2]


def test_labels_and_names_narrow_the_scope(world: ApiWorld, server: ApiServer) -> None:
    for name, site in (("a", "berlin"), ("b", "paris"), ("c", "berlin")):
        world.add(name, labels={"site": site})
    with Listening(server.url, label="site=berlin") as ear, Listening(server.url, stream=["a", "b"]) as named:
        assert ear.wait(1, "hello")[0].data["streams"] == ["a", "c"]
        assert named.wait(1, "hello")[0].data["streams"] == ["a", "b"]
        world.http.patch("/api/v1/streams/b", json={"labels": {"site": "berlin"}})
        assert ear.wait(1, "state", id="b")
        world.http.patch("/api/v1/streams/a", json={"labels": {}})
        assert ear.wait(1, "removed", stream="a")
        assert named.of("removed") == []


@pytest.mark.parametrize(
    ("asked", "status", "code", "field"),
    [
        ({"stream": "nobody"}, 404, "stream_not_found", None),
        ({"resolution": "7s"}, 422, "invalid_query", "resolution"),
        ({"resolution": "soon"}, 422, "invalid_query", "resolution"),
        ({"last_event_id": "not-mine"}, 422, "invalid_query", "Last-Event-ID"),
        ({"last_event_id": "A" * 13_000}, 422, "invalid_query", "Last-Event-ID"),
        ({"steam": "lobby"}, 422, "invalid_request", "steam"),
        ({"faces": "perhaps"}, 422, "invalid_request", "faces"),
    ],
)
def test_what_cannot_be_heard(world: ApiWorld, asked: dict[str, str], status: int, code: str, field: str | None) -> None:
    answer = world.get("/events", **asked)
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["field"]) == (status, code, field)


def test_the_answer_ends_with_the_server(world: ApiWorld) -> None:
    world.add("lobby")
    with ApiServer(world.app, "127.0.0.1", 0) as server, Listening(server.url) as ear:
        ear.wait(1, "hello")
        server.stop()
        ear.wait_for_end()
    assert ear.status == 200


def test_a_caller_hears_its_own_streams_alone(world: ApiWorld) -> None:
    world.add("mine", labels={"site": "berlin"})
    world.add("theirs", labels={"site": "paris"})
    for name in ("mine", "theirs"):
        world.play(name, SECONDS)
    caller = Caller("viewer", Role.VIEWER, labels=("site=berlin",))

    async def listen() -> list[Sent]:
        return await take(subscribe(world.app.state.context, caller, EventParameters()), 1)

    events = asyncio.run(listen())
    assert b"theirs" not in b"".join(sent.data for sent in events)
    with pytest.raises(StreamNotFoundError, match="no stream 'theirs' is registered"):
        subscribe(world.app.state.context, caller, EventParameters(stream=["theirs"]))


def test_the_answer_ends_when_the_key_is_removed(tmp_path: Path) -> None:
    with ApiWorld(tmp_path, api=ApiSettings(access="keys", rate_per_s=0)) as world:
        key, other = make_key(world, "one", Role.VIEWER), make_key(world, "two", Role.VIEWER)
        with ApiServer(world.app, "127.0.0.1", 0) as server:
            with Listening(server.url) as stranger:
                stranger.wait_for_end()
            assert stranger.status == 401
            mine, others = {"authorization": f"Bearer {key}"}, {"authorization": f"Bearer {other}"}
            with Listening(server.url, mine) as ear, Listening(server.url, others) as stays:
                ear.wait(1, "hello")
                stays.wait(1, "hello")
                world.app.state.context.authenticator.keyring.remove("one")
                world.clock.now += 60
                ear.wait_for_end()
                assert not stays.has_ended


def test_positions_are_short_and_checked() -> None:
    now_us = int(SystemClock().now_s() * 1_000_000)
    places = {number.to_bytes(5, "big"): 1_777_000_000 - number % 7 for number in range(500)}
    cursor = Cursor(tier_s=1, since_us=now_us, alert=3, next=places)
    text = write_cursor(cursor)
    assert read_cursor(text) == cursor
    assert len(text) < 6_000, "fits into a header with much to spare"
    for damaged in (text[:-3], text[1:], text.swapcase(), "é", "====", ""):
        with pytest.raises(QueryError):
            read_cursor(damaged)
