"""Results for each face in each sampled frame, as CSV, NDJSON or Parquet: one row for a face, one for a frame without any."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from moodline.services.report.moments import iso, to_datetime
from moodline.shared.emotions import EMOTIONS, PROBABILITY_SCALE
from moodline.shared.errors import OutputError
from moodline.shared.messages import Emotions

if TYPE_CHECKING:
    import pyarrow as pa

FACE_SUFFIXES: Final = (".csv", ".ndjson", ".jsonl", ".parquet")
_ROWS_AT_ONCE: Final = 10_000


class FaceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One face in one sampled frame; of a frame without faces, `track` and all that follows it is None.

    Attributes:
        frame: Number of the sampled frame, from 0; of a live stream within its connection.
        position_s: Media time of a file in s, exact to the microsecond; None for live streams.
        time: Wall time in ISO 8601; without a time of recording it counts from 1970-01-01T00:00:00Z.
        skipped: Why the frame was not looked at: `expired`, `overloaded`, `corrupt`, `lost`; None: it was.
        model: Name of the classifier's model; None where nothing was looked at.
        track: Number of the face, the same over time.
        x1, y1, x2, y2: Box in px of the source's picture, from its left upper corner.
        score: The detector's, 0 to 1.
        quality: How well an expression can be read, 0 to 1.
        readable: Whether it is counted: its quality is at least MOODLINE_AGGREGATOR_MIN_QUALITY.
        raw: Seven probabilities in the order of `EMOTIONS`, as the model gave them.
        smoothed: The same, smoothed over time for the track; None as long as the track could not be read.
    """

    frame: int
    position_s: float | None
    time: str
    skipped: str | None = None
    model: str | None = None
    track: int | None = None
    x1: float | None = None
    y1: float | None = None
    x2: float | None = None
    y2: float | None = None
    score: float | None = None
    quality: float | None = None
    readable: bool | None = None
    raw: tuple[float, ...] | None = None
    smoothed: tuple[float, ...] | None = None


_SINGLE: Final = tuple(name for name in FaceRow.__struct_fields__ if name not in ("raw", "smoothed"))
FACE_FIELDS: Final = (*_SINGLE, *(f"{kind}_{emotion}" for kind in ("raw", "smoothed") for emotion in EMOTIONS))
"""The columns of all formats, in their order."""


def face_rows(
    message: Emotions, tracked: Sequence[tuple[int, tuple[int, ...], bool]], size_px: tuple[int, int], origin_us: int | None
) -> Iterator[FaceRow]:
    """Yield the rows of one frame.

    Args:
        message: The frame's result.
        tracked: Track, smoothed probabilities (integers of 65535), and whether it is readable, of each face, in their order.
        size_px: Width and height of the source's picture; (0, 0): as large as the one that was searched.
        origin_us: Time of a file's first instant, microseconds since the Unix epoch; None for live streams.
    """
    frame, at_us = message.seq, message.event_time_us
    position_s = None if origin_us is None else (at_us - origin_us) / 1e6
    time, model = iso(to_datetime(at_us)), message.model or None
    if not message.faces:
        skipped = None if message.skip is None else str(message.skip)
        yield FaceRow(frame=frame, position_s=position_s, time=time, skipped=skipped, model=model)
        return
    width, height = size_px if all(size_px) else (message.width, message.height)
    for face, (track, smoothed, readable) in zip(message.faces, tracked, strict=True):
        x1, x2 = (round(value * width / 65_536, 2) for value in face.box[::2])
        y1, y2 = (round(value * height / 65_536, 2) for value in face.box[1::2])
        yield FaceRow(
            frame=frame,
            position_s=position_s,
            time=time,
            model=model,
            track=track,
            x1=x1,
            y1=y1,
            x2=x2,
            y2=y2,
            score=round(face.score / PROBABILITY_SCALE, 4),
            quality=round(face.quality / PROBABILITY_SCALE, 4),
            readable=readable,
            raw=_shares(face.probabilities),
            smoothed=_shares(smoothed) if any(smoothed) else None,
        )


def flat(row: FaceRow) -> dict[str, Any]:
    """Return a row by the names of `FACE_FIELDS`."""
    values: dict[str, Any] = {name: getattr(row, name) for name in _SINGLE}
    for kind in ("raw", "smoothed"):
        seven = getattr(row, kind) or (None,) * len(EMOTIONS)
        values |= {f"{kind}_{emotion}": value for emotion, value in zip(EMOTIONS, seven, strict=True)}
    return values


def write_faces(rows: Iterable[FaceRow], file: IO[bytes], file_format: str) -> None:
    """Write rows; memory does not grow with their number.

    Args:
        rows: In the order in which they are written.
        file: Open for writing; stays open.
        file_format: `csv`, `ndjson` (also `jsonl`) or `parquet`.

    Raises:
        OutputError: the format is unknown, or `parquet` without the package pyarrow.
    """
    writers = {"csv": _write_csv, "ndjson": _write_ndjson, "jsonl": _write_ndjson, "parquet": _write_parquet}
    if file_format not in writers:
        raise OutputError(f"faces are written as csv, ndjson or parquet, not as {file_format!r}")
    writers[file_format](rows, file)


def require_faces_format(path: Path) -> str:
    """Return the format that a file's ending names.

    Raises:
        OutputError: it names none, or the package for it is missing.
    """
    name = path.suffix.removeprefix(".").lower()
    if f".{name}" not in FACE_SUFFIXES:
        raise OutputError(f"{path}: faces are written into a file that ends with {', '.join(FACE_SUFFIXES)}")
    if name == "parquet":
        _arrow()
    return name


def arrow_schema() -> "pa.Schema":
    """Return the schema of a faces table.

    Raises:
        OutputError: pyarrow is not installed.
    """
    pa = _arrow()
    kinds = {"frame": pa.int64(), "track": pa.int64(), "time": pa.string(), "skipped": pa.string(), "model": pa.string()}
    kinds["readable"] = pa.bool_()
    return pa.schema([(name, kinds.get(name, pa.float64())) for name in FACE_FIELDS])


def _shares(values: Sequence[int]) -> tuple[float, ...]:
    return tuple(round(value / PROBABILITY_SCALE, 6) for value in values)


def _write_csv(rows: Iterable[FaceRow], file: IO[bytes]) -> None:
    text = TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text)
        writer.writerow(FACE_FIELDS)
        writer.writerows(flat(row).values() for row in rows)
    finally:
        text.detach()


def _write_ndjson(rows: Iterable[FaceRow], file: IO[bytes]) -> None:
    for row in rows:
        file.write(json.dumps(flat(row), separators=(",", ":")).encode() + b"\n")


def _write_parquet(rows: Iterable[FaceRow], file: IO[bytes]) -> None:
    pa, schema = _arrow(), arrow_schema()
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema) as writer:
        left = iter(rows)
        while batch := [flat(row) for row in islice(left, _ROWS_AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _arrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise OutputError("Parquet and Arrow need the package pyarrow: pip install 'moodline[parquet]'") from None
    return pyarrow
