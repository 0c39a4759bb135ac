"""Uploads: what arrives on the disk, what is refused, and that nothing stays behind."""

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moodline.services.api.context import Intake
from moodline.services.api.upload_folder import safe_name
from moodline.shared.errors import SourceError
from moodline.shared.probe import Probed
from moodline.shared.settings import UploadsSettings
from moodline.shared.streams import FailureReason
from tests.support.api import NOW, NOW_S, ApiWorld
from tests.support.servers import wait_until
from tests.support.sockets import Site

PATH = "/api/v1/uploads"
FILM = b"a film" * 1000


class StubProber:
    """Takes every file that begins as `FILM` does."""

    def __call__(self, path: Path) -> Probed:
        if not path.read_bytes().startswith(b"a film"):
            raise SourceError(FailureReason.NO_VIDEO, "there is no video in it")
        return Probed(codec="h264", width=640, height=360, source_fps="25", duration_us=4_000_000)


def make_world(directory: Path, **settings: Any) -> ApiWorld:
    given = UploadsSettings(**{"max_bytes": 100_000, "keep_free_bytes": 0, "keep_s": 3600, "idle_timeout_s": 0.3, **settings})
    return ApiWorld(directory, intake=Intake(prober=StubProber()), overrides={"uploads": given})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with make_world(tmp_path) as made:
        yield made


def files(world: ApiWorld) -> list[Path]:
    folder = world.media / "uploads"
    return sorted(folder.iterdir()) if folder.exists() else []


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_file_arrives_whole_and_can_be_registered(world: ApiWorld) -> None:
    answer = world.http.post(PATH, params={"name": "lobby.mp4"}, content=FILM)
    assert answer.status_code == 201
    body = answer.json()
    (path,) = files(world)
    assert path.read_bytes() == FILM
    assert re.fullmatch(r"[0-9a-f]{32}-lobby\.mp4", path.name)
    assert body == {
        "url": path.as_uri(),
        "name": "lobby.mp4",
        "bytes": len(FILM),
        "duration_s": 4.0,
        "video": {"width": 640, "height": 360, "codec": "h264", "source_fps": "25"},
        "stream": None,
    }
    assert world.add("lobby", url=body["url"])["url"] == body["url"]


def test_a_file_is_registered_at_once(world: ApiWorld) -> None:
    asked = {"name": "a.mp4", "stream": "lobby", "label": ["site=berlin", "floor=2"], "recorded_at": NOW, "sample_fps": "7.5"}
    stream = world.http.post(PATH, params=asked, content=FILM).json()["stream"]
    assert stream == world.get("/streams/lobby").json()
    assert stream["url"] == files(world)[0].as_uri()
    assert (stream["labels"], stream["recorded_at"], stream["sample_fps"]) == ({"site": "berlin", "floor": "2"}, NOW, "7.5")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"name": "a.mp4", "stream": "taken"}, (409, "stream_exists")),
        ({"name": "a.mp4", "stream": "Not An Id"}, (422, "invalid_request")),
        ({"name": "a.mp4", "stream": "new", "label": "no-value"}, (422, "invalid_stream")),
        ({"name": "a.mp4", "stream": "new", "label": "-=x"}, (422, "invalid_stream")),
        ({"name": "a.mp4", "stream": "new", "sample_fps": "0"}, (422, "invalid_stream")),
        ({"name": "a.mp4", "label": "site=berlin"}, (422, "invalid_stream")),
        ({"name": "a.mp4", "other": "x"}, (422, "invalid_request")),
        ({"name": ""}, (422, "invalid_request")),
        ({}, (422, "invalid_request")),
    ],
)
def test_what_cannot_be_registered_is_refused_before_the_body_is_read(
    world: ApiWorld, asked: dict[str, str], expected: tuple[int, str]
) -> None:
    world.add("taken")
    answer = world.http.post(PATH, params=asked, content=FILM)
    assert code(answer) == expected
    assert files(world) == []


def test_what_is_no_video_is_refused_and_removed(world: ApiWorld) -> None:
    answer = world.http.post(PATH, params={"name": "letter.txt", "stream": "lobby"}, content=b"dear all")
    assert code(answer) == (422, "not_video")
    assert "there is no video in it" in answer.json()["error"]["message"]
    assert code(world.http.post(PATH, params={"name": "empty.mp4"}, content=b"")) == (422, "not_video")
    assert files(world) == []
    assert world.get("/streams/lobby").status_code == 404


def test_the_size_is_limited_announced_or_not(world: ApiWorld) -> None:
    assert code(world.http.post(PATH, params={"name": "a.mp4"}, content=bytes(100_001))) == (413, "upload_too_large")
    parts = iter([FILM, bytes(60_000), bytes(60_000)])
    assert code(world.http.post(PATH, params={"name": "a.mp4"}, content=parts)) == (413, "upload_too_large")
    assert files(world) == []
    assert world.http.post(PATH, params={"name": "a.mp4"}, content=FILM.ljust(100_000)).status_code == 201


