"""Serving on a real port."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from moodline.services.api.server import ApiServer
from moodline.shared.errors import SettingsError
from tests.support.api import ApiWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        yield world


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
