"""Live cameras against the embedded service as a user starts it: states, reasons, recovery, and nobody harmed by others."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from moodline.services.simulator import CameraSimulator
from moodline.shared.streams import FailureReason, StreamState
from tests.support.fault_proxy import FaultProxy
from tests.support.gst_rtsp import gst_rtsp_server, pattern_camera
from tests.support.service import Service

pytestmark = [pytest.mark.quiet, pytest.mark.slow, pytest.mark.timeout(600)]

LIVE, BACKING_OFF, CONNECTING = StreamState.LIVE, StreamState.BACKING_OFF, StreamState.CONNECTING
READ_TIMEOUT_S = 2.0
FAST = {
    "MOODLINE_INGEST_OPEN_TIMEOUT_S": "4",
    "MOODLINE_INGEST_READ_TIMEOUT_S": str(READ_TIMEOUT_S),
    "MOODLINE_INGEST_BACKOFF_MIN_S": "0.3",
    "MOODLINE_INGEST_BACKOFF_MAX_S": "1.5",
    # A small picture: these tests are about cameras, not about finding faces.
    "MOODLINE_DETECTOR_SIDE_PX": "96",
}
CANARY = "c4n4ry-s3cr3t"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service"), **FAST) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    """The service without streams; those of the test are removed after it."""
    yield running
    for stream in list(running.client.list_streams()):
        running.client.delete_stream(stream.id)
    running.wait(lambda: camera_processes(running) == [], 15, "the cameras' processes to end")


@pytest.fixture(scope="module")
def cameras() -> Iterator[CameraSimulator]:
    with CameraSimulator(None, paths=24, size="640x360", fps=25) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _healthy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the simulator as it was found."""
    yield
    if "cameras" in request.fixturenames:
        simulator = request.getfixturevalue("cameras")
        for number in range(24):
            simulator.set_fault(f"cam{number}", "none")


def camera_processes(service: Service) -> list[psutil.Process]:
    """Return the processes that read cameras: the children of the camera host."""
    hosts = psutil.Process(service.pid).children()
    return [child for host in hosts for child in host.children()]


def frame_count(service: Service, stream_id: str) -> int:
    return service.frames(stream_id)[0]


def wait_for_frames(service: Service, stream_id: str, more: int, timeout_s: float = 30.0) -> None:
    """Wait until this many more frames are in the timeline."""
    before = frame_count(service, stream_id)
    service.wait(lambda: frame_count(service, stream_id) >= before + more, timeout_s, f"{more} more frames of {stream_id}")


def capture_rates(service: Service, names: list[str], seconds: int) -> dict[str, float]:
    """Return how many frames per second of capture time come into the timelines, over the next whole seconds.

    On a busy machine frames arrive late and in bursts, but with the times at which they were captured. So what is counted is a
    window of those times, once every camera has passed it.
    """
    begin = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    end = begin + timedelta(seconds=seconds)

    def passed(name: str) -> bool:
        last = service.client.get_stream(name).progress.last_time
        return last is not None and last >= end

    service.wait(lambda: all(passed(name) for name in names), 120, f"all cameras to pass {end}")
    window = {"start": begin, "end": end}
    return {name: service.client.timeline(name, resolution="1s", **window).summary.sampled / seconds for name in names}


def test_a_camera_is_live_within_seconds_and_its_timeline_grows(service: Service, cameras: CameraSimulator) -> None:
    service.add("cam", cameras.url("cam0"), sample_fps="5")
    answer = service.wait_for_state("cam", LIVE, timeout_s=15)
    assert answer.lane == "live"
    assert answer.video is not None
    assert (answer.video.width, answer.video.height, answer.video.codec) == (640, 360, "h264")
    assert 4.0 < capture_rates(service, ["cam"], seconds=8)["cam"] < 6.0
    service.wait(lambda: (service.client.get_stream("cam").status.fps or 0) > 20, 10, "the measured frame rate")
    lag = time.time() - service.client.get_stream("cam").progress.last_time.timestamp()  # type: ignore[union-attr]
    assert lag < 2.5, "the timeline is at most the age budget behind"


