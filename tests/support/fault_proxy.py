"""A TCP proxy between Moodline and a server, which can do to the network what networks do."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import Enum
from types import TracebackType
from typing import Any, Self

from tests.support.servers import HOST

_CHUNK_BYTES = 64 * 1024
_LINGER_NOT = struct.pack("ii", 1, 0)


class _Mode(Enum):
    PASS = "pass"
    BLACK_HOLE = "black hole"
    REFUSE = "refuse"
    DRIP = "drip"


class FaultProxy:
    """Passes bytes between clients and a server, until told otherwise. A context manager; its loop runs in a thread.

    Every method returns once its effect is in force. Connections that were open in a black hole or a drip go on when healed, with
    all bytes that were held up.

    Attributes:
        port: Where clients connect.
        to_server, to_client: Bytes passed on so far.
        connections: Accepted so far.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.to_server = self.to_client = self.connections = 0
        self._mode, self._bytes_per_s = _Mode.PASS, 0.0
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def black_hole(self) -> None:
        """Pass no byte any more; connections stay open, and new ones are accepted and get no answer."""
        self._do(self._set(_Mode.BLACK_HOLE))

    def refuse(self) -> None:
        """Refuse new connections, and close those that are open."""
        self._do(self._set(_Mode.REFUSE))

    def reset(self) -> None:
        """Reset all connections (RST); new ones are accepted and work."""
        self._do(self._reset())

    def drip(self, bytes_per_s: float) -> None:
        """Pass so few bytes a second in each direction of each connection."""
        self._do(self._set(_Mode.DRIP, bytes_per_s))

    def heal(self) -> None:
        """Work, whatever was asked before."""
        self._do(self._set(_Mode.PASS))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _set(self, mode: _Mode, bytes_per_s: float = 0.0) -> None:
        self._mode, self._bytes_per_s = mode, bytes_per_s
        self._changed.set()
        self._changed = asyncio.Event()
        if mode is _Mode.REFUSE and self._server is not None:
            self._server.close()
            self._server = None
            await self._cut(reset=False)
        elif mode is not _Mode.REFUSE and self._server is None:
            await self._listen()

    async def _reset(self) -> None:
        await self._set(_Mode.PASS)
        await self._cut(reset=True)

    async def _cut(self, *, reset: bool) -> None:
        """End all connections, and wait until whatever served them has ended."""
        for writer in list(self._writers):
            _end(writer, reset=reset)
        mine = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not mine]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut(reset=False)
        # Transports close their sockets one turn later.
        await asyncio.sleep(0.05)

    async def _accept(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(client)
        server: asyncio.StreamWriter | None = None
        try:
            while self._mode is _Mode.BLACK_HOLE:
                await self._changed.wait()
            server_reader, server = await asyncio.open_connection(HOST, self.target_port)
            self._writers.add(server)
            pumps = [
                asyncio.ensure_future(self._pump(client_reader, server, up=True)),
                asyncio.ensure_future(self._pump(server_reader, client, up=False)),
            ]
            self._tasks.update(pumps)
            await asyncio.wait(pumps)
            self._tasks.difference_update(pumps)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for writer in (client, server):
                if writer is not None:
                    self._writers.discard(writer)
                    writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                while chunk:
                    chunk = await self._pass_on(chunk, writer, up=up)
            writer.close()

    async def _pass_on(self, chunk: bytes, writer: asyncio.StreamWriter, *, up: bool) -> bytes:
        """Write what may pass now of a chunk, and return the rest."""
        changed = self._changed
        if self._mode is _Mode.BLACK_HOLE:
            await changed.wait()
            return chunk
        count = len(chunk)
        if self._mode is _Mode.DRIP:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), 1 / self._bytes_per_s)
                return chunk
            count = 1
        writer.write(chunk[:count])
        await writer.drain()
        if up:
            self.to_server += count
        else:
            self.to_client += count
        return chunk[count:]


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        connected = writer.get_extra_info("socket")
        if connected is not None:
            with contextlib.suppress(OSError):
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        writer.transport.abort()
    else:
        writer.close()
