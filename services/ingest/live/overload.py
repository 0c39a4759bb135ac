"""What is said of a camera that sends more than this machine decodes. Pure."""

from typing import Final

_WINDOW_S: Final = 10.0


class Overload:
    """Follows the count of frames that were left out undecoded; says so while it grows, in steps that change seldom."""

    def __init__(self) -> None:
        self._total = 0
        self._began_s = 0.0
        self._began_total = 0
        self._grew_s = float("-inf")
        self._sentence = ""

    def measured(self, total: int, now_s: float) -> None:
        """Take the count so far, at this monotonic time."""
        if total > self._total:
            if now_s - self._grew_s > _WINDOW_S:
                self._began_s, self._began_total = now_s, self._total
            self._total, self._grew_s = total, now_s

    def sentence(self, now_s: float) -> str:
        """Return what is to be said now; "" while nothing is left out."""
        if now_s - self._grew_s > _WINDOW_S:
            self._sentence = ""
        elif not self._sentence or now_s - self._began_s >= _WINDOW_S:
            count = self._total - self._began_total
            self._began_s, self._began_total = now_s, self._total
            self._sentence = (
                f"overloaded: {count} frames were left out because this machine decodes too slowly; "
                "use the camera's sub stream, or more cores"
            )
        return self._sentence
