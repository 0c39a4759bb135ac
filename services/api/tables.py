"""Timelines, tracks and faces as tables: CSV (RFC 4180), Parquet, Arrow's stream of record batches; and one JSON object a line.

The columns of a table have the same names and the same order in every format. Parquet and Arrow need the extra `parquet`.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from fastapi import Response
from pydantic import BaseModel

from moodline.services.api.negotiation import MEDIA_TYPES, Format
from moodline.services.report.document import PointDocument
from moodline.services.report.export import csv_cell
from moodline.services.report.moments import iso
from moodline.services.report.tracks import TrackDocument, TrackPointDocument
from moodline.shared.emotions import EMOTIONS
from moodline.shared.messages import DropReason

EXTENSIONS: Final[Mapping[Format, str]] = {
    Format.CSV: "csv",
    Format.NDJSON: "ndjson",
    Format.PARQUET: "parquet",
    Format.ARROW: "arrows",
}
_CSV_TYPE: Final = "text/csv; charset=utf-8; header=present"


class Kind(StrEnum):
    """The types of columns."""

    TEXT = "text"
    TEXTS = "texts"
    INTEGER = "integer"
    REAL = "real"
    FLAG = "flag"
    TIME = "time"


class Column(NamedTuple):
    """A column's name and type."""

    name: str
    kind: Kind = Kind.REAL


class Table(NamedTuple):
    """Rows of values in the order of the columns; None where there is none.

    Attributes:
        columns: Names and types.
        rows: Texts, lists of texts, numbers, flags, and times with a zone.
    """

    columns: tuple[Column, ...]
    rows: list[list[Any]]


def _of(kind: Kind, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind) for name in names)


def _vectors(*names: str) -> tuple[Column, ...]:
    return _of(Kind.REAL, *(f"{name}_{emotion}" for name in names for emotion in EMOTIONS))


POINT_COLUMNS: Final = (
    Column("start", Kind.TIME),
    Column("position_s"),
    *_of(Kind.INTEGER, "sampled", "classified", *(f"skipped_{reason}" for reason in DropReason)),
    Column("coverage"),
    *_of(Kind.INTEGER, "frames_with_faces", "faces", "tracks_begun"),
    *_of(Kind.TEXT, "dominant", "empty"),
    Column("models", Kind.TEXTS),
    Column("final", Kind.FLAG),
    *_vectors("shares", "smoothed", "raw"),
    *_of(Kind.INTEGER, "unreadable", "too_small"),
)
TRACK_COLUMNS: Final = (
    Column("track", Kind.INTEGER),
    *_of(Kind.TIME, "first", "last"),
    Column("position_s"),
    Column("frames", Kind.INTEGER),
    Column("dominant", Kind.TEXT),
    Column("ended", Kind.FLAG),
    *_vectors("shares", "smoothed"),
)
TRACK_POINT_COLUMNS: Final = (
    Column("start", Kind.TIME),
    Column("position_s"),
    Column("frames", Kind.INTEGER),
    Column("dominant", Kind.TEXT),
    Column("models", Kind.TEXTS),
    *_vectors("shares", "smoothed"),
)


def point_table(points: Iterable[PointDocument]) -> Table:
    """Return the points of a timeline."""
    return _table(POINT_COLUMNS, points)


def track_table(tracks: Iterable[TrackDocument]) -> Table:
    """Return tracks."""
    return _table(TRACK_COLUMNS, tracks)


def track_point_table(points: Iterable[TrackPointDocument]) -> Table:
    """Return the points of one track's timeline."""
    return _table(TRACK_POINT_COLUMNS, points)


def exported(
    wanted: Format, table: Table, documents: Sequence[BaseModel], name: str, described: Mapping[str, object] | None = None
) -> Response:
    """Return rows as an answer in a format other than JSON, as a file of the given name without its ending.

    Args:
        wanted: The format.
        table: For CSV, Parquet and Arrow.
        documents: The same rows, for NDJSON.
        name: Letters, digits, `.`, `_`, `-`.
        described: What holds for all rows, such as the stream: metadata of the schema in Parquet and Arrow.
    """
    return as_file(wanted, ndjson(documents) if wanted is Format.NDJSON else table_bytes(wanted, table, described), name)


def ndjson(documents: Iterable[BaseModel]) -> bytes:
    """Return documents as JSON, one a line."""
    return "".join(f"{document.model_dump_json(by_alias=True)}\n" for document in documents).encode()


def as_file(wanted: Format, body: bytes, name: str) -> Response:
    """Return an answer in a format other than JSON, as a file of the given name without its ending."""
    media = _CSV_TYPE if wanted is Format.CSV else MEDIA_TYPES[wanted][0]
    disposition = f'attachment; filename="{name}.{EXTENSIONS[wanted]}"'
    return Response(body, media_type=media, headers={"content-disposition": disposition, "vary": "Accept"})


def table_bytes(wanted: Format, table: Table, described: Mapping[str, object] | None = None) -> bytes:
    """Return a table as CSV, Parquet (compressed by Zstandard) or an Arrow stream."""
    if wanted is Format.CSV:
        return _csv(table).encode()
    import pyarrow

    metadata = {f"moodline.{key}": str(value) for key, value in (described or {}).items() if value is not None}
    made = _arrow(pyarrow, table).replace_schema_metadata(metadata)
    target = io.BytesIO()
    if wanted is Format.PARQUET:
        from pyarrow import parquet

        parquet.write_table(made, target, compression="zstd")
    else:
        with pyarrow.ipc.new_stream(target, made.schema) as writer:
            writer.write_table(made)
    return target.getvalue()


def _arrow(pyarrow: Any, table: Table) -> Any:
    types = {
        Kind.TEXT: pyarrow.string(),
        Kind.TEXTS: pyarrow.list_(pyarrow.string()),
        Kind.INTEGER: pyarrow.int64(),
        Kind.REAL: pyarrow.float64(),
        Kind.FLAG: pyarrow.bool_(),
        Kind.TIME: pyarrow.timestamp("us", tz="UTC"),
    }
    values = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    arrays = [pyarrow.array(list(column), types[each.kind]) for each, column in zip(table.columns, values, strict=True)]
    return pyarrow.table(arrays, names=[each.name for each in table.columns])


def _csv(table: Table) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(column.name for column in table.columns)
    writer.writerows([_cell(value) for value in row] for row in table.rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    return csv_cell(" ".join(value) if isinstance(value, list) else value)


def _table(columns: tuple[Column, ...], documents: Iterable[BaseModel]) -> Table:
    readers = [_reader(column.name) for column in columns]
    return Table(columns, [[read(document) for read in readers] for document in documents])


def _reader(name: str) -> Any:
    """Return what reads a column from a document: a field, or one value of a field that holds several."""
    whole, _, part = name.partition("_")
    if whole in ("skipped", "shares", "smoothed", "raw"):
        default = 0 if whole == "skipped" else None
        return lambda document: (getattr(document, whole) or {}).get(part, default)
    return lambda document: getattr(document, name)
