"""Faces that cannot be read: counted as such from the detector to the answer, and no emotion is theirs."""

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from moodline.services.aggregator.stream import StreamTimeline
from moodline.services.aggregator.tracker import StreamTracker
from moodline.services.alerts.evaluator import Second, evaluate, first_state
from moodline.services.alerts.rules import Rule, RuleKind
from moodline.services.analysis.annotate import overlays_of
from moodline.services.analysis.faces import track_frames
from moodline.services.detector.base import BgrImage, Detections, Found
from moodline.services.detector.crop import cut_faces
from moodline.services.detector.quality import FEATURES, PARTS, FaceQuality, features, load_quality, read_quality
from moodline.services.detector.stage import DetectorStage
from moodline.services.live.stream import faces_event
from moodline.services.report.document import point_document
from moodline.services.report.faces import face_rows
from moodline.shared.bus.base import Position
from moodline.shared.errors import MessageError, ModelError, StoreError
from moodline.shared.messages import DropReason, Emotions, Face, FaceEmotion, Faces, Frame, StreamClass, decode, encode
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Received, Send
from moodline.shared.settings import AggregatorSettings, DetectorSettings
from moodline.shared.timeline import Bucket, EmptyReason, merge, pack, unpack, unpack_track_summary
from moodline.shared.timeline.faces import seen_frame
from moodline.shared.timeline.points import make_point
from moodline.shared.timeline.state import present_of

SETTINGS = AggregatorSettings(smoothing_ms=500, track_lost_ms=1000, min_quality=0.5)
START_US = 1_777_640_390_000_000
STEP_US = 200_000
GOOD, POOR = 60_000, 20_000
HAPPY, SAD = 3, 4


def face(quality: int = GOOD, emotion: int = HAPPY, place: int = 0) -> FaceEmotion:
    values = [0] * 7
    values[emotion] = 65_535
    x = place * 12_000
    return FaceEmotion((x, 0, x + 9_000, 9_000), 60_000, tuple(values), quality)  # type: ignore[arg-type]


def frame(number: int, *faces: FaceEmotion, too_small: int = 0, skip: DropReason | None = None) -> Emotions:
    return Emotions(
        stream_id="a",
        epoch=1,
        seq=number,
        event_time_us=START_US + number * STEP_US,
        captured_at_us=0,
        lane=StreamClass.FILE,
        width=1,
        height=1,
        faces=faces,
        too_small=too_small,
        skip=skip,
        model="" if skip else "m",
    )


def grown(*frames: Emotions) -> StreamTimeline:
    timeline = StreamTimeline(SETTINGS)
    for message in frames:
        timeline.add(message)
    return timeline


def hour(timeline: StreamTimeline) -> Bucket:
    return next(unpack(value.value) for value in timeline.take_values() if value.tier_s == 3600)


def test_an_unreadable_face_is_counted_and_is_no_emotion() -> None:
    bucket = hour(grown(frame(0, face(), face(POOR, SAD, place=2)), frame(1, face(POOR, SAD)), frame(2, too_small=3)))
    assert (bucket.faces, bucket.frames_with_faces, bucket.tracks_begun) == (1, 1, 1)
    assert (bucket.unreadable, bucket.too_small) == (5, 3)
    assert bucket.raw[SAD] == bucket.smoothed[SAD] == bucket.leading[SAD] == 0
    assert sum(bucket.raw) == sum(bucket.smoothed) == 65_535


def test_a_stretch_with_unreadable_faces_alone_says_so() -> None:
    point = make_point(hour(grown(frame(0, face(POOR)), frame(1, too_small=1))), START_US, StreamClass.FILE)
    assert point.reading is None
    assert point.empty is EmptyReason.UNREADABLE
    document = point_document(point, None)
    assert (document.unreadable, document.too_small, document.faces, document.dominant) == (2, 1, 0, None)


def test_a_skipped_frame_has_no_faces_of_any_kind() -> None:
    bucket = hour(grown(frame(0, too_small=4, skip=DropReason.EXPIRED)))
    assert (bucket.unreadable, bucket.too_small) == (0, 0)


def test_a_face_that_turns_away_stays_the_same_face() -> None:
    timeline = grown(frame(0, face()), *(frame(number, face(POOR, SAD)) for number in range(1, 20)), frame(20, face()))
    bucket = hour(timeline)
    assert (bucket.faces, bucket.unreadable, bucket.tracks_begun) == (2, 19, 1)
    assert bucket.leading[HAPPY] == 2


