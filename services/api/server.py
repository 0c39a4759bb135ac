"""Serving the API: in a thread beside other work, or in the foreground."""

import asyncio
import logging
import socket
import threading
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Final, Self

import uvicorn
from fastapi import FastAPI

from moodline.services.api.connections import MESSAGE_BYTES, Connections, limited_http, limited_web_socket
from moodline.services.api.context import Context
from moodline.services.api.semantics import Compress
from moodline.shared.errors import SettingsError

log = logging.getLogger("moodline.api")

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 15.0
_GRACE_S: Final = 5
_BACKLOG: Final = 512


class ApiServer:
    """Runs an application on a port. A context manager: entering listens and serves, leaving stops.

    Installs no signal handlers; whoever owns the process decides what a signal means.
    """

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        """Prepare. Port 0 takes any free one."""
        self._app = app
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port in use, also where 0 was asked for."""
        return int(self._socket.getsockname()[1]) if self._socket else self._port

    @property
    def url(self) -> str:
        """Return the address of the API, for example `http://127.0.0.1:8000`."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self.port}"

    def start(self) -> None:
        """Listen, and serve in a thread. Returns when the API answers.

        Raises:
            SettingsError: the address cannot be listened on, or the application refused to start.
        """
        self._socket = self._listen()
        context: Context = self._app.state.context
        limits = Connections(context.settings.api, context.metrics)
        config = uvicorn.Config(
            Compress(self._app),
            lifespan="on",
            loop="asyncio",
            http=limited_http(limits),
            ws=limited_web_socket(limits, context.settings.push.max_bytes) if find_spec("websockets") else "none",
            ws_max_size=MESSAGE_BYTES,
            ws_per_message_deflate=False,
            proxy_headers=False,  # the application's own middleware knows which proxies to believe
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server = _Server(config)
        # uvicorn touches signal handlers only in the main thread, so it always gets a thread of its own.
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="api", daemon=True)
        self._thread.start()
        pause = threading.Event()
        waited_s = 0.0
        while not self._server.started and self._thread.is_alive() and waited_s < _START_TIMEOUT_S:
            pause.wait(0.005)
            waited_s += 0.005
        if not self._server.started:
            self.stop()
            raise SettingsError("the API did not start; the log says why")

    def stop(self) -> None:
        """Stop listening, let running requests end, and free the port. Safe to call twice."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            # Answers that go on until somebody leaves, such as events, end here.
            getattr(self._app.state, "before_stop", lambda: None)()
            self._thread.join(_STOP_TIMEOUT_S)
        if self._socket is not None:
            self._socket.close()
        self._server = self._thread = self._socket = None

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set. Blocks. Raises as `start` does."""
        with self:
            stop.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _listen(self) -> socket.socket:
        # The protocol is named because asyncio turns Nagle's delay off (40 ms an answer) only where it is.
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._host, self._port))
            listening.listen(_BACKLOG)
        except (OSError, OverflowError) as error:
            listening.close()
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(
                f"the API cannot listen on {self._host} port {self._port}: {reason}; set MOODLINE_API_HOST or MOODLINE_API_PORT"
            ) from None
        return listening


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(_log_failure)
        await super().startup(sockets)


def _log_failure(_loop: asyncio.AbstractEventLoop, failure: dict[str, Any]) -> None:
    """Say in one line what the event loop cannot do, such as taking a connection when no file descriptor is left.

    asyncio's own handler writes a trace for each of hundreds of attempts.
    """
    error = failure.get("exception")
    is_system = isinstance(error, OSError)
    reason = failure.get("message", "").partition("\n")[0] + (f": {error}" if is_system else "")
    log.error("loop.failed", extra={"reason": reason}, exc_info=None if is_system else error)
