"""The console that commands print their tables on."""

import re
from collections.abc import Iterable
from typing import Any, Final

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from moodline.shared.printable import printable

_UNFIT_OF_JSON: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Other control characters are escaped in all JSON."""
_PADDING: Final = re.compile(r" +$", re.MULTILINE)
_LEAST: Final = 24
"""A word that is longer than so many characters, such as a path, may be broken."""


def echo_json(text: str) -> None:
    """Print JSON; characters that a terminal would obey are escaped in it, which is the same JSON."""
    typer.echo("\n".join(_UNFIT_OF_JSON.sub(_escaped, line) for line in text.split("\n")))


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


class TableConsole(Console):
    """A console for words of others.

    A command to the terminal (ESC …) in a label, a file's name or what a camera says is shown as it is written, not obeyed. Into
    a pipe or a file, no spaces are written at the ends of lines: they are noise to `grep`, `cut` and `diff`.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as `Console.render` does."""
        for segment in super().render(renderable, options):
            if segment.control is None and not segment.text.isprintable():
                yield segment._replace(text="\n".join(map(printable, segment.text.split("\n"))))
            else:
                yield segment

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
