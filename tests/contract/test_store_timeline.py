"""What every store promises of timelines: bucket values come back as they were written, and the same bytes from all stores."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moodline.shared.errors import StoreError
from moodline.shared.store import ApplyResult, BucketValue, BucketValueRange, Retention, Store, dump
from tests.support.stores import NOW_S, TIERS_S, Backend, RedisBackend, SqliteBackend, SteppedClock, Writer

EVERYWHERE = 2**53

INDICES = st.one_of(
    st.integers(0, 200), st.integers(28_333_320, 28_333_400), st.integers(-130, 5), st.integers(2**53 - 70, 2**53 - 1)
)
# Lengths around what Redis keeps compactly, and values that it would keep as numbers.
LENGTHS = st.one_of(st.integers(0, 62), st.sampled_from([63, 64, 65, 127, 128, 129, 200, 1500]))
VALUES = st.one_of(
    st.builds(lambda length, fill: bytes([fill]) * length, LENGTHS, st.integers(0, 255)),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: b"%d" % number),
    st.sampled_from([b"007", b"-0", b"1.5", b"+1", b"\x00", b"1\n"]),
)
PLACES = st.one_of(
    st.tuples(st.just(""), st.sampled_from(TIERS_S), INDICES),
    st.tuples(st.just("tracks"), st.just(0), st.integers(0, 130)),
    st.tuples(st.sampled_from(["track/1", "track/11", "track/2"]), st.just(1), INDICES),
)
STEPS = st.lists(st.lists(st.builds(lambda place, value: BucketValue(*place, value), PLACES, VALUES), max_size=12), max_size=6)


def everything(store: Store) -> dict[tuple[str, int], list[tuple[int, bytes]]]:
    places = [("", tier_s) for tier_s in TIERS_S] + [("tracks", 0)]
    places += [(f"track/{number}", 1) for number in (1, 2, 11)]
    return {place: store.read("lobby", *place, -EVERYWHERE, EVERYWHERE) for place in places}


@pytest.mark.redis
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_both_stores_keep_what_a_dictionary_keeps(
    tmp_path: Path, redis_backend: RedisBackend, steps: list[list[BucketValue]]
) -> None:
    stores = [SqliteBackend(tmp_path / "same.db").open(), redis_backend.open()]
    writers = [Writer(store, "lobby") for store in stores]
    kept: dict[tuple[str, int], dict[int, bytes]] = {place: {} for place in everything(stores[0])}
    for bucket_values in steps:
        for series, tier_s, index, value in bucket_values:
            kept[series, tier_s][index] = value
        for writer in writers:
            writer.write(*bucket_values)
    wanted = {place: sorted(bucket_values.items()) for place, bucket_values in kept.items()}
    own = {tier_s: sorted(kept["", tier_s]) for tier_s in TIERS_S}
    ranges = [BucketValueRange("lobby", *place, -EVERYWHERE, EVERYWHERE) for place in wanted]
    ranges += [BucketValueRange("lobby", "", 1, 5, 5), BucketValueRange("nobody", "", 1, 0, 9)]
    for store in stores:
        assert everything(store) == wanted
        assert store.read_many(ranges) == [*wanted.values(), [], []]
        assert store.bounds_many("lobby", TIERS_S) == [store.bounds("lobby", tier_s) for tier_s in TIERS_S]
        assert (store.read_many([]), store.bounds_many("lobby", [])) == ([], [])
        for tier_s, indices in own.items():
            assert store.bounds("lobby", tier_s) == ((indices[0], indices[-1]) if indices else None)
    assert dump(stores[0], "lobby", TIERS_S) == dump(stores[1], "lobby", TIERS_S)
    for store in stores:
        store.remove("lobby")
        store.close()


@pytest.mark.parametrize("before", [0, 1, 64, 65, 128, 129, 1000, 70_000])
def test_a_value_is_replaced_whole_by_a_shorter_or_longer_one(store: Store, before: int) -> None:
    writer = Writer(store, "lobby")
    for after in (0, 1, 64, 65, 128, 129, 1000):
        writer.write(BucketValue("", 1, 119, b"a" * before), BucketValue("", 1, 118, b"neighbour"))
        writer.write(BucketValue("", 1, 119, b"b" * after))
        assert store.read("lobby", "", 1, 0, EVERYWHERE) == [(118, b"neighbour"), (119, b"b" * after)]


def test_of_two_values_for_one_cell_in_an_update_the_last_counts(store: Store) -> None:
    writer = Writer(store, "lobby")
    writer.write(
        BucketValue("", 1, 5, b"a" * 100),
        BucketValue("", 1, 6, b"b"),
        BucketValue("", 1, 5, b"c"),
        BucketValue("", 1, 6, b"d" * 100),
    )
    assert store.read("lobby", "", 1, 0, 60) == [(5, b"c"), (6, b"d" * 100)]


def test_a_range_takes_its_start_and_leaves_its_stop(store: Store) -> None:
    writer = Writer(store, "lobby")
    bucket_values = {index: b"%d" % index for index in (-61, -1, 0, 1, 58, 59, 60, 61, 120, 100_000, 28_333_333)}
    writer.write(*(BucketValue("", 10, index, value) for index, value in bucket_values.items()))
    for start, stop in [(0, 60), (59, 61), (60, 60), (61, 60), (-61, 0), (-60, -1), (2, 58), (121, 10**6), (-(10**30), 10**30)]:
        assert store.read("lobby", "", 10, start, stop) == [(i, v) for i, v in bucket_values.items() if start <= i < stop]
    assert store.bounds("lobby", 10) == (-61, 28_333_333)


def test_series_levels_and_streams_do_not_mix(store: Store) -> None:
    place = {("", 1): b"a", ("", 10): b"b", ("", 100): b"c", ("tracks", 0): b"d", ("track/1", 1): b"e", ("track/10", 1): b"f"}
    writer, other = Writer(store, "lobby"), Writer(store, "lobby-2")
    writer.write(*(BucketValue(series, tier_s, 7, value) for (series, tier_s), value in place.items()))
    other.write(BucketValue("", 1, 8, b"other"))
    for (series, tier_s), value in place.items():
        assert store.read("lobby", series, tier_s, 0, EVERYWHERE) == [(7, value)]
    assert store.bounds("lobby", 1) == (7, 7)
    assert store.bounds("lobby", 60) is None
    assert store.read("lobby-2", "", 1, 0, EVERYWHERE) == [(8, b"other")]
    assert store.read("lobby-2", "tracks", 0, 0, EVERYWHERE) == []
    assert store.read("nobody", "", 1, 0, EVERYWHERE) == []
    assert store.bounds("nobody", 1) is None


def test_a_large_update_is_one_step(store: Store) -> None:
    writer = Writer(store, "lobby")
    bucket_values = [BucketValue("", 1, index, b"%d" % index * 8) for index in range(0, 30_000, 3)]
    writer.write(*bucket_values)
    assert store.read("lobby", "", 1, 0, EVERYWHERE) == [
        (bucket_value.index, bucket_value.value) for bucket_value in bucket_values
    ]


def test_an_index_out_of_range_is_refused_and_nothing_written(store: Store) -> None:
    writer = Writer(store, "lobby")
    with pytest.raises(StoreError, match="out of range"):
        store.apply([writer.next([BucketValue("", 1, 1, b"one"), BucketValue("", 1, 2**60, b"far")])])
    assert store.read("lobby", "", 1, 0, EVERYWHERE) == []
    assert store.apply([writer.next()]) == [ApplyResult.APPLIED]


def test_pruning_keeps_what_is_still_to_be_kept(backend: Backend) -> None:
    clock = SteppedClock()
    store = backend.open(Retention({1: 60, 10: 600}), clock)
    writer = Writer(store, "lobby")
    writer.write(
        BucketValue("", 1, 1, b"one"),
        BucketValue("", 10, 1, b"ten"),
        BucketValue("tracks", 0, 1, b"track"),
        BucketValue("track/1", 1, 1, b"t"),
    )
    assert store.prune(NOW_S + 59) == 0
    assert store.read("lobby", "", 1, 0, EVERYWHERE) == [(1, b"one")]
    assert store.read("lobby", "tracks", 0, 0, EVERYWHERE) == [(1, b"track")]
    store.close()


def test_a_closed_store_says_so(backend: Backend) -> None:
    store = backend.open()
    store.ping()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.list_streams()
