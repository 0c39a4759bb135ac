"""Pictures of streams: off, allowed by role, in memory only; through one process and through Redis."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from moodline.services.api.context import Intake
from moodline.services.api.server import ApiServer
from moodline.services.auth.callers import Role
from moodline.services.classifier.preview import ResultPublisher
from moodline.services.detector.preview import PreviewPublisher
from moodline.shared.clock import SystemClock
from moodline.shared.messages import Emotions, Face, FaceEmotion, Frame, StreamClass
from moodline.shared.previews import Preview, PreviewBoard, PreviewResult, Previews, RedisPreviews
from moodline.shared.settings import ApiSettings, PreviewSettings
from tests.support.access import make_key, with_key
from tests.support.api import ApiWorld
from tests.support.clocks import StubClock
from tests.support.fixtures import local_server
from tests.support.servers import RedisServer, wait_until

SNAPSHOT = "/api/v1/streams/door/snapshot.jpg"
LIVE = "/api/v1/streams/door/live.mjpg"


def jpeg(width: int = 320, height: int = 240) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((height, width, 3), 60, np.uint8))[1].tobytes())


def preview(time_us: int = 1, **fields: Any) -> Preview:
    return Preview(stream_id="door", time_us=time_us, jpeg=fields.pop("jpeg", jpeg()), **fields)


@pytest.fixture
def board() -> PreviewBoard:
    return PreviewBoard(SystemClock())


@pytest.fixture
def world(tmp_path: Path, board: PreviewBoard) -> Iterator[ApiWorld]:
    overrides = {"preview": PreviewSettings(fps=30)}
    with ApiWorld(tmp_path, intake=Intake(previews=board), api=ApiSettings(access="open"), overrides=overrides) as world:
        assert world.http.post("/api/v1/streams", json={"id": "door", "url": "push://"}).status_code == 201
        yield world


def switch(world: ApiWorld, on: bool) -> None:
    assert world.http.patch("/api/v1/streams/door", json={"preview": on}).json()["preview"] is on


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_stream_shows_nothing_until_it_is_switched_on(world: ApiWorld, board: PreviewBoard) -> None:
    board.publish(preview())
    assert world.get("/streams/door").json()["preview"] is False
    for path in (SNAPSHOT, LIVE):
        assert code(world.http.get(path)) == (409, "preview_off")
    switch(world, True)
    answer = world.http.get(SNAPSHOT)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "image/jpeg", jpeg())
    assert answer.headers["cache-control"] == "no-store"
    switch(world, False)
    assert code(world.http.get(SNAPSHOT)) == (409, "preview_off")


def test_boxes_are_drawn_into_a_copy(world: ApiWorld, board: PreviewBoard) -> None:
    switch(world, True)
    box = (16_384, 16_384, 49_152, 49_152)
    board.publish(preview(boxes=(box,)))
    board.publish_result(PreviewResult("door", 0, 0, ((box, (0, 0, 0, 65_535, 0, 0, 0)),)))
    plain, drawn = world.http.get(SNAPSHOT), world.http.get(SNAPSHOT, params={"boxes": "1"})
    assert plain.content == jpeg()
    image = cv2.imdecode(np.frombuffer(drawn.content, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (240, 320, 3)
    assert image[180, 160, 1] > 180, "the lower edge of the box"
    assert int(image[180, 160, 0]) < int(image[180, 160, 1]) - 20, "in the colour of happy"
    assert image[40:60, 85:120].std() > 30, "and a word above it"
    assert image[120, 160].max() < 90, "and nothing inside"


def test_only_who_may_sees_pictures_and_the_log_says_who_did(tmp_path: Path) -> None:
    board = PreviewBoard(StubClock())
    with ApiWorld(tmp_path, intake=Intake(previews=board), api=ApiSettings(access="keys")) as world:
        boss = with_key(world, make_key(world, "boss", Role.ADMIN))
        assert boss.post("/api/v1/streams", json={"id": "door", "url": "push://", "preview": True}).status_code == 201
        board.publish(preview())
        assert code(world.http.get(SNAPSHOT)) == (401, "unauthorized")
        assert code(with_key(world, make_key(world, "guest", Role.VIEWER)).get(SNAPSHOT)) == (403, "not_allowed")
        other = with_key(world, make_key(world, "other", Role.OPERATOR, streams=("yard",)))
        assert code(other.get(SNAPSHOT)) == (404, "stream_not_found")
        guard = with_key(world, make_key(world, "guard", Role.OPERATOR))
        for _ in range(3):
            assert guard.get(SNAPSHOT).status_code == 200
        looked = [each for each in boss.get("/api/v1/audit").json()["changes"] if "snapshot" in each["what"]]
        assert [(each["who"], each["ids"]) for each in looked] == [("guard", {"stream_id": "door"})], "once a minute"


def test_the_picture_of_a_deleted_stream_is_not_shown_to_who_has_its_id_next(world: ApiWorld, board: PreviewBoard) -> None:
    switch(world, True)
    board.publish(preview(epoch=world.store.acquire("door", world.clock.now).epoch))
    assert world.http.get(SNAPSHOT).status_code == 200
    assert world.http.delete("/api/v1/streams/door").status_code == 204
    world.clock.now += 1
    assert world.http.post("/api/v1/streams", json={"id": "door", "url": "push://", "preview": True}).status_code == 201
    assert code(world.http.get(SNAPSHOT)) == (503, "no_picture")
    board.publish(preview(time_us=2, epoch=world.store.acquire("door", world.clock.now).epoch))
    assert world.http.get(SNAPSHOT).status_code == 200


def test_an_old_picture_is_not_shown(world: ApiWorld, tmp_path: Path) -> None:
    clock = StubClock()
    board = PreviewBoard(clock)
    board.publish(preview())
    clock.now += 9
    assert board.newest("door", 0) is not None
    clock.now += 2
    assert board.newest("door", 0) is None
    object.__setattr__(world.app.state.context, "intake", Intake(previews=board))
    switch(world, True)
    answer = world.http.get(SNAPSHOT)
    assert code(answer) == (503, "no_picture")
    assert "retry-after" in answer.headers


def test_watching_goes_on_until_it_is_switched_off(world: ApiWorld, board: PreviewBoard) -> None:
    switch(world, True)
    board.publish(preview(1))
    with (
        ApiServer(world.app, "127.0.0.1", 0) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=30) as http,
    ):
        assert http.head(LIVE).status_code == 200
        with http.stream("GET", LIVE) as answer:
            assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=moodline-frame"
            parts = answer.iter_bytes()
            assert b"Content-Type: image/jpeg" in next(parts)
            board.publish(preview(2))
            assert b"--moodline-frame" in next(parts)
            switch(world, False)
            for number, _ in enumerate(parts):
                assert number < 10, "it ends"


def test_no_more_than_so_many_look_at_a_time(tmp_path: Path, board: PreviewBoard) -> None:
    overrides = {"preview": PreviewSettings(max_viewers=1)}
    with ApiWorld(tmp_path, intake=Intake(previews=board), api=ApiSettings(access="open"), overrides=overrides) as world:
        world.http.post("/api/v1/streams", json={"id": "door", "url": "push://", "preview": True})
        board.publish(preview())
        with world.app.state.context.concurrency.hold("pictures", 1):
            assert code(world.http.get(SNAPSHOT)) == (429, "too_busy")
            assert code(world.http.get(LIVE)) == (429, "too_busy")
        assert world.http.get(SNAPSHOT).status_code == 200


def test_the_board_is_bounded() -> None:
    board = PreviewBoard(StubClock())
    for number in range(100):
        board.publish(Preview(stream_id=f"s{number}", time_us=1, jpeg=bytes(1_000_000)))
    assert sum(board.newest(f"s{number}", 0) is not None for number in range(100)) == 67


def frame(stream_id: str, width: int = 1280, height: int = 720) -> Frame:
    return Frame(
        stream_id=stream_id, epoch=1, seq=0, event_time_us=5, captured_at_us=0, lane=StreamClass.LIVE,
        width=width, height=height, jpeg=jpeg(width, height),
    )  # fmt: skip


def shown(world: ApiWorld, previews: Previews) -> PreviewPublisher:
    return PreviewPublisher(world.store, previews, PreviewSettings(max_side_px=640), SystemClock())


def test_a_detector_shows_what_is_switched_on_alone_and_small_enough(world: ApiWorld, board: PreviewBoard) -> None:
    world.http.post("/api/v1/streams", json={"id": "yard", "url": "push://"})
    switch(world, True)
    publisher = shown(world, board)
    for stream_id in ("door", "yard"):
        assert board.newest(stream_id, 0) is None
    publisher.watch.poll()
    for stream_id in ("door", "yard"):
        publisher.offer(frame(stream_id), (Face((0, 0, 9_000, 9_000), 65_535, bytes(2304)),))
    publisher.send()
    assert board.newest("yard", 0) is None
    assert board.newest("door", 0) is None, "its faces have not been read yet"
    results = ResultPublisher(world.store, board, SystemClock(), least_quality=10_000)
    results.watch.poll()
    answer = Emotions(
        stream_id="door", epoch=1, seq=0, event_time_us=5, captured_at_us=0, lane=StreamClass.LIVE, width=1280, height=720,
        faces=(
            FaceEmotion((0, 0, 9_000, 9_000), 65_535, (0, 0, 0, 65_535, 0, 0, 0)),
            FaceEmotion((9_000, 0, 18_000, 9_000), 65_535, (0, 0, 0, 65_535, 0, 0, 0), quality=9_999),
        ), model="m",
    )  # fmt: skip
    results.offer(answer)
    results.send()
    found = board.newest("door", 0)
    assert found is not None
    unreadable = ((9_000, 0, 18_000, 9_000), ())
    assert found.faces == (((0, 0, 9_000, 9_000), (0, 0, 0, 65_535, 0, 0, 0)), unreadable)
    assert cv2.imdecode(np.frombuffer(found.jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (360, 640, 3)
    switch(world, False)
    publisher.watch.poll()
    publisher.offer(frame("door"), ())
    assert publisher._newest == {}


def test_in_one_process_too_nothing_is_taken_while_nobody_looks(world: ApiWorld) -> None:
    clock = StubClock()
    board = PreviewBoard(clock)
    switch(world, True)
    publisher, results = shown(world, board), ResultPublisher(world.store, board, clock)
    for watch in (publisher.watch, results.watch):
        watch.poll()
        assert watch.wanted == frozenset()
    publisher.offer(frame("door"), ())
    assert publisher._newest == {}
    assert board.newest("door", 0) is None
    clock.now += 29
    publisher.watch.poll()
    assert publisher.watch.wanted == {"door"}
    clock.now += 2
    publisher.watch.poll()
    assert publisher.watch.wanted == frozenset()


@pytest.mark.redis
def test_through_redis_pictures_travel_only_while_somebody_looks_and_are_not_stored(world: ApiWorld) -> None:
    switch(world, True)
    with local_server(RedisServer) as server:
        detector, api = RedisPreviews(server.url, SystemClock()), RedisPreviews(server.url, SystemClock())
        try:
            assert detector.wanted(["door", "yard"]) == set()
            assert api.newest("door", 0.0) is None
            wait_until(lambda: detector.wanted(["door", "yard"]) == {"door"}, 15, "the subscription")
            publisher = shown(world, detector)
            publisher.watch.poll()
            publisher.offer(frame("door"), ())
            publisher.send()
            found = api.newest("door", 10.0)
            assert found is not None
            assert found.stream_id == "door"
            keys = detector._open().keys("*")
            assert keys == [], "nothing is stored"
        finally:
            detector.close()
            api.close()
        assert api.newest("door", 0.0) is None


def test_without_redis_nothing_raises() -> None:
    previews = RedisPreviews("redis://127.0.0.1:1/0", SystemClock())
    assert previews.wanted(["door"]) == set()
    previews.publish(preview())
    previews.close()
