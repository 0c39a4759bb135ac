"""Timelines and faces as pandas frames. pandas is imported only when a frame is asked for."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal

from moodline.answers import FaceRow, Timeline
from moodline.errors import ClientError
from moodline.shared.emotions import EMOTIONS

if TYPE_CHECKING:
    import pandas as pd

Values = Literal["shares", "smoothed", "raw"]
"""The names of the three vectors of a point."""

_COUNTS: Final = ("sampled", "classified", "frames_with_faces", "faces", "tracks_begun", "unreadable", "too_small")
_FACE_REALS: Final = ("position_s", "x1", "y1", "x2", "y2", "score", "quality")
_FACE_FIELDS: Final = (
    *("frame", "position_s", "time", "skipped", "model", "track", "x1", "y1", "x2", "y2", "score", "quality", "readable"),
    *(f"{kind}_{emotion}" for kind in ("raw", "smoothed") for emotion in EMOTIONS),
)


def frame_of(timeline: Timeline, values: Values = "smoothed") -> "pd.DataFrame":
    """Return a timeline as a frame with one row for each point; see `Client.timeline_frame`.

    Raises:
        ClientError: pandas is not installed, or there are no such values.
    """
    pd = _pandas()
    if values not in ("shares", "smoothed", "raw"):
        raise ClientError("values is shares, smoothed or raw")
    points = timeline.points
    index = pd.DatetimeIndex([point.start for point in points], tz="UTC", name="start")
    seven: list[dict[str, float]] = [getattr(point, values) or {} for point in points]
    columns: dict[str, Any] = {
        "position_s": pd.array([point.position_s for point in points], dtype="Float64").to_numpy("float64", na_value=float("nan"))
    }
    columns |= {
        emotion: pd.array([each.get(emotion) for each in seven], dtype="Float64").to_numpy("float64", na_value=float("nan"))
        for emotion in EMOTIONS
    }
    columns |= {name: pd.array([getattr(point, name) for point in points], dtype="int64") for name in _COUNTS}
    columns["skipped"] = pd.array([sum(point.skipped.values()) for point in points], dtype="int64")
    columns["coverage"] = pd.array([point.coverage for point in points], dtype="float64")
    columns["dominant"] = [point.dominant for point in points]
    columns["empty"] = [point.empty for point in points]
    columns["final"] = pd.array([point.final for point in points], dtype="bool")
    return pd.DataFrame(columns, index=index)


def faces_frame_of(rows: Iterable[FaceRow]) -> "pd.DataFrame":
    """Return rows of faces as a frame; see `Client.faces_frame`. Raises `ClientError`: pandas is not installed."""
    pd = _pandas()
    flat = [_flat(row) for row in rows]
    frame = pd.DataFrame({name: [row[name] for row in flat] for name in _FACE_FIELDS})
    frame["time"] = pd.to_datetime(frame["time"], utc=True)
    frame["track"] = frame["track"].astype("Int64")
    frame["readable"] = frame["readable"].astype("boolean")
    reals = [name for name in _FACE_FIELDS if name.startswith(("raw_", "smoothed_")) or name in _FACE_REALS]
    frame[reals] = frame[reals].astype("float64")
    return frame


def _flat(row: FaceRow) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(row, name, None) for name in _FACE_FIELDS}
    values |= dict(zip(("x1", "y1", "x2", "y2"), row.box or (None,) * 4, strict=True))
    for kind in ("raw", "smoothed"):
        seven = getattr(row, kind) or {}
        values |= {f"{kind}_{emotion}": seven.get(emotion) for emotion in EMOTIONS}
    return values


def _pandas() -> Any:
    try:
        import pandas as pd
    except ImportError:
        raise ClientError("a frame needs the package pandas: pip install 'moodline[pandas]'") from None
    return pd
