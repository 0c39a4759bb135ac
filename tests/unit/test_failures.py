"""Frames on which a worker failed are noted for whoever reads their file again."""

from pathlib import Path

import pytest

from moodline.shared.bus import Position
from moodline.shared.errors import StoreUnavailableError
from moodline.shared.messages import Frame, StreamClass
from moodline.shared.pipeline.failures import FailureRecorder
from moodline.shared.pipeline.stage import Received
from moodline.shared.store import FrameFailure
from moodline.shared.store.sqlite import SqliteStore
from moodline.shared.streams import StreamSpec
from tests.support.ingest_doubles import NOW_S, open_store

PLACE = Position("moodline.frames.file.v1", 3, 1234)


def frame(epoch: int, lane: StreamClass = StreamClass.FILE) -> Received:
    message = Frame(
        stream_id="clip", epoch=epoch, seq=7, event_time_us=0, captured_at_us=0, lane=lane, width=1, height=1, jpeg=b"x"
    )
    return Received(message, PLACE)


def test_a_frame_of_a_file_is_noted_with_its_place_and_one_of_a_camera_is_not(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.add(StreamSpec(stream_id="clip", url="file:///clip.mp4"))
    epoch = store.acquire("clip", NOW_S).epoch
    notes = FailureRecorder(store, "detector")
    notes(frame(epoch, StreamClass.LIVE), "ValueError")
    assert store.failures("clip") == []
    notes(frame(epoch), "ValueError")
    letter = "ValueError in the detector, dead letter of moodline.frames.file.v1/3@1234"
    assert store.failures("clip") == [FrameFailure(7, 1, epoch, letter)]
    store.close()


def test_a_store_out_of_reach_does_not_stop_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path)

    def away(*_: object) -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(SqliteStore, "add_failure", away)
    FailureRecorder(store, "detector")(frame(1), "ValueError")
    assert [record.message for record in caplog.records] == ["failure.not_noted"]
    store.close()
