"""The Python client: live answers, and bringing frames and files."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from moodline import (
    AccessError,
    AlertEvent,
    BadAnswerError,
    Client,
    ClientError,
    FacesEvent,
    Hello,
    InvalidRequestError,
    InvalidStreamError,
    NotFoundError,
    PointEvent,
    RemovedEvent,
    StateEvent,
    UnreachableError,
)
from moodline.client._events import messages_of
from moodline.services.api.context import Intake
from moodline.services.api.server import ApiServer
from moodline.services.auth.callers import Role
from moodline.shared.errors import SourceError
from moodline.shared.probe import Probed
from moodline.shared.push import Pushed
from moodline.shared.settings import UploadsSettings
from moodline.shared.streams import FailureReason, StreamSpec
from tests.support.access import make_key
from tests.support.api import NOW_US, ApiWorld, AsgiTransport, smiling
from tests.support.clocks import StubClock

RETRY = b"retry: 2000\n\n"
HELLO = b'event: hello\ndata: {"time":"2026-05-01T12:00:00Z","streams":["lobby"],"resolution_s":1,"resumed":false}\n\n'


def removed(stream_id: str, number: int) -> bytes:
    return b'event: removed\nid: %d\ndata: {"stream":"%s"}\n\n' % (number, stream_id.encode())


class Broken(httpx.SyncByteStream):
    """A body that ends in a lost connection."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts
        raise httpx.ReadError("reset")


def stream_of(*parts: bytes, broken: bool = False) -> httpx.Response:
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    return (
        httpx.Response(200, headers=headers, stream=Broken(*parts))
        if broken
        else httpx.Response(200, headers=headers, content=b"".join(parts))
    )


