"""A TCP proxy that loses answers: the server has done what was asked, and the client never hears of it."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from tests.support.servers import HOST


class LossyProxy:
    """Stands between one client and a server. A context manager.

    Answers are counted over all connections. One of them can be chosen to get lost together with its connection; from then
    on the proxy either works again, or is dead.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._passes: int | None = None
        self._stays_dead = False
        self._dead = False
        self.lost = 0

    def lose(self, after: int, *, stay_dead: bool = False) -> None:
        """Let `after` more answers pass, lose the next one, then work on or be dead."""
        with self._lock:
            self._passes, self._stays_dead, self._dead, self.lost = after, stay_dead, False, 0

    def heal(self) -> None:
        """Work, whatever was asked before."""
        with self._lock:
            self._passes, self._dead = None, False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # A socket that another thread waits on is woken by shutdown, not by close.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._dead:
                client.close()
                continue
            server = socket.create_connection((HOST, self._target))
            for source, sink, answers in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, answers), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with source, sink:
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 20):
                    if self._dead or (answers and self._loses()):
                        break
                    sink.sendall(data)
            # Before closing: the other direction's thread waits on these very sockets, and they stay open as long as it does.
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _loses(self) -> bool:
        with self._lock:
            if self._passes is None:
                return False
            if self._passes > 0:
                self._passes -= 1
                return False
            self._passes, self._dead, self.lost = None, self._stays_dead, self.lost + 1
            return True
