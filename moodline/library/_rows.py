"""Rows of results, for whatever a program goes on with: plain dictionaries, pandas, Arrow, CSV."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

from moodline.errors import ClientError
from moodline.services.report.export import csv_cell
from moodline.shared.emotions import EMOTIONS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Row = Mapping[str, Any]

_KINDS: Final = {
    **dict.fromkeys(("start", "time", "first", "last"), "time"),
    **dict.fromkeys(
        ("dominant", "empty", "models", "model", "skipped", "source_fps", "source_codec", "source_reason", "source_detail"),
        "text",
    ),
    **dict.fromkeys(("final", "ended", "readable"), "flag"),
    **dict.fromkeys(
        ("position_s", "coverage", "x1", "y1", "x2", "y2", "score", "quality", "source_length_s", "source_played_s"), "real"
    ),
    **{f"{vector}_{emotion}": "real" for vector in ("raw", "smoothed", "shares") for emotion in EMOTIONS},
}
_PANDAS: Final = {"text": "object", "integer": "Int64", "real": "float64", "flag": "boolean"}


def kind_of(column: str) -> str:
    """Return the kind of a column's values: `time`, `text`, `flag`, `real` or, for all that is counted, `integer`."""
    return _KINDS.get(column, "integer")


def _value(column: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if kind_of(column) == "time" and isinstance(value, str) else value


class Rows(Sequence[Row]):
    """A table as a sequence of dictionaries, all with the same keys, in the order of `columns`."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        self.columns = tuple(columns)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows": ...

    def __getitem__(self, index: int | slice) -> "Row | Rows":
        return Rows(self.columns, self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return f"<{len(self)} rows of {', '.join(self.columns[:6])}, …>"

    def to_pandas(self) -> "pd.DataFrame":
        """Return a pandas frame; what is missing is NaN, None or NA as pandas has it.

        Times are timestamps of UTC, whole numbers Int64, flags boolean, other numbers float64: the same whatever is missing.

        Raises:
            ClientError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise ClientError("a frame needs the package pandas: pip install 'moodline[pandas]'") from None
        frame = pd.DataFrame({name: [row[name] for row in self._rows] for name in self.columns})
        for name in self.columns:
            kind = kind_of(name)
            frame[name] = (
                pd.to_datetime(frame[name], utc=True, format="ISO8601") if kind == "time" else frame[name].astype(_PANDAS[kind])
            )
        return frame

    def to_arrow(self) -> "pa.Table":
        """Return an Arrow table, with the types of the Parquet files.

        Raises:
            ClientError: pyarrow is not installed.
        """
        try:
            import pyarrow as pa
        except ModuleNotFoundError:
            raise ClientError("Arrow needs the package pyarrow: pip install 'moodline[parquet]'") from None
        types = {
            "text": pa.string(), "integer": pa.int64(), "real": pa.float64(), "flag": pa.bool_(),
            "time": pa.timestamp("us", tz="UTC"),
        }  # fmt: skip
        columns = {name: [_value(name, row[name]) for row in self._rows] for name in self.columns}
        return pa.table(columns, pa.schema([(name, types[kind_of(name)]) for name in self.columns]))

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the rows as CSV with a header; also write it, if a path is given.

        Raises:
            OutputError: the file cannot be written.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(self.columns)
        writer.writerows([csv_cell(row[name]) for name in self.columns] for row in self._rows)
        if path is not None:
            from moodline.services.report.outputs import write_output

            write_output(Path(path), text.getvalue())
        return text.getvalue()
