import threading
import time

import cv2
import numpy as np
import pytest

from moodline.services.detector.base import BgrImage, Detections, Found
from moodline.services.detector.stage import DetectorStage
from moodline.shared.bus.base import Position
from moodline.shared.errors import ImageError, ModelError
from moodline.shared.messages import DropReason, Emotions, End, Faces, Frame, StreamClass, encode
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Received, Send
from moodline.shared.settings import DetectorSettings

NOW_S = 1_000_000.0


class StubDetector:
    """Finds one face per bright column block; slow on request, so that threads overtake each other."""

    square_from = "width"

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.threads: set[int] = set()
        self.busy = threading.Lock()

    def search(self, image: BgrImage) -> Found:
        return Found(self.detect(image), np.empty((0, 5), np.float32))

    def detect(self, image: BgrImage) -> Detections:
        assert self.busy.acquire(blocking=False), "one detector is used by two threads at once"
        try:
            self.threads.add(threading.get_ident())
            time.sleep(self.delay_s * (int(image[0, 0, 0]) % 3))
            count = int(image.mean()) % 4
            return np.array([[i * 5, 2, i * 5 + 20, 22, 0.9 - i / 10] for i in range(count)], np.float32).reshape(-1, 5)
        finally:
            self.busy.release()


def make_frame(seq: int = 0, **changes: object) -> Frame:
    image = np.full((48, 64, 3), (seq * 37) % 256, np.uint8)
    fields = {
        "stream_id": f"s{seq % 3}",
        "epoch": 1,
        "seq": seq,
        "event_time_us": seq,
        "captured_at_us": int(NOW_S * 1e6),
        "lane": StreamClass.FILE,
        "width": 64,
        "height": 48,
        "jpeg": cv2.imencode(".jpg", image)[1].tobytes(),
    }
    return Frame(**{**fields, **changes})  # type: ignore[arg-type]


def received(*messages: object) -> list[Received]:
    return [Received(message, Position("moodline.frames.file.v1", 0, i)) for i, message in enumerate(messages)]  # type: ignore[arg-type]


def run(messages: list[object], **settings: object) -> list[Send]:
    stage = DetectorStage(StubDetector, DetectorSettings(**{"threads": 1, **settings}), Metrics())  # type: ignore[arg-type]
    outputs = stage.process(received(*messages), NOW_S)
    stage.close()
    assert all(isinstance(output, Send) for output in outputs)
    return outputs  # type: ignore[return-value]


def test_a_frame_becomes_its_faces_on_the_topic_of_its_lane() -> None:
    frame = make_frame(3, lane=StreamClass.LIVE, jpeg=cv2.imencode(".jpg", np.full((48, 64, 3), 2, np.uint8))[1].tobytes())
    (output,) = run([frame])
    faces = output.message
    assert output.topic == "moodline.faces.live.v1"
    assert isinstance(faces, Faces)
    assert [getattr(faces, name) for name in ("stream_id", "epoch", "seq", "event_time_us", "captured_at_us", "lane")] == [
        getattr(frame, name) for name in ("stream_id", "epoch", "seq", "event_time_us", "captured_at_us", "lane")
    ]
    assert (faces.width, faces.height, faces.skip, len(faces.faces)) == (64, 48, None, 2)
    assert faces.faces[0].box == (0, round(2 / 48 * 65536), round(20 / 64 * 65536), round(22 / 48 * 65536))


def test_an_end_is_passed_on_unchanged() -> None:
    end = End(stream_id="s", epoch=1, seq=9, event_time_us=5, captured_at_us=6, lane=StreamClass.FILE)
    (output,) = run([end])
    assert output == Send("moodline.faces.file.v1", end)


def test_a_skip_is_passed_on_with_its_reason() -> None:
    (output,) = run([make_frame(jpeg=b"", skip=DropReason.OVERLOADED)])
    assert output.message.skip is DropReason.OVERLOADED


