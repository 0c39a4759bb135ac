"""Timelines as documents, JSON and CSV."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.report import TimelineDocument, summary_document, timeline_csv, timeline_json, write_output
from moodline.services.report.export import CSV_FIELDS
from moodline.services.report.moments import clock_text, iso, length_text, to_datetime, to_us
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import OutputError
from moodline.shared.messages import DropReason, StreamClass
from moodline.shared.timeline.bucket import Bucket
from tests.support.api import nobody, skipped, smiling
from tests.support.timelines import make_document


def test_json_comes_back_as_it_was() -> None:
    document = make_document([smiling(), nobody(), Bucket()])
    text = timeline_json(document)
    assert text.endswith("}\n")
    assert TimelineDocument.model_validate_json(text) == document
    assert json.loads(text) == document.model_dump(mode="json")


def test_fields_keep_their_order() -> None:
    printed = json.loads(timeline_json(make_document([smiling()])))
    assert list(printed) == [
        "stream",
        "lane",
        "recorded_at",
        "start",
        "end",
        "resolution_s",
        "level_s",
        "coarser_than_asked",
        "points",
        "summary",
    ]
    assert list(printed["points"][0]["smoothed"]) == list(EMOTIONS)
    assert CSV_FIELDS[:3] == ("start", "position_s", "sampled")
    assert len(CSV_FIELDS) == len(set(CSV_FIELDS)) == 39


def test_csv() -> None:
    text = timeline_csv(make_document([smiling(share=0.6), skipped(DropReason.CORRUPT), Bucket()], offset_us=500_000))
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert text.count("\r\n") == 4
    assert tuple(rows[0]) == CSV_FIELDS
    full, damaged, empty = rows
    assert full["start"] == "2026-05-01T12:00:00Z"
    assert full["position_s"] == "-0.5"
    assert (full["dominant"], full["empty"], full["final"], full["coverage"]) == ("happy", "", "true", "1.0")
    assert (full["shares_happy"], full["smoothed_happy"], full["raw_neutral"]) == ("1.0", "0.6", "0.4")
    assert (damaged["skipped_corrupt"], damaged["empty"], damaged["smoothed_happy"]) == ("5", "corrupt", "")
    assert (empty["empty"], empty["sampled"], empty["final"]) == ("not_sampled", "0", "false")


def test_a_live_stream_has_no_position() -> None:
    document = make_document([smiling()], lane=StreamClass.LIVE)
    assert document.recorded_at is None
    assert next(csv.DictReader(io.StringIO(timeline_csv(document))))["position_s"] == ""


def test_a_summary_is_the_window_without_its_points() -> None:
    document = make_document([smiling(), nobody()])
    summary = summary_document(document)
    said = document.model_dump()
    known = {key: said[key] for key in ("stream", "lane", "recorded_at", "start", "end", "summary")}
    assert summary.model_dump(exclude={"window"}) == known
    assert (summary.window.coverage, summary.window.with_faces) == (1.0, 0.5)
    assert summary.summary.sampled == 10


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.floats(0, 1))
def test_shares_and_probabilities_sum_to_one(faces: list[int], share: float) -> None:
    for point in make_document([smiling(count, share=share) for count in faces]).points:
        assert point.smoothed is not None
        assert point.shares is not None
        assert sum(point.smoothed.values()) == pytest.approx(1, abs=1e-5)
        assert sum(point.shares.values()) == pytest.approx(1, abs=1e-5)


@given(st.integers(-(2**53), 2**53))
def test_moments_are_exact(us: int) -> None:
    assert to_us(to_datetime(us)) == us
    assert datetime.fromisoformat(iso(to_datetime(us))) == to_datetime(us)


def test_moments_are_said_in_utc() -> None:
    assert iso(datetime(2026, 5, 1, 12, tzinfo=UTC)) == "2026-05-01T12:00:00Z"
    assert iso(datetime(2026, 5, 1, 12, 0, 0, 500, tzinfo=UTC)) == "2026-05-01T12:00:00.000500Z"
    assert iso(datetime.fromisoformat("2026-05-01T12:00:00+02:00")) == "2026-05-01T10:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.94, "0:59.9"), (59.96, "1:00"), (65, "1:05"), (7205, "2:00:05"), (-0.5, "-0:00.5"), (360_000, "100:00:00")],
)
def test_media_time(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


@given(st.integers(0, 10**6))
def test_media_time_is_true(seconds: int) -> None:
    parts = [int(part) for part in clock_text(seconds).split(":")]
    hours, minutes, rest = [0] * (3 - len(parts)) + parts
    assert timedelta(hours=hours, minutes=minutes, seconds=rest) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("seconds", "text"), [(1, "1 s"), (90, "90 s"), (600, "10 min"), (7200, "2 h"), (172_800, "2 d")])
def test_lengths(seconds: int, text: str) -> None:
    assert length_text(seconds) == text


def test_write_output(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_output(path, "a\r\nb\r\n")
    assert path.read_bytes() == b"a\r\nb\r\n"
    with pytest.raises(OutputError, match="No such file or directory"):
        write_output(tmp_path / "absent" / "t.csv", "")
    with pytest.raises(OutputError, match="Is a directory"):
        write_output(tmp_path, "")
