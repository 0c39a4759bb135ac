"""The part of a timeline that a visitor sees. Pure."""

from dataclasses import dataclass, replace
from typing import Final

from moodline.services.api.timelines import TimelineParameters
from moodline.services.report.moments import iso, to_datetime
from moodline.shared.messages import StreamClass
from moodline.shared.timeline.tiers import Extent

SECOND_US: Final = 1_000_000
SPANS: Final[tuple[tuple[str, int | None], ...]] = (
    ("24 h", 86_400),
    ("6 h", 21_600),
    ("1 h", 3_600),
    ("10 min", 600),
    ("1 min", 60),
    ("10 s", 10),
    ("All", None),
)
"""The choices of the buttons: name, and length in s; None means everything that is kept."""

LEAST_S: Final = 10
MOST_POINTS: Final = 361
"""An hour in steps of 10 s, and one more, since a window may begin within a point."""
_ON_ITS_WAY_S: Final = 5
"""The time at the end of a live stream in which points may still be incomplete; as in `moodline.services.api.timelines`."""


@dataclass(frozen=True, slots=True)
class Window:
    """The window that is shown.

    Attributes:
        span_s: Length; None: all there is.
        start_us: Where it begins, microseconds since the Unix epoch; None: it follows the newest.
    """

    span_s: float | None
    start_us: int | None = None

    @property
    def follows(self) -> bool:
        """Return whether the window follows new points."""
        return self.start_us is None

    def turned_to(self, start_us: int, end_us: int) -> "Window":
        """Return the window that the visitor zoomed or moved to; never shorter than `LEAST_S`."""
        return Window(max(LEAST_S, (end_us - start_us) / SECOND_US), start_us)

    def of_span(self, span_s: int | None) -> "Window":
        """Return the newest stretch of this length."""
        return Window(span_s)

    def following(self) -> "Window":
        """Return the same length at the newest end."""
        return replace(self, start_us=None)

    def parameters(
        self, lane: StreamClass, covered: Extent | None, now_us: int, max_points: int = MOST_POINTS
    ) -> TimelineParameters:
        """Return the query for it; the API picks the resolution.

        What follows the newest never begins before the timeline does, so that a young stream fills the picture.
        """
        if covered is None or (self.span_s is None and self.start_us is None):
            return TimelineParameters.model_validate({"max_points": max_points})
        span_us = int((self.span_s or 0) * SECOND_US)
        if self.start_us is not None:
            start_us, end_us = self.start_us, self.start_us + span_us
        else:
            live_end_us = max(covered.end_us, now_us - _ON_ITS_WAY_S * SECOND_US)
            end_us = live_end_us if lane is StreamClass.LIVE else covered.end_us
            start_us = max(covered.start_us, end_us - span_us)
        edges = {"from": iso(to_datetime(max(0, start_us))), "to": iso(to_datetime(max(1, start_us + 1, end_us)))}
        return TimelineParameters.model_validate({**edges, "max_points": max_points})