@pytest.mark.parametrize(
    ("lane", "age_s", "skip"),
    [
        (StreamClass.LIVE, 2.1, DropReason.EXPIRED),
        (StreamClass.LIVE, 2.0, None),
        (StreamClass.LIVE, -5.0, None),
        (StreamClass.FILE, 9e5, None),
    ],
)
def test_only_old_live_frames_expire(lane: StreamClass, age_s: float, skip: DropReason | None) -> None:
    (output,) = run([make_frame(lane=lane, captured_at_us=int((NOW_S - age_s) * 1e6))], age_budget_s=2.0)
    assert output.message.skip is skip


@pytest.mark.parametrize(
    "changes", [{"jpeg": b""}, {"jpeg": b"\xff\xd8 nonsense"}, {"jpeg": make_frame().jpeg[:-40]}, {"width": 63}]
)
def test_a_damaged_image_is_a_skip_and_its_neighbours_are_not_disturbed(changes: dict[str, object]) -> None:
    metrics = Metrics()
    stage = DetectorStage(StubDetector, DetectorSettings(threads=2), metrics)
    outputs = stage.process(received(make_frame(0), make_frame(1, **changes), make_frame(2)), NOW_S)
    assert [output.message.skip for output in outputs] == [None, DropReason.CORRUPT, None]  # type: ignore[union-attr]
    labels = {"worker": "detector", "lane": "file", "reason": "corrupt"}
    assert metrics.registry.get_sample_value("moodline_frames_skipped_total", labels) == 1
    stage.close()


def test_at_most_max_faces() -> None:
    frame = make_frame(jpeg=cv2.imencode(".jpg", np.full((48, 64, 3), 3, np.uint8))[1].tobytes())
    assert [len(run([frame], max_faces=most)[0].message.faces) for most in (1, 2, 64)] == [1, 2, 3]


def test_bytes_and_order_depend_neither_on_threads_nor_on_batches() -> None:
    frames = [make_frame(seq) for seq in range(24)]
    expected = [encode(output.message) for output in run(list(frames))]
    for threads, size in ((1, 5), (3, 24), (4, 7)):
        stage = DetectorStage(lambda: StubDetector(0.002), DetectorSettings(threads=threads), Metrics())
        batches = [frames[at : at + size] for at in range(0, len(frames), size)]
        outputs = [output for batch in batches for output in stage.process(received(*batch), NOW_S)]
        stage.close()
        assert [encode(output.message) for output in outputs] == expected  # type: ignore[union-attr]


def test_frames_are_searched_at_the_same_time_by_a_detector_each() -> None:
    both = threading.Barrier(2, timeout=10)

    class MeetingDetector(StubDetector):
        def detect(self, image: BgrImage) -> Detections:
            both.wait()  # passes only when two searches run at the same time
            return super().detect(image)

    made: list[StubDetector] = []

    def make() -> StubDetector:
        made.append(MeetingDetector())
        return made[-1]

    stage = DetectorStage(make, DetectorSettings(threads=2), Metrics())
    stage.process(received(*[make_frame(seq) for seq in range(4)]), NOW_S)
    stage.close()
    assert len(made) == 2


def test_faces_and_time_are_counted() -> None:
    metrics = Metrics()
    stage = DetectorStage(StubDetector, DetectorSettings(threads=1), metrics)
    outputs = stage.process(received(*[make_frame(seq) for seq in range(6)]), NOW_S)
    stage.close()
    faces = sum(len(output.message.faces) for output in outputs)  # type: ignore[union-attr]
    assert faces > 0
    assert metrics.registry.get_sample_value("moodline_faces_total", {"worker": "detector"}) == faces
    assert metrics.registry.get_sample_value("moodline_model_seconds_count", {"worker": "detector"}) == 6


def test_what_the_detector_cannot_handle_is_raised_for_the_worker_to_sort_out() -> None:
    fields = {
        name: getattr(make_frame(), name) for name in ("stream_id", "epoch", "seq", "event_time_us", "captured_at_us", "lane")
    }
    with pytest.raises(Exception, match="takes frames, not Emotions"):
        run([Emotions(**fields, width=1, height=1)])


