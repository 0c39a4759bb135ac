import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moodline.services.classifier.model import Crops, Probabilities
from moodline.services.classifier.stage import ClassifierStage
from moodline.shared.bus.base import Position
from moodline.shared.errors import MessageError, ModelError
from moodline.shared.messages import DropReason, Emotions, End, Face, Faces, Frame, Message, StreamClass, decode, encode
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Received, Send
from moodline.shared.settings import ClassifierSettings

NOW_S = 1_000_000.0


class StubModel:
    """Is sure of the class that the crop's first pixel names."""

    name = "stub"

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.closed = False

    def predict(self, crops: Crops) -> Probabilities:
        assert crops.dtype == np.uint8
        assert crops.shape[1:] == (48, 48)
        self.calls.append(len(crops))
        return np.eye(7, dtype=np.float32)[crops[:, 0, 0] % 7]

    def close(self) -> None:
        self.closed = True


def make_face(value: int) -> Face:
    return Face((value, 1, 60_000, 65_536), 100 + value, bytes([value]) * 2304)


def make_faces(seq: int, values: list[int], **changes: object) -> Faces:
    fields = {
        "stream_id": f"s{seq % 3}",
        "epoch": 2,
        "seq": seq,
        "event_time_us": 10 * seq,
        "captured_at_us": int(NOW_S * 1e6),
        "lane": StreamClass.FILE,
        "width": 640,
        "height": 480,
        "faces": tuple(make_face(value) for value in values),
    }
    return Faces(**{**fields, **changes})  # type: ignore[arg-type]


def make_end(seq: int) -> End:
    return End(stream_id="s0", epoch=2, seq=seq, event_time_us=0, captured_at_us=0, lane=StreamClass.FILE)


def process(messages: list[Message], stage: ClassifierStage | None = None) -> list[Send]:
    stage = stage or ClassifierStage(StubModel(), ClassifierSettings(), Metrics())
    outputs = stage.process([Received(message, Position("t", 0, i)) for i, message in enumerate(messages)], NOW_S)
    assert all(isinstance(output, Send) for output in outputs)
    return outputs  # type: ignore[return-value]


def test_faces_become_emotions_on_the_topic_of_their_lane() -> None:
    message = make_faces(4, [3, 5], lane=StreamClass.LIVE)
    (output,) = process([message])
    emotions = output.message
    assert output.topic == "moodline.emotions.live.v1"
    assert isinstance(emotions, Emotions)
    for name in ("stream_id", "epoch", "seq", "event_time_us", "captured_at_us", "lane", "width", "height", "skip"):
        assert getattr(emotions, name) == getattr(message, name)
    assert emotions.model == "stub"
    assert [(face.box, face.score) for face in emotions.faces] == [(face.box, face.score) for face in message.faces]
    assert [face.probabilities.index(65535) for face in emotions.faces] == [3, 5]
    assert decode(encode(emotions)) == emotions


def test_crops_of_all_streams_are_classified_in_one_call() -> None:
    model = StubModel()
    stage = ClassifierStage(model, ClassifierSettings(), Metrics())
    process([make_faces(0, [1]), make_faces(1, []), make_end(1), make_faces(2, [2, 3, 4])], stage)
    assert model.calls == [4]


@given(st.lists(st.one_of(st.none(), st.lists(st.integers(0, 255), max_size=4)), max_size=12))
@settings(max_examples=50)
def test_every_message_is_answered_in_order_with_its_own_faces(batch: list[list[int] | None]) -> None:
    messages = [make_end(i) if values is None else make_faces(i, values) for i, values in enumerate(batch)]
    outputs = process(messages)
    assert [output.message.seq for output in outputs] == list(range(len(batch)))
    for values, message, output in zip(batch, messages, outputs, strict=True):
        if values is None:
            assert output.message == message
        else:
            assert [face.probabilities.index(65535) for face in output.message.faces] == [value % 7 for value in values]


def test_a_frame_without_faces_does_not_call_the_model() -> None:
    model = StubModel()
    (output,) = process([make_faces(0, [])], ClassifierStage(model, ClassifierSettings(), Metrics()))
    assert (output.message.faces, output.message.skip, output.message.model, model.calls) == ((), None, "stub", [])


def test_a_skip_is_passed_on_with_its_reason() -> None:
    (output,) = process([make_faces(0, [], skip=DropReason.CORRUPT)])
    assert (output.message.skip, output.message.model) == (DropReason.CORRUPT, "")


@pytest.mark.parametrize(
    ("lane", "age_s", "skip"),
    [
        (StreamClass.LIVE, 2.1, DropReason.EXPIRED),
        (StreamClass.LIVE, 2.0, None),
        (StreamClass.LIVE, -9.0, None),
        (StreamClass.FILE, 9e5, None),
    ],
)
def test_only_old_live_frames_expire(lane: StreamClass, age_s: float, skip: DropReason | None) -> None:
    model, metrics = StubModel(), Metrics()
    stage = ClassifierStage(model, ClassifierSettings(age_budget_s=2.0), metrics)
    (output,) = process([make_faces(0, [1], lane=lane, captured_at_us=int((NOW_S - age_s) * 1e6))], stage)
    assert output.message.skip is skip
    assert len(output.message.faces) == len(model.calls) == (0 if skip else 1)
    expired = metrics.registry.get_sample_value(
        "moodline_frames_skipped_total", {"worker": "classifier", "lane": "live", "reason": "expired"}
    )
    assert (expired or 0) == (1 if skip else 0)


