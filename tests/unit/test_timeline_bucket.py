"""Buckets merge exactly, and their stored form is small, lossless and picky."""

from contextlib import suppress
from functools import reduce
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.shared.errors import StoreError
from moodline.shared.messages import DropReason
from moodline.shared.timeline import (
    NOTHING,
    TIERS_S,
    Bucket,
    TrackBucket,
    TrackSummary,
    merge,
    merge_all,
    merge_track,
    pack,
    pack_track_bucket,
    pack_track_summary,
    unpack,
    unpack_track_bucket,
    unpack_track_summary,
)

COUNT = st.integers(0, 2**40)
SEVEN = st.tuples(*[st.one_of(st.just(0), st.integers(0, 2**50))] * 7)
DROPS = st.tuples(*[COUNT] * len(DropReason))


@st.composite
def buckets(draw: st.DrawFn) -> Bucket:
    faces = draw(st.one_of(st.just(0), st.integers(1, 2**40)))
    seven = SEVEN if faces else st.just((0,) * 7)
    return Bucket(
        sampled=draw(COUNT),
        skipped=draw(DROPS),
        frames_with_faces=draw(COUNT) if faces else 0,
        faces=faces,
        raw=draw(seven),
        smoothed=draw(seven),
        leading=draw(seven),
        tracks_begun=draw(COUNT),
        final=draw(st.booleans()),
        unreadable=(unreadable := draw(COUNT)),
        too_small=draw(COUNT) if unreadable else 0,
    )


TRACK_BUCKETS = st.builds(TrackBucket, faces=COUNT, smoothed=SEVEN, leading=SEVEN)


def test_levels_are_nested() -> None:
    assert TIERS_S == (1, 10, 60, 600, 3600)
    assert all(coarse % fine == 0 for fine, coarse in pairwise(TIERS_S))


@given(buckets())
def test_what_is_packed_is_unpacked(bucket: Bucket) -> None:
    assert unpack(pack(bucket)) == bucket


@given(buckets(), buckets())
def test_different_buckets_have_different_bytes(a: Bucket, b: Bucket) -> None:
    assert (pack(a) == pack(b)) == (a == b)


@given(buckets(), buckets(), buckets())
def test_merging_is_associative_and_commutative_with_a_neutral_element(a: Bucket, b: Bucket, c: Bucket) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, b) == merge(b, a)
    assert merge(a, NOTHING) == a


@given(st.lists(buckets(), max_size=6), st.randoms())
def test_a_merge_does_not_depend_on_grouping_or_order(parts: list[Bucket], random: object) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    half = len(parts) // 2
    grouped = merge(merge_all(shuffled[:half]), merge_all(shuffled[half:]))
    assert grouped == reduce(merge, parts, NOTHING)
    assert grouped.sampled == sum(part.sampled for part in parts)
    assert grouped.raw[3] == sum(part.raw[3] for part in parts)
    assert grouped.skipped[1] == sum(part.skipped[1] for part in parts)
    assert grouped.final == all(part.final for part in parts)


def test_classified_is_what_is_left_of_sampled() -> None:
    assert Bucket(sampled=10, skipped=(1, 2, 3, 0)).classified == 4


def test_a_second_of_five_frames_with_one_face_fits_into_sixty_bytes_whatever_it_shows() -> None:
    # Largest sums that five faces can reach, spread so that every number needs its three bytes.
    sums = (46_811,) * 6 + (46_809,)
    assert sum(sums) == 5 * 65_535
    worst = Bucket(
        sampled=9,
        skipped=(1, 1, 1, 1),
        frames_with_faces=5,
        faces=5,
        raw=sums,
        smoothed=sums,
        leading=(1, 1, 1, 1, 1, 0, 0),
        tracks_begun=2,
        final=True,
    )
    assert len(pack(worst)) <= 60
    typical = Bucket(sampled=5, frames_with_faces=5, faces=5, raw=sums, smoothed=sums, leading=(0, 0, 0, 5, 0, 0, 0), final=True)
    assert len(pack(typical)) <= 50


def test_seconds_without_faces_take_next_to_nothing() -> None:
    assert len(pack(Bucket(sampled=5, final=True))) == 2
    assert len(pack(Bucket(sampled=5, skipped=(5, 0, 0, 0)))) == 4


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "too short"),
        (b"\x10", "too short"),
        (b"\x80", "cut off"),
        (b"\x11\x05\x00", "too long"),
        (b"\x31\x05", "version 3"),
        (b"\x12\x05\x10\x01", "more parts"),
        (b"\xff" * 30, "no end"),
    ],
)
def test_damaged_bytes_are_refused_with_a_reason(data: bytes, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        unpack(data)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_bucket_or_a_store_error(data: bytes) -> None:
    for read in (unpack, unpack_track_bucket, unpack_track_summary):
        with suppress(StoreError):
            read(data)


@given(TRACK_BUCKETS)
def test_track_seconds_survive_packing(bucket: TrackBucket) -> None:
    assert unpack_track_bucket(pack_track_bucket(bucket)) == bucket


@given(st.integers(-(2**52), 2**52), st.integers(0, 2**45), TRACK_BUCKETS, st.booleans())
def test_track_summaries_survive_packing(first_us: int, length_us: int, seen: TrackBucket, ended: bool) -> None:
    summary = TrackSummary(first_us, first_us + length_us, seen, ended)
    assert unpack_track_summary(pack_track_summary(summary)) == summary


@given(TRACK_BUCKETS, TRACK_BUCKETS, TRACK_BUCKETS)
def test_track_seconds_merge_exactly(a: TrackBucket, b: TrackBucket, c: TrackBucket) -> None:
    assert merge_track(merge_track(a, b), c) == merge_track(a, merge_track(c, b))
    assert merge_track(a, TrackBucket()) == a
    assert merge_track(a, b).faces == a.faces + b.faces