def test_every_way_in(service: Service) -> None:
    """RTSP over UDP, H.265, MJPEG over RTSP and over HTTP: all become timelines."""
    with ExitStack() as stack:
        h265 = stack.enter_context(CameraSimulator(None, size="320x240", seconds=2, codec="h265"))
        mjpeg = stack.enter_context(CameraSimulator(None, size="320x240", seconds=2, codec="mjpeg", http=True))
        service.add("udp", h265.url("clip"), transport="udp")
        service.add("tcp", h265.url("clip"))
        service.add("rtsp", mjpeg.url("clip"))
        service.add("http", mjpeg.http_url("clip"))
        for name, codec in (("udp", "hevc"), ("tcp", "hevc"), ("rtsp", "mjpeg"), ("http", "mjpeg")):
            answer = service.wait_for_state(name, LIVE)
            assert answer.video is not None
            assert (answer.video.codec, answer.video.width, answer.video.height) == (codec, 320, 240), name
        for name in ("udp", "tcp", "rtsp", "http"):
            wait_for_frames(service, name, 10)


def test_another_implementation_is_played_with_bounded_delay(service: Service) -> None:
    """GStreamer's server, for as many minutes as MOODLINE_TEST_CAMERA_MINUTES says."""
    seconds = 60 * float(os.environ.get("MOODLINE_TEST_CAMERA_MINUTES", "0.5"))
    with gst_rtsp_server({"/cam": pattern_camera(width=640, height=360)}) as server:
        service.add("cam", f"rtsp://127.0.0.1:{server.port}/cam")
        service.wait_for_state("cam", LIVE, timeout_s=20)
        deadline_s = time.monotonic() + seconds
        lags, before = [], frame_count(service, "cam")
        while time.monotonic() < deadline_s:
            time.sleep(1.0)
            lags.append(time.time() - service.client.get_stream("cam").progress.last_time.timestamp())  # type: ignore[union-attr]
        assert max(lags) < 3.0
        assert abs(lags[-1] - lags[0]) < 1.5, "the delay does not grow"
        assert frame_count(service, "cam") - before > 0.9 * 5 * seconds
        assert service.state("cam") is LIVE
        # The server dies, stays away for a while, and comes back.
        server.kill()
        answer = service.wait_for_state("cam", BACKING_OFF, timeout_s=15)
        assert answer.status.reason in (FailureReason.UNREACHABLE, FailureReason.TIMEOUT)
        server.start()
        service.wait_for_state("cam", LIVE, timeout_s=20)
        wait_for_frames(service, "cam", 10)


@pytest.mark.parametrize(
    ("cut", "reasons"),
    [
        (FaultProxy.black_hole, {FailureReason.TIMEOUT}),
        (FaultProxy.reset, {FailureReason.UNREACHABLE, FailureReason.TIMEOUT}),
        (lambda proxy: proxy.drip(20), {FailureReason.TIMEOUT}),
        (FaultProxy.refuse, {FailureReason.UNREACHABLE, FailureReason.TIMEOUT}),
    ],
    ids=["black-hole", "reset", "drip", "refuse"],
)
def test_a_cut_network_is_noticed_and_survived(
    service: Service, cameras: CameraSimulator, cut: Callable[[FaultProxy], None], reasons: set[FailureReason]
) -> None:
    with FaultProxy(cameras.port) as proxy:
        service.add("cut", cameras.url("cam1").replace(str(cameras.port), str(proxy.port)))
        service.add("well", cameras.url("cam2"))
        service.wait_for_state("cut", LIVE)
        service.wait_for_state("well", LIVE)
        began_s = time.monotonic()
        cut(proxy)
        answer = service.wait_for_state("cut", BACKING_OFF, timeout_s=READ_TIMEOUT_S + 10)
        assert time.monotonic() - began_s < READ_TIMEOUT_S + 5
        assert answer.status.reason in reasons
        if cut is not FaultProxy.reset:
            time.sleep(3.0)
            assert service.state("cut") in (BACKING_OFF, CONNECTING)
        assert service.state("well") is LIVE
        proxy.heal()
        service.wait_for_state("cut", LIVE, timeout_s=20)
        wait_for_frames(service, "cut", 10)


