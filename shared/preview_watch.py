"""A thread that knows which streams' pictures are looked at, and sends on what was taken of them."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from moodline.shared.clock import Clock
from moodline.shared.errors import StoreError
from moodline.shared.previews import Previews
from moodline.shared.store import Registry
from moodline.shared.store.registry_view import RegistryView

log = logging.getLogger("moodline.previews")

_LOOK_S: Final = 1.0
_JOIN_S: Final = 5.0


class PreviewWatch:
    """A context manager: entering starts the thread. `wanted` may be read by any thread."""

    def __init__(self, registry: Registry, previews: Previews, clock: Clock, turn_s: float, send: Callable[[], None]) -> None:
        """Prepare; `send` is called every `turn_s`, and raises nothing."""
        self.wanted: frozenset[str] = frozenset()
        self._view = RegistryView(registry)
        self._previews = previews
        self._clock = clock
        self._turn_s = turn_s
        self._send = send
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="previews", daemon=True)

    def look(self) -> None:
        """Find out which streams are looked at. Raises `StoreUnavailableError`."""
        self._view.refresh(self._clock.monotonic_s())
        switched_on = [name for name, spec in self._view.specs.items() if spec.preview and not spec.paused]
        self.wanted = frozenset(self._previews.wanted(switched_on))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        looked_s = float("-inf")
        while not self._stop.is_set():
            now_s = self._clock.monotonic_s()
            if now_s - looked_s >= _LOOK_S:
                looked_s = now_s
                try:
                    self.look()
                except StoreError as error:
                    log.warning("previews.interrupted", extra={"reason": type(error).__name__})
            self._send()
            self._stop.wait(self._turn_s)
