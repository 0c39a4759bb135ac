"""The Python client on the real application."""

import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from moodline import (
    AccessError,
    ApiError,
    BadAnswerError,
    BusyError,
    Client,
    ClientError,
    ConflictError,
    InvalidRequestError,
    InvalidStreamError,
    MoodlineError,
    NoAnswerError,
    NotFoundError,
    NotInTimeError,
    ServiceError,
    SourceError,
    UnreachableError,
)
from moodline.services.api.server import ApiServer
from moodline.shared.streams import FailureReason, StreamState
from tests.support.api import NOW, ApiWorld, AsgiTransport, nobody, smiling
from tests.support.clocks import StubClock

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        yield world


@pytest.fixture
def client(world: ApiWorld) -> Iterator[Client]:
    with Client("http://localhost", clock=world.clock, transport=AsgiTransport(world.app)) as client:
        yield client


def client_of(*answers: httpx.Response | Exception, key: str | None = None) -> tuple[Client, list[httpx.Request], StubClock]:
    """Return a client of a service that gives these answers in turn, what was asked, and its clock."""
    asked: list[httpx.Request] = []
    left, clock = list(answers), StubClock()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        given = left.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    return Client("http://localhost", key, clock=clock, transport=httpx.MockTransport(answer)), asked, clock


def refusal(status: int, code: str, **headers: str) -> httpx.Response:
    error = {"code": code, "message": "no", "field": "url"}
    return httpx.Response(status, json={"error": error}, headers={name.replace("_", "-"): text for name, text in headers.items()})


# Streams


def test_over_a_socket(world: ApiWorld) -> None:
    with ApiServer(world.app, "127.0.0.1", 0) as server, Client(server.url) as client:
        stream = client.add_stream("lobby", "clip.mp4")
        assert stream == client.get_stream("lobby")


def test_a_stream_from_beginning_to_end(world: ApiWorld, client: Client) -> None:
    began = datetime(2026, 5, 1, 12, tzinfo=UTC)
    stream = client.add_stream("lobby", "clip.mp4", sample_fps=2.5, recorded_at=began, labels={"site": "berlin"})
    assert (stream.sample_fps, stream.recorded_at, stream.labels) == ("2.5", began, {"site": "berlin"})
    assert client.pause_stream("lobby").paused
    assert not client.resume_stream("lobby").paused
    assert client.change_stream("lobby", labels={}).labels == {}
    client.delete_stream("lobby")
    assert list(client.list_streams()) == []


def test_nobodys_change_is_lost(client: Client) -> None:
    read = client.add_stream("lobby", "clip.mp4")
    changed = client.change_stream("lobby", revision=read.revision, labels={"site": "berlin"})
    with pytest.raises(ConflictError) as caught:
        client.change_stream("lobby", revision=read.revision, labels={"site": "paris"})
    assert caught.value.code == "revision_conflict"
    assert client.get_stream("lobby") == changed


