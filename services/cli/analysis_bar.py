"""One progress bar for a whole analysis: reading and looking first, then the annotated video, if one is wanted."""

import sys
from fractions import Fraction
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from types import TracebackType

    from moodline.services.analysis.analyze import AnalysisProgress


class AnalysisBar:
    """Progress on standard error, where that is a terminal. Use as a context manager."""

    def __init__(self, console: Console, title: str, *, annotates: bool) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())
        self._prefix = f"{escape(title)}: " if title else ""
        self._task = self._bar.add_task(self._prefix + "loading models", total=None)
        # The annotated video is a second pass over the same content.
        self._passes = 2 if annotates else 1
        self._duration_us: int | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None") -> None:
        self._bar.stop()

    def analysed(self, now: "AnalysisProgress") -> None:
        """Show how far the analysis is."""
        description = self._prefix + (f"{now.frames} frames" if now.frames else "loading models")
        self._duration_us = now.duration_us
        self._update(description, now.media_us)

    def annotated(self, at_s: Fraction) -> None:
        """Show how far the annotated video is."""
        done_us = int(at_s * 1_000_000)
        self._update(self._prefix + "annotated video", (self._duration_us or 0) + done_us)

    def hide(self) -> None:
        """Take the bar away, so that something else can be printed."""
        self._bar.stop()

    def show(self) -> None:
        """Show the bar again."""
        self._bar.start()

    def close(self) -> None:
        """Take the bar away for good."""
        self._bar.stop()

    def _update(self, description: str, done_us: int) -> None:
        if self._duration_us:
            total = self._passes * self._duration_us
            self._bar.update(self._task, description=description, completed=min(done_us, total), total=total)
        else:
            self._bar.update(self._task, description=description)
