"""Trying a camera through the API: who may, what is tried, and what the answer never holds."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from moodline.services.api.context import Intake
from moodline.services.auth.audit import read_changes
from moodline.services.ingest.camera.probe_process import probe_camera
from moodline.services.simulator import CameraSimulator
from moodline.shared.camera import CameraAddress
from moodline.shared.probe import CameraStep
from moodline.shared.settings import IngestSettings
from moodline.shared.streams import Transport
from tests.support.api import ApiWorld

CANARY = "hunter2"
URL = f"rtsp://viewer:{CANARY}@cam.example:8554/live?channel=1&token={CANARY}"
SHOWN = "rtsp://cam.example:8554/live?channel=1&token=***"


class StubProber:
    """Says that all is well; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[CameraAddress] = []
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()
        self.steps = [CameraStep(name="connect", good=True, found="0.01 s")]

    def __call__(self, address: CameraAddress) -> Iterator[CameraStep]:
        self.asked.append(address)
        self.begun.set()
        assert self.may_end.wait(20)
        yield from self.steps


@pytest.fixture
def prober() -> StubProber:
    return StubProber()


@pytest.fixture
def world(tmp_path: Path, prober: StubProber) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path, intake=Intake(camera_prober=prober)) as world:
        yield world


def tried(world: ApiWorld, **body: Any) -> httpx.Response:
    answer = world.http.post("/api/v1/cameras/test", json=body)
    assert CANARY not in answer.text
    return answer


def test_a_camera_is_tried_and_not_registered(world: ApiWorld, prober: StubProber) -> None:
    answer = tried(world, url=URL, transport="udp", tls_verify=False)
    assert answer.status_code == 200
    steps = [{"name": "connect", "good": True, "found": "0.01 s", "cure": ""}]
    assert answer.json() == {"url": SHOWN, "hint": "", "works": True, "steps": steps}
    assert prober.asked == [
        CameraAddress(
            "rtsp", "cam.example", 8554, f"/live?channel=1&token={CANARY}", "viewer", CANARY, Transport.UDP, tls_verify=False
        )
    ]
    assert world.store.list_streams() == []
    assert not (world.settings.data_path() / "secret.key").exists()


def test_what_does_not_work_says_what_to_change(world: ApiWorld, prober: StubProber) -> None:
    prober.steps.append(CameraStep(name="log in and describe", good=False, found="it asks for a password", cure="give it"))
    body = tried(world, url="rtsp://cam.example/live").json()
    assert body["works"] is False
    assert body["steps"][-1] == {
        "name": "log in and describe", "good": False, "found": "it asks for a password", "cure": "give it",
    }  # fmt: skip


@pytest.mark.parametrize(
    "given", ["rtsp://rtsp://cam.example/live", '"rtsp://cam.example/live"', "rtsp:/cam.example/live", "rtsp//cam.example/live"]
)
def test_a_misspelt_url_is_corrected_and_said(world: ApiWorld, given: str) -> None:
    body = tried(world, url=given).json()
    assert body["url"] == "rtsp://cam.example/live"
    assert body["hint"].startswith("the url was corrected: ")
    added = world.http.post("/api/v1/streams", json={"id": "yard", "url": given}).json()
    assert (added["url"], added["hint"]) == (body["url"], body["hint"])
    assert world.get("/streams/yard").json()["hint"] == ""
    changed = world.http.patch("/api/v1/streams/yard", json={"url": given.replace("/live", "/other")}).json()
    assert (changed["url"], changed["hint"]) == ("rtsp://cam.example/other", body["hint"])


def test_a_folder_that_is_named_like_an_address_stays_a_folder(world: ApiWorld) -> None:
    (world.media / "192.0.2.7").mkdir()
    (world.media / "192.0.2.7" / "clip.mp4").write_bytes(b"x")
    added = world.http.post("/api/v1/streams", json={"id": "file", "url": "192.0.2.7/clip.mp4"}).json()
    assert (added["lane"], added["hint"]) == ("file", "")
    added = world.http.post("/api/v1/streams", json={"id": "camera", "url": "192.0.2.7/live"}).json()
    assert (added["lane"], added["url"]) == ("live", "rtsp://192.0.2.7/live")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "clip.mp4"}, "url"),
        ({"url": "push://"}, "url"),
        ({"url": "synthetic://astronaut"}, "url"),
        ({"url": f"ftp://u:{CANARY}@cam/"}, "url"),
        ({"url": f"http://169.254.169.254/{CANARY}"}, "url"),
        ({"url": f"http://[::ffff:169.254.1.1]/{CANARY}"}, "url"),
        ({"url": URL, "username": CANARY, "password": CANARY}, "url"),
        ({"url": "rtsp://cam/", "password": CANARY}, "username"),
    ],
)
def test_what_registration_refuses_is_not_tried(world: ApiWorld, prober: StubProber, body: dict[str, Any], field: str) -> None:
    answer = tried(world, **body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)
    assert prober.asked == []


