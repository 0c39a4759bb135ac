"""Frames that are pushed and files that are uploaded, through the whole service as a user starts it."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from moodline.services.cli.push import pictures
from moodline.services.ingest.media.encode import encode_jpeg, reduce_image
from moodline.services.runtime.bootstrap import retention
from moodline.shared.settings import IngestSettings, load_settings
from moodline.shared.store import open_store
from moodline.shared.store.base import dump
from moodline.shared.streams import StreamState
from moodline.shared.timeline import TIERS_S
from tests.support.service import MOODLINE, Service

pytestmark = [pytest.mark.material, pytest.mark.slow, pytest.mark.timeout(300)]

RECORDED_AT = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("push")
    media = directory / "media"
    media.mkdir()
    environment = {
        "MOODLINE_INGEST_MEDIA_ROOT": str(media),
        "MOODLINE_INGEST_READ_TIMEOUT_S": "1.5",
        "MOODLINE_PUSH_SILENCE_S": "4",
        "MOODLINE_DETECTOR_SIDE_PX": "160",
        "MOODLINE_DETECTOR_AGE_BUDGET_S": "30",
        "MOODLINE_CLASSIFIER_AGE_BUDGET_S": "30",
    }
    with Service(directory, **environment) as running:
        yield running


@pytest.fixture(scope="module")
def jpegs(clips: Path) -> list[bytes]:
    """50 frames of a real clip."""
    taken = []
    for number, (_, image) in enumerate(pictures(str(clips / "webcam-portrait.mp4"), IngestSettings(), loop=False)):
        if number == 50:
            break
        taken.append(encode_jpeg(reduce_image(image, 480), 85))
    return taken


def summary(service: Service, stream_id: str) -> dict[str, Any]:
    answer = httpx.get(f"{service.url}/api/v1/streams/{stream_id}/timeline", params={"resolution": "1h"}, timeout=30)
    found: dict[str, Any] = answer.json()["summary"]
    return found


def change(service: Service, method: str, path: str) -> None:
    assert httpx.request(method, f"{service.url}/api/v1/streams/{path}", timeout=30).is_success


def wait_for_frames(service: Service, stream_id: str, count: int) -> dict[str, Any]:
    service.wait(lambda: summary(service, stream_id)["sampled"] >= count, 60, f"{count} frames of {stream_id}")
    return summary(service, stream_id)


def test_what_was_pushed_is_what_is_in_the_timeline(service: Service, jpegs: list[bytes]) -> None:
    """Captured = classified + skips, over HTTP and over a web socket, and there are faces."""
    service.add("http", "push://", sample_fps="all")
    service.add("socket", "push://", sample_fps="all")
    replaced = dict.fromkeys(("http", "socket"), 0)
    with httpx.Client(base_url=service.url, timeout=30) as http:
        for jpeg in jpegs:
            now = datetime.now(UTC).isoformat()
            answer = http.post("/api/v1/streams/http/frames", content=jpeg, headers={"Captured-At": now})
            assert answer.status_code == 202, answer.text
            replaced["http"] += answer.json()["replaced"]
            time.sleep(0.04)
    with connect(f"{service.url.replace('http', 'ws')}/api/v1/streams/socket/frames", proxy=None) as socket:
        assert json.loads(socket.recv(10))["type"] == "ready"
        for jpeg in jpegs:
            socket.send(json.dumps({"captured_at": datetime.now(UTC).isoformat()}))
            socket.send(jpeg)
            said = json.loads(socket.recv(10))
            assert said["type"] == "frame", said
            replaced["socket"] += said["replaced"]
            time.sleep(0.04)
        assert service.state("socket") is StreamState.LIVE
    for stream_id in ("http", "socket"):
        found = wait_for_frames(service, stream_id, len(jpegs))
        print(stream_id, found["sampled"], found["classified"], found["skipped"], found["faces"])  # noqa: T201
        assert found["sampled"] == len(jpegs)
        assert found["classified"] + sum(found["skipped"].values()) == len(jpegs)
        assert found["skipped"].get("overloaded", 0) >= replaced[stream_id]
        assert found["faces"] > 10


def test_a_pushed_stream_goes_from_pending_to_live_to_stalled_and_back(service: Service, jpegs: list[bytes]) -> None:
    service.add("states", "push://")
    assert service.state("states") is StreamState.PENDING
    path = f"{service.url}/api/v1/streams/states/frames"
    assert httpx.post(path, content=jpegs[0]).status_code == 202
    for state in (StreamState.LIVE, StreamState.STALLED, StreamState.PENDING):
        service.wait_for_state("states", state, timeout_s=20)
    assert httpx.post(path, content=jpegs[0]).status_code == 202
    service.wait_for_state("states", StreamState.LIVE, timeout_s=20)
    change(service, "POST", "states/pause")
    refused = httpx.post(path, content=jpegs[0])
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "stream_paused")
    assert service.state("states") is StreamState.PAUSED
    change(service, "POST", "states/resume")
    assert httpx.post(path, content=jpegs[0]).status_code == 202
    change(service, "DELETE", "states")
    assert httpx.post(path, content=jpegs[0]).status_code == 404
    assert wait_for_frames(service, "http", len(jpegs))["sampled"] == len(jpegs), "nobody else notices"


def test_hostile_senders_harm_nobody(service: Service, jpegs: list[bytes]) -> None:
    service.add("calm", "push://", sample_fps="all")
    service.add("wild", "push://", sample_fps="all")
    stop = threading.Event()
    bomb = jpegs[0].replace(jpegs[0][jpegs[0].index(b"\xff\xc0") :][:9], b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff", 1)
    answers: dict[int, int] = {}

    def rage() -> None:
        with httpx.Client(base_url=service.url, timeout=30) as http:
            while not stop.is_set():
                for body in (b"rubbish" * 1000, jpegs[0][:-500], bomb, bytes(9 << 20)):
                    status = http.post("/api/v1/streams/wild/frames", content=body).status_code
                    answers[status] = answers.get(status, 0) + 1
                time.sleep(0.02)

    threads = [threading.Thread(target=rage) for _ in range(2)]
    for thread in threads:
        thread.start()
    slowest_s = 0.0
    for jpeg in jpegs:
        began_s = time.monotonic()
        assert httpx.post(f"{service.url}/api/v1/streams/calm/frames", content=jpeg, timeout=30).status_code == 202
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join(30)
    print(f"slowest push beside hostile senders: {slowest_s * 1000:.0f} ms; {answers}")  # noqa: T201
    assert wait_for_frames(service, "calm", len(jpegs))["sampled"] == len(jpegs)
    assert set(answers) <= {413, 422, 429}
    assert service.state("wild") is StreamState.PENDING
    assert service.metric("moodline_pushed_frames_refused_total", code="invalid_frame") > 0


def test_the_command_pushes_a_clip(service: Service, clips: Path, tmp_path: Path) -> None:
    service.add("command", "push://", sample_fps="5")
    environment = {"MOODLINE_API_URL": service.url, "PATH": "/usr/bin:/bin"}
    clip = str(clips / "webcam-short.mkv")
    command = [MOODLINE, "push", clip, "--stream", "command", "--fps", "10", "--seconds", "3", "--max-side-px", "320"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sampled = int(done.stdout.split(" sent, ")[1].split()[0])
    assert sampled >= 5
    assert wait_for_frames(service, "command", sampled)["sampled"] == sampled


def test_an_uploaded_clip_has_the_timeline_of_a_registered_one(service: Service, clips: Path) -> None:
    source = clips / "webcam-short.mkv"
    media = service.directory / "media"
    (media / "clip.mkv").write_bytes(source.read_bytes())
    service.add("registered", "clip.mkv", recorded_at=RECORDED_AT)
    asked = {"name": "my clip.mkv", "stream": "uploaded", "recorded_at": RECORDED_AT}
    answer = httpx.post(f"{service.url}/api/v1/uploads", params=asked, content=source.read_bytes(), timeout=60)
    assert answer.status_code == 201, answer.text
    assert answer.json()["video"]["codec"]
    for stream_id in ("registered", "uploaded"):
        service.wait_for_state(stream_id, StreamState.ENDED, timeout_s=120)
    settings = load_settings(data_dir=service.directory / "data")
    store = open_store(settings.store_url(), retention(settings))
    registered, uploaded = (dump(store, stream_id, TIERS_S) for stream_id in ("registered", "uploaded"))
    store.close()
    assert len(registered) > 400
    assert uploaded == registered
    (path,) = (media / "uploads").glob("*-my_clip.mkv")
    change(service, "DELETE", "uploaded")
    assert not path.exists()
    refused = httpx.post(f"{service.url}/api/v1/uploads?name=a.mp4", content=b"no film at all" * 100, timeout=60)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "not_video")
    assert list((media / "uploads").iterdir()) == []
