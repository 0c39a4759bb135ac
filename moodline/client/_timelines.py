"""Methods that read timelines."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from moodline.answers import Comparison, Summary, Timeline, Track, TrackPage, TrackTimeline
from moodline.client._frame import Values, frame_of
from moodline.client._given import Names, When, names, query, stream_path, when
from moodline.client._link import PREFIX, Link

if TYPE_CHECKING:
    import pandas as pd

_PAGE: Final = 500


class TimelineMethods:
    """Part of `Client`.

    Windows are given as `start` and `end` (not included): datetimes with a time zone, ISO 8601, `now`, or relative such as
    `-1h`, which counts from a file's end and from the present for a live stream. How finely: `resolution` (`1s`, `10s`, `1min`,
    `10min`, `1h`), or `max_points`, the finest points of which there are at most so many; not both.
    """

    _link: Link

    def timeline(
        self,
        stream_id: str,
        *,
        start: When | None = None,
        end: When | None = None,
        resolution: str | None = None,
        max_points: int | None = None,
    ) -> Timeline:
        """Return a window of a stream's timeline, empty stretches included, each with the reason why it is empty."""
        asked = query(from_=when(start), to=when(end), resolution=resolution, max_points=max_points)
        return self._link.ask(Timeline, "GET", stream_path(stream_id, "timeline"), params=asked)

    def timeline_csv(
        self,
        stream_id: str,
        *,
        start: When | None = None,
        end: When | None = None,
        resolution: str | None = None,
        max_points: int | None = None,
    ) -> str:
        """Return a window of a stream's timeline as CSV with a header."""
        asked = query(from_=when(start), to=when(end), resolution=resolution, max_points=max_points, format="csv")
        return self._link.send("GET", PREFIX + stream_path(stream_id, "timeline"), params=asked).text

    def timeline_frame(
        self,
        stream_id: str,
        *,
        start: When | None = None,
        end: When | None = None,
        resolution: str | None = None,
        max_points: int | None = None,
        values: Values = "smoothed",
    ) -> "pd.DataFrame":
        """Return a window of a stream's timeline as a pandas frame; needs the extra `pandas`.

        One row for each point, indexed by `start` (UTC). `position_s`: media time of a file. One column for each emotion: mean
        probabilities (`smoothed`, as on the page and in plots; `raw`), or of all faces the share that it leads (`shares`), 0 to
        1; NaN where there are none. Then the counts `sampled`,
        `classified`, `skipped`, `frames_with_faces`, `faces`, `tracks_begun`, `unreadable`, `too_small`, and `coverage`,
        `dominant`, `empty`, `final`.

        Raises:
            ClientError: pandas is not installed.
        """
        found = self.timeline(stream_id, start=start, end=end, resolution=resolution, max_points=max_points)
        return frame_of(found, values)

    def summary(self, stream_id: str, *, start: When | None = None, end: When | None = None) -> Summary:
        """Return a window of a stream's timeline as one point."""
        asked = query(from_=when(start), to=when(end))
        return self._link.ask(Summary, "GET", stream_path(stream_id, "summary"), params=asked)

    def list_tracks(self, stream_id: str, *, start: When | None = None, end: When | None = None) -> Iterator[Track]:
        """Iterate over the faces that were followed through a stream and seen at some time in the window, in order."""
        asked = query(from_=when(start), to=when(end), limit=_PAGE)
        while True:
            page = self._link.ask(TrackPage, "GET", stream_path(stream_id, "tracks"), params=asked)
            yield from page.tracks
            if page.next_cursor is None:
                return
            asked["cursor"] = page.next_cursor

    def track_timeline(
        self,
        stream_id: str,
        track: int,
        *,
        start: When | None = None,
        end: When | None = None,
        resolution: str | None = None,
        max_points: int | None = None,
    ) -> TrackTimeline:
        """Return a window of one face's timeline."""
        asked = query(from_=when(start), to=when(end), resolution=resolution, max_points=max_points)
        return self._link.ask(TrackTimeline, "GET", stream_path(stream_id, "tracks", str(int(track))), params=asked)

    def compare(
        self,
        streams: Names = (),
        *,
        labels: Names = (),
        group_by: str | None = None,
        start: When | None = None,
        end: When | None = None,
        max_points: int | None = None,
    ) -> Comparison:
        """Return several timelines on one grid of points.

        Args:
            streams: Ids; or give `labels`.
            labels: `key=value` or `key`: all streams with all of them.
            group_by: A label's key: streams with the same value of it are merged into one series.
            start: Start of the window.
            end: Its end, not included.
            max_points: Most points of each series.
        """
        asked = query(stream=names(streams), label=names(labels), group_by=group_by, max_points=max_points)
        asked |= query(from_=when(start), to=when(end))
        return self._link.ask(Comparison, "GET", "/compare", params=asked)