def test_an_old_live_frame_without_faces_keeps_its_result() -> None:
    (output,) = process([make_faces(0, [], lane=StreamClass.LIVE, captured_at_us=0)])
    assert output.message.skip is None


def test_fill_faces_and_time_are_counted() -> None:
    metrics = Metrics()
    process([make_faces(0, [1] * 10)], ClassifierStage(StubModel(), ClassifierSettings(batch_size=8), metrics))
    value = metrics.registry.get_sample_value
    assert value("moodline_model_batch_fill_ratio_sum") == 10 / 16
    assert value("moodline_faces_total", {"worker": "classifier"}) == 10
    assert value("moodline_model_seconds_count", {"worker": "classifier"}) == 1


def test_a_model_that_loses_crops_or_answers_nonsense_is_not_believed() -> None:
    class LossyModel(StubModel):
        def predict(self, crops: Crops) -> Probabilities:
            return super().predict(crops)[1:]

    class BrokenModel(StubModel):
        def predict(self, crops: Crops) -> Probabilities:
            return super().predict(crops) * np.float32(np.nan)

    for model in (LossyModel(), BrokenModel()):
        with pytest.raises(ModelError):
            process([make_faces(0, [1, 2])], ClassifierStage(model, ClassifierSettings(), Metrics()))


def test_other_messages_are_refused() -> None:
    frame = Frame(
        stream_id="s", epoch=1, seq=0, event_time_us=0, captured_at_us=0, lane=StreamClass.FILE, width=1, height=1, jpeg=b"x"
    )
    with pytest.raises(MessageError, match="takes faces, not Frame"):
        process([frame])


def test_closing_the_stage_closes_the_model() -> None:
    model = StubModel()
    stage = ClassifierStage(model, ClassifierSettings(), Metrics())
    stage.on_revoked(frozenset({("t", 0)}))
    assert stage.tick(NOW_S) == []
    stage.close()
    assert model.closed


class Ticking:
    """A timer that a slow model advances."""

    def __init__(self, call_s: float) -> None:
        self.time_s = 0.0
        timer = self

        class SlowModel(StubModel):
            def predict(self, crops: Crops) -> Probabilities:
                timer.time_s += call_s * -(-len(crops) // 8)
                return super().predict(crops)

        self.metrics = Metrics()
        self.stage = ClassifierStage(SlowModel(), ClassifierSettings(batch_size=8), self.metrics, lambda: self.time_s)


def test_an_overload_is_shed_and_counted_once_but_neither_files_nor_what_costs_nothing() -> None:
    slow = Ticking(0.2)
    process([make_faces(0, [1])], slow.stage)
    captured_at_us = int((NOW_S - 0.5) * 1e6)
    live = [make_faces(seq, [seq] * 4, lane=StreamClass.LIVE, captured_at_us=captured_at_us) for seq in range(40)]
    empty = make_faces(40, [], lane=StreamClass.LIVE, captured_at_us=captured_at_us)
    files = [make_faces(seq, [seq], stream_id="file") for seq in range(41, 44)]
    outputs = process([*live, empty, *files, make_end(50)], slow.stage)
    assert [output.message.seq for output in outputs] == [*range(44), 50]
    emotions = [output.message for output in outputs if isinstance(output.message, Emotions)]
    done = [message for message in emotions[:40] if message.skip is None]
    assert [len(message.faces) for message in done] == [4, 4]
    assert {message.skip for message in emotions[:40]} == {None, DropReason.OVERLOADED}
    assert [message.skip for message in emotions[40:]] == [None] * 4
    labels = {"worker": "classifier", "lane": "live", "reason": "overloaded"}
    assert slow.metrics.registry.get_sample_value("moodline_frames_skipped_total", labels) == 38
    for message in emotions:
        assert all(face.probabilities.index(65535) == message.seq % 7 for face in message.faces), "each has its own"


def test_batches_of_files_are_as_small_as_the_network_is_slow_and_faces_are_many() -> None:
    names = ("moodline.faces.file.v1", "moodline.faces.live.v1")
    fast, slow = Ticking(0.01), Ticking(0.1)
    assert [fast.stage.batch_limit(name) for name in names] == [8, 8]
    for each in (fast, slow):
        process([make_faces(seq, [1]) for seq in range(8)], each.stage)
    assert [fast.stage.batch_limit(name) for name in names] == [64, 256]
    assert [slow.stage.batch_limit(name) for name in names] == [16, 256]
    process([make_faces(seq, [1] * 4) for seq in range(60)], slow.stage)
    assert slow.stage.batch_limit(names[0]) == pytest.approx(4, abs=1)
