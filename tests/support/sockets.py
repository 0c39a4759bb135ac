"""An application on a real port, and a client of its web sockets."""

import json
from types import TracebackType
from typing import Any, Self

import httpx
from fastapi import FastAPI
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from moodline.services.api.server import ApiServer


class GoneError(Exception):
    """The server has closed; `code` and `reason` say why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Talk:
    """One web socket. A context manager."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket.__enter__()

    def hear(self) -> dict[str, Any]:
        """Return the next message. Raises `GoneError`."""
        try:
            message: dict[str, Any] = json.loads(self._socket.recv(timeout=20))
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
            raise GoneError(code, reason) from None
        return message

    def set_state(self, message: bytes | str) -> None:
        self._socket.send(message)

    def ask(self, message: bytes | str) -> dict[str, Any]:
        """Say something and return the answer."""
        self.set_state(message)
        return self.hear()

    def close(self) -> None:
        self._socket.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Site:
    """Serves an application on a free port. A context manager; `http` asks it."""

    def __init__(self, app: FastAPI) -> None:
        self._server = ApiServer(app, "127.0.0.1", 0)

    def talk(self, path: str, **headers: str) -> Talk:
        """Open a web socket. Raises `websockets.exceptions.InvalidStatus` when that is refused."""
        url = f"ws://127.0.0.1:{self._server.port}{path}"
        return Talk(connect(url, additional_headers=headers, open_timeout=20, close_timeout=5, proxy=None, max_size=2**20))

    def __enter__(self) -> Self:
        self._server.start()
        self.url = self._server.url
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.http.close()
        self._server.stop()