def test_reasons_are_typed(service: Service, cameras: CameraSimulator, tmp_path: Path) -> None:
    with CameraSimulator(None, paths=1, size="320x240", user="viewer", password="right") as guarded:
        expected = {
            "wrong-password": (guarded.url("cam0", "viewer", "wrong"), FailureReason.AUTH),
            "no-password": (guarded.url("cam0"), FailureReason.AUTH),
            "missing": (cameras.url("nothing-here"), FailureReason.NOT_FOUND),
            "nobody": ("rtsp://127.0.0.1:9/cam", FailureReason.UNREACHABLE),
            "hangs": (cameras.url("cam3"), FailureReason.TIMEOUT),
            "silent": (cameras.url("cam4"), FailureReason.TIMEOUT),
        }
        cameras.set_fault("cam3", "hang")
        cameras.set_fault("cam4", "silent")
        for name, (url, _) in expected.items():
            service.add(name, url)
        service.add("right", guarded.url("cam0", "viewer", "right"))
        for name, (_, reason) in expected.items():
            answer = service.wait_for_state(name, BACKING_OFF, timeout_s=30)
            assert answer.status.reason == reason, name
            assert answer.status.detail
            assert answer.status.attempts
        service.wait_for_state("right", LIVE)
        wait_for_frames(service, "right", 5)


def test_media_faults_heal_by_themselves(service: Service, cameras: CameraSimulator) -> None:
    errors = service.metric("moodline_decode_errors_total")
    for number, name in enumerate(("garbage", "resolution", "loss", "reset", "quiet")):
        service.add(name, cameras.url(f"cam{number + 5}"))
        service.wait_for_state(name, LIVE)
    cameras.set_fault("cam5", "garbage", seconds=3)
    cameras.set_fault("cam6", "resolution")
    cameras.set_fault("cam7", "loss:20", seconds=3)
    cameras.set_fault("cam8", "rtpreset")
    cameras.set_fault("cam9", "silent", seconds=1)
    size = service.client.get_stream("resolution").video
    service.wait(lambda: service.client.get_stream("resolution").video != size, 20, "another resolution")
    for name in ("garbage", "resolution", "loss", "reset", "quiet"):
        service.wait_for_state(name, LIVE, timeout_s=30)
        wait_for_frames(service, name, 15)
    assert service.metric("moodline_decode_errors_total") > errors


@pytest.mark.parametrize("fault", ["clock:3600", "clock:-3600", "clockstep:-600", "clockstep:600"])
def test_a_wrong_camera_clock_moves_no_timeline(service: Service, cameras: CameraSimulator, fault: str) -> None:
    service.add("cam", cameras.url("cam10"))
    if fault.startswith("clock:"):
        cameras.set_fault("cam10", fault)
    service.wait_for_state("cam", LIVE)
    wait_for_frames(service, "cam", 10)
    if fault.startswith("clockstep:"):
        cameras.set_fault("cam10", fault)
    wait_for_frames(service, "cam", 30)
    last = service.client.get_stream("cam").progress.last_time
    assert last is not None
    assert abs(time.time() - last.timestamp()) < 4.0
    points = service.client.timeline("cam", resolution="1s").points
    assert len(points) < 90, "an hour of nothing would show as thousands of points"
    if fault.startswith("clock:"):
        service.wait(lambda: service.client.get_stream("cam").status.clock_offset_ms is not None, 10, "the offset")
        offset_ms = service.client.get_stream("cam").status.clock_offset_ms
        assert offset_ms is not None
        assert abs(offset_ms / 1000 - float(fault.partition(":")[2])) < 5


