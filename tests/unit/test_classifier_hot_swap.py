"""Changing the model while frames flow."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from moodline.services.classifier.hot_swap import ModelHotSwap
from moodline.services.classifier.model import Crops, Probabilities
from moodline.services.classifier.stage import ClassifierStage
from moodline.shared.bus import Bus, ConsumerSettings, open_bus
from moodline.shared.clock import SystemClock
from moodline.shared.errors import ModelError, StoreUnavailableError
from moodline.shared.messages import ALL_TOPICS, Emotions, Face, Faces, PipelineStep, StreamClass, decode, encode, topic
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.worker import ProducerSink, Worker, WorkerOptions
from moodline.shared.settings import ClassifierSettings
from moodline.shared.store.model_choice import ModelChoice, read_refusal, write_choice
from moodline.shared.store.sqlite import SqliteStore
from tests.support.clocks import StubClock
from tests.support.stores import RETENTION

STREAMS = 4
FRAMES = 400


class StubModel:
    """Answers the class that its name stands for, and notices when it is used after it was closed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = False

    def predict(self, crops: Crops) -> Probabilities:
        assert not self.closed
        time.sleep(0.0005)
        assert not self.closed, "closed in the middle of a batch"
        return np.tile(np.eye(7, dtype=np.float32)[len(self.name)], (len(crops), 1))

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True


class Loader:
    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.opened: list[StubModel] = []
        self.asked: list[str | None] = []

    def __call__(self, name: str | None) -> StubModel:
        self.asked.append(name)
        if name == self.broken and self.broken:
            raise ModelError("other shapes")
        model = StubModel(name or "own")
        self.opened.append(model)
        return model


class SilentConfigEntries:
    def config_entry(self, name: str) -> bytes:
        raise StoreUnavailableError("gone")

    def set_config_entry(self, name: str, value: bytes) -> None:
        raise StoreUnavailableError("gone")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(f"sqlite:///{tmp_path}/store.db", RETENTION)
    yield opened
    opened.close()


def choose(store: SqliteStore, name: str, at_us: int = 1) -> ModelChoice:
    choice = ModelChoice(name, at_us)
    write_choice(store, choice)
    return choice


def test_the_model_of_the_settings_is_used_until_another_one_is_chosen(store: SqliteStore) -> None:
    loader = Loader()
    hot_swap = ModelHotSwap(store, loader, Metrics(), StubClock())
    assert hot_swap.open_first().name == "own"
    hot_swap.poll()
    assert hot_swap.take() is None
    choose(store, "new")
    hot_swap.poll()
    taken = hot_swap.take()
    assert taken is not None
    assert taken.name == "new"
    assert hot_swap.take() is None, "a model is taken once"
    hot_swap.poll()
    assert loader.asked == [None, "new"]
    hot_swap.close()


def test_a_restart_begins_with_what_was_chosen(store: SqliteStore) -> None:
    choose(store, "new")
    loader = Loader()
    hot_swap = ModelHotSwap(store, loader, Metrics(), StubClock())
    assert hot_swap.open_first().name == "new"
    hot_swap.poll()
    assert loader.asked == ["new"]


def test_what_cannot_be_loaded_is_refused_once_and_said(store: SqliteStore) -> None:
    metrics, loader = Metrics(), Loader(broken="bad")
    hot_swap = ModelHotSwap(store, loader, metrics, StubClock())
    hot_swap.open_first()
    choice = choose(store, "bad")
    for _ in range(3):
        hot_swap.poll()
    assert hot_swap.take() is None
    refusal = read_refusal(store)
    assert refusal is not None
    assert (refusal.choice, refusal.reason) == (choice, "other shapes")
    assert loader.asked == [None, "bad"]
    assert metrics.registry.get_sample_value("moodline_model_refusals_total") == 1
    choose(store, "bad", at_us=2)  # somebody repaired it and chooses again
    loader.broken = ""
    hot_swap.poll()
    assert hot_swap.take() is loader.opened[-1]
    assert read_refusal(store) is None


def test_a_restart_with_a_choice_that_cannot_be_loaded_uses_the_model_of_the_settings(store: SqliteStore) -> None:
    choose(store, "bad")
    assert ModelHotSwap(store, Loader(broken="bad"), Metrics(), StubClock()).open_first().name == "own"
    assert read_refusal(store) is not None


