"""Connections of somebody who keeps them: half a head, a body that never ends, an answer that is never read, and very many."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import h11
import httpx
import pytest

from moodline.services.api.connections import Connections, _CountedChunks
from moodline.services.api.server import ApiServer, _log_failure
from moodline.shared.log import OncePerSecond
from moodline.shared.metrics import Metrics
from moodline.shared.settings import ApiSettings
from tests.security.conftest import ask
from tests.support.api import ApiWorld

Serve = Callable[..., tuple[ApiWorld, ApiServer]]


def refused(world: ApiWorld, reason: str) -> float:
    value = world.metrics.registry.get_sample_value("moodline_connections_refused_total", {"reason": reason})
    return value or 0.0


def is_closed(connection: socket.socket, within_s: float) -> bool:
    connection.settimeout(within_s)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def drip(connection: socket.socket, piece: bytes) -> None:
    """Send piece after piece until the other side is gone."""
    with suppress(OSError):
        for _ in range(100):
            connection.sendall(piece)
            time.sleep(0.1)
        pytest.fail("nobody minds")


@contextmanager
def opened(port: int, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), 10)))
            if first:
                connection.sendall(first)
            connections.append(connection)
        yield connections


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_head_that_does_not_end_is_let_go(serve: Serve, begun: bytes) -> None:
    world, server = serve(head_timeout_s=0.5)
    with opened(server.port, 20, begun) as connections:
        assert all(is_closed(connection, 10) for connection in connections)
    assert refused(world, "head") == 20


def test_a_head_that_drips_is_let_go(serve: Serve) -> None:
    world, server = serve(head_timeout_s=1.0)
    with opened(server.port, 1, b"GET / HTTP/1.1\r\n") as (connection,):
        started = time.monotonic()
        drip(connection, b"a: b\r\n")
        assert time.monotonic() - started < 8
    assert refused(world, "head") == 1


def test_the_next_request_of_a_connection_has_a_head_in_time_too(serve: Serve) -> None:
    world, server = serve(head_timeout_s=0.5)
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with opened(server.port, 1, whole) as (connection,):
        answer = b""
        while b'"ok"}' not in answer:
            answer += connection.recv(65_536)
        connection.sendall(whole[:-2])
        assert is_closed(connection, 10)
    assert refused(world, "head") == 1


def test_a_body_nobody_waits_for_is_let_go(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moodline.services.api.connections._REST_S", 0.5)
    world, server = serve()
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    with opened(server.port, 1, head) as (connection,):
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        drip(connection, b"x")
    assert refused(world, "rest") == 1


_CHUNKED = b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("path", [b"/api/v1/session", b"/healthz", b"/nothing", b"/api/v1/streams", b"/api/v1/uploads?name=a"])
def test_a_body_of_very_many_tiny_chunks_is_cut_off(serve: Serve, path: bytes) -> None:
    """A quarter of a megabyte of them kept the event loop busy for a second, of each connection."""
    world, server = serve(access="keys")
    sent = 0
    with opened(server.port, 1, _CHUNKED.replace(b"/api/v1/session", path)) as (connection,):
        connection.settimeout(10)
        with suppress(OSError):
            for _ in range(100):
                connection.sendall(b"1\r\nx\r\n" * 10_000)
                sent += 60_000
    assert sent < 6_000_000, "nobody minds"
    assert refused(world, "fragments") == 1


def test_a_large_body_in_chunks_may_come_in_as_many_pieces_as_the_network_likes() -> None:
    conn = _CountedChunks(16_384, lambda: pytest.fail("refused"))
    conn.receive_data(_CHUNKED)
    conn.next_event()
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    taken = 0
    for _ in range(75):
        for start in range(0, len(chunk), 100):
            conn.receive_data(chunk[start : start + 100])
            while (event := conn.next_event()) is not h11.NEED_DATA:
                assert isinstance(event, h11.Data)
                taken += len(event.data)
    assert taken == 75 * 0x1000


@pytest.mark.parametrize("after", [b"zz\r\n", b"1\r\nxx\r\n", b"0" * 70_000])
def test_what_is_no_chunk_after_the_answer_is_no_fault_of_ours(
    serve: Serve, caplog: pytest.LogCaptureFixture, after: bytes
) -> None:
    _, server = serve(access="keys")
    head = _CHUNKED.replace(b"/api/v1/session", b"/api/v1/streams")
    with opened(server.port, 1, head) as (connection,):
        connection.settimeout(10)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401")
        with suppress(OSError):
            connection.sendall(after)
            while connection.recv(65_536):
                pass
    assert not [record for record in caplog.records if record.exc_info or record.message == "loop.failed"]


@pytest.mark.parametrize("request_line", [b"POST /api/v1/streams/a/frames HTTP/1.1", b"PUT / HTTP/1.1", b"OPTIONS /x HTTP/1.1"])
def test_a_web_socket_is_not_opened_by_another_method_and_the_connection_ends(serve: Serve, request_line: bytes) -> None:
    """It was open for good, and answered nothing."""
    _, server = serve()
    head = [request_line, b"Host: localhost", b"Content-Length: 5", b"Connection: Upgrade", b"Upgrade: websocket"]
    head += [b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13", b"", b"hello"]
    answer = ask(server.port, b"\r\n".join(head), 20)
    assert answer.startswith(b"HTTP/1.1 400")


def test_more_connections_of_one_address_than_it_may_have_are_closed(serve: Serve) -> None:
    world, server = serve(max_connections_per_address=5, trusted_proxies="")
    with opened(server.port, 5) as kept, opened(server.port, 3) as more:
        assert all(is_closed(connection, 10) for connection in more)
        assert not any(is_closed(connection, 0.05) for connection in kept)
    assert refused(world, "address") == 3


def test_the_addresses_of_one_network_of_ipv6_are_one_host() -> None:
    class Peer(asyncio.Transport):
        def __init__(self, host: str) -> None:
            super().__init__({"peername": (host, 1, 0, 0)})

    limits = Connections(ApiSettings(max_connections_per_address=3), Metrics())
    ours = [Peer(f"2001:db8:0:1::{number:x}") for number in range(1, 6)]
    assert [limits.admit(peer) for peer in ours] == [True, True, True, False, False]
    assert limits.admit(Peer("2001:db8:0:2::1"))
    mapped = [Peer(host) for host in ("::ffff:192.0.2.1", "192.0.2.1") * 2]
    assert [limits.admit(peer) for peer in mapped] == [True, True, True, False]
    limits.leave(ours[0])
    assert limits.admit(ours[3])


def test_a_trusted_proxy_has_no_limit_of_an_address(serve: Serve) -> None:
    _, server = serve(max_connections_per_address=2, trusted_proxies="127.0.0.0/8")
    with opened(server.port, 6):
        assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200


def test_where_all_places_are_taken_whoever_waits_longest_goes(serve: Serve) -> None:
    world, server = serve(max_connections=10, max_connections_per_address=1000)
    with opened(server.port, 40, b"GET / HTTP/1.1\r\n"):
        for _ in range(5):
            assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200
    assert refused(world, "crowded_out") >= 30


def test_a_reader_that_takes_nothing_is_let_go(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moodline.services.api.connections._STALLED_S", 0.5)
    world, server = serve()
    with opened(server.port, 1) as (connection,):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        whole = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.settimeout(2)
        try:
            for _ in range(200):
                connection.sendall(whole)
        except OSError:
            pass
        deadline = time.monotonic() + 20
        while not refused(world, "reader"):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_request_that_is_none_is_answered_and_closed(serve: Serve) -> None:
    _, server = serve()
    assert ask(server.port, b"\x16\x03\x01\x02\x00\x01\x00\x01").startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "lines",
    [
        [f"X-{number}: y" for number in range(1500)],
        ["X: " + "y" * 60_000],
        ["Cookie: " + "; ".join(f"a{number}=b" for number in range(1500))],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 99999999999999999999999999"],
        ["Content-Length: -1"],
        ["Host: other"],
        ["Range: bytes=" + ",".join("0-" for _ in range(4000))],
    ],
)
def test_heads_that_are_odd_or_large_are_answered_or_refused_and_others_go_on(serve: Serve, lines: list[str]) -> None:
    _, server = serve()
    head = "\r\n".join(["GET /healthz HTTP/1.1", "Host: localhost", "Connection: close", *lines]) + "\r\n\r\n"
    answer = ask(server.port, head.encode())
    assert answer == b"" or int(answer.split(b" ")[1]) < 500
    assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200


def test_a_path_of_a_megabyte_is_no_request(serve: Serve) -> None:
    _, server = serve()
    with opened(server.port, 1) as (connection,):
        with suppress(OSError):
            connection.sendall(b"GET /" + b"x" * 1_000_000)
        connection.settimeout(10)
        with suppress(ConnectionResetError):
            assert connection.recv(65_536)[:12] in (b"", b"HTTP/1.1 400")


def test_refused_accepts_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """What asyncio reports when no file descriptor is left, 512 times a second and with a trace each."""
    once = OncePerSecond(lambda: 1000.0)
    with caplog.at_level("ERROR"):
        for number in range(512):
            said = f"socket.accept() out of system resource\nsocket: <{number}>"
            _log_failure(None, {"message": said, "exception": OSError(24, "Too many open files")})  # type: ignore[arg-type]
    assert len([record for record in caplog.records if once.filter(record)]) == 1
    assert all(record.exc_info is None and "\n" not in record.getMessage() for record in caplog.records)


def test_an_address_is_written_once_for_a_whole_network_of_ipv6(tmp_path: Path) -> None:
    from starlette.requests import HTTPConnection

    from moodline.services.auth.authenticator import address_of

    def name(host: str) -> str:
        return address_of(HTTPConnection({"type": "http", "client": (host, 1), "headers": []}))

    assert name("2001:db8::1") == name("2001:db8::ffff:1") != name("2001:db8:0:1::1")
    assert name("192.0.2.1") != name("192.0.2.2")