def test_a_detector_that_cannot_be_made_is_known_at_once() -> None:
    def fail() -> StubDetector:
        raise ModelError("missing")

    with pytest.raises(ModelError):
        DetectorStage(fail, DetectorSettings(), Metrics())


def test_an_image_error_of_the_detector_does_not_lose_the_detector() -> None:
    class PickyDetector(StubDetector):
        def detect(self, image: BgrImage) -> Detections:
            raise ImageError("no")

    stage = DetectorStage(PickyDetector, DetectorSettings(threads=1), Metrics())
    outputs = stage.process(received(make_frame(0), make_frame(1)), NOW_S)
    stage.close()
    assert [output.message.skip for output in outputs] == [DropReason.CORRUPT] * 2  # type: ignore[union-attr]


def test_nothing_is_due_or_held_between_batches() -> None:
    stage = DetectorStage(StubDetector, DetectorSettings(threads=1), Metrics())
    stage.on_revoked(frozenset({("moodline.frames.file.v1", 0)}))
    assert stage.tick(NOW_S) == []
    stage.close()


class Ticking:
    """A timer that a slow detector advances."""

    def __init__(self, search_s: float) -> None:
        self.time_s = 0.0
        timer = self

        class SlowDetector(StubDetector):
            def detect(self, image: BgrImage) -> Detections:
                timer.time_s += search_s
                return super().detect(image)

        self.metrics = Metrics()
        self.stage = DetectorStage(SlowDetector, DetectorSettings(threads=1), self.metrics, lambda: self.time_s)

    def drops(self, *messages: object) -> list[DropReason | None]:
        return [output.message.skip for output in self.stage.process(received(*messages), NOW_S)]  # type: ignore[union-attr]

    def count(self, lane: StreamClass, reason: DropReason) -> float:
        labels = {"worker": "detector", "lane": lane, "reason": reason}
        return self.metrics.registry.get_sample_value("moodline_frames_skipped_total", labels) or 0


def test_an_overload_is_shed_and_counted_once_and_files_are_searched_all_the_same() -> None:
    slow = Ticking(0.1)
    slow.drops(make_frame(0))
    live = [make_frame(seq, lane=StreamClass.LIVE, captured_at_us=int((NOW_S - 0.5) * 1e6)) for seq in range(30)]
    old = make_frame(30, lane=StreamClass.LIVE, captured_at_us=int((NOW_S - 2.5) * 1e6))
    shed = make_frame(31, lane=StreamClass.LIVE, jpeg=b"", skip=DropReason.OVERLOADED)
    end = End(stream_id="s9", epoch=1, seq=9, event_time_us=5, captured_at_us=0, lane=StreamClass.LIVE)
    outputs = slow.stage.process(received(*live, old, shed, end, make_frame(40), make_frame(41)), NOW_S)
    messages = [output.message for output in outputs]  # type: ignore[union-attr]
    assert [message.seq for message in messages] == [*range(31), 31, 9, 40, 41]
    drops = [message.skip for message in messages if isinstance(message, Faces)]
    assert drops[30:] == [DropReason.EXPIRED, DropReason.OVERLOADED, None, None]
    served = drops[:30].count(None)
    assert 1 <= served <= 2
    assert drops[:30].count(DropReason.OVERLOADED) == 30 - served == slow.count(StreamClass.LIVE, DropReason.OVERLOADED)
    assert slow.count(StreamClass.LIVE, DropReason.EXPIRED) == 1
    assert messages[32] == end
    slow.stage.close()


@pytest.mark.parametrize(("search_s", "most"), [(0.001, 16), (0.02, 10), (0.1, 2), (1.0, 1)])
def test_batches_of_files_are_as_small_as_searches_are_slow_and_live_ones_are_not(search_s: float, most: int) -> None:
    slow = Ticking(search_s)
    names = ("moodline.frames.file.v1", "moodline.frames.live.v1")
    assert [slow.stage.batch_limit(name) for name in names] == [1, 1], "a first one tells how slow they are"
    slow.drops(make_frame(0))
    assert [slow.stage.batch_limit(name) for name in names] == [most, 256]
    slow.stage.close()
