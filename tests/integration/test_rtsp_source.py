"""Cameras by GStreamer's RTSP server: another implementation than ours."""

import datetime
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from moodline.services.ingest.camera.input.egress import PolicyEgress
from moodline.services.ingest.camera.input.frames import LiveFrame, LiveLimits, LiveSource
from moodline.services.ingest.camera.rtsp.source import open_rtsp
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.net_policy import NetPolicy
from moodline.shared.streams import Transport
from tests.support.gst_rtsp import GstRtspServer, clip_camera, gst_rtsp_server, pattern_camera

CODECS = {"h264": "h264", "h265": "hevc", "jpeg": "mjpeg"}


EGRESS = PolicyEgress(NetPolicy(frozenset({"rtsp", "rtsps"})))


@pytest.fixture(scope="module")
def cameras() -> Iterator[GstRtspServer]:
    with gst_rtsp_server({f"/{codec}": pattern_camera(codec) for codec in CODECS}) as server:
        yield server


def _open(server: GstRtspServer, path: str, login: tuple[str, str] | None = None, **fields: object) -> LiveSource:
    user, password = login or (None, None)
    address = CameraAddress("rtsp", "127.0.0.1", server.port, path, user, password)
    for name, value in fields.items():
        object.__setattr__(address, name, value)
    return open_rtsp(address, EGRESS, LiveLimits(10, 3))


def _take(source: LiveSource, count: int) -> list[LiveFrame]:
    return list(itertools.islice(source.frames(), count))


@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("codec", CODECS)
def test_frames_come_in_order_and_at_their_rate(cameras: GstRtspServer, codec: str, transport: Transport) -> None:
    source = _open(cameras, f"/{codec}", transport=transport)
    frames = _take(source, 20)
    steps_s = [float(later.media_s - earlier.media_s) for earlier, later in itertools.pairwise(frames)]
    assert all(step_s == pytest.approx(0.04, abs=0.002) for step_s in steps_s)
    assert (source.info.codec, source.info.width, source.info.height, source.info.fps) == (CODECS[codec], 320, 240, 25)
    assert abs(frames[-1].arrived_s - time.time()) < 2
    assert source.counts.damaged == source.counts.lost_packets == 0
    # A white ball of 40 px across on black.
    picture = frames[-1].to_bgr()
    assert 700 < int((picture[..., 1] > 128).sum()) < 2000
    began_s = time.monotonic()
    source.close()
    assert time.monotonic() - began_s < 0.3


def test_the_cameras_own_time_comes_with_its_reports(cameras: GstRtspServer) -> None:
    source = _open(cameras, "/h264")
    timed = next(frame for frame in itertools.islice(source.frames(), 250) if frame.camera_s is not None)
    assert timed.camera_s == pytest.approx(timed.arrived_s, abs=0.5)
    source.close()


def test_a_missing_path(cameras: GstRtspServer) -> None:
    with pytest.raises(SourceError) as caught:
        _open(cameras, "/none")
    assert caught.value.reason == "not_found"


@pytest.mark.parametrize("digest", [False, True])
def test_log_in(digest: bool) -> None:
    with gst_rtsp_server({"/a": pattern_camera()}, login=("jo@n", "p:w/1"), digest=digest) as server:
        source = _open(server, "/a", ("jo@n", "p:w/1"))
        assert len(_take(source, 3)) == 3
        source.close()
        for login in (("jo@n", "wrong"), None):
            with pytest.raises(SourceError) as caught:
                _open(server, "/a", login)
            assert caught.value.reason == "auth"


def test_a_server_that_is_killed_and_comes_back() -> None:
    with gst_rtsp_server({"/a": pattern_camera()}) as server:
        source = _open(server, "/a")
        frames = source.frames()
        next(frames)
        server.kill()
        with pytest.raises(SourceError) as caught:
            list(frames)
        assert caught.value.reason == "unreachable"
        source.close()
        with pytest.raises(SourceError) as refused:
            _open(server, "/a")
        assert refused.value.reason == "unreachable"
        server.start()
        again = _open(server, "/a")
        assert len(_take(again, 3)) == 3
        again.close()


def _certificate(folder: Path) -> Path:
    """Write a certificate of its own for another name, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "camera.example")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=2)).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder / "camera.pem"
    path.write_bytes(signed.public_bytes(Encoding.PEM) + key_pem)
    return path


def test_tls(tmp_path: Path) -> None:
    with gst_rtsp_server({"/a": pattern_camera()}, certificate=_certificate(tmp_path)) as server:
        source = _open(server, "/a", scheme="rtsps", tls_verify=False)
        assert len(_take(source, 10)) == 10
        source.close()
        with pytest.raises(SourceError) as caught:
            _open(server, "/a", scheme="rtsps")
        assert caught.value.reason == "tls"


@pytest.mark.material
def test_a_clip(material: Path) -> None:
    with gst_rtsp_server({"/clip": clip_camera(material / "clips" / "man-expressions.mp4")}) as server:
        source = _open(server, "/clip")
        assert (source.info.width, source.info.height) == (640, 360)
        assert len(_take(source, 30)) == 30
        source.close()
