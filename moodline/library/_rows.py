"""Rows of results, for whatever a program goes on with: plain dictionaries, pandas, Arrow, CSV."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from moodline.errors import ClientError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Row = Mapping[str, Any]


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
        """Return a pandas frame; what is missing is NaN, None or NaT as pandas has it.

        Raises:
            ClientError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise ClientError("a frame needs the package pandas: pip install 'moodline[pandas]'") from None
        frame = pd.DataFrame(list(self._rows), columns=list(self.columns))
        return frame.convert_dtypes() if frame.empty else frame

    def to_arrow(self) -> "pa.Table":
        """Return an Arrow table.

        Raises:
            ClientError: pyarrow is not installed.
        """
        try:
            import pyarrow as pa
        except ModuleNotFoundError:
            raise ClientError("Arrow needs the package pyarrow: pip install 'moodline[parquet]'") from None
        return pa.Table.from_pydict({name: [row[name] for row in self._rows] for name in self.columns})

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the rows as CSV with a header; also write it, if a path is given.

        Raises:
            OutputError: the file cannot be written.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(self.columns)
        writer.writerows([row[name] for name in self.columns] for row in self._rows)
        if path is not None:
            from moodline.services.report.outputs import write_output

            write_output(Path(path), text.getvalue())
        return text.getvalue()