def test_models_that_nobody_took_are_closed(store: SqliteStore) -> None:
    loader = Loader()
    hot_swap = ModelHotSwap(store, loader, Metrics(), StubClock())
    hot_swap.open_first()
    for number, name in enumerate(("one", "two")):
        choose(store, name, number)
        hot_swap.poll()
    assert [model.closed for model in loader.opened] == [False, True, False]
    hot_swap.close()
    assert [model.closed for model in loader.opened] == [False, True, True]


def test_a_store_that_does_not_answer_changes_nothing() -> None:
    hot_swap = ModelHotSwap(SilentConfigEntries(), Loader(), Metrics(), StubClock())
    hot_swap.poll()
    assert hot_swap.take() is None


def make_faces(stream: int, seq: int) -> Faces:
    face = Face((0, 0, 9, 9), 1, bytes(2304))
    return Faces(
        stream_id=f"s{stream}",
        epoch=1,
        seq=seq,
        event_time_us=seq,
        captured_at_us=0,
        lane=StreamClass.FILE,
        width=9,
        height=9,
        faces=(face,) * (seq % 3),
    )


def run_classifier(bus: Bus, store: SqliteStore, loader: Loader, stop: threading.Event, metrics: Metrics) -> threading.Thread:
    """Start a classifier as the composition root does, with stub models."""
    hot_swap = ModelHotSwap(store, loader, metrics, SystemClock())
    stage = ClassifierStage(hot_swap.open_first(), ClassifierSettings(), metrics, replacement=hot_swap)
    consumer = bus.open_consumer(
        ConsumerSettings(
            group="g",
            topics=(topic(PipelineStep.FACES, StreamClass.FILE),),
            max_prefetch_bytes=1_000_000,
            on_revoked=stage.on_revoked,
        )
    )
    producer = bus.open_producer()
    sink = ProducerSink("classifier", producer, metrics, stop)
    worker = Worker(WorkerOptions("classifier", 16, 0.0), consumer, stage, sink, producer, metrics, SystemClock())
    hot_swap.start()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    return thread


def test_under_load_every_frame_is_answered_once_and_each_stream_changes_its_model_once(store: SqliteStore) -> None:
    stop, loaders = threading.Event(), [Loader(), Loader()]
    with closing(open_bus("memory://", partitions=4, max_bytes=64_000_000)) as bus:
        bus.ensure_topics(ALL_TOPICS)
        threads = [run_classifier(bus, store, loader, stop, Metrics()) for loader in loaders]
        answers = bus.open_consumer(
            ConsumerSettings(
                group="test",
                topics=(topic(PipelineStep.EMOTIONS, StreamClass.FILE),),
                max_prefetch_bytes=1_000_000,
                on_revoked=lambda _: None,
            )
        )
        producer = bus.open_producer()
        seen: dict[str, list[Emotions]] = {f"s{stream}": [] for stream in range(STREAMS)}
        deadline, sent, after_change = time.monotonic() + 60, 0, 0
        # Frames flow until some time after every stream has changed over.
        while after_change < FRAMES and time.monotonic() < deadline:
            for stream in range(STREAMS):
                producer.send(
                    topic(PipelineStep.FACES, StreamClass.FILE), f"s{stream}".encode(), encode(make_faces(stream, sent))
                )
            producer.flush()
            sent += 1
            if sent == FRAMES:
                choose(store, "chosen")
            collect(answers.poll(64, 0.001), seen)
            after_change += all(messages and messages[-1].model == "chosen" for messages in seen.values())
        while sum(map(len, seen.values())) < STREAMS * sent and time.monotonic() < deadline:
            collect(answers.poll(64, 0.05), seen)
        stop.set()
        for thread in threads:
            thread.join(30)
        answers.close()
    assert after_change == FRAMES, "the model was not changed in time"
    for messages in seen.values():
        assert [message.seq for message in messages] == list(range(sent)), "a frame is missing, double or out of order"
        assert all(len(message.faces) == message.seq % 3 for message in messages)
        names = [message.model for message in messages]
        assert sorted(names, reverse=True) == names, "own comes first, then chosen, and never back"
        assert set(names) == {"own", "chosen"}
        for message in messages:
            assert all(face.probabilities[len(message.model)] == 65535 for face in message.faces), "named another model"
    for loader in loaders:
        assert [model.name for model in loader.opened] == ["own", "chosen"]
        assert all(model.closed for model in loader.opened)


def collect(records: list, seen: dict[str, list[Emotions]]) -> None:  # type: ignore[type-arg]
    for record in records:
        message = decode(record.value)
        assert isinstance(message, Emotions)
        seen[message.stream_id].append(message)
