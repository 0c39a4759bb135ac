"""Pushing frames over HTTP and web sockets: what is answered, what is refused, and that limits hold."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from moodline.services.api.context import Intake
from moodline.shared.errors import FrameError, MoodlineError, StreamTakenError
from moodline.shared.push import Pushed
from moodline.shared.settings import PushSettings
from moodline.shared.streams import StreamSpec
from tests.support.api import NOW, NOW_US, ApiWorld
from tests.support.sockets import GoneError, Site

JPEG = b"\xff\xd8\xff\xe0 a picture \xff\xd9"
FRAMES = "/api/v1/streams/door/frames"


@dataclass
class RecordingPushes:
    """Notes what it is given; does or raises what the test says."""

    got: list[tuple[StreamSpec, bytes, float | None]] = field(default_factory=list)
    raises: MoodlineError | None = None

    def push(self, spec: StreamSpec, jpeg: bytes, captured_at_s: float | None = None) -> Pushed:
        if self.raises is not None:
            raise self.raises
        self.got.append((spec, jpeg, captured_at_s))
        return Pushed(sampled=True, replaced=False, event_time_us=NOW_US, wait_ms=200)


class PushWorld(ApiWorld):
    pushes: RecordingPushes

    def site(self) -> Site:
        """The same on a real port."""
        return Site(self.app)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[PushWorld]:
    pushes = RecordingPushes()
    settings = {"push": PushSettings(max_bytes=64 * 1024, max_streams=4, body_timeout_s=0.5, silence_s=30)}
    with PushWorld(tmp_path, intake=Intake(pushes), overrides=settings) as made:
        made.pushes = pushes
        made.add("door", url="push://", recorded_at=None)
        yield made


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_frame_is_taken_and_it_is_said_what_became_of_it(world: PushWorld) -> None:
    answer = world.http.post(FRAMES, content=JPEG)
    assert answer.status_code == 202
    assert answer.json() == {"sampled": True, "replaced": False, "time": NOW, "wait_ms": 200}
    assert [(spec.stream_id, jpeg, at) for spec, jpeg, at in world.pushes.got] == [("door", JPEG, None)]


def test_the_time_of_capture_travels_exactly(world: PushWorld) -> None:
    for given in ("2026-05-01T12:00:00.250Z", "2026-05-01T14:00:00.250+02:00"):
        assert world.http.post(FRAMES, content=JPEG, headers={"Captured-At": given}).status_code == 202
    assert [at for _, _, at in world.pushes.got] == [NOW_US / 1e6 + 0.25] * 2


@pytest.mark.parametrize("given", ["yesterday", "2026-05-01T12:00:00", "1969-01-01T00:00:00Z"])
def test_a_time_that_is_none_is_refused(world: PushWorld, given: str) -> None:
    answer = world.http.post(FRAMES, content=JPEG, headers={"Captured-At": given})
    assert code(answer) == (422, "invalid_request")
    assert answer.json()["error"]["field"] == "Captured-At"
    assert world.pushes.got == []


def test_a_frame_over_the_limit_is_refused_before_it_is_whole(world: PushWorld) -> None:
    announced = world.http.post(FRAMES, content=bytes(64 * 1024 + 1))
    unannounced = world.http.post(FRAMES, content=iter([bytes(40_000)] * 2))
    assert code(announced) == code(unannounced) == (413, "frame_too_large")
    assert world.http.post(FRAMES, content=bytes(64 * 1024)).status_code == 202


def test_larger_frames_than_other_bodies_are_taken(tmp_path: Path) -> None:
    pushes = RecordingPushes()
    with ApiWorld(tmp_path, intake=Intake(pushes)) as world:
        world.add("door", url="push://", recorded_at=None)
        assert world.http.post(FRAMES, content=bytes(3 << 20)).status_code == 202
        assert len(pushes.got[0][1]) == 3 << 20
        assert code(world.http.post("/api/v1/streams", content=bytes(3 << 20))) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (FRAMES.replace("door", "nobody"), (404, "stream_not_found")),
        (FRAMES.replace("door", "clip"), (409, "not_pushed")),
        (FRAMES.replace("door", "away"), (409, "stream_paused")),
    ],
)
def test_only_pushed_streams_that_are_not_paused_take_frames(world: PushWorld, path: str, expected: tuple[int, str]) -> None:
    world.add("clip")
    world.add("away", url="push://", recorded_at=None, paused=True)
    assert code(world.http.post(path, content=JPEG)) == expected
    with world.site() as site, site.talk(path) as talk:
        said = talk.hear()
        assert (said["type"], said["number"], said["error"]["code"]) == ("error", None, expected[1])
        with pytest.raises(GoneError) as closed:
            talk.hear()
    assert (closed.value.code, closed.value.reason) == (1008, expected[1])
    assert world.pushes.got == []


def test_what_the_taker_refuses_is_answered_in_the_one_shape(world: PushWorld) -> None:
    world.pushes.raises = FrameError("the frame is cut off")
    answer = world.http.post(FRAMES, content=JPEG)
    assert answer.status_code == 422
    assert answer.json() == {"error": {"code": "invalid_frame", "message": "the frame is cut off", "field": None}}


def test_without_a_bus_frames_are_refused(tmp_path: Path) -> None:
    with ApiWorld(tmp_path) as world:
        world.add("door", url="push://", recorded_at=None)
        assert code(world.http.post(FRAMES, content=JPEG)) == (503, "not_ready")


def test_one_sender_cannot_take_all_places(world: PushWorld) -> None:
    """Four bodies of one stream are being read; a fifth is refused, and another stream's is not."""
    world.add("gate", url="push://", recorded_at=None)
    release, inside = threading.Event(), threading.Semaphore(0)
    plain = world.pushes.push

    def slow(spec: StreamSpec, jpeg: bytes, at: float | None = None) -> Pushed:
        if spec.stream_id == "door":
            inside.release()
            assert release.wait(20)
        return plain(spec, jpeg, at)

    world.pushes.push = slow  # type: ignore[method-assign]
    with world.site() as site:
        threads = [threading.Thread(target=site.http.post, args=(FRAMES,), kwargs={"content": JPEG}) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert all(inside.acquire(timeout=20) for _ in threads)
        refused = site.http.post(FRAMES, content=JPEG)
        other = site.http.post(FRAMES.replace("door", "gate"), content=JPEG)
        release.set()
        for thread in threads:
            thread.join(20)
        assert code(refused) == (429, "too_busy")
        assert refused.headers["retry-after"]
        assert other.status_code == 202
        assert site.http.post(FRAMES, content=JPEG).status_code == 202


def test_a_web_socket_takes_frame_after_frame(world: PushWorld) -> None:
    with world.site() as site, site.talk(FRAMES) as talk:
        assert talk.hear() == {"type": "ready", "max_bytes": 64 * 1024}
        for number in (1, 2):
            talk.set_state(JPEG)
            said = talk.hear()
            assert said == {"type": "frame", "number": number, "sampled": True, "replaced": False, "time": NOW, "wait_ms": 200}
        talk.set_state('{"captured_at": "2026-05-01T12:00:01Z"}')
        talk.set_state(JPEG)
        talk.hear()
        talk.set_state(JPEG)
        talk.hear()
    assert [at for _, _, at in world.pushes.got] == [None, None, NOW_US / 1e6 + 1, None], "a time is of one frame"


def test_a_bad_message_ends_no_conversation(world: PushWorld) -> None:
    with world.site() as site, site.talk(FRAMES) as talk:
        talk.hear()
        for text in (
            "{",
            "[]",
            '{"captured_at": true}',
            '{"captured_at": "now-900y"}',
            '{"captured_at": "x"}',
            '{"other": 1}',
            " " * 2000,
        ):
            talk.set_state(text)
            assert talk.hear()["error"]["code"] == "invalid_frame", text
        talk.set_state(JPEG)
        assert talk.hear()["type"] == "frame"


def test_a_sender_of_nothing_but_rubbish_is_sent_away(world: PushWorld) -> None:
    world.pushes.raises = FrameError("no JPEG")
    with world.site() as site, site.talk(FRAMES) as talk:
        talk.hear()
        for _ in range(20):
            talk.set_state(b"x")
        assert [talk.hear()["type"] for _ in range(20)] == ["error"] * 20
        with pytest.raises(GoneError) as closed:
            talk.hear()
    assert closed.value.code == 1013


def test_a_stream_that_another_process_took_is_told_to_come_back_later(world: PushWorld) -> None:
    with world.site() as site, site.talk(FRAMES) as talk:
        talk.hear()
        world.pushes.raises = StreamTakenError("another process has it")
        talk.set_state(JPEG)
        assert talk.hear()["error"]["code"] == "stream_taken"
        with pytest.raises(GoneError) as closed:
            talk.hear()
    assert closed.value.code == 1013


@pytest.mark.parametrize("change", ["pause", "delete"])
def test_pause_and_delete_end_a_conversation(world: PushWorld, change: str) -> None:
    with world.site() as site, site.talk(FRAMES) as talk:
        talk.hear()
        talk.set_state(JPEG)
        talk.hear()
        if change == "pause":
            world.http.post("/api/v1/streams/door/pause")
        else:
            world.http.delete("/api/v1/streams/door")
        world.clock.now += 1.0
        talk.set_state(JPEG)
        expected = "stream_paused" if change == "pause" else "stream_not_found"
        assert talk.hear()["error"]["code"] == expected
        with pytest.raises(GoneError) as closed:
            talk.hear()
    assert closed.value.code == 1008
    assert len(world.pushes.got) == 1


def test_connections_of_one_stream_are_limited(world: PushWorld) -> None:
    with world.site() as site:
        talks = [site.talk(FRAMES) for _ in range(4)]
        assert [talk.hear()["type"] for talk in talks] == ["ready"] * 4
        with site.talk(FRAMES) as fifth:
            assert fifth.hear()["error"]["code"] == "too_busy"
        for talk in talks:
            talk.close()
        deadline_s = time.monotonic() + 20
        while True:
            with site.talk(FRAMES) as again:
                if again.hear()["type"] == "ready":
                    break
            assert time.monotonic() < deadline_s


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:9999", "null"])
def test_pages_of_other_sites_cannot_push(world: PushWorld, origin: str) -> None:
    with world.site() as site:
        assert code(site.http.post(FRAMES, content=JPEG, headers={"origin": origin})) == (403, "forbidden")
        with pytest.raises(InvalidStatus) as refused:
            site.talk(FRAMES, origin=origin)
        assert refused.value.response.status_code == 403
        with site.talk(FRAMES, origin=site.url) as talk:
            assert talk.hear()["type"] == "ready"
    assert world.pushes.got == []


def test_a_pushed_stream_is_live_and_has_nothing_of_a_camera(world: PushWorld) -> None:
    stream = world.get("/streams/door").json()
    assert (stream["url"], stream["lane"], stream["transport"], stream["tls_verify"]) == ("push://", "live", None, None)
    assert stream["recorded_at"] is None
    assert stream["status"]["state"] == "pending"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"url": "push://somewhere"}, "url"),
        ({"url": "PUSH://"}, "url"),
        ({"url": "push://", "username": "u", "password": "p"}, "username"),
        ({"url": "push://", "transport": "udp"}, "transport"),
        ({"url": "push://", "tls_verify": False}, "tls_verify"),
        ({"url": "push://", "recorded_at": NOW}, "recorded_at"),
    ],
)
def test_what_a_pushed_stream_cannot_be_is_refused(world: PushWorld, fields: dict[str, Any], named: str) -> None:
    answer = world.http.post("/api/v1/streams", json={"id": "new", **fields})
    assert code(answer) == (422, "invalid_stream")
    assert answer.json()["error"]["field"] == named


def test_a_camera_cannot_become_a_pushed_stream_nor_the_reverse(world: PushWorld) -> None:
    world.add("cam", url="rtsp://192.0.2.7/1", recorded_at=None)
    for stream_id, url in (("cam", "push://"), ("door", "rtsp://192.0.2.7/1")):
        answer = world.http.patch(f"/api/v1/streams/{stream_id}", json={"url": url})
        assert code(answer) == (422, "invalid_stream")
    assert world.http.patch("/api/v1/streams/door", json={"url": "push://", "sample_fps": "2"}).json()["sample_fps"] == "2"
