"""Cameras over HTTP, from real servers on this machine: what they send, and what they must not get away with."""

import base64
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice, pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

import av
import cv2
import numpy as np
import pytest

from moodline.services.ingest.camera.http.source import open_http
from moodline.services.ingest.camera.input.egress import PolicyEgress
from moodline.services.ingest.camera.input.frames import LiveLimits, LiveSource
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.net_policy import net_policy_of

JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
MULTIPART = "multipart/x-mixed-replace; boundary=xx"
LIMITS = LiveLimits(open_timeout_s=3.0, read_timeout_s=1.5)
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers by path; notes what was asked with which `Authorization`."""

    protocol_version = "HTTP/1.1"
    server: "Camera"

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        try:
            self.server.answers[self.path](self)
        except OSError:
            self.close_connection = True

    def give(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Camera(ThreadingHTTPServer):
    """A server with one answer for each path."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.over = Event()
        Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """Clients go as they like."""


@pytest.fixture
def camera() -> Iterator[Camera]:
    with Camera() as made:
        yield made
        made.over.set()
        made.shutdown()


def opened(camera: Camera, target: str, limits: LiveLimits = LIMITS, **fields: Any) -> LiveSource:
    egress = PolicyEgress(net_policy_of("http,https", True, "", ""))
    return open_http(CameraAddress("http", "127.0.0.1", camera.server_port, target, **fields), egress, limits)


def failure(camera: Camera, target: str, limits: LiveLimits = LIMITS, **fields: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        opened(camera, target, limits, **fields)
    assert "canary" not in str(caught.value)
    return caught.value


def mjpeg(handler: Handler, frames: int = 5) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", MULTIPART)
    handler.end_headers()
    for _ in range(frames):
        handler.wfile.write(b"--xx\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG + b"\r\n")


def mjpeg_then_silence(handler: Handler) -> None:
    mjpeg(handler)
    handler.server.over.wait(10)


def test_mjpeg_plays_and_its_silence_is_a_timeout(camera: Camera) -> None:
    camera.answers["/"] = mjpeg_then_silence
    source = opened(camera, "/", LiveLimits(read_timeout_s=0.2))
    frames = []
    with pytest.raises(SourceError) as caught:
        frames.extend(source.frames())
    source.close()
    assert caught.value.reason == "timeout"
    assert len(frames) == 5
    assert frames[0].to_bgr().shape == (48, 64, 3)
    assert all(after.media_s > before.media_s for before, after in pairwise(frames))


def test_single_pictures_are_polled_at_most_five_times_a_second(camera: Camera) -> None:
    camera.answers["/s.jpg"] = lambda handler: handler.give(200, JPEG, Content_Type="image/jpeg")
    source = opened(camera, "/s.jpg")
    begin_s = time.monotonic()
    assert len(list(islice(source.frames(), 4))) == 4
    assert time.monotonic() - begin_s >= 0.5
    source.close()


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "auth"), (403, "auth"), (404, "not_found"), (503, "unreachable"), (204, "corrupt")]
)
def test_a_status_has_its_reason(camera: Camera, status: int, reason: str) -> None:
    camera.answers["/"] = lambda handler: handler.give(status, X="canary")
    assert failure(camera, "/").reason == reason


@pytest.mark.parametrize(
    "to",
    ["http://169.254.169.254/latest/meta-data", "http://[::ffff:169.254.169.254]/", "http://0xa9fea9fe/", "file:///etc/passwd"],
)
def test_redirects_to_forbidden_places_are_refused(camera: Camera, to: str) -> None:
    camera.answers["/"] = lambda handler: handler.give(302, Location=to)
    assert failure(camera, "/").reason == "forbidden_url"


def test_redirects_end(camera: Camera) -> None:
    camera.answers["/"] = lambda handler: handler.give(302, Location="/")
    assert failure(camera, "/").reason == "corrupt"
    assert len(camera.asked) == 6


def demanding(challenge: str) -> Answer:
    def answer(handler: Handler) -> None:
        if handler.headers.get("Authorization") is None:
            handler.give(401, WWW_Authenticate=challenge)
        else:
            mjpeg(handler)

    return answer


@pytest.mark.parametrize("challenge", ['Basic realm="x"', 'Digest realm="x", nonce="n", qop="auth", algorithm=SHA-256'])
def test_a_login_is_given_when_asked_for(camera: Camera, challenge: str) -> None:
    camera.answers["/a"] = demanding(challenge)
    opened(camera, "/a", username="jo", password="canary").close()
    assert camera.asked[0] == ("/a", None)
    given = str(camera.asked[1][1])
    if challenge.startswith("Basic"):
        assert given == "Basic " + base64.b64encode(b"jo:canary").decode()
    else:
        assert given.startswith("Digest ")
        assert 'uri="/a"' in given
        assert "canary" not in given


def test_a_login_stays_with_its_origin(camera: Camera) -> None:
    with Camera() as other:
        other.answers["/"] = demanding('Basic realm="x"')
        camera.answers["/"] = lambda handler: handler.give(302, Location=f"http://127.0.0.1:{other.server_port}/")
        assert failure(camera, "/", username="jo", password="canary").reason == "auth"
        assert other.asked == [("/", None)]
        other.shutdown()


def test_a_wrong_password_is_tried_a_bounded_number_of_times(camera: Camera) -> None:
    camera.answers["/"] = lambda handler: handler.give(401, WWW_Authenticate='Digest realm="x", nonce="n", stale=true')
    assert failure(camera, "/", username="jo", password="canary").reason == "auth"
    assert len(camera.asked) <= 3


