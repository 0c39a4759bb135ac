"""Several timelines in one answer, and what a window comes to."""

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from moodline.services.api.comparison import MAX_POINTS, Member, Series, compare
from moodline.shared.messages import DropReason
from moodline.shared.timeline.bucket import merge, merge_all
from moodline.shared.timeline.tiers import Extent
from tests.support.api import NOW, NOW_US, ApiWorld, nobody, skipped, smiling

LATER = "2026-05-01T12:00:04Z"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        for stream, site in (("hall", "berlin"), ("lobby", "berlin"), ("shop", "paris")):
            world.add(stream, labels={"site": site})
        world.play("hall", [smiling(), smiling(share=0.2), nobody(), None])
        world.play("lobby", [smiling(3, share=0.2), nobody(), skipped(DropReason.OVERLOADED), smiling(2)])
        world.play("shop", [smiling()] * 2)
        yield world


def ask(world: ApiWorld, **parameters: object) -> httpx.Response:
    return world.get("/compare", **({"from": NOW, "to": LATER} | parameters))


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def test_streams_lie_on_one_grid_and_say_why_they_are_empty(world: ApiWorld) -> None:
    body = ask(world, stream=["lobby", "shop"]).json()
    assert (body["resolution_s"], body["start"], body["end"]) == (1, NOW, LATER)
    lobby, shop = body["series"]
    assert [point["empty"] for point in lobby["points"]] == [None, "no_face", "overloaded", None]
    assert [point["empty"] for point in shop["points"]] == [None, None, "not_sampled", "not_sampled"]
    assert [point["start"] for point in lobby["points"]] == [point["start"] for point in shop["points"]]
    assert (lobby["name"], lobby["streams"]) == ("lobby", ["lobby"])


def test_a_streams_points_are_those_of_its_timeline(world: ApiWorld) -> None:
    [series] = ask(world, stream="hall").json()["series"]
    timeline = world.get("/streams/hall/timeline", **{"from": NOW, "to": LATER}).json()
    for point, known in zip(series["points"], timeline["points"], strict=True):
        assert point == {name: known[name] for name in point}


def test_groups_are_added_up_exactly(world: ApiWorld) -> None:
    berlin, paris = ask(world, group_by="site").json()["series"]
    assert (berlin["name"], berlin["streams"], paris["name"]) == ("berlin", ["hall", "lobby"], "paris")
    assert berlin["points"][0]["faces"] == 8
    assert berlin["points"][0]["shares"]["happy"] == pytest.approx(5 / 8)
    assert [point["empty"] for point in berlin["points"]] == [None, None, "no_face", None]
    window = Extent(NOW_US, NOW_US + 4_000_000)
    members = tuple(Member(stream, world.store.get(stream).lane) for stream in ("hall", "lobby"))
    found = compare(world.store, [Series("both", members)], window, 600).series[0]
    parts = [
        merge(smiling(), smiling(3, share=0.2)),
        smiling(share=0.2),
        nobody(),
        nobody(),
        skipped(DropReason.OVERLOADED),
        smiling(2),
    ]
    whole = merge_all(parts)
    assert (found.summary.faces, found.summary.sampled, found.summary.classified) == (
        whole.faces,
        whole.sampled,
        whole.classified,
    )
    assert found.summary.reading is not None
    assert found.summary.reading.shares == tuple(count / whole.faces for count in whole.leading)


def test_a_label_chooses_streams(world: ApiWorld) -> None:
    assert [series["name"] for series in ask(world, label="site=berlin").json()["series"]] == ["hall", "lobby"]
    assert [series["name"] for series in ask(world, label="site=berlin", group_by="site").json()["series"]] == ["berlin"]
    assert ask(world, label="site=rome").json()["series"] == []


def test_without_a_window_all_of_it_is_shown(world: ApiWorld) -> None:
    body = world.get("/compare", stream=["lobby", "shop"]).json()
    assert (body["start"], body["end"]) == (NOW, LATER)


def test_the_server_chooses_one_resolution_for_all(world: ApiWorld) -> None:
    body = ask(world, stream=["hall", "shop"], max_points=3, to="2026-05-01T12:00:20Z").json()
    assert body["resolution_s"] == 10
    assert [len(series["points"]) for series in body["series"]] == [2, 2]


def test_all_series_together_are_bounded(world: ApiWorld) -> None:
    ids = [f"s{n}" for n in range(30)]
    for stream in ids:
        world.add(stream)
    body = ask(world, stream=ids, max_points=5000, to="2026-05-01T13:00:00Z").json()
    assert sum(len(series["points"]) for series in body["series"]) <= MAX_POINTS
    assert body["resolution_s"] == 60 or body["resolution_s"] == 10
    assert len({len(series["points"]) for series in body["series"]}) == 1


def test_csv_has_a_row_for_each_point_of_each_series(world: ApiWorld) -> None:
    answer = ask(world, stream=["hall", "lobby"], format="csv")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["start"][-3:], row["series"]) for row in rows[:3]] == [("00Z", "hall"), ("00Z", "lobby"), ("01Z", "hall")]
    assert len(rows) == 8
    assert (rows[5]["empty"], rows[5]["shares_happy"]) == ("overloaded", "")
    same = world.http.get("/api/v1/compare", params={"stream": ["hall", "lobby"]}, headers={"accept": "text/csv"})
    assert same.headers["content-type"].startswith("text/csv")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, "invalid_query"),
        ({"stream": "nowhere"}, "stream_not_found"),
        ({"stream": ["hall", "nowhere"]}, "stream_not_found"),
        ({"stream": "hall", "label": "site"}, "invalid_query"),
        ({"stream": "hall", "to": NOW}, "invalid_query"),
        ({"stream": "hall", "max_points": 1}, "invalid_request"),
        ({"stream": [f"s{n}" for n in range(101)]}, "invalid_request"),
        ({"stream": "hall", "colour": "red"}, "invalid_request"),
    ],
)
def test_what_cannot_be_compared_is_refused(world: ApiWorld, parameters: dict[str, object], expected: str) -> None:
    assert code(ask(world, **parameters)) == expected


def test_the_summary_says_what_the_window_comes_to(world: ApiWorld) -> None:
    window = world.get("/streams/lobby/summary", **{"from": NOW, "to": "2026-05-01T12:00:05Z"}).json()["window"]
    assert window["step_s"] == 1
    assert window["faces"] == 5
    assert window["dominant"] == "neutral"
    assert window["shares"]["neutral"] == pytest.approx(0.6)
    bits = -0.6 * math.log2(0.6) - 0.4 * math.log2(0.4)
    assert window["entropy_bits"] == pytest.approx(bits, abs=1e-6)
    assert window["entropy"] == pytest.approx(bits / math.log2(7), abs=1e-6)
    assert (window["coverage"], window["with_faces"]) == (0.6, 0.4)
    assert window["missing"] == {"corrupt": 0.0, "overloaded": 0.2, "not_sampled": 0.2, "offline": 0.0}


def test_a_window_without_faces_has_no_entropy(world: ApiWorld) -> None:
    window = world.get("/streams/shop/summary", **{"from": "2026-05-01T11:00:00Z", "to": "2026-05-01T11:01:00Z"}).json()["window"]
    assert (window["shares"], window["entropy"], window["entropy_bits"], window["dominant"]) == (None, None, None, None)
    assert window["missing"]["not_sampled"] == 1.0


def test_one_emotion_alone_has_no_entropy_at_all(world: ApiWorld) -> None:
    assert world.get("/streams/shop/summary").json()["window"]["entropy_bits"] == 0
