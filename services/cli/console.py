"""The console that commands print their tables on."""

import re
from collections.abc import Iterable
from typing import Any, Final

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from moodline.shared.printable import printable

_UNFIT_OF_JSON: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Other control characters are escaped in all JSON."""
_PADDING: Final = re.compile(r" +$", re.MULTILINE)


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
