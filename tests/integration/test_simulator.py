"""Simulated cameras as other programs see them: FFmpeg's tools, and a plain client that looks at each packet."""

import json
import os
import shutil
import socket
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from moodline.services.simulator import CameraSimulator
from moodline.shared.errors import SettingsError
from tests.support.fault_proxy import FaultProxy
from tests.support.rtsp_client import ClosedError, Rtp, RtspClient

FPS, FRAME_STAMPS, CLIP_FRAMES = 25, 3600, 40


@pytest.fixture(scope="module")
def simulator() -> Iterator[CameraSimulator]:
    with CameraSimulator(None, paths=24, size="320x240", fps=FPS, gop_s=0.4, seconds=CLIP_FRAMES / FPS, http=True) as running:
        yield running


@pytest.fixture
def ffprobe() -> str:
    found = shutil.which("ffprobe")
    if found is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("CI must have ffprobe: install ffmpeg")
        pytest.skip("ffprobe is not installed")
    return found


def probe(ffprobe: str, url: str, *options: str, seconds: float = 2.5) -> dict[str, list[dict[str, object]]]:
    """Let FFmpeg play a camera for a while; return its streams and packets."""
    command = [ffprobe, "-v", "error", "-of", "json", "-show_streams", "-show_packets", *options]
    answer = subprocess.run(
        [*command, "-read_intervals", f"%+{seconds}", url], capture_output=True, text=True, timeout=30, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == "", answer.stderr
    found: dict[str, list[dict[str, object]]] = json.loads(answer.stdout)
    return found


def check_played(found: dict[str, list[dict[str, object]]], codec: str) -> None:
    (stream,) = found["streams"]
    assert (stream["codec_name"], stream["width"], stream["height"]) == (codec, 320, 240)
    # FFmpeg does not give the first packet of H.264 and H.265 a time: it does not know yet how frames are ordered.
    times = [float(str(packet["pts_time"])) for packet in found["packets"] if "pts_time" in packet]
    assert len(found["packets"]) - len(times) <= 1
    assert len(times) > CLIP_FRAMES + 10, "more than one round"
    assert {round(after - before, 3) for before, after in pairwise(times)} == {1 / FPS}
    assert "K" in str(found["packets"][0]["flags"])


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_ffmpeg_plays_h264_over_the_end_of_the_clip(ffprobe: str, simulator: CameraSimulator, transport: str) -> None:
    check_played(probe(ffprobe, simulator.url("cam0"), "-rtsp_transport", transport), "h264")


@pytest.mark.parametrize("codec", ["hevc", "mjpeg"])
def test_ffmpeg_plays_other_codecs_and_logs_in(ffprobe: str, codec: str) -> None:
    way, name = ("digest", "h265") if codec == "hevc" else ("basic", "mjpeg")
    with CameraSimulator(
        None, codec=name, size="320x240", gop_s=0.4, seconds=1.6, user="us er", password="p@ss:w", auth=way
    ) as guarded:
        for transport in ("tcp", "udp"):
            found = probe(ffprobe, guarded.url("cam0", "us er", "p@ss:w"), "-rtsp_transport", transport)
            check_played(found, codec)
        with RtspClient(guarded.url("cam0")) as client:
            answer = client.ask("DESCRIBE")
            assert answer.status == 401
            assert answer.headers["www-authenticate"].lower().startswith(way)
        environment = psutil.Process(guarded.pid).environ()
        shown = " ".join([*psutil.Process(guarded.pid).cmdline(), *environment.values()])
        assert "p@ss:w" not in shown


def test_ffmpeg_plays_mjpeg_over_http(ffprobe: str, simulator: CameraSimulator) -> None:
    found = probe(ffprobe, simulator.http_url("cam0"), "-f", "mpjpeg", seconds=1.0)
    assert (found["streams"][0]["codec_name"], found["streams"][0]["width"]) == ("mjpeg", 320)
    assert len(found["packets"]) >= 20


def test_a_file_is_served_as_it_is_unless_its_frames_are_reordered(tmp_path: Path, ffprobe: str) -> None:
    source = [
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=320x240:rate=25:duration=1.6",
        "-c:v",
        "libx264",
        "-g",
        "10",
        "-pix_fmt",
        "yuv420p",
    ]
    for name, b_frames in (("plain", "0"), ("reordered", "3")):
        command = [str(Path(ffprobe).with_name("ffmpeg")), "-v", "error", *source, "-bf", b_frames, str(tmp_path / f"{name}.mp4")]
        subprocess.run(command, check=True, timeout=20)
    with CameraSimulator(tmp_path / "plain.mp4", size=None, copy=True) as copied:
        assert "plain" in copied.paths
        check_played(probe(ffprobe, copied.url(), "-rtsp_transport", "tcp"), "h264")
    with pytest.raises(SettingsError, match="B-frames"):
        CameraSimulator(tmp_path / "reordered.mp4", size=None, copy=True).start()


def test_sequence_stamps_and_reports_are_continuous(simulator: CameraSimulator) -> None:
    with RtspClient(simulator.url("cam1")) as client:
        described = client.ask("DESCRIBE", Accept="application/sdp")
        assert described.headers["content-base"] == client.url + "/"
        assert b"sprop-parameter-sets=" in described.body
        answer = client.play()
        info = dict(part.split("=", 1) for part in answer.headers["rtp-info"].split(";"))
        packets, reports = client.collect(3.0)
        assert simulator.clients("cam1") == 1
    assert (packets[0].sequence, packets[0].stamp) == (int(info["seq"]), int(info["rtptime"]))
    assert packets[0].payload[0] & 0x1F == 7, "begins with a keyframe's SPS"
    assert {(after.sequence - before.sequence) % 2**16 for before, after in pairwise(packets)} == {1}
    stamps = [packet.stamp for packet in packets if packet.marker]
    assert {(after - before) % 2**32 for before, after in pairwise(stamps)} == {FRAME_STAMPS}
    assert len(stamps) > CLIP_FRAMES
    assert max(len(packet.payload) for packet in packets) <= 1388
    assert len(reports) >= 3
    for report in reports:
        assert abs(report.ntp_s - time.time()) < 5
    first, last = reports[0], reports[-1]
    assert abs((last.stamp - first.stamp) % 2**32 / 90_000 - (last.ntp_s - first.ntp_s)) < 0.05


def test_the_report_comes_right_after_play(simulator: CameraSimulator) -> None:
    with RtspClient(simulator.url("cam1")) as client:
        client.play()
        assert not isinstance(client.packet(), Rtp)


def test_a_session_is_what_the_standard_says(simulator: CameraSimulator) -> None:
    with RtspClient(simulator.url("cam2")) as client:
        assert "DESCRIBE" in client.ask("OPTIONS").headers["public"]
        assert client.ask("PLAY").status == 454
        assert client.ask("SETUP", Transport="RTP/AVP;multicast").status == 461
        assert client.ask("RECORD").status == 501
        assert client.ask("DESCRIBE", simulator.url("nothing")).status == 404
        assert client.play().status == 200
        assert client.ask("GET_PARAMETER").status == 200
        assert client.ask("TEARDOWN").status == 200
        assert client.silent_for(0.5)
        assert simulator.clients("cam2") == 0


def test_a_client_that_says_nothing_is_left() -> None:
    with (
        CameraSimulator(None, size="160x96", seconds=1, session_timeout_s=1.0) as simulator,
        RtspClient(simulator.url("cam0")) as client,
    ):
        client.play()
        with pytest.raises(ClosedError):
            client.collect(4.0)


def playing(simulator: CameraSimulator, path: str) -> RtspClient:
    client = RtspClient(simulator.url(path))
    client.play()
    while not isinstance(client.packet(), Rtp):
        pass
    return client


@pytest.mark.parametrize(("fault", "path"), [("silent", "cam3"), ("hang", "cam4")])
def test_silence_falls_in_the_middle_and_ends_by_itself(simulator: CameraSimulator, fault: str, path: str) -> None:
    with playing(simulator, path) as client:
        simulator.set_fault(path, fault, seconds=1.8)
        assert client.silent_for(1.0)
        assert client.packet()
    simulator.set_fault(path, fault)
    with RtspClient(simulator.url(path), timeout_s=0.5) as client:
        if fault == "hang":
            with pytest.raises(TimeoutError):
                client.ask("DESCRIBE")
        else:
            assert client.play().status == 200
            with pytest.raises(TimeoutError):
                client.packet()


@pytest.mark.parametrize(("fault", "error", "path"), [("drop", ClosedError, "cam5"), ("reset", ConnectionResetError, "cam6")])
def test_connections_are_cut(simulator: CameraSimulator, fault: str, error: type[Exception], path: str) -> None:
    with playing(simulator, path) as client:
        simulator.set_fault(path, fault)
        with pytest.raises(error):
            client.collect(3.0)
    with RtspClient(simulator.url(path)) as client, pytest.raises(error):
        client.ask("DESCRIBE")
    simulator.set_fault(path, "none")
    playing(simulator, path).__exit__(None, None, None)


def test_loss_leaves_gaps(simulator: CameraSimulator) -> None:
    simulator.set_fault("cam7", "loss:50")
    with playing(simulator, "cam7") as client:
        packets, _ = client.collect(2.0)
    steps = [(after.sequence - before.sequence) % 2**16 for before, after in pairwise(packets)]
    assert 1.5 < sum(steps) / len(steps) < 3


def test_garbage_is_in_whole_packets(simulator: CameraSimulator) -> None:
    with playing(simulator, "cam8") as client:
        simulator.set_fault("cam8", "garbage")
        client.collect(0.2)
        packets, _ = client.collect(1.0)
    kinds = {packet.payload[0] & 0x1F for packet in packets}
    assert len(kinds) > 8, "the kinds of NAL units are anything"


def test_noise_is_no_rtsp(simulator: CameraSimulator) -> None:
    simulator.set_fault("cam9", "noise")
    with (
        RtspClient(simulator.url("cam9"), timeout_s=0.5) as client,
        pytest.raises((AssertionError, UnicodeDecodeError, TimeoutError)),
    ):
        client.ask("DESCRIBE")


def own_sps(packets: list[Rtp]) -> bytes:
    return next(packet.payload for packet in reversed(packets) if packet.payload[0] & 0x1F == 7)


@pytest.mark.parametrize(("fault", "path"), [("resolution", "cam10"), ("crasher", "cam11")])
def test_parameter_sets_change_in_the_middle(simulator: CameraSimulator, fault: str, path: str) -> None:
    with playing(simulator, path) as client:
        before, _ = client.collect(0.8)
        simulator.set_fault(path, fault)
        after, _ = client.collect(1.5)
    assert own_sps(before) != own_sps(after)
    stamps = [packet.stamp for packet in before + after if packet.marker]
    assert {(later - earlier) % 2**32 for earlier, later in pairwise(stamps)} == {FRAME_STAMPS}


def test_another_codec_ends_sessions(simulator: CameraSimulator, ffprobe: str) -> None:
    with playing(simulator, "cam12") as client:
        simulator.set_fault("cam12", "codec")
        with pytest.raises(ClosedError):
            client.collect(5.0)
    assert probe(ffprobe, simulator.url("cam12"), seconds=1)["streams"][0]["codec_name"] == "hevc"


@pytest.mark.parametrize(("fault", "path"), [("clock:+3600", "cam13"), ("clockstep:-600", "cam14")])
def test_the_camera_clock_is_wrong(simulator: CameraSimulator, fault: str, path: str) -> None:
    with playing(simulator, path) as client:
        simulator.set_fault(path, fault)
        _, reports = client.collect(0.7)
    assert abs(reports[-1].ntp_s - time.time() - float(fault.partition(":")[2])) < 5


def test_stamps_begin_anew(simulator: CameraSimulator) -> None:
    with playing(simulator, "cam15") as client:
        simulator.set_fault("cam15", "rtpreset")
        packets, reports = client.collect(1.0)
    steps = [(after.stamp - before.stamp) % 2**32 for before, after in pairwise([p for p in packets if p.marker])]
    assert abs((reports[-1].stamp - packets[-1].stamp + 2**31) % 2**32 - 2**31) < 90_000 * 2, "reports follow"
    assert len([step for step in steps if step != FRAME_STAMPS]) <= 1


@pytest.mark.parametrize(("fault", "least", "most", "path"), [("flood:8", 6.0, 8.5, "cam16"), ("none", 0.8, 1.2, "cam17")])
def test_a_flood_is_so_many_times_faster(simulator: CameraSimulator, fault: str, least: float, most: float, path: str) -> None:
    with playing(simulator, path) as client:
        simulator.set_fault(path, fault)
        client.collect(0.3)
        packets, _ = client.collect(2.0)
        frames = sum(packet.marker for packet in packets)
        assert least < frames / (2.0 * FPS) < most
        simulator.set_fault(path, "none")
        client.collect(0.5)
        packets, _ = client.collect(1.0)
        assert 0.7 < sum(packet.marker for packet in packets) / FPS < 1.3


def test_a_drip_is_some_bytes_and_heals(simulator: CameraSimulator) -> None:
    with playing(simulator, "cam18") as client:
        simulator.set_fault("cam18", "drip", seconds=2.5)
        client._socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.collect(5.0)
        client._socket.settimeout(5.0)
        held = len(client._buffer)
        started_s = time.monotonic()
        client._fill()
        assert len(client._buffer) - held <= 4
        assert time.monotonic() - started_s < 2
        assert client.packet(), "what was begun is finished, and what follows can be told apart"
        client.collect(2.0)


@pytest.mark.parametrize(
    ("fault", "status"),
    [("unauthorized", 401), ("missing", 404), ("redirect:rtsp://127.0.0.1:1/x", 302), ("slow:700", 200), ("bigsdp", 200)],
)
def test_answers_are_as_asked_for(simulator: CameraSimulator, fault: str, status: int) -> None:
    simulator.set_fault("cam19", fault)
    with RtspClient(simulator.url("cam19")) as client:
        started_s = time.monotonic()
        answer = client.ask("DESCRIBE")
        took_s = time.monotonic() - started_s
    assert answer.status == status
    assert (took_s >= 0.7) == fault.startswith("slow")
    assert (len(answer.body) > 1_000_000) == (fault == "bigsdp")
    assert answer.headers.get("location") == (fault.partition(":")[2] if status == 302 else None)


def test_faults_are_asked_for_over_http(simulator: CameraSimulator) -> None:
    body = json.dumps({"fault": "loss:5", "seconds": 60}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{simulator.control_url}/cam20", body)) as answer:
        assert json.load(answer)["fault"] == "loss:5"
    with urllib.request.urlopen(simulator.control_url) as answer:
        state = json.load(answer)["cam20"]
    assert state["fault"] == "loss:5"
    assert 50 < state["left_s"] <= 60
    with pytest.raises(SettingsError, match="no such fault"):
        simulator.set_fault("cam20", "nonsense")
    with pytest.raises(SettingsError, match="no camera"):
        simulator.set_fault("nothing", "silent")


def test_a_killed_simulator_comes_back_on_its_port() -> None:
    with CameraSimulator(None, size="160x96", seconds=1) as simulator:
        port = simulator.port
        with playing(simulator, "cam0") as client:
            simulator.kill()
            with pytest.raises((ClosedError, ConnectionResetError)):
                client.collect(3.0)
        with pytest.raises(ConnectionRefusedError):
            RtspClient(simulator.url("cam0"))
        simulator.start()
        assert simulator.port == port
        playing(simulator, "cam0").__exit__(None, None, None)


def test_the_network_fails_in_each_way(simulator: CameraSimulator) -> None:
    with FaultProxy(simulator.port) as proxy:
        url = simulator.url("cam21").replace(str(simulator.port), str(proxy.port))
        with RtspClient(url, timeout_s=0.4) as client:
            client.play()
            client.collect(0.5)
            passed = proxy.to_client
            assert passed > 1000
            proxy.black_hole()
            assert client.silent_for(0.5)
            with RtspClient(url, timeout_s=0.4) as other, pytest.raises(TimeoutError):
                other.ask("OPTIONS")
            proxy.heal()
            client._socket.settimeout(2.0)
            client._fill()
            proxy.drip(20)
            before = proxy.to_client
            time.sleep(0.5)
            assert 2 <= proxy.to_client - before <= 15
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                client.collect(3.0)
        with RtspClient(url) as client:
            assert client.ask("OPTIONS").status == 200
            proxy.refuse()
            with pytest.raises((ClosedError, ConnectionResetError)):
                client.ask("OPTIONS")
        with pytest.raises(ConnectionRefusedError):
            RtspClient(url)
        proxy.heal()
        with RtspClient(url) as client:
            assert client.ask("OPTIONS").status == 200


def test_udp_media_come_with_reports(simulator: CameraSimulator) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reports, RtspClient(simulator.url("cam22")) as client:
        reports.bind(("127.0.0.1", 0))
        reports.settimeout(3.0)
        port = reports.getsockname()[1]
        answer = client.ask("SETUP", Transport=f"RTP/AVP;unicast;client_port={port - 1}-{port}")
        client.session = answer.headers["session"].partition(";")[0]
        assert "server_port=" in answer.headers["transport"]
        assert client.ask("PLAY").status == 200
        packet = reports.recv(2048)
        assert packet[1] == 200
        assert abs(struct.unpack(">Q", packet[8:16])[0] / 2**32 - 2_208_988_800 - time.time()) < 5
