"""Tracking: who is who from frame to frame, over event time."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.aggregator.tracker import StreamTracker
from moodline.shared.messages import DropReason, Emotions, FaceEmotion, StreamClass
from moodline.shared.settings import AggregatorSettings
from moodline.shared.timeline.state import TrackerState

HAPPY = (0, 0, 0, 65_535, 0, 0, 0)
SAD = (0, 0, 0, 0, 65_535, 0, 0)
LEFT, RIGHT = (0, 0, 10_000, 20_000), (40_000, 0, 50_000, 20_000)

Box = tuple[int, int, int, int]


def frame(time_ms: int, *boxes: Box, shows: tuple[int, ...] = HAPPY, skip: DropReason | None = None) -> Emotions:
    faces = tuple(FaceEmotion(box, 60_000, shows) for box in boxes)  # type: ignore[arg-type]
    return Emotions(
        stream_id="s",
        epoch=1,
        seq=0,
        event_time_us=time_ms * 1000,
        captured_at_us=0,
        lane=StreamClass.FILE,
        width=640,
        height=480,
        faces=faces,
        skip=skip,
    )


def make_tracker(iou_min: float = 0.3, track_lost_ms: int = 1500, smoothing_ms: int = 1000) -> StreamTracker:
    return StreamTracker(AggregatorSettings(iou_min=iou_min, track_lost_ms=track_lost_ms, smoothing_ms=smoothing_ms))


def ids(tracker: StreamTracker, message: Emotions) -> list[int]:
    return [face.track_id for face in tracker.observe(message)]


def moved(box: Box, by: int) -> Box:
    return box[0] + by, box[1], box[2] + by, box[3]


def test_faces_keep_their_ids_whatever_order_the_detector_lists_them_in() -> None:
    tracker = make_tracker()
    assert ids(tracker, frame(0, LEFT, RIGHT)) == [1, 2]
    assert ids(tracker, frame(200, moved(RIGHT, 500), moved(LEFT, 500))) == [2, 1]


def test_a_new_face_gets_the_next_id_and_says_that_it_began() -> None:
    tracker = make_tracker()
    assert [face.begun for face in tracker.observe(frame(0, LEFT))] == [True]
    assert [(face.track_id, face.begun) for face in tracker.observe(frame(200, RIGHT, LEFT))] == [(2, True), (1, False)]


def test_a_face_that_overlaps_too_little_is_a_new_one() -> None:
    # Two boxes of width 10,000 shifted by s overlap with ratio (10,000 - s) / (10,000 + s).
    assert ids_after_shift(5_000, iou_min=0.3) == [1]
    assert ids_after_shift(5_400, iou_min=0.3) == [2]
    assert ids_after_shift(5_000, iou_min=0.34) == [2]


def ids_after_shift(by: int, iou_min: float) -> list[int]:
    tracker = make_tracker(iou_min=iou_min)
    ids(tracker, frame(0, LEFT))
    return ids(tracker, frame(200, moved(LEFT, by)))


def test_boxes_that_do_not_touch_are_never_the_same_face() -> None:
    tracker = make_tracker(iou_min=1e-9)
    ids(tracker, frame(0, LEFT))
    assert ids(tracker, frame(1, moved(LEFT, 10_000))) == [2]


def test_the_best_overlap_wins_over_the_first_listed() -> None:
    tracker = make_tracker()
    ids(tracker, frame(0, LEFT))
    assert ids(tracker, frame(200, moved(LEFT, 2_000), moved(LEFT, 1_000))) == [2, 1]


def test_equal_overlaps_go_to_the_older_track_and_the_first_face() -> None:
    tracker = make_tracker()
    ids(tracker, frame(0, LEFT, moved(LEFT, 2_000)))
    assert ids(tracker, frame(200, moved(LEFT, 1_000), moved(LEFT, 1_000))) == [1, 2]


def test_overlap_does_not_depend_on_the_scale_of_x_or_y() -> None:
    for stretch in (1, 2, 5):
        tracker = make_tracker()
        first, second = (0, 0, 8_000, 3_000), (2_000, 0, 10_000, 3_000)
        ids(tracker, frame(0, (first[0], first[1] * stretch, first[2], first[3] * stretch)))
        assert ids(tracker, frame(1, (second[0], second[1] * stretch, second[2], second[3] * stretch))) == [1]


def test_a_track_survives_its_time_and_not_a_microsecond_more() -> None:
    within, beyond = make_tracker(track_lost_ms=1500), make_tracker(track_lost_ms=1500)
    for tracker in (within, beyond):
        ids(tracker, frame(0, LEFT))
    assert ids(within, frame(1500, LEFT)) == [1]
    late = msgspec.structs.replace(frame(1500, LEFT), event_time_us=1_500_001)
    assert ids(beyond, late) == [2]


def test_a_face_that_is_seen_again_and_again_stays_the_same_however_long_and_far_it_moves() -> None:
    tracker = make_tracker(track_lost_ms=1500)
    assert [ids(tracker, frame(1_400 * step, moved(LEFT, 3_000 * step))) for step in range(12)] == [[1]] * 12


def test_smoothing_counts_from_the_last_sight_and_not_from_the_first() -> None:
    tracker = make_tracker(smoothing_ms=1000)
    for time_ms in (0, 500, 1000):
        tracker.observe(frame(time_ms, LEFT, shows=HAPPY))
    (face,) = tracker.observe(frame(1100, LEFT, shows=SAD))
    assert face.smoothed[4] == pytest.approx(65_535 * (1 - 0.9048), rel=0.001)


def test_skipped_frames_let_time_pass_and_nothing_else() -> None:
    tracker = make_tracker(track_lost_ms=1000)
    ids(tracker, frame(0, LEFT))
    assert tracker.observe(frame(900, LEFT, skip=DropReason.EXPIRED)) == []
    assert ids(tracker, frame(1000, LEFT)) == [1]
    tracker.observe(frame(2001, skip=DropReason.EXPIRED))
    assert tracker.active_ids() == set()


def test_event_time_that_goes_back_stands_still() -> None:
    tracker = make_tracker()
    ids(tracker, frame(10_000, LEFT))
    assert ids(tracker, frame(2_000, LEFT)) == [1]
    assert tracker.state.now_us == 10_000_000
    assert ids(tracker, frame(11_500, LEFT)) == [1]


def test_each_face_is_smoothed_by_its_own_past() -> None:
    tracker = make_tracker(smoothing_ms=1000)
    tracker.observe(frame(0, LEFT, shows=HAPPY))
    both = tracker.observe(frame(1000, LEFT, RIGHT, shows=SAD))
    assert both[0].smoothed[3] == pytest.approx(65_535 * 0.3679, rel=0.001)
    assert both[1].smoothed == SAD


def test_ended_tracks_do_not_lend_their_ids_or_their_past() -> None:
    tracker = make_tracker()
    tracker.observe(frame(0, LEFT, shows=HAPPY))
    tracker.end_all()
    (again,) = tracker.observe(frame(1, LEFT, shows=SAD))
    assert (again.track_id, again.smoothed, again.begun) == (2, SAD, True)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(st.integers(0, 60_000)), draw(st.integers(0, 60_000))
    return x, y, x + draw(st.integers(1, 5_536)), y + draw(st.integers(1, 5_536))


FRAMES = st.lists(st.tuples(st.integers(0, 2_500), st.lists(boxes(), max_size=5)), max_size=12)


@given(FRAMES, st.integers(0, 12))
def test_saving_and_loading_changes_nothing(steps: list[tuple[int, list[Box]]], save_after: int) -> None:
    messages, time_ms = [], 0
    for dt_ms, faces in steps:
        time_ms += dt_ms
        messages.append(frame(time_ms, *faces))
    through = make_tracker()
    expected = [through.observe(message) for message in messages]
    tracker = make_tracker()
    answers = [tracker.observe(message) for message in messages[:save_after]]
    saved = msgspec.msgpack.encode(tracker.state)
    tracker = StreamTracker(AggregatorSettings(), msgspec.msgpack.decode(saved, type=TrackerState))
    answers += [tracker.observe(message) for message in messages[save_after:]]
    assert answers == expected
    assert msgspec.msgpack.encode(tracker.state) == msgspec.msgpack.encode(through.state)


@given(FRAMES)
def test_every_face_gets_an_id_of_its_own_and_ids_count_up(steps: list[tuple[int, list[Box]]]) -> None:
    tracker, time_ms, begun = make_tracker(), 0, []
    for dt_ms, faces in steps:
        time_ms += dt_ms
        answers = tracker.observe(frame(time_ms, *faces))
        assert len(answers) == len(faces)
        assert len({face.track_id for face in answers}) == len(faces)
        assert all(sum(face.smoothed) == 65_535 for face in answers)
        begun += [face.track_id for face in answers if face.begun]
    assert begun == list(range(1, len(begun) + 1))
