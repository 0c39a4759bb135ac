"""The host: loads what its processes need once, then forks them. Started by `ProcessHost`; one thread.

It decides nothing and knows nothing of cameras or files: it forks when asked, sees to it that a process which is to end is gone
within a second, and reports how each ended. It ends, and with it all of them, when the control socket closes.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import av  # noqa: F401  # loaded once, here, for all cameras
import cv2
import numpy as np  # noqa: F401

from moodline.services.ingest.process.host import END, ENDED, OPEN, REPORT, REQUEST, STARTED

Work = Callable[[socket.socket], None]
"""What a process does with its end of the socket pair; it never returns."""

_GRACE_S: Final = 1.0
"""After this a camera that was told to end is killed: it hangs."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_OOM_SCORE: Final = "500"


class _Host:
    """The loop."""

    def __init__(self, control: socket.socket, work: Work, name: bytes) -> None:
        self._control = control
        self._work = work
        self._name = name
        self._numbers: dict[int, int] = {}  # by process id
        self._pids: dict[int, int] = {}  # by number
        self._kill_at_s: dict[int, float] = {}  # by process id
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until the control socket closes, then kill all cameras."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select(self._until_kill_s())}
                if self._woken in ready:
                    self._drain()
                try:
                    self._reap()
                    if self._control in ready:
                        self._serve()
                except (OSError, EOFError):
                    break
                self._kill_overdue()
        for pid in self._numbers:
            os.kill(pid, signal.SIGKILL)

    def _drain(self) -> None:
        try:
            os.read(self._woken, 4096)
        except BlockingIOError:
            return

    def _until_kill_s(self) -> float | None:
        return max(0.0, min(self._kill_at_s.values()) - time.monotonic()) if self._kill_at_s else None

    def _kill_overdue(self) -> None:
        now_s = time.monotonic()
        for pid, at_s in list(self._kill_at_s.items()):
            if at_s <= now_s:
                # Not reaped yet, so the number is still this process's.
                os.kill(pid, signal.SIGKILL)
                del self._kill_at_s[pid]

    def _reap(self) -> None:
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            number = self._numbers.pop(pid)
            del self._pids[number]
            self._kill_at_s.pop(pid, None)
            self._control.sendall(REPORT.pack(ENDED, number, status))

    def _serve(self) -> None:
        data, descriptors, _, _ = socket.recv_fds(self._control, REQUEST.size, 1)
        while 0 < len(data) < REQUEST.size:
            piece = self._control.recv(REQUEST.size - len(data))
            if not piece:
                raise EOFError
            data += piece
        if not data:
            raise EOFError
        kind, number = REQUEST.unpack(data)
        if kind == OPEN and descriptors:
            self._open(number, descriptors[0])
        elif kind == END and number in self._pids:
            self._kill_at_s[self._pids[number]] = time.monotonic() + _GRACE_S

    def _open(self, number: int, descriptor: int) -> None:
        try:
            pid = os.fork()
        except OSError:
            # Out of processes or memory: as if it had been ended at once.
            os.close(descriptor)
            self._control.sendall(REPORT.pack(ENDED, number, signal.SIGKILL))
            return
        if pid == 0:
            _become_reader(descriptor, self._work, self._name)
        os.close(descriptor)
        self._numbers[pid] = number
        self._pids[number] = pid
        self._control.sendall(REPORT.pack(STARTED, number, pid))


def _become_reader(descriptor: int, work: Work, name: bytes) -> None:
    """Turn a fresh fork into the process of a camera or a file; never returns."""
    try:
        host = os.getppid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != host:
            os._exit(0)
        _prctl(_PR_SET_NAME, name)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _keep_only(descriptor)
        _offer_to_the_oom_killer()
        cv2.setNumThreads(1)
        work(socket.socket(fileno=descriptor))
    finally:
        os._exit(1)


def _keep_only(descriptor: int) -> None:
    """Close all files but the camera's socket; what libraries print goes nowhere, because it may hold an address."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, max(int(name) for name in os.listdir("/dev/fd")) + 1)  # noqa: PTH208  # names only


def _offer_to_the_oom_killer() -> None:
    """Make the kernel end a camera's process before the worker when memory runs out. Works on Linux only."""
    try:
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    except OSError:
        return


def _prctl(option: int, value: int | bytes) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _load(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def main(arguments: list[str]) -> None:
    """Run the host. Arguments: number of the control socket's file descriptor; then the fields of `Forked`."""
    descriptor, name, runner, given, preload = arguments
    # The worker decides when the host ends, by closing the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = socket.socket(fileno=int(descriptor))
    control.set_inheritable(False)
    _prctl(_PR_SET_NAME, b"moodline-host")
    # A core file of a camera would hold its password.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    run = _load(runner)
    objects = [_load(one) for one in given.split(",") if one]
    for module in filter(None, preload.split(",")):
        # What is not installed is missed by those that need it, not by all.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    # What is loaded stays shared with the forks: collections do not touch it.
    gc.collect()
    gc.freeze()
    _Host(control, lambda connected: run(connected, *objects), name.encode()).run()


if __name__ == "__main__":
    main(sys.argv[1:])