def test_the_disk_is_not_filled(tmp_path: Path) -> None:
    with make_world(tmp_path, keep_free_bytes=2**60) as world:
        assert code(world.http.post(PATH, params={"name": "a.mp4"}, content=FILM)) == (507, "disk_full")
        assert files(world) == []


def test_a_media_root_that_cannot_be_written_is_said(world: ApiWorld) -> None:
    (world.media / "uploads").write_text("a file is in the way")
    assert code(world.http.post(PATH, params={"name": "a.mp4"}, content=FILM)) == (507, "disk_full")


def too_slow(world: ApiWorld) -> float | None:
    return world.metrics.registry.get_sample_value("moodline_uploads_total", {"result": "too_slow"})


def test_a_sender_that_stops_leaves_nothing_behind(world: ApiWorld) -> None:
    going_on = threading.Event()

    def body() -> Iterator[bytes]:
        yield FILM
        going_on.wait(20)
        yield FILM

    with Site(world.app) as site:
        # The client sends to the end before it reads, so it goes on once the server has given up.
        refused = threading.Thread(target=lambda: (wait_until(lambda: too_slow(world) == 1), going_on.set()))
        refused.start()
        answer = site.http.post(PATH, params={"name": "a.mp4"}, content=body())
        assert code(answer) == (408, "too_slow")
        refused.join()
        with pytest.raises(RuntimeError), site.http.stream("POST", PATH, params={"name": "a.mp4"}, content=_broken()):
            pass
        deadline_s = time.monotonic() + 20
        while files(world):
            assert time.monotonic() < deadline_s
    assert too_slow(world) == 2


def _broken() -> Iterator[bytes]:
    yield FILM
    raise RuntimeError("the sender fails")


def test_uploads_at_once_are_limited(tmp_path: Path) -> None:
    with make_world(tmp_path, max_at_once=1, idle_timeout_s=30) as world, Site(world.app) as site:
        release, begun = threading.Event(), threading.Event()

        def body() -> Iterator[bytes]:
            yield FILM
            begun.set()
            assert release.wait(20)

        answers = []
        first = threading.Thread(target=lambda: answers.append(site.http.post(PATH, params={"name": "a.mp4"}, content=body())))
        first.start()
        assert begun.wait(20)
        deadline_s = time.monotonic() + 20
        while not files(world):
            assert time.monotonic() < deadline_s
        assert code(site.http.post(PATH, params={"name": "b.mp4"}, content=FILM)) == (429, "too_busy")
        release.set()
        first.join(20)
        assert [answer.status_code for answer in answers] == [201]


def test_deleting_a_stream_deletes_its_upload_once_nobody_else_uses_it(world: ApiWorld) -> None:
    url = world.http.post(PATH, params={"name": "a.mp4", "stream": "one"}, content=FILM).json()["url"]
    world.add("two", url=url)
    world.add("clip")
    for stream_id, left in (("one", 1), ("two", 0), ("clip", 0)):
        assert world.http.delete(f"/api/v1/streams/{stream_id}").status_code == 204
        assert len(files(world)) == left
    assert world.clip.exists(), "only what was uploaded is deleted"


def test_what_nobody_registers_goes_after_a_while(world: ApiWorld) -> None:
    kept = world.http.post(PATH, params={"name": "kept.mp4", "stream": "kept"}, content=FILM).json()["url"]
    forgotten = world.http.post(PATH, params={"name": "forgotten.mp4"}, content=FILM).json()["url"]
    folder = world.media / "uploads"
    (folder / "mine.mp4").write_bytes(b"put here by hand")
    (folder / f".{'0' * 32}.part").write_bytes(b"of a process that died")
    for path in folder.iterdir():
        os.utime(path, (NOW_S - 3601, NOW_S - 3601))
    young = world.http.post(PATH, params={"name": "young.mp4"}, content=FILM).json()["url"]
    left = {path.as_uri() for path in files(world)}
    assert left == {kept, young, (folder / "mine.mp4").as_uri()}
    assert forgotten not in left


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\films\\my film (1).MP4", "my_film_1_.MP4"),
        (".hidden", "hidden"),
        ("...", "upload"),
        ("фильм.mkv", "mkv"),
        ("a" * 300 + ".mp4", "a" * 96 + ".mp4"),
        ("a\x00b\n.mp4", "a_b_.mp4"),
    ],
)
def test_names_are_made_safe(name: str, expected: str) -> None:
    assert safe_name(name) == expected
