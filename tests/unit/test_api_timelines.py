"""Timelines, tracks and summaries over HTTP."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from moodline.services.report.export import CSV_FIELDS
from moodline.shared.emotions import EMOTIONS
from moodline.shared.messages import DropReason, StreamClass
from moodline.shared.settings import ApiSettings
from tests.support.api import NOW_US, ApiWorld, nobody, skipped, smiling


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        world.add("lobby")
        yield world


def error(answer: httpx.Response, status: int, code: str, field: str | None) -> str:
    found = answer.json()["error"]
    assert (answer.status_code, found["code"], found["field"]) == (status, code, field), found
    return str(found["message"])


def zeros(**values: float) -> dict[str, float]:
    return {**dict.fromkeys(EMOTIONS, 0.0), **values}


def test_a_point_holds_every_fact(world: ApiWorld) -> None:
    bucket = msgspec.structs.replace(smiling(), skipped=(0, 1, 2, 0), sampled=8, tracks_begun=3)
    world.play("lobby", [bucket])
    answer = world.get("/streams/lobby/timeline").json()
    point = {
        "start": "2026-05-01T12:00:00Z",
        "position_s": 0.0,
        "sampled": 8,
        "classified": 5,
        "skipped": {"expired": 0, "overloaded": 1, "corrupt": 2, "lost": 0},
        "coverage": 0.625,
        "frames_with_faces": 5,
        "faces": 5,
        "tracks_begun": 3,
        "unreadable": 0,
        "too_small": 0,
        "dominant": "happy",
        "shares": zeros(happy=1.0),
        "smoothed": zeros(happy=0.8, neutral=0.2),
        "raw": zeros(happy=0.8, neutral=0.2),
        "empty": None,
        "models": ["fer-seed"],
        "final": True,
    }
    assert answer == {
        "stream": "lobby",
        "lane": "file",
        "recorded_at": "2026-05-01T12:00:00Z",
        "start": "2026-05-01T12:00:00Z",
        "end": "2026-05-01T12:00:01Z",
        "resolution_s": 1,
        "level_s": 1,
        "coarser_than_asked": False,
        "points": [point],
        "summary": point,
    }


def test_emptiness_has_its_reason_and_no_emotions(world: ApiWorld) -> None:
    skips = skipped(DropReason.OVERLOADED), skipped(DropReason.CORRUPT)
    world.play("lobby", [smiling(), nobody(), None, *skips, smiling()])
    points = world.get("/streams/lobby/timeline").json()["points"]
    assert [point["empty"] for point in points] == [None, "no_face", "not_sampled", "overloaded", "corrupt", None]
    for point in points[1:5]:
        assert [point[name] for name in ("dominant", "shares", "smoothed", "raw")] == [None] * 4


def test_a_live_stream_is_offline_where_nothing_came(world: ApiWorld) -> None:
    spec = world.store.get("lobby")
    world.store.replace(msgspec.structs.replace(spec, lane=StreamClass.LIVE))
    world.play("lobby", [smiling(), None, smiling()], final=False)
    world.clock.now += 3
    answer = world.get("/streams/lobby/timeline", **{"from": "-3s"}).json()
    assert [point["empty"] for point in answer["points"]] == [None, "offline", None]
    assert answer["recorded_at"] is None
    assert answer["points"][0]["position_s"] is None
    assert answer["points"][0]["start"] == "2026-05-01T12:00:00Z"


def test_relative_times_of_a_file_count_from_its_end(world: ApiWorld) -> None:
    world.play("lobby", [smiling()] * 100)
    world.clock.now += 86_400
    answer = world.get("/streams/lobby/timeline", **{"from": "-10s"}).json()
    assert (answer["start"], answer["end"]) == ("2026-05-01T12:01:30Z", "2026-05-01T12:01:40Z")
    answer = world.get("/streams/lobby/timeline", **{"from": "-90s", "to": "-1min"}).json()
    assert (answer["start"], answer["end"]) == ("2026-05-01T12:00:10Z", "2026-05-01T12:00:40Z")
    answer = world.get("/streams/lobby/timeline", to="now").json()
    assert len(answer["points"]) == 100


def test_absolute_times(world: ApiWorld) -> None:
    world.play("lobby", [smiling()] * 100)
    window = {"from": "2026-05-01T14:00:10+02:00", "to": "2026-05-01T12:00:20"}
    answer = world.get("/streams/lobby/timeline", **window).json()
    assert (answer["start"], answer["end"]) == ("2026-05-01T12:00:10Z", "2026-05-01T12:00:20Z")
    assert answer["points"][0]["position_s"] == 10.0


def test_positions_count_from_the_start_of_the_recording(world: ApiWorld) -> None:
    world.add("late", recorded_at="2026-05-01T11:59:59.500000Z")
    world.play("late", [smiling()])
    assert world.get("/streams/late/timeline").json()["points"][0]["position_s"] == 0.5


def test_resolution_merges_points(world: ApiWorld) -> None:
    world.play("lobby", [smiling(share=0.8), smiling(share=0.6)] * 30)
    answer = world.get("/streams/lobby/timeline", resolution="20s").json()
    assert (answer["resolution_s"], answer["level_s"], len(answer["points"])) == (20, 10, 3)
    assert answer["points"][0]["sampled"] == 100
    assert answer["points"][0]["smoothed"] == zeros(happy=0.7, neutral=0.3)


def test_six_hundred_points_by_default(world: ApiWorld) -> None:
    world.play("lobby", [smiling()] * 601)
    assert world.get("/streams/lobby/timeline").json()["resolution_s"] == 10
    assert world.get("/streams/lobby/timeline", max_points=601).json()["resolution_s"] == 1
    window = {"from": "2026-05-01T12:00:01Z"}
    assert world.get("/streams/lobby/timeline", **window).json()["resolution_s"] == 1


def test_the_limit_of_points_is_a_setting(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    with ApiWorld(tmp_path / "small", api=ApiSettings(max_points=50)) as world:
        world.add("lobby")
        world.play("lobby", [smiling()] * 51)
        assert world.get("/streams/lobby/timeline").json()["resolution_s"] == 10
        assert "2 to 50" in error(world.get("/streams/lobby/timeline", max_points=51), 422, "invalid_query", "max_points")
        error(world.get("/streams/lobby/timeline", resolution="1s"), 422, "invalid_query", "resolution")


def test_a_timeline_without_anything_in_it(world: ApiWorld) -> None:
    answer = world.get("/streams/lobby/timeline").json()
    assert answer["points"] == []
    assert answer["summary"]["empty"] == "not_sampled"
    assert world.get("/streams/lobby/timeline", **{"from": "-1h"}).json()["points"] == []
    assert world.get("/streams/lobby/tracks").json() == {"stream": "lobby", "tracks": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ({"from": "yesterday"}, "invalid_query", "from"),
        ({"to": "-1fortnight"}, "invalid_query", "to"),
        ({"from": "2026-05-01T14:00:10 02:00"}, "invalid_query", "from"),
        ({"from": "-99999999999999d"}, "invalid_query", "from"),
        ({"from": "now", "to": "-1s"}, "invalid_query", "from"),
        ({"from": "now", "to": "now"}, "invalid_query", "from"),
        ({"resolution": "0s"}, "invalid_query", "resolution"),
        ({"resolution": "1500ms"}, "invalid_query", "resolution"),
        ({"resolution": "often"}, "invalid_query", "resolution"),
        ({"from": "2000-01-01", "resolution": "1s"}, "invalid_query", "resolution"),
        ({"resolution": "10s", "max_points": 10}, "invalid_query", "max_points"),
        ({"max_points": 5001}, "invalid_query", "max_points"),
        ({"max_points": 1}, "invalid_request", "max_points"),
        ({"max_points": "x"}, "invalid_request", "max_points"),
        ({"resoluton": "10s"}, "invalid_request", "resoluton"),
        ({"from": "x" * 65}, "invalid_request", "from"),
    ],
)
def test_questions_that_are_refused(world: ApiWorld, query: dict[str, Any], code: str, field: str) -> None:
    world.play("lobby", [smiling()] * 10)
    assert field in error(world.get("/streams/lobby/timeline", **query), 422, code, field)


# CSV


@pytest.mark.parametrize(
    ("query", "accept"),
    [({"format": "csv"}, "*/*"), ({}, "text/csv"), ({}, "Text/CSV;q=0.9, text/plain"), ({"format": "csv"}, "")],
)
def test_csv(world: ApiWorld, query: dict[str, str], accept: str) -> None:
    world.play("lobby", [smiling(), nobody()])
    answer = world.http.get("/api/v1/streams/lobby/timeline", params=query, headers={"accept": accept})
    assert answer.headers["content-type"].startswith("text/csv; charset=utf-8")
    assert answer.headers["content-disposition"] == 'attachment; filename="lobby.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert tuple(rows[0]) == CSV_FIELDS
    points = world.get("/streams/lobby/timeline").json()["points"]
    assert len(rows) == len(points) == 2
    for row, point in zip(rows, points, strict=True):
        assert row["start"] == point["start"]
        assert float(row["position_s"]) == point["position_s"]
        assert int(row["faces"]) == point["faces"]
        assert row["empty"] == (point["empty"] or "")
        assert row["final"] == "true"
        for emotion in EMOTIONS:
            bucket_value = row[f"smoothed_{emotion}"]
            assert (float(bucket_value) if bucket_value else None) == (point["smoothed"] or {}).get(emotion)


def test_json_wins_where_it_is_asked_for(world: ApiWorld) -> None:
    headers = {"accept": "text/csv"}
    answer = world.http.get("/api/v1/streams/lobby/timeline", params={"format": "json"}, headers=headers)
    assert answer.headers["content-type"] == "application/json"


# Summary


def test_summary(world: ApiWorld) -> None:
    world.play("lobby", [smiling(share=0.6)] * 30 + [smiling()] * 30 + [nobody()] * 40)
    whole = world.get("/streams/lobby/summary").json()
    assert (whole["start"], whole["end"]) == ("2026-05-01T12:00:00Z", "2026-05-01T12:01:40Z")
    assert (whole["summary"]["sampled"], whole["summary"]["faces"]) == (500, 300)
    assert whole["summary"]["smoothed"] == zeros(happy=0.7, neutral=0.3)
    part = world.get("/streams/lobby/summary", **{"from": "-95s", "to": "-70s"}).json()
    assert part["summary"]["sampled"] == 125, "to the second"
    assert part["summary"]["smoothed"] == zeros(happy=0.6, neutral=0.4)
    error(world.get("/streams/lobby/summary", resolution="1s"), 422, "invalid_request", "resolution")


# Tracks


def test_tracks(world: ApiWorld) -> None:
    world.play("lobby", [smiling(), nobody(), smiling(share=0.2)])
    track = {
        "track": 1,
        "first": "2026-05-01T12:00:00Z",
        "last": "2026-05-01T12:00:02.800000Z",
        "position_s": 0.0,
        "frames": 10,
        "dominant": "happy",
        "shares": zeros(happy=0.5, neutral=0.5),
        "smoothed": zeros(happy=0.5, neutral=0.5),
        "ended": True,
    }
    assert world.get("/streams/lobby/tracks").json() == {"stream": "lobby", "tracks": [track], "next_cursor": None}
    answer = world.get("/streams/lobby/tracks/1").json()
    assert answer["track"] == track
    assert (answer["start"], answer["end"], answer["resolution_s"]) == ("2026-05-01T12:00:00Z", "2026-05-01T12:00:03Z", 1)
    assert [point["frames"] for point in answer["points"]] == [5, 0, 5]
    assert [point["dominant"] for point in answer["points"]] == ["happy", None, "neutral"]
    assert [point["position_s"] for point in answer["points"]] == [0.0, 1.0, 2.0]
    assert answer["points"][1]["smoothed"] is None
    merged = world.get("/streams/lobby/tracks/1", resolution="10s").json()["points"]
    assert [point["frames"] for point in merged] == [10]


def test_tracks_come_in_pages_and_windows(world: ApiWorld) -> None:
    from moodline.shared.bus import Position
    from moodline.shared.store import BucketValue, HighWaterMark, TimelineUpdate
    from moodline.shared.timeline.tracks import TrackBucket, TrackSummary, pack_track_summary

    seen = TrackBucket(1, (0, 0, 0, 65535, 0, 0, 0), (0, 0, 0, 1, 0, 0, 0))
    bucket_values = tuple(
        BucketValue(
            "tracks", 0, n, pack_track_summary(TrackSummary(NOW_US + n * 10**6, NOW_US + n * 10**6 + 500_000, seen, ended=True))
        )
        for n in range(1, 6)
    )
    epoch = world.store.acquire("lobby", world.clock.now).epoch
    update = TimelineUpdate(
        stream_id="lobby",
        expected=None,
        high_water_mark=HighWaterMark(epoch, 0),
        final=False,
        position=Position("t", 0, 0),
        state=b"",
        last_event_time_us=NOW_US,
        bucket_values=bucket_values,
    )
    world.store.apply([update])
    first = world.get("/streams/lobby/tracks", limit=2).json()
    assert ([track["track"] for track in first["tracks"]], first["next_cursor"]) == ([1, 2], "2")
    rest = world.get("/streams/lobby/tracks", limit=3, cursor=first["next_cursor"]).json()
    assert ([track["track"] for track in rest["tracks"]], rest["next_cursor"]) == ([3, 4, 5], None)
    window = {"from": "2026-05-01T12:00:02.600000Z", "to": "2026-05-01T12:00:04.000000Z"}
    assert [track["track"] for track in world.get("/streams/lobby/tracks", **window).json()["tracks"]] == [3]
    open_end = world.get("/streams/lobby/tracks", **{"from": "2026-05-01T12:00:04Z"}).json()
    assert [track["track"] for track in open_end["tracks"]] == [4, 5]
    error(world.get("/streams/lobby/tracks", **{"from": "now", "to": "-1s"}), 422, "invalid_query", "from")
    error(world.get("/streams/lobby/tracks", limit=501), 422, "invalid_request", "limit")
    error(world.get("/streams/lobby/tracks", cursor="x"), 422, "invalid_request", "cursor")


@pytest.mark.parametrize(
    ("number", "status", "code", "field"),
    [
        ("2", 404, "track_not_found", None),
        ("0", 422, "invalid_request", "track"),
        ("-1", 422, "invalid_request", "track"),
        ("one", 422, "invalid_request", "track"),
        ("9" * 30, 422, "invalid_request", "track"),
    ],
)
def test_tracks_that_are_not_there(world: ApiWorld, number: str, status: int, code: str, field: str | None) -> None:
    world.play("lobby", [smiling()])
    error(world.get(f"/streams/lobby/tracks/{number}"), status, code, field)
