"""Timelines as pictures."""

import io
from pathlib import Path

import pytest
from matplotlib import colors, image
from matplotlib.figure import Figure

from moodline.services.report import EMOTION_COLORS, plot_timeline
from moodline.services.report import plot as plotting
from moodline.services.report.plot import render_timeline
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import OutputError
from moodline.shared.messages import DropReason, StreamClass
from moodline.shared.timeline.bucket import Bucket
from tests.support.api import nobody, skipped, smiling
from tests.support.timelines import START_US, make_document

MIXED = [smiling(share=0.7), smiling(share=0.2), nobody(), skipped(DropReason.OVERLOADED), Bucket(), smiling()]


def drawn(buckets: list[Bucket], **how: object) -> Figure:
    figure = Figure(layout="constrained")
    plotting._draw(figure, make_document(buckets, **how))  # type: ignore[arg-type]
    return figure


def texts(figure: Figure) -> set[str]:
    axes = figure.axes
    legend = axes[0].get_legend()
    assert legend is not None
    return {text.get_text() for one in axes for text in one.texts} | {text.get_text() for text in legend.get_texts()}


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".png", b"\x89PNG\r\n"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG\r\n")]
)
def test_formats(tmp_path: Path, suffix: str, magic: bytes) -> None:
    path = tmp_path / f"t{suffix}"
    plot_timeline(make_document(MIXED), path)
    assert path.read_bytes().startswith(magic)


@pytest.mark.parametrize("name", ["t", "t.bmp", "t.png.txt"])
def test_formats_that_there_are_not(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"\.png, \.svg or \.pdf"):
        plot_timeline(make_document(MIXED), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        plot_timeline(make_document(MIXED), tmp_path / "absent" / "t.png")


def test_the_same_timeline_gives_the_same_picture() -> None:
    assert render_timeline(make_document(MIXED)) == render_timeline(make_document(MIXED))


def test_the_picture_shows_the_emotions_colours() -> None:
    picture = image.imread(io.BytesIO(render_timeline(make_document([smiling(share=0.75)] * 10))))[..., :3]
    height, width = picture.shape[:2]
    plot = picture[round(height * 0.15) : round(height * 0.7), round(width * 0.2) : round(width * 0.6)]

    def area(emotion: str) -> float:
        return float((abs(plot - colors.to_rgb(EMOTION_COLORS[emotion])).max(axis=2) < 0.02).mean())

    # Three quarters happy on top, one quarter neutral below; the cut-out is not quite the whole height.
    assert area("happy") == pytest.approx(0.75, abs=0.1)
    assert area("neutral") == pytest.approx(0.25, abs=0.1)
    assert area("angry") == 0


def test_gaps_are_hatched_and_named() -> None:
    figure = drawn(MIXED)
    hatched = [(patch.get_hatch(), patch.get_x(), patch.get_width()) for patch in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert hatched == [("////", 2.0, 1), ("xxxx", 3.0, 1), ("....", 4.0, 1)]
    assert {"no face", "overloaded", "not sampled"} <= texts(figure)
    assert set(EMOTIONS) <= texts(figure)
    assert not {"no face", "overloaded", "offline"} & texts(drawn([smiling()]))


def test_nothing_is_drawn_across_a_gap() -> None:
    areas = drawn([smiling(), nobody(), smiling()]).axes[0].collections
    spans = {tuple(area.get_paths()[0].get_extents().intervalx) for area in areas}
    assert spans == {(0.0, 1.0), (2.0, 3.0)}


def test_areas_stack_up_to_one() -> None:
    areas = drawn([smiling(share=0.6), smiling(share=0.1)]).axes[0].collections
    assert len(areas) == len(EMOTIONS)
    tops = [area.get_paths()[0].get_extents().y1 for area in areas]
    assert tops == sorted(tops)
    assert tops[-1] == pytest.approx(1, abs=1e-5)


def test_faces_per_frame() -> None:
    (steps,) = drawn([smiling(faces=15), nobody(), Bucket()]).axes[1].patches[:1]
    assert list(steps.get_data().values) == [3.0, 0.0, 0.0]  # type: ignore[attr-defined]


def test_time_of_a_file_and_of_a_camera() -> None:
    def labels(figure: Figure) -> list[str]:
        return [label.get_text() for label in figure.axes[1].get_xticklabels()]

    assert labels(drawn([smiling()] * 4)) == ["0:00", "0:01", "0:02", "0:03", "0:04"]
    assert labels(drawn([smiling()] * 1000))[:3] == ["0:00", "2:00", "4:00"]
    assert START_US % 86_400_000_000 == 12 * 3_600_000_000
    camera = labels(drawn([smiling()] * 24, lane=StreamClass.LIVE, resolution_s=3600))
    assert camera == ["12:00\n01 May", "15:00", "18:00", "21:00", "00:00\n02 May", "03:00", "06:00", "09:00", "12:00"]
    assert labels(drawn([smiling()] * 24 * 60, lane=StreamClass.LIVE, resolution_s=3600))[:2] == ["07 May", "14 May"]


@pytest.mark.parametrize("buckets", [[], [Bucket()], [nobody()], [smiling()], [smiling()] * 700], ids=len)
def test_any_length_can_be_drawn(buckets: list[Bucket]) -> None:
    assert len(render_timeline(make_document(buckets))) > 10_000


def test_nothing_yet() -> None:
    assert "nothing is in the timeline here yet" in texts(drawn([]))