def test_streams_come_page_by_page(world: ApiWorld) -> None:
    for number in range(3):
        world.add(f"cam-{number}")
    asked = []

    class Small(AsgiTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(request.url)
            return super().handle_request(httpx.Request("GET", request.url.copy_set_param("limit", "2")))

    with Client("http://localhost", transport=Small(world.app)) as small:
        streams = small.list_streams()
        assert next(streams).id == "cam-0"
        assert len(asked) == 1, "the next page is asked for when it is needed"
        assert [stream.id for stream in streams] == ["cam-1", "cam-2"]
    assert len(asked) == 2


def test_streams_are_chosen(world: ApiWorld, client: Client) -> None:
    world.add("lobby", labels={"site": "berlin", "floor": "2"})
    world.add("yard", labels={"site": "berlin"}, paused=True)

    def chosen(**asked: Any) -> list[str]:
        return [stream.id for stream in client.list_streams(**asked)]

    assert chosen(labels="site=berlin") == ["lobby", "yard"]
    assert chosen(labels=["site=berlin", "floor"]) == ["lobby"]
    assert chosen(state="paused") == ["yard"]


@pytest.mark.parametrize("stream_id", ["..", "a/b", "", "a?b"])
def test_only_ids_that_there_can_be_are_asked_for(client: Client, stream_id: str) -> None:
    with pytest.raises(InvalidStreamError):
        client.delete_stream(stream_id)


def test_waiting_for_the_end(world: ApiWorld, client: Client) -> None:
    world.add("lobby")
    seen = []

    def tell(stream: Any) -> None:
        seen.append(stream.status.state)
        if len(seen) == 3:
            world.play("lobby", [smiling()])

    assert client.wait_until_ended("lobby", tell=tell).progress.complete
    assert seen == ["pending", "pending", "pending", "ended"]


def test_waiting_has_an_end(world: ApiWorld, client: Client) -> None:
    world.add("lobby")
    with pytest.raises(NotInTimeError, match="lobby was still pending after 10 s"):
        client.wait_until_ended("lobby", timeout_s=10)
    assert world.clock.now - 10 == pytest.approx(1_777_636_800.0)
    world.set_state("lobby", state=StreamState.FAILED, reason=FailureReason.CODEC, detail="no decoder")
    with pytest.raises(SourceError, match="lobby failed: codec: no decoder") as caught:
        client.wait_until_ended("lobby")
    assert caught.value.reason == "codec"


def test_waiting_for_what_never_comes(world: ApiWorld, client: Client) -> None:
    world.add("lobby")
    client.add_stream("yard", "rtsp://cam.example/live")
    with pytest.raises(ClientError, match="lobby is a file"):
        client.wait_until_live("lobby")
    with pytest.raises(ClientError, match="yard is live"):
        client.wait_until_ended("yard")
    world.set_state("yard", state=StreamState.LIVE)
    assert client.wait_until_live("yard").status.state == "live"


# Timelines


def test_a_timeline(world: ApiWorld, client: Client) -> None:
    world.add("lobby")
    world.play("lobby", [smiling(), nobody()])
    timeline = client.timeline("lobby", start="-1s")
    assert [point.empty for point in timeline.points] == ["no_face"]
    assert msgspec.json.decode(timeline.to_json()) == world.get("/streams/lobby/timeline", **{"from": "-1s"}).json()
    start = datetime(2026, 5, 1, 14, tzinfo=timezone_of(2))
    assert client.timeline("lobby", start=start, end="2026-05-01T12:00:01Z").summary.dominant == "happy"
    assert client.timeline("lobby", resolution="10s").resolution_s == 10
    assert len(client.timeline("lobby", max_points=2).points) == 2
    assert client.timeline_csv("lobby").startswith("start,position_s")
    assert client.summary("lobby").summary.faces == 5


def timezone_of(hours: int) -> Any:
    from datetime import timedelta, timezone

    return timezone(timedelta(hours=hours))


def test_a_time_without_a_zone_is_refused(client: Client) -> None:
    with pytest.raises(ClientError, match="no time zone"):
        client.timeline("lobby", start=datetime(2026, 5, 1))  # that is what is refused


def test_tracks(world: ApiWorld, client: Client) -> None:
    world.add("lobby")
    world.play("lobby", [smiling(), smiling()])
    assert [(track.track, track.dominant) for track in client.list_tracks("lobby")] == [(1, "happy")]
    assert list(client.list_tracks("lobby", start="2027-01-01T00:00:00Z")) == []
    assert [point.frames for point in client.track_timeline("lobby", 1).points] == [5, 5]
    with pytest.raises(NotFoundError) as caught:
        client.track_timeline("lobby", 2)
    assert caught.value.code == "track_not_found"


def test_a_frame(world: ApiWorld, client: Client) -> None:
    pandas = pytest.importorskip("pandas")
    world.add("lobby")
    world.play("lobby", [smiling(share=0.8), nobody()])
    frame = client.timeline_frame("lobby", values="shares")
    assert frame.index.name == "start"
    assert str(frame.index.tz) == "UTC"
    assert list(frame.index) == list(pandas.to_datetime([NOW, "2026-05-01T12:00:01Z"]))
    assert frame["happy"].to_list()[0] == 1.0
    assert frame["happy"].isna().to_list() == [False, True], "emptiness is never neutral"
    assert frame["neutral"].isna().to_list() == [False, True]
    assert frame["faces"].to_list() == [5, 0]
    assert frame["empty"].to_list()[1] == "no_face"
    assert frame["final"].dtype == bool
    assert client.timeline_frame("lobby", values="smoothed")["happy"].to_list()[0] == pytest.approx(0.8, abs=1e-4)
    with pytest.raises(ClientError, match="shares, smoothed or raw"):
        client.timeline_frame("lobby", values="cooked")  # type: ignore[arg-type]


def test_a_frame_of_nothing(world: ApiWorld, client: Client) -> None:
    pytest.importorskip("pandas")
    world.add("lobby")
    frame = client.timeline_frame("lobby")
    assert frame.empty
    assert "happy" in frame
    assert str(frame.index.tz) == "UTC"


def test_a_frame_needs_pandas(world: ApiWorld, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("lobby")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ClientError, match=r"pip install 'moodline\[pandas\]'"):
        client.timeline_frame("lobby")


def test_asking_needs_little() -> None:
    absent = ["fastapi", "starlette", "uvicorn", "pandas", "numpy", "pydantic", "moodline.services", "moodline.training"]
    asked = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules |= dict.fromkeys({absent}); from moodline import Client; Client()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr


# The service


def test_models(client: Client) -> None:
    assert client.list_models().active == "fer-seed"
    assert client.activate_model("fer-large").active == "fer-large"
    with pytest.raises(NotFoundError):
        client.activate_model("absent")


def test_does_it_work(tmp_path: Path) -> None:
    works = {"ingest": True}
    with (
        ApiWorld(tmp_path, readiness=lambda: works) as world,
        Client("http://localhost", transport=AsgiTransport(world.app)) as client,
    ):
        assert client.health()
        assert client.ready().checks == {"store": True, "ingest": True}
        works["ingest"] = False
        ready = client.ready()
        assert not ready.ready
        assert "ingest does not run" in ready.reason
        assert "moodline_" in client.metrics()


# Errors


def test_what_the_api_says_is_passed_on(world: ApiWorld, client: Client) -> None:
    with pytest.raises(NotFoundError, match="no stream 'absent' is registered") as caught:
        client.get_stream("absent")
    assert (caught.value.code, caught.value.status, caught.value.field) == ("stream_not_found", 404, None)
    with pytest.raises(InvalidRequestError, match="below the media root") as caught_too:
        client.add_stream("lobby", "/etc/passwd")
    assert (caught_too.value.code, caught_too.value.field) == ("invalid_stream", "url")
    assert isinstance(caught.value, MoodlineError)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AccessError),
        (403, AccessError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, InvalidRequestError),
        (422, InvalidRequestError),
        (429, BusyError),
        (500, ServiceError),
        (503, ServiceError),
    ],
)
def test_each_kind_of_error_has_its_exception(status: int, kind: type[ApiError]) -> None:
    client, _, _ = client_of(refusal(status, "whatever", retry_after="7"))
    with pytest.raises(ApiError) as caught:
        client.pause_stream("lobby")
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.message, caught.value.field) == ("whatever", "no", "url")
    assert (caught.value.status, caught.value.retry_after_s) == (status, 7)


