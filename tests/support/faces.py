"""Single faces, as an aggregator keeps them of a film with two people."""

from moodline.services.aggregator.stage import AggregatorStage
from moodline.shared.bus import Position
from moodline.shared.messages import DropReason, Emotions, End, FaceEmotion, StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Apply, Received
from moodline.shared.settings import AggregatorSettings, StoreSettings
from moodline.shared.store import BucketValue
from moodline.shared.timeline.faces import FACES_SERIES, FACES_TIER_S, SeenFace, SeenFrame, faces_index, pack_frames
from tests.support.api import NOW_US, ApiWorld

KEPT_FACES = {"store": StoreSettings(retention_faces_s=3600)}
"""Settings of an API where faces are kept."""

HAPPY, SAD = (0, 0, 0, 65_535, 0, 0, 0), (0, 0, 0, 0, 65_535, 0, 0)


def two_frames() -> BucketValue:
    """Return what is kept of two frames: somebody happy, and nobody."""
    somebody = SeenFace(1, (0, 0, 16_384, 32_768), 65_535, HAPPY, HAPPY, 65_535)
    shown = [
        SeenFrame(0, NOW_US, 640, 360, "fer-seed", None, (somebody,)),
        SeenFrame(1, NOW_US + 200_000, 640, 360, "fer-seed"),
    ]
    return BucketValue(FACES_SERIES, FACES_TIER_S, faces_index(NOW_US), pack_frames(shown))


def frame(number: int, epoch: int, *faces: FaceEmotion, skip: DropReason | None = None) -> Emotions:
    return Emotions(
        stream_id="lobby", epoch=epoch, seq=number, event_time_us=NOW_US + number * 200_000, captured_at_us=NOW_US,
        lane=StreamClass.FILE, width=640, height=360, faces=faces, skip=skip, model="" if skip else "fer-seed",
    )  # fmt: skip


def face(left: int = 0, row: tuple[int, ...] = HAPPY) -> FaceEmotion:
    return FaceEmotion((left, 0, left + 16_384, 32_768), 65_535, row)  # type: ignore[arg-type]


def keep_faces(world: ApiWorld, *, restart_every: int = 100, keeps: bool = True, frames: int = 30) -> None:
    """Let an aggregator read a film: two people, one of whom leaves; a frame in five without anybody, one skipped, an end."""
    world.add("lobby")
    epoch = world.store.acquire("lobby", world.clock.now).epoch
    messages: list[Emotions | End] = []
    for number in range(frames):
        if number == 7:
            messages.append(frame(number, epoch, skip=DropReason.CORRUPT))
        elif number % 5 == 4:
            messages.append(frame(number, epoch))
        else:
            messages.append(frame(number, epoch, face(), *([face(30_000, SAD)] if number < 15 else [])))
    end_us = NOW_US + frames * 200_000
    lane = StreamClass.FILE
    messages.append(End(stream_id="lobby", epoch=epoch, seq=frames, event_time_us=end_us, captured_at_us=0, lane=lane))
    for start in range(0, len(messages), restart_every):
        stage = AggregatorStage(world.store.load, AggregatorSettings(), Metrics(), keeps_faces=keeps)
        batch = [
            Received(message, Position("moodline.emotions.file.v1", 0, start + n))
            for n, message in enumerate(messages[start : start + restart_every])
        ]
        updates = [output.update for output in stage.process(batch, 0.0) if isinstance(output, Apply)]
        assert [result.value for result in world.store.apply(updates)] == ["applied"]