def refusal(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": "no", "field": None}})


def client_of(*answers: httpx.Response | Exception) -> tuple[Client, list[httpx.Request], StubClock]:
    asked: list[httpx.Request] = []
    left, clock = list(answers), StubClock()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        given = left.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    return Client("http://localhost", clock=clock, transport=httpx.MockTransport(answer)), asked, clock


# The wire


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_messages_in_pieces(size: int) -> None:
    text = (
        b": keep-alive\r\n\r\nretry: 2000\n\nevent: point\nid: a\ndata: one\ndata:two\n\n"
        b"data: \xe2\x80\xa8 is no line's end\n\nid: b\n\nevent: point\ndata: cut off"
    )
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    found = [(message.event, message.data.decode(), message.id, message.retry_ms) for message in messages_of(pieces)]
    assert found == [
        ("", "", None, 2000),
        ("point", "one\ntwo", "a", None),
        ("message", "\u2028 is no line's end", None, None),
    ]


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    with pytest.raises(UnreachableError, match="16 MiB"):
        list(messages_of(b"x" * 2**20 for _ in range(100)))


# Listening


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        yield world


def test_what_happens_is_heard_and_gone_on_with(world: ApiWorld) -> None:
    world.add("lobby", labels={"site": "berlin"})
    world.add("yard")
    world.play("lobby", [smiling()], final=False)
    with ApiServer(world.app, "127.0.0.1", 0) as server, Client(server.url) as client:
        with client.events(labels="site=berlin") as events:
            hello = next(events)
            assert isinstance(hello, Hello)
            assert (hello.streams, hello.resumed) == (["lobby"], False)
            first = next(event for event in events if isinstance(event, PointEvent))
            assert (first.stream, first.point.dominant) == ("lobby", "happy")
            position = events.last_event_id
        assert position
        world.play("lobby", [smiling(), smiling(), smiling(share=0.2)])
        with client.events(labels="site=berlin", last_event_id=position) as events:
            again = next(events)
            assert isinstance(again, Hello)
            assert again.resumed
            points: list[Any] = []
            while len(points) < 2:
                event = next(events)
                points += [event] if isinstance(event, PointEvent) and event.point.final else []
                if points and points[-1].point.dominant == "neutral":
                    break
            assert points[-1].point.dominant == "neutral"
            client.delete_stream("lobby")
            gone = next(event for event in events if isinstance(event, RemovedEvent))
            assert gone.stream == "lobby"


def test_what_cannot_be_heard(world: ApiWorld) -> None:
    with Client("http://localhost", transport=AsgiTransport(world.app)) as client:
        with pytest.raises(NotFoundError):
            next(client.events(streams="absent"))
        with pytest.raises(InvalidRequestError):
            next(client.events(resolution="3s"))


def test_a_lost_connection_is_made_again_where_it_was() -> None:
    client, asked, clock = client_of(
        stream_of(RETRY, HELLO, removed("a", 1), b'event: removed\nid: 2\ndata: {"stre', broken=True),
        httpx.ConnectError("refused"),
        refusal(503, "store_unavailable"),
        stream_of(RETRY, HELLO, removed("b", 2)),
        stream_of(RETRY, HELLO, removed("c", 3)),
    )
    heard, times_s = [], []
    for event in client.events():
        if isinstance(event, RemovedEvent):
            heard.append(event.stream)
            times_s.append(clock.now)
        if len(heard) == 3:
            break
    assert heard == ["a", "b", "c"]
    assert [request.headers.get("last-event-id") for request in asked] == [None, "1", "1", "1", "2"]
    assert times_s[1] - times_s[0] == 2 + 4 + 8, "later and later"
    assert times_s[2] - times_s[1] == 2, "and soon again after a good connection"


def test_patience_has_an_end() -> None:
    client, asked, _ = client_of(stream_of(RETRY, HELLO), *[httpx.ConnectError("refused")] * 50)
    events = client.events(patience_s=60)
    assert isinstance(next(events), Hello)
    with pytest.raises(UnreachableError):
        next(events)
    assert len(asked) == 6


def test_a_service_that_is_not_there_at_first_is_said_at_once() -> None:
    client, asked, _ = client_of(httpx.ConnectError("refused"))
    with pytest.raises(UnreachableError):
        next(client.events())
    assert len(asked) == 1


def test_a_key_that_lost_its_right_ends_listening() -> None:
    client, _, _ = client_of(stream_of(HELLO), refusal(401, "unauthorized"))
    events = client.events()
    next(events)
    with pytest.raises(AccessError):
        next(events)


@pytest.mark.parametrize(
    "answer", [stream_of(b"event: point\ndata: {}\n\n"), httpx.Response(200, json={}), stream_of(b"event: state\ndata: \xff\n\n")]
)
def test_somebody_else_there(answer: httpx.Response) -> None:
    client, _, _ = client_of(answer)
    with pytest.raises(BadAnswerError):
        next(client.events())


def test_each_event_has_its_type(world: ApiWorld) -> None:
    world.add("lobby")
    stream = world.get("/streams/lobby").text
    seven = '{"angry":0,"disgust":0,"fear":0,"happy":1,"sad":0,"surprise":0,"neutral":0}'
    face = f'{{"track":1,"box":[0.1,0.2,0.3,0.4],"last":"2026-05-01T12:00:00Z","dominant":"happy","smoothed":{seven}}}'
    alert = (
        '{"id":"x","rule":"r","stream":"lobby","kind":"firing","reason":"condition","at":"2026-05-01T12:00:00Z",'
        '"since":"2026-05-01T12:00:00Z","value":0.5,"baseline":null,"faces":9,"notify":true,"written":null}'
    )
    texts = {
        "state": stream,
        "faces": f'{{"stream":"lobby","time":null,"faces":[{face}]}}',
        "alert": alert,
        "surprise-of-a-newer-version": "{}",
        "removed": '{"stream":"lobby"}',
    }
    client, _, _ = client_of(stream_of(*(f"event: {name}\ndata: {text}\n\n".encode() for name, text in texts.items())))
    events = client.events()
    state, faces, told, gone = (next(events) for _ in range(4))
    assert isinstance(state, StateEvent)
    assert state.stream.id == "lobby"
    assert isinstance(faces, FacesEvent)
    assert faces.faces[0].box == (0.1, 0.2, 0.3, 0.4)
    assert isinstance(told, AlertEvent)
    assert (told.alert.rule, told.alert.value) == ("r", 0.5)
    assert isinstance(gone, RemovedEvent)


# Frames


class RecordingPushes:
    def __init__(self) -> None:
        self.got: list[tuple[str, bytes, float | None]] = []

    def push(self, spec: StreamSpec, jpeg: bytes, captured_at_s: float | None = None) -> Pushed:
        self.got.append((spec.stream_id, jpeg, captured_at_s))
        return Pushed(sampled=True, replaced=False, event_time_us=NOW_US, wait_ms=200)


def test_frames_are_brought(tmp_path: Path) -> None:
    pushes = RecordingPushes()
    with (
        ApiWorld(tmp_path, intake=Intake(pushes)) as world,
        Client("http://localhost", clock=world.clock, transport=AsgiTransport(world.app)) as client,
    ):
        client.add_stream("door", "push://")
        answer = client.push_frame("door", b"\xff\xd8 a", captured_at=datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC))
        assert (answer.sampled, answer.wait_ms, answer.time) == (True, 200, datetime(2026, 5, 1, 12, tzinfo=UTC))

        def nine_per_second() -> Iterator[bytes]:
            for number in range(6):
                yield b"\xff\xd8 %d" % number
                world.clock.now += 0.11

        totals = client.push_frames("door", nine_per_second())
    assert (totals.sent, totals.sampled, totals.spared, totals.lost) == (3, 3, 3, 0)
    sent = [b"a", b"0", b"2", b"4"]
    assert pushes.got == [("door", b"\xff\xd8 " + name, NOW_US / 1e6 + 0.25 if name == b"a" else None) for name in sent]