def test_nobody_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        Client(f"http://user:hunter2@127.0.0.1:{port}", clock=StubClock()) as client,
        pytest.raises(UnreachableError, match="start it with `moodline run`") as caught,
    ):
        client.health()
    assert caught.value.code == "unreachable"
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_nobody_answers() -> None:
    client, asked, _ = client_of(httpx.ReadTimeout("slow"))
    with pytest.raises(NoAnswerError, match="did not answer within 30 s"):
        client.health()
    assert len(asked) == 1, "who waited once does not wait again"


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://localhost", "http://", "http://[::1", "http://a:b:c"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UnreachableError, match="MOODLINE_API_URL"):
        Client(url)


@pytest.mark.parametrize("status", [200, 302, 404, 502])
@pytest.mark.parametrize("content", [b"<html>hello</html>", b"{}", b'{"error": "no"}', b"", b"\xff"])
def test_somebody_else_there(status: int, content: bytes) -> None:
    client, _, _ = client_of(*[httpx.Response(status, content=content)] * 3)
    with pytest.raises(BadAnswerError, match="is no Moodline") as caught:
        list(client.list_streams())
    assert caught.value.code == "bad_answer"


def test_a_newer_service_may_say_more(world: ApiWorld) -> None:
    world.add("lobby")
    body = world.get("/streams/lobby").json()
    body["mood"] = "good"
    body["status"]["state"] = "dreaming"
    client, _, _ = client_of(httpx.Response(200, json=body))
    assert client.get_stream("lobby").status.state == "dreaming"