def drip(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", MULTIPART)
    handler.end_headers()
    while not handler.server.over.wait(0.05):
        handler.wfile.write(b"a")


@pytest.mark.parametrize("answer", [drip, lambda handler: handler.server.over.wait(10)])
def test_drips_and_hangs_end_in_time(camera: Camera, answer: Answer) -> None:
    camera.answers["/"] = answer
    begin_s = time.monotonic()
    assert failure(camera, "/", LiveLimits(open_timeout_s=0.4)).reason == "timeout"
    assert time.monotonic() - begin_s < 2


def test_garbage_and_pages_are_told_apart(camera: Camera) -> None:
    camera.answers["/raw"] = lambda handler: handler.wfile.write(b"\x00canary\r\n\r\n") and None
    camera.answers["/page"] = lambda handler: handler.give(200, b"<html>canary", Content_Type="text/html")
    camera.answers["/zip"] = lambda handler: handler.give(200, b"x", Content_Encoding="gzip")
    assert failure(camera, "/raw").reason in ("corrupt", "unreachable")
    assert failure(camera, "/page").reason == "codec"
    assert failure(camera, "/zip").reason == "corrupt"


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """Three segments of a second at 25 fps, as MPEG-TS and as fragmented MP4."""
    folder = tmp_path_factory.mktemp("hls")
    return {name: [segment(folder / f"{number}.{name}", name, number * 25) for number in range(3)] for name in ("mpegts", "mp4")}


def segment(path: Path, container_format: str, first: int) -> bytes:
    options = {"movflags": "frag_keyframe+empty_moov"} if container_format == "mp4" else {"mpegts_copyts": "1"}
    with av.open(str(path), "w", format=container_format, options=options) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "25", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for at in range(first, first + 25):
            frame = av.VideoFrame.from_ndarray(np.full((96, 96), 60 + at % 90, np.uint8), format="yuv420p")
            frame.pts, frame.time_base = at, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def playlist(uris: list[str], extra: str = "") -> bytes:
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z", extra]
    lines += [line for uri in uris for line in ("#EXTINF:1.0,", uri)]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()


@pytest.mark.parametrize("kind", ["mpegts", "mp4"])
def test_hls_plays_at_its_pace_from_the_last_segment_but_one(camera: Camera, segments: dict[str, list[bytes]], kind: str) -> None:
    master = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=640x360\nsub/live.m3u8\n"
    camera.answers["/m.m3u8?t=canary"] = lambda handler: handler.give(200, master)
    camera.answers["/sub/live.m3u8"] = lambda handler: handler.give(200, playlist(["0", "1", "2"]))
    for number, data in enumerate(segments[kind]):
        camera.answers[f"/sub/{number}"] = lambda handler, data=data: handler.give(200, data)
    source = opened(camera, "/m.m3u8?t=canary")
    begin_s = time.monotonic()
    frames = []
    with pytest.raises(SourceError) as caught:
        frames.extend(source.frames())
    elapsed_s = time.monotonic() - begin_s
    source.close()
    assert caught.value.reason == "unreachable"
    assert len(frames) == 50
    assert 1.7 < elapsed_s < 3
    assert all(after.media_s - before.media_s == Fraction(1, 25) for before, after in pairwise(frames))
    assert frames[0].camera_s == pytest.approx(1767225601.0)
    assert frames[0].to_bgr().shape == (64, 96, 3)
    assert "/sub/0" not in [path for path, _ in camera.asked]


def test_a_live_playlist_that_grows_is_followed(camera: Camera, tmp_path: Path) -> None:
    """Three segments are listed at a time, and each second a newer one takes the place of the oldest."""
    begin_s = time.monotonic()

    def answer(handler: Handler) -> None:
        first = min(5, int(time.monotonic() - begin_s))
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        lines += [line for number in range(first, first + 3) for line in ("#EXTINF:1.0,", f"live/{number}.ts?x={number}")]
        handler.give(200, "\n".join([*lines, ""]).encode(), Content_Type="application/vnd.apple.mpegurl")

    camera.answers["/live"] = answer
    for number in range(8):
        data = segment(tmp_path / f"{number}.ts", "mpegts", number * 25)
        camera.answers[f"/live/{number}.ts?x={number}"] = lambda handler, data=data: handler.give(200, data)
    begin_s = time.monotonic()
    source = opened(camera, "/live")
    frames = list(islice(source.frames(), 110))
    source.close()
    assert 3.5 < time.monotonic() - begin_s < 7.0
    assert all(after.media_s - before.media_s == Fraction(1, 25) for before, after in pairwise(frames)), "no frame is left out"
    assert sum(path == "/live" for path, _ in camera.asked) >= 3
    fetched = [path for path, _ in camera.asked if path != "/live"]
    assert len(fetched) == len(set(fetched)), "no segment is fetched twice"


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://169.254.169.254/a.ts", "forbidden_url"),
        ("file:///etc/passwd", "forbidden_url"),
        ("data:video/mp2t;base64,AAAA", "forbidden_url"),
        ("concat:a.ts|b.ts", "forbidden_url"),
        ("subfile,,start,0,end,9,,:/etc/passwd", "forbidden_url"),
    ],
)
def test_segments_from_forbidden_places_are_refused(camera: Camera, uri: str, reason: str) -> None:
    camera.answers["/x.m3u8"] = lambda handler: handler.give(200, playlist([uri]))
    assert failure(camera, "/x.m3u8").reason == reason


def test_encrypted_hls_is_named(camera: Camera) -> None:
    camera.answers["/x"] = lambda handler: handler.give(200, playlist(["0"], '#EXT-X-KEY:METHOD=SAMPLE-AES,URI="canary"'))
    assert failure(camera, "/x").reason == "codec"
