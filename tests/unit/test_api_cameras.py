"""Cameras over HTTP: what is shown of them, what is sealed, and who gets a password."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from moodline.shared.camera import CameraAddress
from moodline.shared.camera_url import camera_address
from moodline.shared.messages import StreamClass
from moodline.shared.seal import new_key, open_sealer
from moodline.shared.settings import ApiSettings, IngestSettings, SecretsSettings, StoreSettings, load_settings
from moodline.shared.streams import FailureReason, StreamState, Transport
from tests.support.api import NOW, NOW_US, ApiWorld, AsgiTransport, smiling

CANARY = "hunter2"
URL = f"rtsp://viewer:{CANARY}@cam.example:8554/live?channel=1&token={CANARY}"
SHOWN = "rtsp://cam.example:8554/live?channel=1&token=***"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        yield world


def post(world: ApiWorld, **body: Any) -> httpx.Response:
    return world.http.post("/api/v1/streams", json={"id": "yard"} | body)


def patch(world: ApiWorld, **body: Any) -> httpx.Response:
    return world.http.patch("/api/v1/streams/yard", json=body)


def address(world: ApiWorld) -> CameraAddress:
    spec = world.store.get("yard")
    return camera_address(spec, open_sealer(world.settings).open("yard", spec.sealed))


def login(world: ApiWorld) -> tuple[str | None, str | None]:
    found = address(world)
    return found.username, found.password


def refused(answer: httpx.Response, field: str | None, status: int = 422, code: str = "invalid_stream") -> str:
    problem = answer.json()["error"]
    assert (answer.status_code, problem["code"], problem["field"]) == (status, code, field), problem
    assert CANARY not in answer.text
    message: str = problem["message"]
    return message


def test_a_camera_is_registered_without_its_secrets(world: ApiWorld) -> None:
    answer = post(world, url=URL, transport="udp", tls_verify=False)
    assert answer.status_code == 201
    body = answer.json()
    assert (body["url"], body["lane"], body["transport"], body["tls_verify"]) == (SHOWN, "live", "udp", False)
    assert body["has_credentials"] is True
    assert (body["recorded_at"], body["progress"]["position_s"]) == (None, None)
    spec = world.store.get("yard")
    assert CANARY not in answer.text + repr(spec)
    assert spec.lane is StreamClass.LIVE
    assert address(world) == CameraAddress(
        "rtsp", "cam.example", 8554, f"/live?channel=1&token={CANARY}", "viewer", CANARY, Transport.UDP, tls_verify=False
    )
    for path in ("/streams", "/streams/yard"):
        assert CANARY not in world.get(path).text


def test_a_camera_without_secrets_needs_no_key(world: ApiWorld) -> None:
    body = post(world, url="rtsp://cam.example/live").json()
    assert (body["has_credentials"], body["transport"], body["tls_verify"]) == (False, "tcp", True)
    assert not (world.settings.data_path() / "secret.key").exists()


def test_credentials_as_fields(world: ApiWorld) -> None:
    answer = post(world, url="rtsp://cam.example/live", username="us%40er", password=f"{CANARY}#/")
    assert CANARY not in answer.text
    assert login(world) == ("us%40er", f"{CANARY}#/")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": f"rtsp://u:{CANARY}#@cam/"}, "url"),
        ({"url": URL, "username": CANARY, "password": CANARY}, "url"),
        ({"url": "rtsp://cam/", "password": CANARY}, "username"),
        ({"url": "rtsp://cam/", "recorded_at": NOW}, "recorded_at"),
        ({"url": "clip.mp4", "username": CANARY}, "username"),
        ({"url": "clip.mp4", "password": CANARY}, "password"),
        ({"url": "clip.mp4", "transport": "tcp"}, "transport"),
        ({"url": "clip.mp4", "tls_verify": True}, "tls_verify"),
        ({"url": f"ftp://u:{CANARY}@cam/"}, "url"),
        ({"url": f"http://169.254.169.254/{CANARY}"}, "url"),
        ({"url": f"http://[::ffff:169.254.1.1]/{CANARY}"}, "url"),
    ],
)
def test_definitions_that_are_refused(world: ApiWorld, body: dict[str, Any], field: str) -> None:
    refused(post(world, **body), field)
    assert world.store.list_streams() == []


@pytest.mark.parametrize("body", [{"transport": CANARY}, {"password": [CANARY]}, {"tls_verify": CANARY}])
def test_values_of_the_wrong_kind(world: ApiWorld, body: dict[str, Any]) -> None:
    refused(post(world, url="rtsp://cam/", **body), next(iter(body)), code="invalid_request")


def test_schemes_and_networks_that_the_settings_forbid(tmp_path: Path) -> None:
    with ApiWorld(tmp_path) as world:
        from moodline.services.api.app import create_app

        ingest = IngestSettings(media_root=world.media, schemes="rtsp", allow_loopback=False, deny_networks="10.0.0.0/8")
        app = create_app(world.store, load_settings(ingest=ingest, api=ApiSettings()), world.metrics, world.clock)
        world.http = httpx.Client(transport=AsgiTransport(app), base_url="http://localhost")
        for url in ("http://cam/", "clip.mp4", "synthetic://astronaut", "device://0"):
            assert "MOODLINE_INGEST_SCHEMES" in refused(post(world, url=url), "url")
        assert "LOOPBACK" in refused(post(world, url="rtsp://127.0.0.1/"), "url")
        assert "DENY" in refused(post(world, url="rtsp://10.1.2.3/"), "url")
        assert post(world, url="rtsp://192.0.2.7/").status_code == 201


# Change


def test_a_camera_can_change_at_any_time(world: ApiWorld) -> None:
    post(world, url=URL)
    world.set_state("yard", state=StreamState.LIVE, frames_sent=5)
    answer = patch(world, sample_fps="2", max_side_px=640, transport="udp", tls_verify=False)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["transport"], answer.json()["tls_verify"], answer.json()["sample_fps"]) == ("udp", False, "2")
    assert login(world) == ("viewer", CANARY)


def test_another_path_of_the_same_camera_keeps_the_credentials(world: ApiWorld) -> None:
    post(world, url=URL)
    assert patch(world, url="RTSP://cam.example:8554/other?token=new").json()["url"] == "rtsp://cam.example:8554/other?token=***"
    assert login(world) == ("viewer", CANARY)
    assert address(world).target == "/other?token=new"


@pytest.mark.parametrize(
    "url",
    ["rtsp://cam2.example:8554/live", "rtsp://cam.example/live", "rtsps://cam.example:8554/live", "http://cam.example:8554/x"],
)
def test_another_host_port_or_scheme_never_gets_the_old_password(world: ApiWorld, url: str) -> None:
    post(world, url=URL)
    assert patch(world, url=url).json()["has_credentials"] is False
    assert login(world) == (None, None)
    assert address(world).target in ("/live", "/x")


def test_half_of_the_old_credentials_does_not_go_to_another_host(world: ApiWorld) -> None:
    post(world, url=URL)
    assert patch(world, url="rtsp://other.example/", username="other").json()["has_credentials"] is True
    assert login(world) == ("other", None)
    post(world, url=URL)
    refused(patch(world, url="rtsp://third.example/", password=CANARY), "username")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"password": "new"}, ("viewer", "new")),
        ({"password": ""}, ("viewer", "")),
        ({"username": "other"}, ("other", CANARY)),
        ({"username": "other", "password": "new"}, ("other", "new")),
        ({"username": ""}, (None, None)),
        ({"username": None, "password": None}, ("viewer", CANARY)),
        ({"url": SHOWN}, ("viewer", CANARY)),
        ({"url": SHOWN, "password": "new"}, ("viewer", "new")),
    ],
)
def test_changed_credentials_leave_the_rest_of_the_secret(
    world: ApiWorld, body: dict[str, Any], expected: tuple[str | None, str | None]
) -> None:
    post(world, url=URL)
    assert patch(world, **body).status_code == 200
    assert login(world) == expected
    assert address(world).target == f"/live?channel=1&token={CANARY}"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "clip.mp4"}, "url"),
        ({"recorded_at": NOW}, "recorded_at"),
        ({"url": f"rtsp://u:{CANARY}@cam.example/", "username": "u"}, "url"),
        ({"url": "rtsp://cam.example:8554/x?token=***"}, "url"),
        ({"url": "http://169.254.169.254/"}, "url"),
    ],
)
def test_changes_that_are_refused(world: ApiWorld, body: dict[str, Any], field: str) -> None:
    post(world, url=URL)
    refused(patch(world, **body), field)
    assert world.store.get("yard").url == SHOWN


def test_a_file_becomes_no_camera(world: ApiWorld) -> None:
    post(world, url="clip.mp4")
    refused(patch(world, url=URL), "url")
    refused(patch(world, transport="udp"), "transport")


def test_a_lost_key_is_a_problem_of_its_own_and_new_credentials_solve_it(world: ApiWorld) -> None:
    post(world, url="rtsp://cam.example/live", username="viewer", password=CANARY)
    key = world.settings.data_path() / "secret.key"
    key.write_text(new_key())
    from moodline.services.api.app import create_app

    app = create_app(world.store, world.settings, world.metrics, world.clock)
    world.http = httpx.Client(transport=AsgiTransport(app), base_url="http://localhost")
    assert "MOODLINE_SECRETS_KEY" in refused(patch(world, password="new"), None, 503, "seal")
    assert patch(world, username="viewer", password="new").status_code == 200
    assert login(world) == ("viewer", "new")


def test_a_distributed_api_without_a_key(world: ApiWorld) -> None:
    from moodline.services.api.app import create_app

    settings = load_settings(store=StoreSettings(url="redis://127.0.0.1:6379/0"), secrets=SecretsSettings(key=""))
    app = create_app(world.store, settings, world.metrics, world.clock)
    world.http = httpx.Client(transport=AsgiTransport(app), base_url="http://localhost")
    assert "moodline key" in refused(post(world, url=URL), None, 503, "seal")
    assert world.store.list_streams() == []
    assert post(world, url="rtsp://cam.example/live").status_code == 201


# Status and timeline


def test_the_status_of_a_live_camera(world: ApiWorld) -> None:
    post(world, url=URL)
    measured = {"fps": 24.97, "last_frame_us": NOW_US, "clock_offset_ms": -120, "lost_packets": 3}
    world.set_state("yard", state=StreamState.LIVE, since_us=NOW_US, duration_us=5, **measured)
    body = world.get("/streams/yard").json()
    assert body["status"] == {
        "state": "live",
        "reason": None,
        "detail": "",
        "since": NOW,
        "attempts": 0,
        "next_attempt": None,
        "last_frame": NOW,
        "fps": 24.97,
        "clock_offset_ms": -120,
        "lost_packets": 3,
    }
    assert [body["progress"][name] for name in ("position_s", "duration_s", "percent")] == [None] * 3


def test_the_status_of_a_camera_that_is_away(world: ApiWorld) -> None:
    post(world, url=URL)
    world.set_state("yard", state=StreamState.BACKING_OFF, reason=FailureReason.TIMEOUT, attempts=4, next_attempt_us=NOW_US)
    status = world.get("/streams/yard").json()["status"]
    assert [status[name] for name in ("state", "reason", "attempts", "next_attempt")] == ["backing_off", "timeout", 4, NOW]
    assert [status[name] for name in ("last_frame", "fps", "clock_offset_ms")] == [None] * 3


def test_the_timeline_of_a_camera_that_is_away_goes_on_to_the_present(world: ApiWorld) -> None:
    post(world, url=URL)
    world.play("yard", [smiling(), smiling(final=False)], final=False)
    world.clock.now += 12
    points = world.get("/streams/yard/timeline", **{"from": "-12s"}).json()["points"]
    assert [point["empty"] for point in points] == [None, None, *["offline"] * 5]
    assert [point["final"] for point in points][2:] == [False] * 5
    assert len(world.get("/streams/yard/timeline").json()["points"]) == 2
    assert len(world.get("/streams/yard/timeline", **{"from": "-12s", "to": "now"}).json()["points"]) == 12
    assert world.get("/streams/yard/timeline", **{"from": "-3s"}).json()["points"] == []


def test_a_camera_that_never_came_was_offline(world: ApiWorld) -> None:
    post(world, url=URL)
    points = world.get("/streams/yard/timeline", **{"from": "-8s"}).json()["points"]
    assert [point["empty"] for point in points] == ["offline"] * 3
