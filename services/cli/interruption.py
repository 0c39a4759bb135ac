"""Being told to end: once is a request, to keep what there is; twice at the keyboard is an order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

_ASKS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass(slots=True)
class Interruption:
    """A flag that says whether the command was told to end, and by which signal."""

    number: int = 0

    def asked(self) -> bool:
        """Return whether the command was told to end."""
        return self.number != 0

    @property
    def exit_code(self) -> int:
        """The exit code of a command that a signal has ended, as shells expect it: 128 and the signal's number."""
        return 128 + self.number


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Note Ctrl-C, SIGTERM and SIGHUP in place of ending at once; a second Ctrl-C raises `KeyboardInterrupt`."""
    interruption = Interruption()

    def record(number: int, _frame: FrameType | None) -> None:
        if interruption.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        interruption.number = interruption.number or number

    with _handling(record):
        yield interruption


@contextmanager
def cleaning_up() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does, so that temporary files are removed."""

    def end(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    with _handling(end):
        yield


@contextmanager
def _handling(handler: object) -> Iterator[None]:
    before = {}
    for number in _ASKS:
        # A signal that is ignored stays ignored, as `nohup` wants it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
