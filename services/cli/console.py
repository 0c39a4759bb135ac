"""The console that commands print their tables on."""

import re
from typing import Any, Final

from rich.console import Console

_PADDING: Final = re.compile(r" +$", re.MULTILINE)


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
