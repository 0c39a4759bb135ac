"""How long a file's timeline may stand still, and how often its process may die, before something is done about it."""

from dataclasses import dataclass
from typing import Final

from moodline.shared.store import HighWaterMark

DOUBLINGS: Final = 5
"""How often the wait before a file is read again doubles: with 30 s it ends at 16 min."""


@dataclass(slots=True)
class Patience:
    """The time that a timeline may stand still before the file is read again, over several attempts of one reader.

    The wait doubles each time at the same high-water mark, up to a limit: a pipeline that is slow or stopped for a while gets few
    frames twice, and what was truly lost is sent again for as long as it takes. A stream never fails for want of others.
    """

    stall_s: float
    high_water_mark: HighWaterMark | None = None
    read_again: int = 0
    died_at: int = -1
    deaths: int = 0
    end_us: int = 0
    """How far the content was sent, in microseconds of media time."""

    def die(self, next_seq: int) -> int:
        """Count a death of the file's process before it gave this frame; return how many there were in a row."""
        self.deaths = self.deaths + 1 if next_seq == self.died_at else 1
        self.died_at = next_seq
        return self.deaths

    def limit_s(self, high_water_mark: HighWaterMark | None) -> float:
        """Return how long the timeline may stand at this high-water mark, in s."""
        return self.stall_s * 2 ** min(self.read_again, DOUBLINGS) if high_water_mark == self.high_water_mark else self.stall_s

    def is_at(self, next_seq: int) -> bool:
        """Return whether the timeline stood still right before this frame when the stream was last read."""
        return self.read_again > 0 and next_seq == (0 if self.high_water_mark is None else self.high_water_mark.seq + 1)

    def try_again(self, high_water_mark: HighWaterMark | None) -> int:
        """Count a standstill at this high-water mark; return how many there were."""
        self.read_again = self.read_again + 1 if high_water_mark == self.high_water_mark else 1
        self.high_water_mark = high_water_mark
        return self.read_again