def test_frames_that_a_busy_service_does_not_take_are_lost() -> None:
    taken = {"sampled": True, "replaced": False, "time": "2026-05-01T12:00:00Z", "wait_ms": 0}
    client, asked, clock = client_of(refusal(429, "rate_limited"), httpx.Response(202, json=taken))

    def frames() -> Iterator[bytes]:
        yield b"1"
        yield b"2"
        clock.now += 1
        yield b"3"

    totals = client.push_frames("door", frames())
    assert (totals.sent, totals.spared, totals.lost) == (1, 1, 1)
    assert [request.content for request in asked] == [b"1", b"3"]


def test_frames_outlive_a_restart_of_the_service() -> None:
    taken = {"sampled": True, "replaced": False, "time": "2026-05-01T12:00:00Z", "wait_ms": 0}
    gone, back = httpx.ConnectError("refused"), httpx.Response(202, json=taken)
    client, asked, clock = client_of(back, gone, refusal(503, "bus_unavailable"), back, *[gone] * 61)

    def frames(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield b"x"
            clock.now += 1

    totals = client.push_frames("door", frames(4))
    assert (totals.sent, totals.lost) == (2, 2)
    with pytest.raises(UnreachableError):
        client.push_frames("door", frames(1))
    client, asked, clock = client_of(back, *[gone] * 100)
    with pytest.raises(UnreachableError):
        client.push_frames("door", frames(100))
    assert len(asked) == 62, "a minute's patience"


# Uploads


class StubProber:
    def __call__(self, path: Path) -> Probed:
        if not path.read_bytes().startswith(b"a film"):
            raise SourceError(FailureReason.NO_VIDEO, "there is no video in it")
        return Probed(codec="h264", width=640, height=360, source_fps="25", duration_us=4_000_000)


@pytest.fixture
def uploads(tmp_path: Path) -> Iterator[Client]:
    settings = {"uploads": UploadsSettings(keep_free_bytes=0, max_bytes=2_000_000)}
    with (
        ApiWorld(tmp_path, intake=Intake(prober=StubProber()), overrides=settings) as world,
        ApiServer(world.app, "127.0.0.1", 0) as server,
        Client(server.url) as client,
    ):
        yield client


def test_a_file_is_brought_and_registered(uploads: Client, tmp_path: Path) -> None:
    film = tmp_path / "my film.mp4"
    film.write_bytes(b"a film" * 100_000)
    told: list[tuple[int, int]] = []
    taken = uploads.upload(
        film,
        progress=lambda sent, total: told.append((sent, total)),
        stream_id="lobby",
        labels=["site=berlin"],
        recorded_at=datetime(2026, 5, 1, 12, tzinfo=UTC),
        sample_fps=2,
    )
    assert (taken.name, taken.bytes, taken.duration_s) == ("my film.mp4", 600_000, 4.0)
    assert taken.stream is not None
    assert uploads.get_stream("lobby").labels == {"site": "berlin"}
    assert (taken.stream.url, taken.stream.sample_fps) == (taken.url, "2")
    assert told == [(262_144, 600_000), (524_288, 600_000), (600_000, 600_000)]


def test_files_that_are_not_taken(uploads: Client, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="cannot be read: No such file"):
        uploads.upload(tmp_path / "absent.mp4")
    text = tmp_path / "notes.txt"
    text.write_text("no film")
    with pytest.raises(InvalidRequestError) as caught:
        uploads.upload(str(text))
    assert caught.value.code == "not_video"
    text.write_bytes(b"a film" * 1_000_000)
    with pytest.raises(InvalidRequestError) as caught:
        uploads.upload(text)
    assert caught.value.code == "upload_too_large", "also when it is said in the middle"


# Alerts and keys


def test_alert_rules(world: ApiWorld) -> None:
    world.add("hall")
    world.play("hall", [smiling()] * 60)
    with Client("http://localhost", transport=AsgiTransport(world.app)) as client:
        rule = client.add_rule("happy-hall", "share", stream="hall", emotion="happy", threshold=0.5, for_s=10, note="fine")
        assert (rule.threshold, rule.for_s, rule.webhook) == (0.5, 10, None)
        assert client.list_rules() == [client.get_rule("happy-hall")]
        changed = client.change_rule("happy-hall", revision=rule.revision, enabled=False)
        assert not changed.enabled
        tried = client.dry_run("happy-hall")
        assert tried.streams == ["hall"]
        assert [event.kind for event in tried.events] == ["firing"]
        fresh = {"id": "x", "kind": "share", "stream": "hall", "emotion": "sad", "threshold": 0.5}
        assert client.dry_run(fresh).events == []
        assert client.list_firing() == []
        assert list(client.list_alerts(rule="happy-hall", stream="hall")) == []
        assert list(client.list_deliveries()) == []
        client.remove_rule("happy-hall", revision=changed.revision)
        assert client.list_rules() == []


def test_the_secret_of_a_webhook_is_shown_once(world: ApiWorld) -> None:
    world.add("hall")
    with Client("http://localhost", transport=AsgiTransport(world.app)) as client:
        rule = client.add_rule("gone", "offline", stream="hall", webhook_url="https://example.org/hook/abc")
        assert rule.webhook_secret
        assert rule.webhook_secret not in repr(rule) + str(rule)
        assert client.get_rule("gone").webhook_secret is None
        renewed = client.change_rule("gone", new_secret=True)
        assert renewed.webhook_secret not in (None, rule.webhook_secret)


def test_keys(world: ApiWorld) -> None:
    world.add("lobby", labels={"site": "berlin"})
    world.add("yard")
    key = make_key(world, "boss", Role.ADMIN)
    world.clock.now += 5  # by then the service knows of it
    with Client("http://localhost", key, transport=AsgiTransport(world.app)) as boss:
        made = boss.add_key("front desk"[:5], "viewer", labels="site=berlin")
        assert made.key.startswith(made.prefix)
        assert made.key not in repr(made) + str(made)
        with Client("http://localhost", made.key, transport=AsgiTransport(world.app)) as desk:
            assert (desk.whoami().name, desk.whoami().labels) == ("front", ["site=berlin"])
            assert [stream.id for stream in desk.list_streams()] == ["lobby"]
            with pytest.raises(AccessError):
                desk.list_keys()
            assert {each.name for each in boss.list_keys()} == {"boss", "front"}
            boss.remove_key("front")
            with pytest.raises(AccessError):
                desk.whoami()
        changes = [change for change in boss.audit() if change.what.split()[0] in ("POST", "DELETE")]
    assert [(change.who, change.what) for change in changes][:2] == [("boss", "DELETE /keys/{name}"), ("boss", "POST /keys")]


def test_comparing(world: ApiWorld) -> None:
    for name, share in (("lobby", 0.8), ("yard", 0.2)):
        world.add(name, labels={"site": "berlin"})
        world.play(name, [smiling(share=share)])
    with Client("http://localhost", transport=AsgiTransport(world.app)) as client:
        both = client.compare(["lobby", "yard"])
        assert [(series.name, series.points[0].dominant) for series in both.series] == [("lobby", "happy"), ("yard", "neutral")]
        one = client.compare(group_by="site")
        assert [(series.name, series.streams, series.summary.faces) for series in one.series] == [
            ("berlin", ["lobby", "yard"], 10)
        ]


def test_a_client_is_shared_by_threads(world: ApiWorld) -> None:
    world.add("lobby")
    with ApiServer(world.app, "127.0.0.1", 0) as server, Client(server.url) as client:
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(client.get_stream("lobby").id)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == ["lobby"] * 8


def test_ids_of_frames_are_checked() -> None:
    client, asked, _ = client_of()
    with pytest.raises(InvalidStreamError):
        client.push_frame("../x", b"")
    assert asked == []