def test_a_track_that_was_never_read_is_in_no_list() -> None:
    timeline = grown(frame(0, face(POOR)), frame(1, face(place=2)))
    timeline.close(START_US + STEP_US)
    tracks = {value.index: value.value for value in timeline.take_values() if value.series == "tracks"}
    assert list(tracks) == [2]
    assert unpack_track_summary(tracks[2]).seen.faces == 1


def test_what_was_read_long_ago_weighs_as_little_as_if_nobody_had_been_there() -> None:
    away = grown(frame(0, face()), *(frame(number, face(POOR, SAD)) for number in range(1, 5)), frame(5, face(GOOD, SAD)))
    gone = grown(frame(0, face()), *(frame(number) for number in range(1, 5)), frame(5, face(GOOD, SAD)))
    assert hour(away).smoothed == hour(gone).smoothed


def test_a_saved_state_goes_on_exactly_where_it_was() -> None:
    frames = [frame(at, face(POOR if at % 3 else GOOD, (at // 4) % 7), face(POOR, place=3)) for at in range(30)]
    whole = grown(*frames)
    for cut in (1, 2, 3, 13, 29):
        first = grown(*frames[:cut])
        first.take_values()
        second = StreamTimeline(SETTINGS, first.save())
        for message in frames[cut:]:
            second.add(message)
        assert second.save() == whole.save()


def test_a_state_of_the_version_before_goes_on() -> None:
    timeline = grown(frame(0, face()), frame(1, face()))
    timeline.take_values()
    tracker, tracks, indexes, parts, models, *_ = msgspec.msgpack.decode(timeline.save()[1:])
    tracker[2] = [track[:4] for track in tracker[2]]
    before = b"\x02" + msgspec.msgpack.encode([tracker, tracks, indexes, [part[:9] for part in parts], models])
    assert present_of(before).faces[0].smoothed is not None
    again, now = StreamTimeline(SETTINGS, before), StreamTimeline(SETTINGS, timeline.save())
    for message in (frame(2, face(POOR)), frame(3, face(GOOD, SAD))):
        again.add(message)
        now.add(message)
    assert again.save() == now.save()
    assert sorted(again.take_values()) == sorted(now.take_values())


def test_the_stored_form_is_the_former_one_where_nothing_is_unreadable() -> None:
    plain = Bucket(sampled=5, frames_with_faces=5, faces=5, tracks_begun=1)
    assert pack(plain)[0] >> 4 == 1
    poor = msgspec.structs.replace(plain, unreadable=7, too_small=2)
    assert unpack(pack(poor)) == poor
    assert merge(poor, poor).unreadable == 14
    with pytest.raises(StoreError, match="version 3"):
        unpack(bytes((3 << 4,)) + pack(plain)[1:])


def test_old_messages_are_readable_and_wrong_ones_are_refused() -> None:
    message = Faces(
        stream_id="a",
        epoch=1,
        seq=0,
        event_time_us=0,
        captured_at_us=0,
        lane=StreamClass.FILE,
        width=9,
        height=9,
        faces=(Face((0, 0, 9, 9), 1, bytes(2304)),),
    )
    told = msgspec.msgpack.decode(encode(message))
    del told["too_small"], told["faces"][0]["quality"]
    assert decode(msgspec.msgpack.encode(told)) == message
    for changed in ({"too_small": -1}, {"faces": [{**told["faces"][0], "quality": 65_536}]}):
        with pytest.raises(MessageError):
            decode(msgspec.msgpack.encode({**told, **changed}))


class Finds:
    """Finds what it is told to."""

    square_from = "longer_side"

    def __init__(self, found: Found) -> None:
        self._found = found

    def detect(self, image: BgrImage) -> Detections:  # it has been told
        return self._found.faces

    def search(self, image: BgrImage) -> Found:
        return self._found


def test_the_detector_counts_what_is_too_small_and_judges_the_others() -> None:
    found = Found(np.array([[10, 10, 50, 50, 0.9]], np.float32), np.array([[1, 1, 4, 4, 0.9], [60, 1, 64, 5, 0.8]], np.float32))
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    message = Frame(
        stream_id="a",
        epoch=1,
        seq=0,
        event_time_us=0,
        captured_at_us=0,
        lane=StreamClass.FILE,
        width=96,
        height=96,
        jpeg=cv2.imencode(".jpg", image)[1].tobytes(),
    )
    stage = DetectorStage(lambda: Finds(found), DetectorSettings(threads=1), Metrics())
    (output,) = stage.process([Received(message, Position("moodline.frames.file.v1", 0, 0))], 0.0)
    stage.close()
    assert isinstance(output, Send)
    assert isinstance(output.message, Faces)
    assert output.message.too_small == 2
    assert 0 < output.message.faces[0].quality < 65_535, "it was judged"


def test_who_watches_live_is_told_no_emotion_of_a_face_that_turned_away() -> None:
    timeline = grown(frame(0, face(), face(place=2)), frame(1, face(POOR), face(place=2)))
    event = msgspec.json.decode(faces_event("a", present_of(timeline.save())).data)
    assert [each["dominant"] for each in event["faces"]] == [None, "happy"]
    assert event["faces"][0]["smoothed"] is None


def test_an_annotated_video_shows_no_emotion_on_an_unreadable_face() -> None:
    message = frame(0, face(POOR), face(place=2))
    (overlays,) = overlays_of(iter([(message, StreamTracker(SETTINGS).observe(message))]))
    assert [overlay.emotion for overlay in overlays] == [None, HAPPY]


def test_nobody_there_is_not_said_of_faces_that_cannot_be_read() -> None:
    rule = Rule(rule_id="r", kind=RuleKind.NO_FACES, stream="a", for_s=2)
    empty = [Second(at, 5, 5) for at in range(10)]
    unreadable = [Second(at, 5, 5, unreadable=5) for at in range(10)]
    assert evaluate(rule, empty, first_state(rule, "a", 0))[1]
    assert not evaluate(rule, unreadable, first_state(rule, "a", 0))[1]


def test_rows_of_single_faces_say_which_can_be_read() -> None:
    frames = [frame(0, face()), frame(1, face(POOR, SAD)), frame(2, face())]
    seen = [
        seen_frame(message, message.event_time_us, [(face.track_id, face.read) for face in tracked])
        for message, tracked in track_frames(frames, SETTINGS)
    ]
    rows = [row for each in seen for row in face_rows(each, (9, 9), None)]
    assert [row.readable for row in rows] == [True, False, True]
    assert [row.track for row in rows] == [1, 1, 1]
    assert [row.smoothed is None for row in rows] == [False, True, False]
    assert rows[1].quality == pytest.approx(POOR / 65_535, abs=1e-4)


def portrait() -> BgrImage:
    data = pytest.importorskip("skimage.data", reason="the sample portrait comes with scikit-image")
    return cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)


def quality_of(image: BgrImage) -> float:
    (found,) = cut_faces(image, np.array([[165, 70, 283, 190, 0.9]], np.float32), "longer_side", 1, load_quality())
    return found.quality / 65_535


def test_a_clear_face_is_readable_and_the_same_face_spoilt_is_not() -> None:
    image = portrait()
    least = AggregatorSettings().min_quality
    clear = quality_of(image)
    assert clear > max(least, 0.5)
    dark = (image * 0.02).astype(np.uint8)
    small = cv2.resize(cv2.resize(image, None, fx=0.04, fy=0.04, interpolation=cv2.INTER_AREA), image.shape[1::-1])
    hidden = image.copy()
    hidden[60:200, 160:290] = 127
    masked = image.copy()
    masked[130:200, 160:290] = 200
    for spoilt in (dark, small, hidden, masked):
        assert quality_of(spoilt) < least


def test_quality_depends_on_the_face_alone() -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (20, 48, 48), np.uint8)
    judge = load_quality()
    alone = [judge.of(crop, 30) for crop in crops]
    assert [judge.of(crop, 30) for crop in crops[::-1]] == alone[::-1]
    assert all(0 <= value <= 1 for value in alone)


@pytest.mark.parametrize("grey", [0, 127, 255])
def test_an_empty_crop_has_features_and_cannot_be_read(grey: int) -> None:
    crop = np.full((48, 48), grey, np.uint8)
    assert np.isfinite(features(crop, 1)).all()
    assert load_quality().of(crop, 48) < AggregatorSettings().min_quality


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    good = {name: np.ones(shape, np.float32) for name, shape in zip(PARTS, [(FEATURES,)] * 2 + [(FEATURES, 2), (2,), (2,), (1,)])}  # noqa: B905
    FaceQuality(good)
    for name in PARTS:
        with pytest.raises(ModelError):
            FaceQuality({key: value for key, value in good.items() if key != name})
        with pytest.raises(ModelError):
            FaceQuality({**good, name: np.full_like(good[name], np.nan)})
    folder = tmp_path
    with pytest.raises(ModelError, match="install Moodline again"):
        read_quality(folder)
    (folder / "quality.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(ModelError, match="install Moodline again"):
        read_quality(folder)
