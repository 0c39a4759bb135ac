"""Holes after marks: one rewind each."""

from moodline.services.aggregator.gaps import Gaps
from moodline.shared.bus.base import Position
from moodline.shared.pipeline.stage import Rewind
from moodline.shared.store.base import HighWaterMark

TOPIC = "moodline.emotions.live.v1"
NOW_MS = 1_750_000_000_000


def at(offset: int, partition: int = 0) -> Position:
    return Position(TOPIC, partition, offset)


def holds(
    gaps: Gaps,
    stream_id: str,
    high_water_mark: HighWaterMark | None,
    place: Position | None,
    seen: Position,
    since_ms: int,
    now_s: float,
) -> bool:
    """Report a frame beyond a hole; return whether the missing ones are known to be gone."""
    gaps.observe(stream_id, high_water_mark, place, seen, since_ms, now_s)
    return gaps.is_confirmed(stream_id, high_water_mark)


def test_a_hole_is_read_again_once_and_real_when_it_is_seen_again() -> None:
    gaps = Gaps()
    assert not holds(gaps, "a", HighWaterMark(1, 4), at(10), at(15), NOW_MS, 0.0)
    assert not holds(gaps, "a", HighWaterMark(1, 4), at(10), at(16), NOW_MS, 0.0)
    assert gaps.take_rewinds() == [Rewind(at(11))]
    assert holds(gaps, "a", HighWaterMark(1, 4), at(10), at(15), NOW_MS, 0.0)
    assert holds(gaps, "a", HighWaterMark(1, 4), at(10), at(16), NOW_MS, 0.0)
    assert gaps.take_rewinds() == []


def test_the_next_hole_of_a_stream_is_read_again_too() -> None:
    gaps = Gaps()
    for high_water_mark, place, seen in (
        (HighWaterMark(1, 4), at(10), at(15)),
        (HighWaterMark(1, 8), at(18), at(25)),
        (HighWaterMark(2, 8), at(26), at(27)),
    ):
        assert not holds(gaps, "a", high_water_mark, place, seen, NOW_MS, 0.0)
        assert gaps.take_rewinds() == [Rewind(place._replace(offset=place.offset + 1))]
        assert holds(gaps, "a", high_water_mark, place, seen, NOW_MS, 0.0)


def test_a_hole_seen_on_another_partition_is_looked_for_there() -> None:
    gaps = Gaps()
    gaps.observe("a", HighWaterMark(1, 4), at(10), at(15), NOW_MS, 0.0)
    gaps.take_rewinds()
    assert not holds(gaps, "a", HighWaterMark(1, 4), at(10), at(3, partition=1), NOW_MS, 0.0)
    assert gaps.take_rewinds() == [Rewind(at(3, partition=1), NOW_MS)], "no further back than the missing frames can be"


def test_only_a_hole_after_the_present_mark_is_open() -> None:
    gaps = Gaps()
    assert not gaps.is_open("a", HighWaterMark(1, 4))
    gaps.observe("a", HighWaterMark(1, 4), at(10), at(15), NOW_MS, 0.0)
    assert gaps.is_open("a", HighWaterMark(1, 4))
    assert not gaps.is_open("a", HighWaterMark(1, 5))


def test_what_is_forgotten_is_read_again_when_it_is_met_again() -> None:
    gaps = Gaps()
    for forget in (lambda: gaps.forget("a"), lambda: gaps.forget_partitions(frozenset({(TOPIC, 0)}))):
        gaps.observe("a", HighWaterMark(1, 4), at(10), at(15), NOW_MS, 0.0)
        gaps.take_rewinds()
        forget()
        assert not holds(gaps, "a", HighWaterMark(1, 4), at(10), at(15), NOW_MS, 0.0)
        assert gaps.take_rewinds() == [Rewind(at(11))]
        gaps.forget("a")


def test_losing_a_partition_loses_its_pending_rewinds_and_no_others() -> None:
    gaps = Gaps()
    gaps.observe("a", HighWaterMark(1, 4), at(10), at(15), NOW_MS, 0.0)
    gaps.observe("b", HighWaterMark(1, 4), at(10, 1), at(15, 1), NOW_MS, 0.0)
    gaps.forget_partitions(frozenset({(TOPIC, 0)}))
    assert gaps.take_rewinds() == [Rewind(at(11, 1))]
    assert holds(gaps, "b", HighWaterMark(1, 4), at(10, 1), at(15, 1), NOW_MS, 0.0)


def test_rewinds_of_a_partition_are_one_to_the_smallest_offset() -> None:
    gaps = Gaps()
    for stream_id, place in (("a", at(10)), ("b", at(7)), ("c", at(12))):
        gaps.observe(stream_id, HighWaterMark(1, 4), place, at(15), NOW_MS, 0.0)
    assert gaps.take_rewinds() == [Rewind(at(8))]


def test_rewinds_to_a_time_are_one_for_each_partition_and_leave_those_to_a_place_alone() -> None:
    gaps = Gaps()
    gaps.observe("a", None, None, at(15), NOW_MS, 0.0)
    gaps.observe("b", None, None, at(12), NOW_MS + 500, 0.0)
    gaps.observe("c", None, None, at(19), NOW_MS - 500, 0.0)
    gaps.observe("d", HighWaterMark(1, 4), at(10), at(15), NOW_MS, 0.0)
    gaps.observe("e", None, None, at(3, partition=1), NOW_MS, 0.0)
    assert gaps.take_rewinds() == [Rewind(at(11)), Rewind(at(12), NOW_MS - 500), Rewind(at(3, partition=1), NOW_MS)]
    gaps.observe("f", None, None, at(15), NOW_MS, 0.0)
    gaps.forget_partitions(frozenset({(TOPIC, 0)}))
    assert gaps.take_rewinds() == []
