"""Timelines as tables."""

import pytest
from rich.console import Console

from moodline.services.report import EMOTION_COLORS, TimelineDocument, timeline_table
from moodline.services.report.palette import GAP_HATCHES, GAP_NAMES
from moodline.services.report.table import BAR_CELLS
from moodline.shared.emotions import EMOTIONS
from moodline.shared.messages import SkipReason, StreamClass
from moodline.shared.timeline.bucket import Bucket
from moodline.shared.timeline.points import EmptyReason
from tests.support.api import nobody, skipped, smiling
from tests.support.timelines import make_document


def shown(document: TimelineDocument, *, color: bool = False) -> list[str]:
    console = Console(width=120, color_system="truecolor" if color else None, force_terminal=color)
    with console.capture() as captured:
        console.print(timeline_table(document, color=color))
    return [line.strip() for line in captured.get().splitlines() if line.strip()]


def test_one_row_per_point_and_one_per_gap() -> None:
    gap = [nobody(), nobody(), skipped(SkipReason.OVERLOADED), Bucket()]
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
    assert lines[0] == "lobby · 1 min per row"
    assert lines[3].startswith("2026-05-01T12:00:00Z")
    assert lines[4].startswith("2026-05-01T12:01:00Z to 2026-05-01T12:03:00Z")


def test_nothing_yet() -> None:
    assert shown(make_document([]))[-1] == "nothing is in the timeline here yet"


def test_a_window_without_faces() -> None:
    assert shown(make_document([nobody()]))[-1] == "5 frames · 0 faces · no face"


@pytest.mark.parametrize(("share", "happy"), [(0.0, 0), (0.013, 0), (0.25, 7), (0.5, 14), (0.99, BAR_CELLS), (1.0, BAR_CELLS)])
def test_a_bar_is_as_long_as_the_others_and_coloured(share: float, happy: int) -> None:
    document = make_document([smiling(share=share)])
    row = next(line for line in shown(document, color=True) if "0:00" in line)
    assert row.count("█") == BAR_CELLS
    red, green, blue = (int(EMOTION_COLORS["happy"][at : at + 2], 16) for at in (1, 3, 5))
    cells = row.split(f"38;2;{red};{green};{blue}m")
    assert sum(part.split("\x1b")[0].count("█") for part in cells[1:]) == happy


def test_the_palette_covers_everything_with_different_colours() -> None:
    assert tuple(EMOTION_COLORS) == EMOTIONS
    assert len(set(EMOTION_COLORS.values())) == len(EMOTIONS)
    assert set(GAP_HATCHES) == set(GAP_NAMES) == set(EmptyReason)