def test_a_registered_camera_is_tried_with_its_own_password(world: ApiWorld, prober: StubProber) -> None:
    world.http.post("/api/v1/streams", json={"id": "yard", "url": URL})
    revision = world.store.get("yard").revision
    assert tried(world, stream="yard", transport="udp").json()["url"] == SHOWN
    assert (prober.asked[-1].username, prober.asked[-1].password) == ("viewer", CANARY)
    assert prober.asked[-1].transport is Transport.UDP
    assert tried(world, stream="yard", url="rtsp://cam.example:8554/other").status_code == 200
    assert (prober.asked[-1].target, prober.asked[-1].password) == ("/other", CANARY)
    # Another host never gets the password of this one.
    assert tried(world, stream="yard", url="rtsp://other.example/live").status_code == 200
    assert (prober.asked[-1].username, prober.asked[-1].password) == (None, None)
    assert world.store.get("yard").revision == revision


def test_streams_that_are_no_cameras_or_are_not_there(world: ApiWorld) -> None:
    world.add("lobby")
    assert tried(world, stream="lobby").json()["error"]["field"] == "stream"
    assert tried(world, stream="nothing").json()["error"]["code"] == "stream_not_found"


def test_no_more_than_some_at_once(world: ApiWorld, prober: StubProber) -> None:
    prober.may_end.clear()
    camera = {"url": "rtsp://cam.example/live"}
    first = [threading.Thread(target=tried, args=(world,), kwargs=camera) for _ in range(2)]
    for thread in first:
        thread.start()
        assert prober.begun.wait(20)
        prober.begun.clear()
    answer = tried(world, **camera)
    assert answer.json()["error"]["code"] == "too_busy"
    prober.may_end.set()
    for thread in first:
        thread.join()
    assert tried(world, **camera).status_code == 200


def test_where_nothing_reads_cameras(tmp_path: Path) -> None:
    with ApiWorld(tmp_path) as world:
        answer = tried(world, url="rtsp://cam.example/live")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")


# The process that tries


SETTINGS = IngestSettings(open_timeout_s=5, read_timeout_s=3, first_frame_timeout_s=5)


@pytest.fixture(scope="module")
def camera() -> Iterator[CameraSimulator]:
    with CameraSimulator(None, size="320x240", gop_s=1.0, seconds=3.0, user="viewer", password=CANARY) as simulator:
        yield simulator


def address(simulator: CameraSimulator, password: str | None = CANARY) -> CameraAddress:
    port = int(simulator.url("cam0").rpartition(":")[2].partition("/")[0])
    return CameraAddress("rtsp", "127.0.0.1", port, "/cam0", "viewer" if password else None, password)


def test_a_camera_that_works(camera: CameraSimulator) -> None:
    steps = list(probe_camera(address(camera), SETTINGS))
    names = [step.name for step in steps]
    assert names[:5] == ["resolve and connect", "log in and describe", "set up", "play", "first keyframe"]
    assert {"rates", "packets", "clock", "keyframes", "size"} <= set(names)
    assert [step for step in steps if not step.good] == []
    assert CANARY not in repr(steps)


def test_a_wrong_password_ends_the_test_and_says_what_to_do(camera: CameraSimulator) -> None:
    steps = list(probe_camera(address(camera, "wrong"), SETTINGS))
    assert (steps[-1].name, steps[-1].good) == ("log in and describe", False)
    assert "password" in steps[-1].cure
    assert "wrong" not in repr(steps)


def test_the_address_policy_of_the_settings_holds(camera: CameraSimulator) -> None:
    refusing = IngestSettings(allow_loopback=False, open_timeout_s=5)
    (step,) = probe_camera(address(camera), refusing)
    assert not step.good
    assert "LOOPBACK" in step.found


def test_nothing_listens() -> None:
    (step,) = probe_camera(CameraAddress("rtsp", "127.0.0.1", 9, "/"), SETTINGS)
    assert (step.good, step.found) == (False, "nothing listens at the camera's address and port")
    assert "address and port" in step.cure


def test_a_process_that_dies_says_so(camera: CameraSimulator) -> None:
    starved = IngestSettings.model_construct(**SETTINGS.model_dump() | {"camera_memory_bytes": 1024})
    steps = list(probe_camera(address(camera), starved))
    assert (steps[-1].name, steps[-1].good) == ("test", False)
    assert "process ended" in steps[-1].found


def test_who_tries_a_camera_again_and_again_fills_no_audit_log(world: ApiWorld) -> None:
    for _ in range(5):
        assert tried(world, url=URL).status_code == 200
    assert tried(world, url="rtsp://other.example/live").status_code == 200
    changes = [change.what for _, change in read_changes(world.store, 100)]
    assert changes == ["POST /cameras/test", "POST /cameras/test"]
