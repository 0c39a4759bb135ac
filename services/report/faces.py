"""Results for each face in each sampled frame: one row for a face, one for a frame without any. As documents and as tables."""

import csv
import json
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from moodline.services.report.document import ByEmotion, by_emotion
from moodline.services.report.export import csv_cell
from moodline.services.report.moments import Time, iso, to_datetime
from moodline.shared.emotions import EMOTIONS, PROBABILITY_SCALE
from moodline.shared.errors import OutputError
from moodline.shared.timeline.faces import SeenFace, SeenFrame

if TYPE_CHECKING:
    import pyarrow as pa

FACE_SUFFIXES: Final = (".csv", ".ndjson", ".jsonl", ".parquet")
_ROWS_AT_ONCE: Final = 10_000
_BOX_SCALE: Final = 65_536
_CROP_SIDE_PX: Final = 48
_SEVEN: Final = {**dict.fromkeys(EMOTIONS, 0.0), "happy": 0.9, "neutral": 0.1}
FACE_EXAMPLE: Final[dict[str, Any]] = {
    "frame": 12,
    "position_s": 2.4,
    "time": "2026-05-01T12:00:02.400000Z",
    "skipped": None,
    "model": "fer-2-small",
    "track": 1,
    "box": [312.5, 80.25, 401.0, 198.5],
    "score": 0.98,
    "quality": 0.98,
    "readable": True,
    "raw": _SEVEN,
    "smoothed": _SEVEN,
}


class FaceRow(BaseModel):
    """One face in one sampled frame; or a frame without a face, whose fields from `track` on are null."""

    model_config = ConfigDict(json_schema_extra={"examples": [FACE_EXAMPLE]})

    frame: int = Field(description="Number of the sampled frame: of a file from its start, of a camera since it was connected.")
    position_s: float | None = Field(None, description="Media time of the file, in s, to the microsecond; null for live streams.")
    time: Time = Field(description="Wall time: the frame's place on the timeline; without a time of recording from 1970 on.")
    skipped: str | None = Field(None, description="Why the frame was not looked at; null where it was.")
    model: str | None = Field(None, description="Name of the model; null where the frame was not looked at.")
    track: int | None = Field(None, description="Number of the face, the same over time.")
    box: tuple[float, float, float, float] | None = Field(
        None, description="Left, top, right, bottom in px of the source's picture."
    )
    score: float | None = Field(None, description="The detector's score, 0 to 1.")
    quality: float | None = Field(None, description="How well an expression can be read from it, 0 to 1.")
    readable: bool | None = Field(
        None, description="Whether it is counted: its quality was at least MOODLINE_AGGREGATOR_MIN_QUALITY."
    )
    raw: ByEmotion | None = Field(None, description="Probabilities as the model gave them.")
    smoothed: ByEmotion | None = Field(None, description="The same, smoothed over time for the track; null where not readable.")


FACE_FIELDS: Final = (
    *("frame", "position_s", "time", "skipped", "model", "track", "x1", "y1", "x2", "y2", "score", "quality", "readable"),
    *(f"{kind}_{emotion}" for kind in ("raw", "smoothed") for emotion in EMOTIONS),
)
"""The columns of all tables, in their order."""


def face_rows(frame: SeenFrame, size_px: tuple[int, int], origin_us: int | None) -> Iterator[FaceRow]:
    """Yield the rows of one frame.

    Args:
        frame: The frame with its faces.
        size_px: Width and height of the source's picture; (0, 0): as large as the one that was searched.
        origin_us: Time of a file's first instant, microseconds since the Unix epoch; None for live streams.
    """
    row = FaceRow(
        frame=frame.frame,
        position_s=None if origin_us is None else (frame.time_us - origin_us) / 1e6,
        time=to_datetime(frame.time_us),
        skipped=None if frame.skipped is None else str(frame.skipped),
        model=frame.model or None,
    )
    if not frame.faces:
        yield row
    sides = (size_px if all(size_px) else (frame.width, frame.height)) * 2
    for face in frame.faces:
        left, top, right, bottom = (round(edge * side / _BOX_SCALE, 2) for edge, side in zip(face.box, sides, strict=True))
        yield row.model_copy(
            update={
                "track": face.track,
                "box": (left, top, right, bottom),
                "score": round(face.score / PROBABILITY_SCALE, 4),
                "quality": _quality(face, frame),
                "readable": any(face.smoothed),
                "raw": _shares(face.raw),
                "smoothed": _shares(face.smoothed),
            }
        )


