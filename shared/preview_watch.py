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

_POLL_S: Final = 1.0
_JOIN_S: Final = 5.0


class PreviewWatch:
    """A context manager: entering starts the thread. `wanted` may be read by any thread."""

    def __init__(self, registry: Registry, previews: Previews, clock: Clock, interval_s: float, send: Callable[[], None]) -> None:
        """Prepare; `send` is called every `interval_s`, and raises nothing."""
        self.wanted: frozenset[str] = frozenset()
        self._view = RegistryView(registry)
        self._previews = previews
        self._clock = clock
        self._interval_s = interval_s
        self._send = send
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="previews", daemon=True)

    def poll(self) -> None:
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
        polled_s = float("-inf")
        while not self._stop.is_set():
            now_s = self._clock.monotonic_s()
            if now_s - polled_s >= _POLL_S:
                polled_s = now_s
                try:
                    self.poll()
                except StoreError as error:
                    log.warning("previews.interrupted", extra={"reason": type(error).__name__})
            self._send()
            self._stop.wait(self._interval_s)
