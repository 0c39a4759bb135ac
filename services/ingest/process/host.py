"""The worker's side of a host: one small helper process, out of which all processes of cameras, or of files, are forked.

A fork of the worker itself would be unsafe (threads, TensorFlow) and large; starting Python again for each would take a
second of CPU time. So the worker starts one process that has loaded what they need, and that forks on request. It never sees
an address or a password: the worker sends the job to the new process over their own socket pair.

Messages on the control socket have a fixed size: `REQUEST` to the host (with the new process's socket when it is to open), and
`REPORT` back. The host ends, and takes all its processes with it, when the control socket closes.
"""

import logging
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from moodline.services.ingest.process.fate import Fate
from moodline.shared.errors import MoodlineError

log = logging.getLogger("moodline.ingest.camera_host")

OPEN: Final = 1
END: Final = 2
STARTED: Final = 3
ENDED: Final = 4

REQUEST: Final = struct.Struct("!BQ")
"""Kind (`OPEN`, `END`), number of the process."""
REPORT: Final = struct.Struct("!BQq")
"""Kind (`STARTED`, `ENDED`), number of the process, process id or wait status."""

_END_S: Final = 2.0

_KEPT: Final = frozenset(
    {
        "PATH",
        "HOME",
        "LANG",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "SYSTEMROOT",
    }
)

_ONE_THREAD: Final = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")


class ProcessGoneError(MoodlineError):
    """No process can be started."""

    code = "process_gone"


class Forked(NamedTuple):
    """What the processes of one host do.

    Attributes:
        name: Of each process, as the machine's tools show it; at most 15 characters.
        runner: `module:function` that is called with the process's socket and never returns.
        given: Objects as `module:name` that the runner is called with besides.
        preload: Modules that the host loads for all; those that are not installed are left out.
    """

    name: str
    runner: str
    given: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()


def host_environment(environment: "os._Environ[str] | dict[str, str]") -> dict[str, str]:
    """Return the host's environment: what programs need to run, and nothing else, for any variable may hold a secret.

    One thread per library.
    """
    kept = {name: value for name, value in environment.items() if name in _KEPT or name.startswith("LC_")}
    # The host finds the very modules that the worker uses, from wherever that was started.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109  # text, as the rest of the path
    return kept | _ONE_THREAD | {"PYTHONPATH": path, "MALLOC_ARENA_MAX": "2"}


class _HostProcess:
    """One running host. Its reports are read by a thread of their own."""

    def __init__(self, forked: Forked) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        command = [sys.executable, "-P", "-m", "moodline.services.ingest.process.host_main", str(theirs.fileno())]
        command += [forked.name, forked.runner, ",".join(forked.given), ",".join(forked.preload)]
        with theirs:
            try:
                self.process = subprocess.Popen(  # noqa: S603  # our own module, by this interpreter
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=host_environment(os.environ),
                    pass_fds=(theirs.fileno(),),
                    # Ctrl-C at a terminal goes to the worker alone.
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise ProcessGoneError("the process that others are started from cannot be started") from None
        self._control = ours
        self._lock = threading.Lock()
        self._fates: dict[int, Fate] = {}
        self._number = 0
        self._alive = True
        self._reader = threading.Thread(target=self._read, name="process-host", daemon=True)
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        with self._lock:
            return self._alive

    def open(self, their_end: socket.socket) -> tuple[int, Fate] | None:
        """Ask for a process that gets `their_end`; None when the host is gone."""
        with self._lock:
            if not self._alive:
                return None
            self._number += 1
            fate = self._fates[self._number] = Fate()
            try:
                socket.send_fds(self._control, [REQUEST.pack(OPEN, self._number)], [their_end.fileno()])
            except OSError:
                self._alive = False
                del self._fates[self._number]
                return None
            return self._number, fate

    def end(self, number: int) -> None:
        """Ask that a process is seen to its end. Without a host it has died already."""
        with self._lock:
            if not self._alive or number not in self._fates:
                return
            try:
                self._control.sendall(REQUEST.pack(END, number))
            except OSError:
                self._alive = False

    def close(self) -> None:
        with self._lock:
            self._alive = False
            try:
                self._control.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("camera_host.gone")
        self._reader.join(2 * _END_S)

    def _read(self) -> None:
        with self._control:
            while (report := self._report()) is not None:
                kind, number, value = report
                with self._lock:
                    fate = self._fates.get(number) if kind == STARTED else self._fates.pop(number, None)
                if fate is None:
                    continue
                if kind == STARTED:
                    fate.started(value)
                else:
                    fate.ended(value)
            with self._lock:
                self._alive = False
                fates, self._fates = list(self._fates.values()), {}
        self._reap()
        for fate in fates:
            fate.ended(None)

    def _report(self) -> tuple[int, int, int] | None:
        data = b""
        while len(data) < REPORT.size:
            try:
                piece = self._control.recv(REPORT.size - len(data))
            except OSError:
                return None
            if not piece:
                return None
            data += piece
        kind, number, value = REPORT.unpack(data)
        return kind, number, value

    def _reap(self) -> None:
        try:
            status = self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        if status:
            log.warning("camera_host.ended", extra={"status": status})


class ProcessHost:
    """Starts processes. Thread-safe. Starts nothing before the first, or `prepare`; a host that died is replaced."""

    def __init__(self, forked: Forked, send_buffer_bytes: int) -> None:
        """Prepare; nothing is started yet.

        Args:
            forked: What each process does.
            send_buffer_bytes: How much may wait in the socket for the worker.
        """
        self._forked = forked
        self._send_buffer_bytes = send_buffer_bytes
        self._lock = threading.Lock()
        self._host: _HostProcess | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The host's process id; None when none runs."""
        with self._lock:
            return self._host.process.pid if self._host is not None and self._host.is_alive else None

    def start(self) -> tuple[socket.socket, Fate, Callable[[], None]]:
        """Ask for a process; return the worker's end of its socket, its fate, and what sees to it that it ends.

        Raises:
            ProcessGoneError: it cannot be started, or the host was closed.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes)
            try:
                host, number, fate = self._ask(theirs)
            except ProcessGoneError:
                ours.close()
                raise
        return ours, fate, lambda: host.end(number)

    def prepare(self) -> None:
        """Start the host, so that the first process need not wait for it; does not wait for it either."""
        with suppress(ProcessGoneError):
            self._running()

    def close(self) -> None:
        """End the host and all its processes; returns when they are gone. Safe to call twice."""
        with self._lock:
            self._closed = True
            host, self._host = self._host, None
        if host is not None:
            host.close()

    def _ask(self, their_end: socket.socket) -> tuple[_HostProcess, int, Fate]:
        # Twice: a host that has just died shows only when it is asked.
        for _ in range(2):
            host = self._running()
            asked = host.open(their_end)
            if asked is not None:
                return host, *asked
        raise ProcessGoneError("the process that others are started from cannot be started")

    def _running(self) -> _HostProcess:
        with self._lock:
            if self._closed:
                raise ProcessGoneError("no process is started any more: the worker ends")
            if self._host is None or not self._host.is_alive:
                self._host = _HostProcess(self._forked)
            return self._host
