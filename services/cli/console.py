"""The console that commands print their tables on."""

import re
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

_PADDING: Final = re.compile(r" +$", re.MULTILINE)
_LEAST: Final = 24
"""A word that is longer than so many characters, such as a path, may be broken."""


class TableConsole(Console):
    """A console that writes no spaces at the ends of lines into a pipe or a file: they are noise to `grep`, `cut` and `diff`."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `Console.print` does."""
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write(_PADDING.sub("", captured.get()))
        self.file.flush()


def fitted(table: Table, width: int) -> RenderableType:
    """Return a table; where a line has no room for its columns, its rows as cards, one below the other, of which nothing is cut.

    Args:
        table: Its first column identifies a row.
        width: Characters of a line.
    """
    for column in table.columns:
        column.min_width = _needed(column)  # so that no word is broken that has room
    needed = sum(column.min_width or 0 for column in table.columns) + 2 * (len(table.columns) - 1)
    return table if needed <= width else Group(*(_card(table, number) for number in range(table.row_count)))


def _needed(column: Column) -> int:
    cells = [str(cell) for cell in (column.header, *column.cells)]
    if column.no_wrap:
        return max(map(len, cells))
    return max(min(_LEAST, len(word)) for cell in cells for word in (cell.split() or [""]))


def _card(table: Table, number: int) -> RenderableType:
    first, *rest = ((str(column.header), list(column.cells)[number]) for column in table.columns)
    card = Table.grid(padding=(0, 1))
    card.add_column(style="dim", no_wrap=True)
    card.add_column(overflow="fold")
    for name, cell in rest:
        if str(cell):
            card.add_row(f"  {name}", cell)
    return Group(Text(str(first[1]), style=first[1].style if isinstance(first[1], Text) else "", overflow="fold"), card)
