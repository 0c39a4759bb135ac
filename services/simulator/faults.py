"""The faults of a simulated camera."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from moodline.shared.errors import SettingsError


class Kind(StrEnum):
    """A fault's name, as a user writes it."""

    NONE = "none"
    SILENT = "silent"
    HANG = "hang"
    GARBAGE = "garbage"
    NOISE = "noise"
    DROP = "drop"
    RESET = "reset"
    LOSS = "loss"
    RESOLUTION = "resolution"
    CODEC = "codec"
    CLOCK = "clock"
    CLOCK_STEP = "clockstep"
    RTP_RESET = "rtpreset"
    FLOOD = "flood"
    DRIP = "drip"
    UNAUTHORIZED = "unauthorized"
    MISSING = "missing"
    SLOW = "slow"
    REDIRECT = "redirect"
    BIG_SDP = "bigsdp"
    CRASHER = "crasher"


_NUMBERS: Final = {
    Kind.LOSS: (0.0, 100.0, "loses so many percent of its packets"),
    Kind.CLOCK: (-1e9, 1e9, "has a clock so many seconds ahead"),
    Kind.CLOCK_STEP: (-1e9, 1e9, "moves its clock by so many seconds"),
    Kind.FLOOD: (0.1, 1000.0, "sends so many times faster"),
    Kind.SLOW: (0.0, 600_000.0, "answers so many milliseconds late"),
}
"""Least and greatest number of the faults that take one, and its meaning."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `number` and `text` are what stands behind the colon, for faults that take something."""

    kind: Kind = Kind.NONE
    number: float = 0.0
    text: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.text}" if self.text else str(self.kind)


NO_FAULT: Final = Fault()


def parse_fault(text: str) -> Fault:
    """Return the fault of `silent`, `loss:20`, `clock:+3600` or `redirect:rtsp://…`. Raises `SettingsError`."""
    name, colon, value = text.strip().partition(":")
    if name not in list(Kind):
        raise SettingsError(f"there is no such fault; there are {', '.join(Kind)}")
    kind = Kind(name)
    if kind in _NUMBERS:
        least, greatest, meaning = _NUMBERS[kind]
        number = _number(value)
        if number is None or not least <= number <= greatest:
            raise SettingsError(f"the fault {kind}:N {meaning}; N is a number from {least:g} to {greatest:g}")
        return Fault(kind, number, value)
    if kind is Kind.REDIRECT:
        if not value or any(ord(letter) < 33 or ord(letter) > 126 for letter in value):
            raise SettingsError("the fault redirect:URL needs a URL")
        return Fault(kind, text=value)
    if colon:
        raise SettingsError(f"the fault {kind} takes nothing behind a colon")
    return Fault(kind)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