def flat(row: FaceRow) -> dict[str, Any]:
    """Return a row by the names of `FACE_FIELDS`, its time as a text of ISO 8601."""
    vectors = [(values or {}).get(emotion) for values in (row.raw, row.smoothed) for emotion in EMOTIONS]
    plain = [row.frame, row.position_s, iso(row.time), row.skipped, row.model, row.track]
    values = [*plain, *(row.box or (None,) * 4), row.score, row.quality, row.readable, *vectors]
    return dict(zip(FACE_FIELDS, values, strict=True))


def write_faces(rows: Iterable[FaceRow], file: IO[bytes], file_format: str, stream: str = "") -> None:
    """Write rows; memory does not grow with their number.

    Args:
        rows: In the order in which they are written.
        file: Open for writing; stays open.
        file_format: `csv`, `ndjson` (also `jsonl`), `parquet` (compressed by Zstandard) or `arrow` (a stream of record batches).
        stream: Id of the stream, for the metadata of Parquet and Arrow.

    Raises:
        OutputError: the format is unknown, or `parquet` or `arrow` without the package pyarrow.
    """
    if file_format not in ("csv", "ndjson", "jsonl", "parquet", "arrow"):
        raise OutputError(f"faces are written as csv, ndjson or parquet, not as {file_format!r}")
    if file_format in ("parquet", "arrow"):
        schema = arrow_schema()
        named = schema.with_metadata({"moodline.stream": stream}) if stream else schema
        (_write_parquet if file_format == "parquet" else _write_arrow)(rows, file, named)
    else:
        (_write_csv if file_format == "csv" else _write_ndjson)(rows, file)


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
    kinds = {"frame": pa.int64(), "track": pa.int64(), "skipped": pa.string(), "model": pa.string(), "readable": pa.bool_()}
    kinds["time"] = pa.timestamp("us", tz="UTC")
    return pa.schema([(name, kinds.get(name, pa.float64())) for name in FACE_FIELDS])


def _quality(face: SeenFace, frame: SeenFrame) -> float:
    """Return the detector's own measure; else its score times how much of the 48 px that the network sees the face has."""
    if face.quality is not None:
        return round(face.quality / PROBABILITY_SCALE, 4)
    left, top, right, bottom = face.box
    side_px = min((right - left) * frame.width, (bottom - top) * frame.height) / _BOX_SCALE
    return round(face.score / PROBABILITY_SCALE * min(1.0, side_px / _CROP_SIDE_PX), 4)


def _shares(values: tuple[int, ...]) -> ByEmotion | None:
    return by_emotion(tuple(value / PROBABILITY_SCALE for value in values)) if any(values) else None


def _write_csv(rows: Iterable[FaceRow], file: IO[bytes]) -> None:
    text = TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text)
        writer.writerow(FACE_FIELDS)
        writer.writerows([csv_cell(value) for value in flat(row).values()] for row in rows)
    finally:
        text.detach()


def _write_ndjson(rows: Iterable[FaceRow], file: IO[bytes]) -> None:
    for row in rows:
        file.write(json.dumps(flat(row), separators=(",", ":")).encode() + b"\n")


def _write_parquet(rows: Iterable[FaceRow], file: IO[bytes], schema: "pa.Schema") -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _batches(rows, schema):
            writer.write_table(batch)


def _write_arrow(rows: Iterable[FaceRow], file: IO[bytes], schema: "pa.Schema") -> None:
    with _arrow().ipc.new_stream(file, schema) as writer:
        for batch in _batches(rows, schema):
            writer.write_table(batch)


def _batches(rows: Iterable[FaceRow], schema: "pa.Schema") -> Iterator["pa.Table"]:
    left = iter(rows)
    while batch := [{**flat(row), "time": row.time} for row in islice(left, _ROWS_AT_ONCE)]:
        yield _arrow().Table.from_pylist(batch, schema=schema)


def _arrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise OutputError("Parquet and Arrow need the package pyarrow: pip install 'moodline[parquet]'") from None
    return pyarrow
