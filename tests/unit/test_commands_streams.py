"""`moodline streams` against a running API."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from moodline import ApiError, Client
from moodline.services.api.server import ApiServer
from moodline.services.cli.app import app as main_app
from moodline.services.cli.streams import app, wait_until_ended
from moodline.shared.camera_url import CameraSecret
from moodline.shared.errors import SourceError
from moodline.shared.seal import Sealer, open_sealer
from moodline.shared.streams import FailureReason, StreamState, Transport
from tests.support.api import NOW_US, ApiWorld, AsgiTransport, smiling
from tests.support.clocks import StubClock


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world, ApiServer(world.app, "127.0.0.1", 0) as server:
        monkeypatch.setenv("MOODLINE_API_URL", server.url)
        monkeypatch.setenv("COLUMNS", "160")
        yield world


def run(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=typed)


def ok(*arguments: str, typed: str | None = None) -> str:
    result = run(*arguments, typed=typed)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_add_makes_a_local_path_absolute(world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.media / "today").mkdir()
    (world.media / "today" / "clip.mp4").write_bytes(b"x")
    monkeypatch.chdir(world.media / "today")
    assert ok("add", "lobby", "clip.mp4") == "lobby is registered\n"
    assert world.store.get("lobby").url == (world.media / "today" / "clip.mp4").as_uri()


def test_add_with_options(world: ApiWorld) -> None:
    options = ["--sample-fps", "30000/1001", "--max-side-px", "640", "--recorded-at", "2026-05-01T10:00:00Z", "--paused"]
    ok("add", "lobby", "synthetic://astronaut", *options, "--label", "site=berlin", "--label", "note=a=b")
    spec = world.store.get("lobby")
    assert (spec.url, spec.sample_fps, spec.max_side_px, spec.paused) == ("synthetic://astronaut", "30000/1001", 640, True)
    assert spec.recorded_at_us == NOW_US - 2 * 3600 * 1_000_000
    assert spec.labels == {"site": "berlin", "note": "a=b"}


def test_what_the_api_refuses_is_an_error_with_its_words(world: ApiWorld) -> None:
    result = run("add", "lobby", "/etc/passwd")
    assert isinstance(result.exception, ApiError)
    assert "below the media root" in str(result.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "lobby"),
        ("add", "lobby", "clip.mp4", "--label", "site"),
        ("add", "lobby", "clip.mp4", "--label", "=berlin"),
        ("add", "lobby", "clip.mp4", "--max-side-px", "many"),
        ("add", "lobby", "clip.mp4", "--paused", "--wait"),
        ("add", "lobby", "rtsp://cam/live", "--wait"),
        ("add", "lobby", "rtsp://cam/live", "--password-stdin"),
        ("add", "lobby", "rtsp://cam/live", "--transport", "pigeon"),
        ("show",),
        ("fly",),
    ],
)
def test_usage_errors(world: ApiWorld, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert world.store.list_streams() == []


def test_ls(world: ApiWorld) -> None:
    assert "no streams are registered" in ok("ls")
    world.add("lobby", labels={"site": "berlin", "floor": "[2]"})
    world.add("yard")
    world.set_state("lobby", state=StreamState.PLAYING, duration_us=20_000_000)
    world.play("lobby", [smiling()] * 10, final=False)
    world.set_state("yard", state=StreamState.FAILED, reason=FailureReason.CODEC, detail="no decoder")
    lines = ok("ls").splitlines()
    assert lines[0].split() == ["id", "state", "progress", "frames", "labels", "url"]
    assert lines[1].split()[:8] == ["lobby", "playing", "0:09.8", "of", "0:20", "(49%)", "50", "floor=[2]"]
    assert lines[2].split()[:5] == ["yard", "failed", "(codec:", "no", "decoder)"]


def test_ls_as_json(world: ApiWorld) -> None:
    world.add("lobby")
    assert json.loads(ok("ls", "--json")) == world.get("/streams").json()


def test_show(world: ApiWorld) -> None:
    world.add("lobby", labels={"site": "berlin"}, sample_fps="all")
    world.set_state("lobby", state=StreamState.PLAYING, width=640, height=360, codec="h264", source_fps="30000/1001")
    shown = ok("show", "lobby")
    for text in ("lobby", "playing", world.clip.as_uri(), "640x360 px, h264, 30000/1001", "all frames/s", "site=berlin"):
        assert text in shown
    assert json.loads(ok("show", "lobby", "--json")) == world.get("/streams/lobby").json()


def test_pause_and_resume(world: ApiWorld) -> None:
    world.add("lobby")
    assert ok("pause", "lobby") == "lobby is paused\n"
    assert world.store.get("lobby").paused
    assert ok("resume", "lobby") == "lobby is pending\n"


def test_rm_asks_first(world: ApiWorld) -> None:
    world.add("lobby")
    assert run("rm", "lobby", typed="n\n").exit_code == 1
    assert run("rm", "lobby", typed="").exit_code == 1
    assert world.store.get("lobby")
    ok("rm", "lobby", typed="y\n")
    assert world.store.list_streams() == []


def test_rm_without_a_question(world: ApiWorld) -> None:
    world.add("lobby")
    assert ok("rm", "lobby", "--yes") == "lobby and its data are deleted\n"
    assert isinstance(run("rm", "lobby", "-y").exception, ApiError)


def test_the_service_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiWorld(tmp_path) as world, ApiServer(world.app, "127.0.0.1", 0) as server:
        url = server.url
    monkeypatch.setenv("MOODLINE_API_URL", url)
    result = run("ls")
    assert isinstance(result.exception, ApiError)
    assert "start it with `moodline run`" in str(result.exception)


# Cameras


def test_add_a_camera(world: ApiWorld) -> None:
    options = ["--username", "viewer", "--password-stdin", "--transport", "udp", "--no-tls-verify"]
    result = run("add", "yard", "RTSPS://cam.example/live", *options, typed="hunter2 \nmore\n")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "yard is registered\n", "")
    spec = world.store.get("yard")
    assert (spec.url, spec.transport, spec.tls_verify) == ("rtsps://cam.example/live", Transport.UDP, False)
    assert open_sealer(world.settings).open("yard", spec.sealed) == CameraSecret(username="viewer", password="hunter2 ")


@pytest.mark.parametrize(("url", "is_warned"), [("rtsp://viewer:hunter2@cam/live", True), ("rtsp://cam/live", False)])
def test_a_password_on_the_command_line_is_warned_of(world: ApiWorld, url: str, is_warned: bool) -> None:
    result = run("add", "yard", url)
    assert (result.exit_code, world.store.get("yard").url) == (0, "rtsp://cam/live")
    assert ("--password-stdin" in result.stderr) is is_warned
    assert len(result.stderr.splitlines()) == is_warned
    assert "hunter2" not in result.output


def test_ls_and_show_of_cameras(world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    import moodline.services.cli.streams as commands

    monkeypatch.setattr(commands, "SystemClock", lambda: StubClock(NOW_US / 1e6 + 3))
    for name in ("yard", "gate"):
        ok("add", name, f"rtsp://cam/{name}")
    world.set_state("yard", state=StreamState.LIVE, fps=24.97, last_frame_us=NOW_US, clock_offset_ms=-1500, lost_packets=7)
    world.set_state(
        "gate", state=StreamState.BACKING_OFF, reason=FailureReason.TIMEOUT, attempts=4, next_attempt_us=NOW_US + 8_000_000
    )
    listed = {line.split()[0]: line for line in ok("ls").splitlines()}
    assert "live" in listed["yard"]
    assert "25.0 fps, 3s ago" in listed["yard"].replace(" s ago", "s ago")
    assert "(timeout)" in listed["gate"]
    assert "4 attempts, next in 5 s" in listed["gate"]
    shown = ok("show", "yard")
    for text in ("rtsp://cam/yard", "TCP", "25.0 fps", "3 s ago", "1.5 s behind this one", "lost packets"):
        assert text in shown
    assert "recorded at" not in shown
    assert "in 5 s" in ok("show", "gate")


@pytest.mark.parametrize("columns", ["60", "80", "120", "200"])
def test_a_list_breaks_no_word_whatever_the_width(world: ApiWorld, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    ok("add", "front-door-camera-of-building-7", "rtsp://cam.example.org:8554/a/very/long/path", "--label", "site=berlin")
    world.set_state(
        "front-door-camera-of-building-7", state=StreamState.BACKING_OFF, reason=FailureReason.TIMEOUT, detail="no frame"
    )
    printed = ok("ls")
    for word in ("front-door-camera-of-building-7", "backing_off", "timeout: no frame", "site=berlin"):
        assert word in " ".join(printed.split()), printed
    assert "front-door-camera-of-building-7" in printed
    assert len(printed.splitlines()) <= 5


def test_words_of_a_camera_and_of_a_file(world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    ok("add", "yard", "rtsps://viewer:hunter2@cam/yard", "--no-tls-verify")
    world.set_state("yard", state=StreamState.LIVE, width=640, height=360, codec="mjpeg", clock_offset_ms=-20)
    shown = " ".join(ok("show", "yard").split())
    assert "TCP, its certificate is not checked, with user name and password" in shown
    assert "640x360 px, mjpeg " in shown
    assert "camera's clock as this one" in shown
    assert "-0.0" not in shown
    assert "None" not in shown


def test_change(world: ApiWorld) -> None:
    ok("add", "lobby", "synthetic://astronaut", "--label", "site=berlin")
    assert ok("change", "lobby", "--sample-fps", "2", "--label", "floor=2") == "lobby is changed: labels, sample_fps\n"
    assert (world.store.get("lobby").sample_fps, world.store.get("lobby").labels) == ("2", {"floor": "2"})
    ok("change", "lobby", "--no-labels")
    assert world.store.get("lobby").labels == {}
    assert run("change", "lobby").exit_code == 2
    assert run("change", "lobby", "--label", "a=b", "--no-labels").exit_code == 2


def test_what_has_ended_cannot_be_paused(world: ApiWorld) -> None:
    ok("add", "lobby", "synthetic://astronaut")
    world.play("lobby", [smiling()])
    world.set_state("lobby", state=StreamState.ENDED)
    assert "state          ended" in ok("show", "lobby")
    result = run("pause", "lobby")
    assert "there is nothing to pause" in str(result.exception)
    assert not world.store.get("lobby").paused


def test_top_puts_first_what_needs_somebody(world: ApiWorld) -> None:
    for name in ("a-lobby", "b-yard"):
        ok("add", name, "synthetic://astronaut")
    world.set_state("b-yard", state=StreamState.FAILED, reason=FailureReason.CORRUPT, detail="cut off")
    done = CliRunner().invoke(main_app, ["top", "--once"])
    assert done.exit_code == 0, (done.output, done.exception)
    lines = done.stdout.splitlines()
    assert lines[0] == "2 streams: 1 failed, 1 pending"
    assert lines[1].startswith("service: ")
    assert lines[3].split()[:2] == ["b-yard", "failed"]
    assert "corrupt: cut off" in lines[3]
    assert lines[4].split()[:2] == ["a-lobby", "pending"]


def test_a_new_key_is_printed() -> None:
    keys = [CliRunner().invoke(main_app, ["key"]).stdout.strip() for _ in range(2)]
    assert keys[0] != keys[1]
    secret = CameraSecret(password="hunter2")
    assert Sealer(lambda _create: keys[0]).open("yard", Sealer(lambda _create: keys[0]).seal("yard", secret)) == secret


# Waiting


class Steps(StubClock):
    """Does one thing at each wait."""

    def __init__(self, *steps: object) -> None:
        super().__init__()
        self._steps = list(steps)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self._steps.pop(0)()  # type: ignore[operator]


def test_wait_until_ended(tmp_path: Path) -> None:
    clock = Steps(
        lambda: world.set_state("lobby", state=StreamState.PLAYING, duration_us=2_000_000),
        lambda: world.play("lobby", [smiling()], final=False),
        lambda: world.play("lobby", [smiling(), smiling()]),
    )
    with ApiWorld(tmp_path) as world, Client("http://localhost", clock=clock, transport=AsgiTransport(world.app)) as client:
        world.add("lobby")
        stream = wait_until_ended(client, "lobby")
        assert (stream.status.state, stream.progress.frames) == (StreamState.ENDED, 10)
        assert clock._steps == []


def test_waiting_for_a_stream_that_fails(tmp_path: Path) -> None:
    clock = Steps(lambda: world.set_state("lobby", state=StreamState.FAILED, reason=FailureReason.NO_VIDEO, detail="audio only"))
    with ApiWorld(tmp_path) as world, Client("http://localhost", clock=clock, transport=AsgiTransport(world.app)) as client:
        world.add("lobby")
        with pytest.raises(SourceError, match="lobby failed: no_video: audio only"):
            wait_until_ended(client, "lobby")


def test_add_and_wait(world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    import moodline.services.cli.connection as commands

    clock = Steps(lambda: world.play("lobby", [smiling()] * 3))
    monkeypatch.setattr(commands, "SystemClock", lambda: clock)
    said = ok("add", "lobby", str(world.clip), "--recorded-at", "2026-05-01T12:00:00Z", "--wait")
    assert "lobby is complete: 0:03 (100%), 15 frames" in said
