"""Serving on a real port, and the client that asks there."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from services.api.client import ApiError, Client
from services.api.server import ApiServer
from shared.errors import InvalidStreamError, SettingsError
from tests.support.api import ApiWorld, AsgiTransport, nobody, smiling


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        yield world


@pytest.fixture
def client(world: ApiWorld) -> Iterator[Client]:
    with Client("http://localhost", transport=AsgiTransport(world.app)) as client:
        yield client


# Server


def test_a_free_port_is_found_and_freed(world: ApiWorld) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with ApiServer(world.app, "127.0.0.1", 0) as server:
        port = server.port
        assert port > 0
        assert server.url == f"http://127.0.0.1:{port}"
        answer = httpx.get(f"{server.url}/healthz", trust_env=False)
        assert answer.json() == {"status": "ok"}
        assert "server" not in answer.headers
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    with socket.create_server(("127.0.0.1", port)):
        pass
    server.stop()


def test_a_server_can_start_again(world: ApiWorld) -> None:
    server = ApiServer(world.app, "127.0.0.1", 0)
    for _ in range(2):
        with server:
            assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200


def test_a_connection_kept_open_does_not_delay_the_end(world: ApiWorld) -> None:
    with ApiServer(world.app, "127.0.0.1", 0) as server, httpx.Client(base_url=server.url, trust_env=False) as http:
        assert http.get("/healthz").status_code == 200
        stopped = threading.Event()
        stopper = threading.Thread(target=lambda: (server.stop(), stopped.set()))
        stopper.start()
        assert stopped.wait(5)
        stopper.join()


def test_small_answers_come_at_once(world: ApiWorld) -> None:
    with ApiServer(world.app, "127.0.0.1", 0) as server, httpx.Client(base_url=server.url, trust_env=False) as http:

        def ask_s() -> float:
            started = time.perf_counter()
            assert http.get("/healthz").status_code == 200
            return time.perf_counter() - started

        # Nagle's delay would add 40 ms to every single one.
        assert min(ask_s() for _ in range(20)) < 0.035


def test_serving_in_the_foreground(world: ApiWorld) -> None:
    server, stop = ApiServer(world.app, "127.0.0.1", 0), threading.Event()
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_a_port_in_use_is_a_clear_error(world: ApiWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1 port {port}: Address already in use; set MOODLINE_API_HOST"):
            ApiServer(world.app, "127.0.0.1", port).start()


@pytest.mark.parametrize("host", ["999.1.1.1", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_a_clear_error(world: ApiWorld, host: str) -> None:
    with pytest.raises(SettingsError, match="cannot listen on"):
        ApiServer(world.app, host, 0).start()


# Client


def test_the_client_over_a_socket(world: ApiWorld) -> None:
    with ApiServer(world.app, "127.0.0.1", 0) as server, Client(server.url) as client:
        stream = client.add_stream({"id": "lobby", "url": "clip.mp4"})
        assert stream == client.get_stream("lobby")


def test_the_client_does_what_the_api_can(world: ApiWorld, client: Client) -> None:
    client.add_stream({"id": "lobby", "url": "clip.mp4", "recorded_at": "2026-05-01T12:00:00Z"})
    assert client.pause("lobby").paused
    assert not client.resume("lobby").paused
    world.play("lobby", [smiling(), nobody()])
    document = client.timeline("lobby", {"from": "-1s"})
    assert [point.empty for point in document.points] == ["no_face"]
    assert document.model_dump(mode="json") == world.get("/streams/lobby/timeline", **{"from": "-1s"}).json()
    client.remove("lobby")
    assert client.list_streams() == []


def test_the_client_reads_all_pages(world: ApiWorld, client: Client) -> None:
    for number in range(3):
        world.add(f"cam-{number}")
    asked = []

    class Small(AsgiTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(request.url)
            return super().handle_request(httpx.Request("GET", request.url.copy_set_param("limit", "2")))

    with Client("http://localhost", transport=Small(world.app)) as small:
        assert [stream.id for stream in small.list_streams()] == ["cam-0", "cam-1", "cam-2"]
    assert len(asked) == 2


def test_the_client_passes_on_what_the_api_says(world: ApiWorld, client: Client) -> None:
    with pytest.raises(ApiError, match="no stream 'absent' is registered") as caught:
        client.get_stream("absent")
    assert caught.value.reason == "stream_not_found"
    with pytest.raises(ApiError, match="below the media root") as caught:
        client.add_stream({"id": "lobby", "url": "/etc/passwd"})
    assert caught.value.reason == "invalid_stream"


@pytest.mark.parametrize("stream_id", ["..", "a/b", "A", "", "a?b"])
def test_the_client_asks_only_for_ids_that_there_can_be(client: Client, stream_id: str) -> None:
    with pytest.raises(InvalidStreamError):
        client.remove(stream_id)


def test_nobody_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        Client(f"http://user:hunter2@127.0.0.1:{port}") as client,
        pytest.raises(ApiError, match="start it with `moodline run`") as caught,
    ):
        client.list_streams()
    assert caught.value.reason == "unreachable"
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_nobody_answers() -> None:
    def time_out(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    with (
        Client("http://localhost", transport=httpx.MockTransport(time_out)) as client,
        pytest.raises(ApiError, match="did not answer within"),
    ):
        client.list_streams()


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://localhost", "http://", "http://[::1", "http://a:b:c"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ApiError, match="MOODLINE_API_URL"):
        Client(url)


@pytest.mark.parametrize("status", [200, 302, 404, 502])
@pytest.mark.parametrize("content", [b"<html>hello</html>", b"{}", b'{"error": "no"}', b""])
def test_somebody_else_there(status: int, content: bytes) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=content))
    with Client("http://localhost", transport=transport) as client, pytest.raises(ApiError, match="is no Moodline") as caught:
        client.list_streams()
    assert caught.value.reason == "bad_answer"
