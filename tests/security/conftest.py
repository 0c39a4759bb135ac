"""What attacks need: a listening API, plain sockets, and the memory of this process."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from moodline.services.api.server import ApiServer
from moodline.shared.settings import ApiSettings
from tests.support.api import ApiWorld


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., tuple[ApiWorld, ApiServer]]]:
    """Return what starts an API on a real port; settings of the API by name."""
    started: list[tuple[ApiWorld, ApiServer]] = []

    def start(**settings: Any) -> tuple[ApiWorld, ApiServer]:
        world = ApiWorld(tmp_path / str(len(started)), api=ApiSettings(**settings))
        world.directory.mkdir()
        world.__enter__()
        server = ApiServer(world.app, "127.0.0.1", 0)
        server.start()
        started.append((world, server))
        return world, server

    yield start
    for world, server in reversed(started):
        server.stop()
        world.__exit__(None, None, None)


def ask(port: int, request: bytes, timeout_s: float = 10.0) -> bytes:
    """Send bytes, and return everything that comes until the other side closes."""
    answer = b""
    with closing(socket.create_connection(("127.0.0.1", port), timeout_s)) as connection:
        connection.sendall(request)
        while chunk := connection.recv(65_536):
            answer += chunk
    return answer
