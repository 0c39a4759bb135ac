"""Timelines as tables."""

from typing import Literal

import pytest
from rich.console import Console

from moodline.services.report import EMOTION_COLORS, TimelineDocument, palette_of, timeline_table
from moodline.services.report.palette import EMOTION_COLORS_16, GAP_HATCHES, GAP_NAMES
from moodline.services.report.table import BAR_CELLS
from moodline.shared.emotions import EMOTIONS
from moodline.shared.messages import DropReason, StreamClass
from moodline.shared.timeline.bucket import Bucket
from moodline.shared.timeline.points import EmptyReason
from tests.support.api import nobody, skipped, smiling
from tests.support.timelines import make_document

ColorSystem = Literal["standard", "truecolor"]


def shown(document: TimelineDocument, *, color: ColorSystem | None = None, width: int = 120) -> list[str]:
    console = Console(width=width, color_system=color, force_terminal=color is not None)
    with console.capture() as captured:
        console.print(timeline_table(document, palette=palette_of(console.color_system), width=width))
    return [line.strip() for line in captured.get().splitlines() if line.strip()]


def test_one_row_per_point_and_one_per_gap() -> None:
    gap = [nobody(), nobody(), skipped(DropReason.OVERLOADED), Bucket()]
    lines = shown(make_document([smiling(), *gap, smiling(share=0.3)]))
    assert lines[0] == "lobby · 1 s per row"
    assert [line.split() for line in lines[3:8]] == [
        ["0:00", "happy", "happy", "80%,", "neutral", "20%,", "angry", "0%", "5", "5"],
        ["0:01", "to", "0:03", "-", "no", "face", "0", "10"],
        ["0:03", "-", "overloaded", "0", "0", "of", "5"],
        ["0:04", "-", "not", "sampled", "0", "0"],
        ["0:05", "neutral", "neutral", "70%,", "happy", "30%,", "angry", "0%", "5", "5"],
    ]
    assert lines[8] == "25 frames · 10 faces · 80.0% of the frames were looked at · mostly happy (50%)"


def test_points_with_faces_never_share_a_row() -> None:
    lines = shown(make_document([smiling()] * 3))
    assert [line.split()[0] for line in lines[3:6]] == ["0:00", "0:01", "0:02"]


def test_a_live_stream_shows_utc() -> None:
    lines = shown(make_document([smiling(), nobody(), nobody()], lane=StreamClass.LIVE, resolution_s=60))
    assert lines[0] == "lobby · 1 min per row · 2026-05-01 UTC"
    assert lines[3].startswith("12:00:00 ")
    assert lines[4].startswith("12:01:00 to 12:03:00")


def test_a_window_over_midnight_shows_the_day_in_each_row() -> None:
    lines = shown(make_document([smiling()] * 20, lane=StreamClass.LIVE, resolution_s=3600))
    assert lines[0] == "lobby · 1 h per row · UTC"
    assert lines[3].startswith("05-01 12:00:00 ")
    assert lines[15].startswith("05-02 00:00:00 ")


@pytest.mark.parametrize("color", [None, "standard", "truecolor"])
@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_cuts_nothing_that_identifies_a_row(color: ColorSystem | None, width: int) -> None:
    gap = [nobody()] * 3
    lines = shown(
        make_document([smiling(), *gap, smiling()], lane=StreamClass.LIVE, resolution_s=21_600), color=color, width=width
    )
    rows = [line for line in lines if "05-0" in line]
    assert len(set(rows)) == 3
    assert "05-01 18:00:00 to 05-02 12:00:00" in rows[1]
    assert all("happy" in row and "80%" in row for row in (rows[0], rows[2]))


def test_a_name_is_shown_as_it_is() -> None:
    document = make_document([smiling()]).model_copy(update={"stream": "[bold]a[/x]$b$.mp4"})
    assert shown(document)[0].startswith("[bold]a[/x]$b$.mp4 ·")


def test_nothing_yet() -> None:
    assert shown(make_document([]))[-1] == "nothing is in the timeline here yet"


def test_a_window_without_faces() -> None:
    assert shown(make_document([nobody()]))[-1] == "5 frames · 0 faces · no face"


@pytest.mark.parametrize(("share", "happy"), [(0.0, 0), (0.013, 0), (0.25, 7), (0.5, 14), (0.99, BAR_CELLS), (1.0, BAR_CELLS)])
def test_a_bar_is_as_long_as_the_others_and_coloured(share: float, happy: int) -> None:
    document = make_document([smiling(share=share)])
    row = next(line for line in shown(document, color="truecolor") if "0:00" in line)
    assert row.count("█") == BAR_CELLS
    red, green, blue = (int(EMOTION_COLORS["happy"][at : at + 2], 16) for at in (1, 3, 5))
    cells = row.split(f"38;2;{red};{green};{blue}m")
    assert sum(part.split("\x1b")[0].count("█") for part in cells[1:]) == happy


def test_the_palette_covers_everything_with_different_colours() -> None:
    assert tuple(EMOTION_COLORS) == EMOTIONS
    assert len(set(EMOTION_COLORS.values())) == len(EMOTIONS)
    assert tuple(EMOTION_COLORS_16) == EMOTIONS
    assert len(set(EMOTION_COLORS_16.values())) == len(EMOTIONS)
    assert set(GAP_HATCHES) == set(GAP_NAMES) == set(EmptyReason)
