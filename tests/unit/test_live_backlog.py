"""Coded frames that wait to be decoded: none grows old, and every one that is left out is told of."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.camera.input.backlog import BACKLOG_S, BEHIND_S, Backlog, CodedFrame
from moodline.services.ingest.camera.input.decoder import UnitTimes
from moodline.shared.errors import SourceError

FRAME_S = 0.04
GOP = 25


class Rig:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.backlog = Backlog(lambda: self.now_s)
        self.put = 0

    def arrive(self, count: int, *, gop: int = GOP, disposable: bool = False) -> None:
        for _ in range(count):
            key = self.put % gop == 0
            is_reference = key or not disposable or self.put % 2 == 0
            times = UnitTimes(Fraction(self.put), self.now_s, None)
            self.backlog.put(CodedFrame(b"x", key, 0, is_reference, False, False, times))
            self.put += 1
            self.now_s += FRAME_S

    def take_all(self, cost_s: float = 0.0) -> list[tuple[CodedFrame, float]]:
        found = []
        while (frame := self.backlog.take(0)) is not None:
            found.append((frame, self.now_s - frame.times.arrived_s))
            self.now_s += 0.0 if frame.is_overloaded else cost_s
        return found


def test_a_decoder_that_keeps_up_gets_every_frame() -> None:
    rig = Rig()
    for _ in range(50):
        rig.arrive(1)
        assert [frame.is_overloaded for frame, _ in rig.take_all()] == [False]
    assert rig.backlog.overloaded == 0


@given(st.sampled_from([1.5, 2.0, 6.0]), st.booleans())
def test_at_any_load_no_frame_is_decoded_late_and_all_are_accounted_for(load: float, disposable: bool) -> None:
    rig, seen, ages = Rig(), [], []
    for _ in range(40):
        rig.arrive(GOP // 2, disposable=disposable)
        began_s = rig.now_s
        while rig.now_s - began_s < FRAME_S * GOP / 2 and (frame := rig.backlog.take(0)) is not None:
            seen.append(frame)
            if not frame.is_overloaded:
                ages.append(rig.now_s - frame.times.arrived_s)
                rig.now_s += FRAME_S * load
    rig.now_s += 60
    seen += [frame for frame, _ in rig.take_all()]
    assert max(ages) <= BACKLOG_S
    assert [int(frame.times.media_s) for frame in seen] == list(range(rig.put))
    assert rig.backlog.overloaded == sum(frame.is_overloaded for frame in seen)


def test_after_a_gap_decoding_begins_at_a_keyframe_and_knows_it() -> None:
    rig = Rig()
    rig.arrive(2 * GOP + 5)
    decoded = [frame for frame, _ in rig.take_all() if not frame.is_overloaded]
    assert decoded[0].keyframe
    assert decoded[0].is_after_loss
    assert not any(frame.is_after_loss for frame in decoded[1:])


def test_frames_that_none_builds_on_go_first() -> None:
    rig = Rig()
    rig.arrive(round(BEHIND_S / FRAME_S) + 4, disposable=True)
    left_out = [int(frame.times.media_s) for frame, _ in rig.take_all() if frame.is_overloaded]
    assert left_out
    assert all(number % 2 for number in left_out)


def test_without_a_fresh_keyframe_the_next_one_is_waited_for() -> None:
    rig = Rig()
    rig.arrive(60, gop=1000)
    assert all(frame.is_overloaded for frame, _ in rig.take_all())
    rig.put = 1000
    rig.arrive(3, gop=1000)
    assert [frame.is_overloaded for frame, _ in rig.take_all()] == [False] * 3


def test_the_end_is_told_after_what_is_in() -> None:
    rig = Rig()
    rig.arrive(1)
    rig.backlog.fail(SourceError("unreachable", "gone"))
    assert rig.backlog.take(0) is not None
    with pytest.raises(SourceError, match="gone"):
        rig.backlog.take(0)