# Trying again


@pytest.mark.parametrize("failure", [httpx.ConnectError("refused"), httpx.RemoteProtocolError("gone"), httpx.ReadError("reset")])
def test_what_changes_nothing_is_tried_again(failure: Exception) -> None:
    client, asked, clock = client_of(failure, failure, httpx.Response(200, json={"status": "ok"}))
    before = clock.now
    assert client.health()
    assert len(asked) == 3
    assert clock.now - before == pytest.approx(0.3)


def test_it_waits_as_long_as_it_is_told() -> None:
    client, asked, clock = client_of(refusal(503, "store_unavailable", retry_after="2"), httpx.Response(200, json={}))
    before = clock.now
    assert client.health()
    assert (len(asked), clock.now - before) == (2, 2)


def test_it_is_not_tried_for_ever() -> None:
    client, asked, _ = client_of(*[httpx.ReadError("reset")] * 9)
    with pytest.raises(UnreachableError, match="broke off"):
        client.get_stream("lobby")
    assert len(asked) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda client: client.add_stream("lobby", "clip.mp4"),
        lambda client: client.pause_stream("lobby"),
        lambda client: client.change_stream("lobby", paused=True),
        lambda client: client.delete_stream("lobby"),
        lambda client: client.activate_model("x"),
        lambda client: client.push_frame("lobby", b"x"),
    ],
)
@pytest.mark.parametrize("failure", [httpx.ReadError("reset"), refusal(503, "store_unavailable"), refusal(429, "rate_limited")])
def test_changes_are_never_repeated(change: Callable[[Client], Any], failure: Any) -> None:
    client, asked, _ = client_of(failure, failure, failure)
    with pytest.raises(ApiError):
        change(client)
    assert len(asked) == 1


def test_what_was_refused_is_not_tried_again() -> None:
    client, asked, _ = client_of(refusal(404, "stream_not_found"))
    with pytest.raises(NotFoundError):
        client.get_stream("lobby")
    assert len(asked) == 1


# Keys

KEY = "mdl_5f21c09ab3d4_secretsecretsecret"


def test_the_key_is_sent_and_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client, asked, _ = client_of(refusal(401, "unauthorized"), httpx.ConnectError("refused"), key=KEY)
        with pytest.raises(AccessError) as caught:
            client.pause_stream("lobby")
        with pytest.raises(UnreachableError) as broken:
            client.pause_stream("lobby")
    assert asked[0].headers["authorization"] == f"Bearer {KEY}"
    said = [repr(client), str(client), repr(caught.value), repr(broken.value), str(broken.value), caplog.text]
    said.append("".join(repr(value) for value in vars(client).values()))
    assert all("secret" not in text for text in said)


def test_a_password_in_the_address_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={})

    with (
        caplog.at_level(logging.DEBUG),
        Client("http://user:hunter2@localhost", transport=httpx.MockTransport(answer)) as client,
    ):
        client.health()
    assert httpx.BasicAuth("user", "hunter2")._auth_header == asked[0].headers["authorization"]
    assert "hunter2" not in caplog.text + repr(client)
    assert "localhost" in caplog.text


def test_the_environment_names_address_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert repr(Client()) == "Client('http://127.0.0.1:8000')"
    monkeypatch.setenv("MOODLINE_API_URL", "https://mood.example/")
    monkeypatch.setenv("MOODLINE_API_KEY", KEY)
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={})

    for key in (None, ""):
        with Client(key=key, transport=httpx.MockTransport(answer)) as client:
            client.health()
    assert str(asked[0].url) == "https://mood.example/healthz"
    assert [request.headers.get("authorization") for request in asked] == [f"Bearer {KEY}", None]


@pytest.mark.parametrize("key", ["sécret", "secret\r\nX-Evil: 1", "se cret"])
def test_a_key_that_is_none(key: str) -> None:
    with pytest.raises(ClientError, match="no API key") as caught:
        Client(key=key)
    assert key not in str(caught.value)


def test_a_key_does_not_follow_a_redirect() -> None:
    client, asked, _ = client_of(httpx.Response(302, headers={"location": "http://evil.example/"}), key=KEY)
    with pytest.raises(BadAnswerError):
        client.get_stream("lobby")
    assert len(asked) == 1