def test_three_of_twenty_four_are_faulty_and_the_others_keep_their_rate(service: Service, cameras: CameraSimulator) -> None:
    names = [f"c{number}" for number in range(24)]
    for number, name in enumerate(names):
        service.add(name, cameras.url(f"cam{number}"), sample_fps="2")
    for name in names:
        service.wait_for_state(name, LIVE, timeout_s=60)
    for number, fault in enumerate(("hang", "garbage", "flood:20")):
        cameras.set_fault(f"cam{number}", fault)
    rates = capture_rates(service, names[3:], seconds=12)
    assert min(rates.values()) > 1.7, rates
    assert max(rates.values()) < 2.3, rates
    assert all(service.state(name) is LIVE for name in names[3:])
    for number in range(3):
        cameras.set_fault(f"cam{number}", "none")
    for name in names[:3]:
        service.wait_for_state(name, LIVE, timeout_s=30)
        wait_for_frames(service, name, 5)


def test_a_crashed_or_frozen_decoder_is_one_cameras_trouble(service: Service, cameras: CameraSimulator) -> None:
    connections = service.metric("moodline_camera_connections_total", result="live")
    for name, path in (("one", "cam11"), ("two", "cam12"), ("three", "cam13")):
        service.add(name, cameras.url(path))
        service.wait_for_state(name, LIVE)
    processes = camera_processes(service)
    assert len(processes) == 3
    processes[0].send_signal(11)
    processes[1].suspend()
    service.wait(
        lambda: sum(service.state(name) is LIVE for name in ("one", "two", "three")) < 3, 20, "two cameras to be in trouble"
    )
    for name in ("one", "two", "three"):
        service.wait_for_state(name, LIVE, timeout_s=30)
        wait_for_frames(service, name, 10)
    assert len(camera_processes(service)) == 3, "the frozen process is gone"
    assert service.metric("moodline_camera_connections_total", result="live") == connections + 5


def test_overload_loses_evenly_stays_fresh_and_counts_everything(tmp_path: Path, cameras: CameraSimulator) -> None:
    """Cameras send some five times what the detector can do."""
    slow = {**FAST, "MOODLINE_DETECTOR_MODEL": "haar", "MOODLINE_DETECTOR_SIDE_PX": "640", "MOODLINE_DETECTOR_MIN_FACE_PX": "8"}
    names = [f"c{number}" for number in range(12)]
    with Service(tmp_path, **slow) as service:
        for number, name in enumerate(names):
            service.add(name, cameras.url(f"cam{number}"), sample_fps="25")
        for name in names:
            service.wait_for_state(name, LIVE, timeout_s=60)
        time.sleep(20.0)
        for name in names:
            service.client.pause_stream(name)
        # A pause holds at once for whoever asks; its reader may need another moment.
        service.wait(lambda: service.metric("moodline_streams", state="paused") == len(names), 20, "all readers to stop")
        sent = int(service.metric("moodline_frames_total", worker="ingest", lane="live"))
        service.wait(lambda: sum(frame_count(service, name) for name in names) == sent, 20, f"all {sent} frames in timelines")
        counts = [service.frames(name) for name in names]
        done = [frames - sum(skipped.values()) for frames, skipped in counts]
        assert sum(done) < 0.5 * sent, "it was an overload"
        assert min(done) > 0.7 * max(done), f"all lose evenly: {done}"
        assert not any(skipped["lost"] for _, skipped in counts)
        skipped_live = sum(sum(skipped.values()) for _, skipped in counts)
        assert skipped_live == service.metric("moodline_frames_skipped_total", lane="live")
        below_s = service.metric("moodline_end_to_end_seconds_bucket", lane="live", le="2.0")
        total = service.metric("moodline_end_to_end_seconds_count", lane="live")
        buckets = service.metrics()["moodline_end_to_end_seconds_bucket"]
        delays = {labels["le"]: value for labels, value in buckets if labels["lane"] == "live"}
        assert below_s > 0.99 * total, f"from capture to timeline, frames by s: {delays}"
        assert all(service.state(name) is StreamState.PAUSED for name in names)


