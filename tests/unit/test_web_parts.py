"""The page's pure parts: what the chart draws, strips, windows, words, and how long something may still take."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from moodline.services.api.models import NewStream
from moodline.services.api.timelines import TimelineParameters
from moodline.services.report.document import SOURCE_EXAMPLE, SourceDocument, TimelineDocument
from moodline.services.report.palette import EMOTION_COLORS, STACK
from moodline.services.report.stream_document import STREAM_EXAMPLE, Status, StreamAnswer
from moodline.services.web.alerts import alerts_html
from moodline.services.web.chart_data import chart_of
from moodline.services.web.eta import Eta
from moodline.services.web.strip import strip_svg
from moodline.services.web.windows import Window
from moodline.services.web.words import (
    age_text,
    file_facts,
    id_from_name,
    labels_from,
    labels_text,
    problems_of,
    span_text,
    state_words,
    why_text,
)
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import InvalidStreamError
from moodline.shared.messages import DropReason, StreamClass
from moodline.shared.timeline.tiers import Extent
from tests.support.api import NOW_US, ApiWorld, nobody, skipped, smiling

SECOND_MS = 1000
NOW_MS = NOW_US // 1000


@pytest.fixture
def document(tmp_path: Path) -> TimelineDocument:
    """Two seconds of smiles, one without a face, one of neutral, one overloaded."""
    with ApiWorld(tmp_path) as world:
        world.add()
        world.play("lobby", [smiling(), smiling(), nobody(), smiling(share=0.0), skipped(DropReason.OVERLOADED)])
        return TimelineDocument.model_validate_json(world.get("/streams/lobby/timeline").text)


def test_runs_are_as_wide_as_their_time_and_cut_at_gaps(document: TimelineDocument) -> None:
    chart = chart_of(document)
    start = chart["start"]
    assert (start, chart["end"], chart["step"]) == (NOW_MS, NOW_MS + 5 * SECOND_MS, SECOND_MS)
    drawn = list(zip((at - start for at in chart["times"]), chart["emotions"]["happy"], strict=True))
    assert drawn == [
        (0, pytest.approx(0.8, abs=1e-3)),
        (500, pytest.approx(0.8, abs=1e-3)),
        (1500, pytest.approx(0.8, abs=1e-3)),
        (1998, pytest.approx(0.8, abs=1e-3)),
        (1999, None),
        (3000, 0.0),
        (3500, 0.0),
        (3998, 0.0),
        (3999, None),
    ]
    assert [len(values) for values in chart["emotions"].values()] == [9] * 7
    assert all(later > earlier for earlier, later in zip(chart["times"], chart["times"][1:], strict=False))


def test_gaps_have_their_reason_and_are_never_neutral(document: TimelineDocument) -> None:
    chart = chart_of(document)
    gaps = [((gap["start"] - NOW_MS) // 1000, (gap["end"] - NOW_MS) // 1000, gap["label"]) for gap in chart["gaps"]]
    assert gaps == [(2, 3, "no face"), (4, 5, "overloaded")]
    for gap in chart["gaps"]:
        inside = [
            value
            for at, value in zip(chart["times"], chart["emotions"]["neutral"], strict=True)
            if gap["start"] <= at < gap["end"]
        ]
        assert inside == []


def test_faces_are_zero_where_nobody_was_and_unknown_where_nobody_looked(document: TimelineDocument) -> None:
    assert [faces for _, faces in chart_of(document)["faces"]] == [1.0, 1.0, 0.0, 1.0, None]


def test_what_a_click_tells(document: TimelineDocument) -> None:
    first, *_, last = chart_of(document)["points"]
    assert first == {"start": NOW_MS, "faces": 1.0, "frames": 5, "dominant": "happy", "share": 1.0, "empty": None}
    assert (last["dominant"], last["empty"]) == (None, "overloaded")


def test_strip_says_in_words_what_it_shows(document: TimelineDocument) -> None:
    svg = strip_svg(document)
    assert 'aria-label="mood: mostly happy, 67%; 40% of the time without faces"' in svg
    assert svg.count("<rect") == 2
    assert svg.count("<path") == 2 * len(EMOTIONS)
    assert "no timeline yet" in strip_svg(None)


def test_the_stack_and_the_palette_have_all_emotions() -> None:
    assert sorted(STACK) == sorted(EMOTIONS) == sorted(EMOTION_COLORS)
    assert len(set(EMOTION_COLORS.values())) == len(EMOTIONS)


COVERED = Extent(NOW_US, NOW_US + 600_000_000)


def edges(parameters: TimelineParameters) -> tuple[str | None, str | None]:
    return parameters.start, parameters.end


def test_a_window_follows_the_newest_and_never_begins_before_the_timeline() -> None:
    window = Window(60)
    assert edges(window.parameters(StreamClass.FILE, COVERED, NOW_US)) == ("2026-05-01T12:09:00Z", "2026-05-01T12:10:00Z")
    longer = Window(86_400).parameters(StreamClass.FILE, COVERED, NOW_US)
    assert edges(longer) == ("2026-05-01T12:00:00Z", "2026-05-01T12:10:00Z")


def test_a_live_window_ends_at_the_present_so_that_an_absence_shows() -> None:
    now_us = COVERED.end_us + 65_000_000
    assert edges(Window(60).parameters(StreamClass.LIVE, COVERED, now_us)) == ("2026-05-01T12:10:00Z", "2026-05-01T12:11:00Z")


def test_all_asks_for_all() -> None:
    assert edges(Window(None).parameters(StreamClass.FILE, COVERED, NOW_US)) == (None, None)
    assert edges(Window(60).parameters(StreamClass.LIVE, None, NOW_US)) == (None, None)


def test_a_window_that_was_turned_stays_until_it_follows_again() -> None:
    turned = Window(600).turned_to(NOW_US, NOW_US + 3_000_000)
    assert (turned.follows, turned.span_s) == (False, 10), "never shorter than ten seconds"
    assert edges(turned.parameters(StreamClass.LIVE, COVERED, NOW_US)) == ("2026-05-01T12:00:00Z", "2026-05-01T12:00:10Z")
    assert turned.following() == Window(10)


def test_a_window_far_before_all_time_can_still_be_asked_for() -> None:
    early = Window(600).turned_to(0, 20_000_000)
    assert edges(early.parameters(StreamClass.LIVE, COVERED, NOW_US)) == ("1970-01-01T00:00:00Z", "1970-01-01T00:00:20Z")


def test_time_left_comes_from_the_speed_of_the_last_seconds() -> None:
    eta = Eta()
    assert eta.left_s(0, 100.0) is None
    assert eta.left_s(10, 110.0) == pytest.approx(90.0)
    for second in range(111, 145):
        left_s = eta.left_s(10 + 2 * (second - 110), float(second))
    assert left_s == pytest.approx((100 - 78) / 2, rel=0.05), "the slow beginning is forgotten"
    assert eta.left_s(5, 146.0) is None, "it began again"


def test_a_file_that_was_not_read_whole_is_not_complete() -> None:
    example = StreamAnswer.model_validate(STREAM_EXAMPLE)
    assert state_words(example) == ("reading", "good")
    assert file_facts(example) == ["h264", "29.97 fps", "120.0 s"]
    for reason, word in (("truncated", "incomplete"), ("corrupt", "damaged"), (None, "complete")):
        status = Status.model_validate({"state": "ended", "reason": reason, "detail": "6.0 of 10.0 s" if reason else ""})
        source = SourceDocument.model_validate(SOURCE_EXAMPLE | {"corrupt": 5, "lost": 2} if reason else SOURCE_EXAMPLE)
        ended = example.model_copy(update={"status": status, "source": source})
        assert state_words(ended)[0] == word
        assert file_facts(ended)[3:] == ["150 frames decoded", *(["5 damaged", "2 lost"] if reason else [])]
        assert why_text(ended) == (f"{reason}: 6.0 of 10.0 s" if reason else "")


def test_ages_and_lengths() -> None:
    assert [age_text(value) for value in (None, 0.42, -1, 9.99, 12, 200)] == [
        "—",
        "0.4 s ago",
        "0.0 s ago",
        "10 s ago",
        "12 s ago",
        "3 min ago",
    ]
    assert [span_text(value) for value in (59, 60, 7200, 200_000)] == ["59 s", "1 min", "2 h", "2 d"]


@pytest.mark.parametrize(
    ("name", "taken", "stream_id"),
    [
        ("Lobby Film (1).mp4", set(), "lobby-film-1"),
        ("lobby.mp4", {"lobby", "lobby-2"}, "lobby-3"),
        ("été.mov", set(), "t"),
        ("...", set(), "upload"),
        ("x" * 200 + ".mp4", set(), "x" * 56),
    ],
)
def test_ids_from_file_names_can_be_used(name: str, taken: set[str], stream_id: str) -> None:
    assert id_from_name(name, taken) == stream_id
    NewStream(id=stream_id, url="clip.mp4")


def test_labels_as_text() -> None:
    assert labels_from(" site = berlin,floor=2, ") == {"site": "berlin", "floor": "2"}
    assert labels_from(labels_text({"a": "b=c", "d": ""})) == {"a": "b=c", "d": ""}
    with pytest.raises(InvalidStreamError):
        labels_from("berlin")


def test_problems_stand_at_their_fields_without_what_was_given() -> None:
    with pytest.raises(ValidationError) as found:
        NewStream.model_validate({"id": "S3cret!", "url": "", "password": 5})
    problems = problems_of(found.value)
    assert sorted(problems) == ["id", "password", "url"]
    assert "S3cret" not in str(problems)
    assert problems_of(InvalidStreamError("stream_id", "no")) == {"id": "no"}


def test_no_alert_no_words() -> None:
    assert alerts_html([], 0.0) == ""


def test_without_its_library_the_page_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moodline.services.web.mount.find_spec", lambda _name: None)
    from moodline.services.web import mount_page

    with ApiWorld(tmp_path) as world:
        mount_page(world.app)
        answer = world.http.get("/")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert "pip install 'moodline[ui]'" in answer.text
        assert answer.text.count("\n") == 1
        assert world.http.get("/api/v1/streams").status_code == 200
