"""A call in a thread of its own, for calls of a client that may not return while no broker answers."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class BackgroundTask(Generic[Result]):
    """Runs `call` at once in a daemon thread; whatever it raises is kept and raised by `result`."""

    def __init__(self, call: Callable[[], Result], name: str) -> None:
        self._done = threading.Event()
        self._result: Result | None = None
        self._error: Exception | None = None
        self._call = call
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def done(self) -> bool:
        """Return whether the call has ended."""
        return self._done.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of the call; say whether it came."""
        return self._done.wait(max(0.0, timeout_s))

    def result(self) -> Result:
        """Return what the call returned, or raise what it raised; only after its end."""
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # set where no error is

    def _run(self) -> None:
        try:
            self._result = self._call()
        except Exception as error:  # noqa: BLE001  # kept for whoever asks for the result
            self._error = error
        finally:
            self._done.set()