def test_settings_of_one_camera_change_without_touching_another(service: Service, cameras: CameraSimulator) -> None:
    service.add("one", cameras.url("cam14"), sample_fps="2")
    service.add("other", cameras.url("cam15"), sample_fps="2")
    service.wait_for_state("one", LIVE)
    service.wait_for_state("other", LIVE)
    connections = service.metric("moodline_camera_connections_total", result="live")
    since = service.client.get_stream("other").status.since
    service.client.change_stream("one", sample_fps="10")
    service.wait(lambda: service.metric("moodline_camera_connections_total", result="live") == connections + 1, 15, "one")
    began_s, before = time.monotonic(), frame_count(service, "one")
    wait_for_frames(service, "one", 40)
    assert (frame_count(service, "one") - before) / (time.monotonic() - began_s) > 7
    assert service.client.get_stream("other").status.since == since


def test_a_password_shows_nowhere(tmp_path: Path) -> None:
    """A canary as password, token and user name; then everything that a process can leave behind is searched."""
    with ExitStack() as stack:
        guarded = stack.enter_context(CameraSimulator(None, paths=1, size="320x240", user="viewer", password=CANARY))
        service = stack.enter_context(Service(tmp_path, **FAST, MOODLINE_LOG_LEVEL="debug"))
        port = guarded.port
        service.add("right", guarded.url("cam0", "viewer", CANARY))
        service.add("token", f"rtsp://{CANARY}@127.0.0.1:{port}/cam0?token={CANARY}&channel=1")
        service.add("odd", f"rtsp://user%40corp:{CANARY}:x@127.0.0.1:{port}/cam0")
        service.add("fields", f"rtsp://127.0.0.1:{port}/missing", username="viewer", password=CANARY)
        service.add("http", f"http://viewer:{CANARY}@127.0.0.1:{port}/x?pw={CANARY}")
        service.wait_for_state("right", LIVE)
        for name in ("token", "odd", "fields", "http"):
            service.wait_for_state(name, BACKING_OFF, StreamState.FAILED)
        wait_for_frames(service, "right", 10)
        service.client.pause_stream("right")
        answers = "".join(stream.to_json() for stream in service.client.list_streams())
        assert answers.count("127.0.0.1") == 5
        seen = {"answers": answers, "metrics": str(service.metrics())}
        for process in [psutil.Process(service.pid), *psutil.Process(service.pid).children(recursive=True)]:
            for name in ("cmdline", "environ"):
                seen[f"{process.pid}/{name}"] = Path(f"/proc/{process.pid}/{name}").read_text(errors="replace")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            seen[path.name] = path.read_bytes().decode("latin-1")
    assert [name for name, text in seen.items() if CANARY in text] == []
    assert any("camera.live" in text for text in seen.values()), "the log was searched"


def test_moodline_camera_serves_a_clip_until_it_is_stopped(service: Service, clips: Path) -> None:
    """The two commands of the README."""
    from tests.support.service import MOODLINE

    command = [MOODLINE, "camera", str(clips / "webcam-short.mkv"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = next(word for line in process.stdout for word in line.split() if word.startswith("rtsp://"))
        service.add("cam", url)
        service.wait_for_state("cam", LIVE)
        wait_for_frames(service, "cam", 10)
    finally:
        process.terminate()
        process.wait(15)
        process.stdout.close()  # type: ignore[union-attr]


def test_the_service_killed_leaves_no_camera_process_behind_and_goes_on_when_it_is_back(
    tmp_path: Path, cameras: CameraSimulator
) -> None:
    with Service(tmp_path, **FAST) as first:
        first.add("cam", cameras.url("cam16"))
        first.wait_for_state("cam", LIVE)
        wait_for_frames(first, "cam", 10)
        children = psutil.Process(first.pid).children(recursive=True)
        assert len(children) >= 2
        psutil.Process(first.pid).kill()
        _, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []
    with Service(tmp_path, **FAST) as second:
        second.wait_for_state("cam", LIVE)
        wait_for_frames(second, "cam", 10)
        assert frame_count(second, "cam") >= 20, "what was in the timeline is still there"
