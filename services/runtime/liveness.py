"""Ending a process that is alive for nobody: whatever restarts a process that ends does the rest.

Kubernetes asks `/healthz`. Docker Compose and systemd restart a process only when it ends, so a process that has said for a while
that it should be started again ends by itself. A loop that hangs in C code cannot be asked to stop, so the end is at once. That
loses no more than a kill does, which is nothing.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from moodline.shared.pipeline.health import Health

log = logging.getLogger("moodline.process")

PATIENCE_S: Final = 60.0
EXIT_CODE: Final = 70
_POLL_S: Final = 5.0


class Deadline:
    """Measures for how long a process has been found dead without a break."""

    def __init__(self, health: Health, patience_s: float = PATIENCE_S) -> None:
        self._health = health
        self._patience_s = patience_s
        self._since_s: float | None = None

    def overdue(self, now_s: float) -> str | None:
        """Return the problem when it has lasted too long by now (monotonic s); else None."""
        problem = self._health.problem()
        if problem is None:
            self._since_s = None
            return None
        self._since_s = now_s if self._since_s is None else self._since_s
        return problem if now_s - self._since_s >= self._patience_s else None


def end_when_dead(health: Health, end: Callable[[int], object] = os._exit) -> None:
    """Look at a process's health from a thread of its own, and end the process with code 70 when it stays bad."""

    def watch() -> None:
        deadline = Deadline(health)
        while True:
            time.sleep(_POLL_S)
            problem = deadline.overdue(time.monotonic())
            if problem is not None:
                log.critical("process.dead", extra={"reason": problem})
                logging.shutdown()
                end(EXIT_CODE)

    threading.Thread(target=watch, name="liveness", daemon=True).start()
