"""Crashes of a reader: defects of Moodline or its libraries, told by type and place, and tried again ever more seldom."""

import traceback
from pathlib import Path
from typing import Final

PAUSES_S: Final = (0.5, 2.0, 10.0, 60.0, 300.0, 900.0, 1800.0)
"""Pauses before a reader is tried again that crashes in the same way each time."""


def place_of(error: BaseException) -> str:
    """Return an error's type, file and line. Never its message, which may hold an address or a password."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


class Crashes:
    """The crashes of one reader, in a row and in the same way."""

    def __init__(self, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        self._pauses_s = pauses_s
        self._place = ""
        self._count = 0

    def add(self, place: str) -> float:
        """Count a crash, told as by `place_of`; return how long to wait before the next attempt, in s."""
        self._count = self._count + 1 if place == self._place else 1
        self._place = place
        return self._pauses_s[min(self._count, len(self._pauses_s)) - 1]

    def forget(self) -> None:
        """Begin with short pauses again: the reader got further than before."""
        self._count = 0

    def sentence(self, pause_s: float) -> str:
        """Say what happened, how often, and what to do; for people."""
        times = "" if self._count == 1 else f", in the same way {self._count} times"
        return (
            f"reading crashed ({self._place}){times}; tried again in {pause_s:.3g} s. This is a defect of Moodline "
            "or of a library: the ingest log has it as reader.crashed or camera.crashed, please report it"
        )
