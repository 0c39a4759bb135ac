"""Buckets as arrays, and the quick JSON made of them, say exactly what single buckets and documents say."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from moodline.services.api.timelines import PointsWindow, read_timeline
from moodline.services.auth.callers import LOCAL
from moodline.services.report.columns import Columns, unpack_columns
from moodline.services.report.document import timeline_document
from moodline.services.report.quick_json import Chunk, ChunkCache, timeline_json
from moodline.shared.errors import StoreError
from moodline.shared.messages import DropReason, StreamClass
from moodline.shared.store import BucketValue
from moodline.shared.timeline.bucket import NOTHING, TIERS_S, Bucket, merge_all, pack
from moodline.shared.timeline.models import ModelLabels
from moodline.shared.timeline.query import TimelineQuery, find_bucket_values, timeline
from tests.support.api import NOW, NOW_US, ApiWorld, nobody, skipped, smiling
from tests.support.stores import Writer

COUNTS = st.one_of(st.integers(0, 200), st.sampled_from([0, 127, 128, 16_383, 16_384, 2**40, 2**62]))
SEVEN = st.tuples(*[COUNTS] * 7)


@st.composite
def buckets(draw: st.DrawFn) -> Bucket:
    faces = draw(st.integers(0, 1000))
    skips = draw(st.tuples(*[st.integers(0, 3)] * len(DropReason)))
    seen = {"frames_with_faces": faces, "faces": faces, "raw": draw(SEVEN), "smoothed": draw(SEVEN), "leading": draw(SEVEN)}
    return Bucket(
        sampled=sum(skips) + draw(COUNTS),
        skipped=skips,
        tracks_begun=draw(COUNTS),
        final=draw(st.booleans()),
        unreadable=(unreadable := draw(COUNTS)),
        too_small=draw(COUNTS) if unreadable else 0,
        **(seen if faces else {}),
    )


def rows(columns: Columns) -> list[Bucket]:
    names = [name for name in Bucket.__struct_fields__ if name != "final"]
    parts = zip(*(getattr(columns, name).tolist() for name in names), strict=True)
    plain = ([tuple(part) if isinstance(part, list) else part for part in row] for row in parts)
    return [Bucket(**dict(zip(names, row, strict=True))) for row in plain]


def without_final(bucket: Bucket) -> Bucket:
    return msgspec.structs.replace(bucket, final=False)


@given(st.lists(buckets(), max_size=30))
def test_columns_hold_what_the_buckets_hold(some: list[Bucket]) -> None:
    assert rows(unpack_columns([pack(bucket) for bucket in some])) == [without_final(bucket) for bucket in some]


def test_numbers_that_do_not_fit_the_quick_way_are_read_all_the_same() -> None:
    assert rows(unpack_columns([pack(Bucket(sampled=2**63 - 1)), pack(Bucket(sampled=5))])) == [Bucket(2**63 - 1), Bucket(5)]


@settings(max_examples=200)
@given(st.lists(buckets(), min_size=1, max_size=4), st.data())
def test_damage_is_found(some: list[Bucket], data: st.DataObject) -> None:
    values = [pack(bucket) for bucket in some]
    at = data.draw(st.integers(0, len(values) - 1))
    value = values[at]
    damaged = data.draw(st.sampled_from([b"", value + b"\x00", value[:-1], b"\x75" + value[1:], value + b"\x80"]))
    with pytest.raises(StoreError):
        unpack_columns([*values[:at], damaged, *values[at + 1 :]])


@given(st.lists(st.tuples(st.integers(0, 9), st.builds(smiling, st.integers(1, 9)) | st.builds(nobody)), max_size=30))
def test_placed_adds_up_what_falls_into_one_point(some: list[tuple[int, Bucket]]) -> None:
    some = sorted(some, key=lambda pair: pair[0])
    columns = unpack_columns([pack(bucket) for _, bucket in some])
    placed = columns.placed(np.array([at for at, _ in some], np.int64), 10)
    groups = [merge_all(bucket for at, bucket in some if at == point) for point in range(10)]
    assert rows(placed) == [without_final(group) for group in groups]
    assert without_final(placed.total(final=True)) == without_final(merge_all(bucket for _, bucket in some))


@given(st.lists(st.tuples(st.integers(-50, 400), st.sampled_from("abc")), max_size=6), st.integers(1, 60), st.integers(1, 20))
def test_models_of_each_stretch(changes: list[tuple[int, str]], step_s: int, count: int) -> None:
    changes.sort()
    labels = ModelLabels([(at, at - 1, name) for at, name in changes])
    assert labels.each(7, step_s, count) == [labels.between(7 + at * step_s, 7 + (at + 1) * step_s) for at in range(count)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        yield world


QUERIES = [
    {"resolution": "1s"},
    {"resolution": "7s"},
    {"resolution": "1min"},
    {"max_points": "2"},
    {},
    {"from": "2026-05-01T11:59:50Z", "to": "2026-05-01T12:01:00Z", "resolution": "1s"},
    {"from": "2026-05-01T12:00:03Z", "to": "2026-05-01T12:00:05Z"},
    {"from": "2026-05-01T12:10:00Z", "to": "2026-05-01T12:10:05Z"},
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("final", [True, False])
def test_the_answer_is_that_of_the_document(world: ApiWorld, query: dict[str, str], final: bool) -> None:
    world.add("lobby", recorded_at="2026-05-01T11:59:59.5Z")
    seconds = [smiling(), nobody(), None, skipped(DropReason.OVERLOADED), smiling(7, share=0.3), *[smiling(3)] * 20]
    world.play("lobby", seconds, final=final)
    document = read_timeline(world.app.state.context, LOCAL, "lobby", PointsWindow.model_validate(query))
    answer = world.get("/streams/lobby/timeline", **query)
    assert answer.status_code == 200
    assert answer.json() == json.loads(document.model_dump_json())


@example(counts=[(happy, 0, 640 - happy) for happy in (1, 3, 7, 9, 13, 19, 21, 23)], lane=StreamClass.LIVE)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.tuples(st.integers(0, 128), st.integers(0, 128), st.integers(0, 640)), min_size=1, max_size=12),
    lane=st.sampled_from(StreamClass),
)
def test_values_are_rounded_alike(world: ApiWorld, counts: list[tuple[int, int, int]], lane: StreamClass) -> None:
    """128 and 640 faces have shares that lie right between two rounded values."""
    if not world.store.list_streams():
        world.writer = Writer(world.store, "s")  # type: ignore[attr-defined]
    bucket_values = []
    for at in range(12):
        bucket = nobody()
        if at < len(counts):
            happy, sad, more = counts[at]
            leading = (0, 0, 0, happy, sad, 0, more)
            sums = tuple(count * 65_535 // 2 for count in leading)
            faces = sum(leading)
            bucket = Bucket(sampled=640, frames_with_faces=faces, faces=faces, raw=sums, smoothed=leading, leading=leading)
        # The other levels only make the timeline whole; the answer is made of seconds.
        bucket_values += [BucketValue("", tier_s, (NOW_US // 1_000_000 + at) // tier_s, pack(bucket)) for tier_s in TIERS_S]
    world.writer.write(*bucket_values)  # type: ignore[attr-defined]
    query = TimelineQuery(resolution_s=1, from_us=NOW_US, to_us=NOW_US + 12_000_000)
    found = find_bucket_values(world.store, "s", query, 100)
    assert found is not None
    quick = timeline_json(found, stream="s", lane=lane, recorded_at_us=NOW_US, asked_s=1)
    slow = timeline_document(timeline(world.store, "s", lane, query, 100), stream="s", lane=lane, recorded_at_us=NOW_US)
    assert json.loads(quick) == json.loads(slow.model_dump_json())
    assert json.loads(quick)["start"] == NOW


def test_what_was_written_before_is_never_out_of_date(world: ApiWorld) -> None:
    """Asked again and again, through the service's cache, the answer follows what is stored."""
    world.add("lobby")
    seen: list[object] = []
    for count in (1, 2, 300, 301):
        world.play("lobby", [smiling()] * count, final=False)
        for _ in range(2):
            answer = world.get("/streams/lobby/timeline", resolution="1s").json()
            document = read_timeline(world.app.state.context, LOCAL, "lobby", PointsWindow(resolution="1s"))
            assert answer == json.loads(document.model_dump_json())
        seen.append(answer["summary"]["faces"])
    assert seen == sorted(set(seen))


def test_the_cache_forgets_what_was_not_asked_for_longest() -> None:
    made: list[str] = []

    def get(name: str) -> None:
        def make() -> Chunk:
            made.append(name)
            return Chunk(b"x" * 400, NOTHING)

        assert cache.get((name,), make).points == b"x" * 400

    cache = ChunkCache(1100)  # holds two of 400 with their keys
    for name in "ababcab":
        get(name)
    assert "".join(made) == "abcab"
    cache = ChunkCache(0)
    made.clear()
    for name in "aa":
        get(name)
    assert "".join(made) == "aa"
