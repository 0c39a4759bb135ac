"""What a camera may answer, by a scripted camera on a socket pair's worth of loopback."""

import contextlib
import ipaddress
import itertools
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from moodline.services.ingest.camera.input.frames import FrameGap, LiveFrame, LiveLimits
from moodline.services.ingest.camera.rtsp.source import open_rtsp
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.net_policy import NetPolicy
from moodline.shared.streams import Transport

Handler = Callable[[str, str, dict[str, str]], bytes]
LIMITS = LiveLimits(open_timeout_s=1.5, read_timeout_s=0.7)
SDP = "v=0\r\nm=audio 0 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track1\r\na=framerate:25\r\n"


class LoopbackEgress:
    """Leads every name to one port of this machine; notes what was asked for."""

    def __init__(self, port: int) -> None:
        self.policy = NetPolicy(frozenset({"rtsp", "rtsps"}))
        self.asked: list[tuple[str, int, str | None]] = []
        self._port = port

    def connect(self, host: str, port: int, timeout_s: float, *, redirected_from: str | None = None) -> socket.socket:
        self.asked.append((host, port, redirected_from))
        return socket.create_connection(("127.0.0.1", self._port), timeout_s)

    def wrap_tls(self, plain: socket.socket, host: str, *, verify: bool, ca_file: Path | None = None) -> ssl.SSLSocket:
        raise SourceError("tls", "no TLS here")

    def peer_address(self, connected: socket.socket) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        return ipaddress.ip_address(connected.getpeername()[0])


class StubCamera:
    """Answers requests as told; `media` is sent after PLAY, then the connection stays as it is, or is closed."""

    def __init__(self, handler: Handler | None = None, media: bytes = b"", stays: bool = True, gap_s: float = 0.0) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._handler = handler or answer
        self._media, self._stays, self._gap_s = media, stays, gap_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.egress = LoopbackEgress(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with_shutdown(one)

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connected)
            threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        held = b""
        try:
            while data := connected.recv(65536):
                held += data
                while held.startswith(b"$") and len(held) >= 4 + held[3]:
                    held = held[4 + held[3] :]
                while b"\r\n\r\n" in held and not held.startswith(b"$"):
                    head, held = held.split(b"\r\n\r\n", 1)
                    first, *lines = head.decode().split("\r\n")
                    method, url, _ = first.split(" ")
                    headers = dict(line.split(": ", 1) for line in lines)
                    self.requests.append((method, url, headers))
                    connected.sendall(self._handler(method, url, headers))
                    if method == "PLAY":
                        self._play(connected)
        except (OSError, ValueError):
            pass

    def _play(self, connected: socket.socket) -> None:
        if self._gap_s:
            for at in range(len(self._media)):
                connected.sendall(self._media[at : at + 1])
                time.sleep(self._gap_s)
        connected.sendall(self._media)
        if not self._stays:
            with_shutdown(connected)


def with_shutdown(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def reply(headers: dict[str, str], status: int = 200, body: str = "", **fields: str) -> bytes:
    named = {"CSeq": headers.get("CSeq", ""), **{key.replace("_", "-"): value for key, value in fields.items()}}
    lines = [f"RTSP/1.0 {status} canary-of-the-camera", *(f"{key}: {value}" for key, value in named.items())]
    return ("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]) + body).encode()


def answer(method: str, url: str, headers: dict[str, str]) -> bytes:
    if method == "DESCRIBE":
        return reply(headers, body=SDP)
    if method == "SETUP":
        return reply(headers, Session="abc;timeout=2", Transport="RTP/AVP/TCP;unicast;interleaved=4-5")
    return reply(headers, Public="DESCRIBE, GET_PARAMETER")


def media(frames: int = 1, *, channel: int = 4, ssrc: int = 7) -> bytes:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base, encoder.gop_size = Fraction(1, 25), 5
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
    out, sequence = b"", 65_530
    for number in range(frames):
        frame = av.VideoFrame(64, 48, "yuv420p")
        frame.pts = number
        for packet in encoder.encode(frame):
            nals = [nal for nal in bytes(packet).replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if nal]
            for at, nal in enumerate(nals):
                marker = 0x80 if at == len(nals) - 1 else 0
                rtp = (
                    struct.pack(">BBHII", 0x80, 96 | marker, sequence & 0xFFFF, (2**32 - 3600 + 3600 * number) % 2**32, ssrc)
                    + nal
                )
                out += struct.pack(">BBH", 0x24, channel, len(rtp)) + rtp
                sequence += 1
    return out


@pytest.fixture
def camera() -> Iterator[Callable[..., StubCamera]]:
    made: list[StubCamera] = []

    def make(*args: object, **kwargs: object) -> StubCamera:
        made.append(StubCamera(*args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


Make = Callable[..., StubCamera]
ADDRESS = CameraAddress("rtsp", "cam.example", 554, "/live?token=x", "user", "canary-password")


def _reason(stub: StubCamera, address: CameraAddress = ADDRESS, limits: LiveLimits = LIMITS) -> str:
    with pytest.raises(SourceError) as caught:
        open_rtsp(address, stub.egress, limits)
    assert "canary" not in str(caught.value)
    return caught.value.reason


def test_a_whole_session(camera: Make) -> None:
    stub = camera(media=media(12))
    source = open_rtsp(ADDRESS, stub.egress, LIMITS)
    frames = list(itertools.islice(source.frames(), 12))
    steps = {later.media_s - earlier.media_s for earlier, later in itertools.pairwise(frames)}
    assert steps == {Fraction(1, 25)}
    assert (source.info.codec, source.info.width, source.info.height, source.info.fps) == ("h264", 64, 48, 25)
    assert (source.counts.decoded, source.counts.lost_packets) == (12, 0)
    source.close()
    source.close()
    base = "rtsp://cam.example:554/live?token=x"
    seen = [(method, url) for method, url, _ in stub.requests[:4]]
    assert seen == [("OPTIONS", base), ("DESCRIBE", base), ("SETUP", base + "/track1"), ("PLAY", base)]
    assert stub.requests[3][2]["Session"] == "abc"
    assert not any("Authorization" in headers for _, _, headers in stub.requests)


def test_keep_alives_and_the_read_time_out_of_a_silent_camera(camera: Make) -> None:
    stub = camera(media=media(2))
    source = open_rtsp(ADDRESS, stub.egress, LiveLimits(1.5, 1.7))
    began_s = time.monotonic()
    with pytest.raises(SourceError) as caught:
        list(source.frames())
    assert caught.value.reason == "timeout"
    assert 1.5 < time.monotonic() - began_s < 3
    source.close()
    assert ("GET_PARAMETER", "rtsp://cam.example:554/live?token=x") in [request[:2] for request in stub.requests]


@pytest.mark.parametrize("drip", [b"$\x04\xff\xff" + bytes(100), b"$\x05\0\x04abcd" * 40, b"\r\n" * 200])
def test_bytes_that_are_no_frames_do_not_count(camera: Make, drip: bytes) -> None:
    assert _reason(camera(media=drip, gap_s=0.02), limits=LiveLimits(0.8, 5.0)) == "timeout"


def test_a_camera_that_drips_after_its_first_frames_times_out(camera: Make) -> None:
    stub = camera(media=media(2) + b"$\5\0\1x" * 100_000)
    source = open_rtsp(ADDRESS, stub.egress, LIMITS)
    with pytest.raises(SourceError) as caught:
        list(source.frames())
    assert caught.value.reason == "timeout"
    source.close()


def test_a_camera_that_hangs_up_is_unreachable(camera: Make) -> None:
    source = open_rtsp(ADDRESS, camera(media=media(2), stays=False).egress, LIMITS)
    with pytest.raises(SourceError) as caught:
        list(source.frames())
    assert caught.value.reason == "unreachable"
    source.close()


def test_a_bye_ends_the_stream(camera: Make) -> None:
    bye = struct.pack(">BBHBBHI", 0x24, 5, 8, 0x81, 203, 1, 7)
    source = open_rtsp(ADDRESS, camera(media=media(2) + bye).egress, LIMITS)
    with pytest.raises(SourceError, match="ended the stream") as caught:
        list(source.frames())
    assert caught.value.reason == "unreachable"
    source.close()


def test_another_sender_goes_on_at_a_keyframe(camera: Make) -> None:
    source = open_rtsp(ADDRESS, camera(media=media(3) + media(5, ssrc=8)).egress, LIMITS)
    frames = source.frames()
    assert len(list(itertools.islice(frames, 8))) == 8
    with pytest.raises(SourceError):
        next(frames)
    assert source.counts.lost_packets == 0
    source.close()


def test_another_thread_may_shut_the_socket_down(camera: Make) -> None:
    source = open_rtsp(ADDRESS, camera(media=media(2)).egress, LiveLimits(2, 30))
    threading.Timer(0.2, source._session.connection.socket.shutdown, (socket.SHUT_RDWR,)).start()
    began_s = time.monotonic()
    with pytest.raises(SourceError):
        list(source.frames())
    assert time.monotonic() - began_s < 2
    source.close()


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "auth"), (403, "auth"), (404, "not_found"), (454, "not_found"), (500, "unreachable"), (503, "unreachable"),
     (415, "codec"), (461, "unreachable"), (400, "unreachable")],
)  # fmt: skip
def test_refusals(camera: Make, status: int, reason: str) -> None:
    stub = camera(lambda method, url, headers: reply(headers, status if method == "DESCRIBE" else 501))
    assert _reason(stub) == reason


@pytest.mark.parametrize(
    ("nonsense", "reason"),
    [(b"HTTP/1.1 400 Bad\r\n\r\n", "corrupt"), (b"\0\1\2", "corrupt"), (b"", "timeout"), (b"R" * 40_000, "corrupt")],
)
def test_answers_that_make_no_sense(camera: Make, nonsense: bytes, reason: str) -> None:
    assert _reason(camera(lambda *_: nonsense), limits=LiveLimits(0.6, 5)) == reason


def test_a_password_is_tried_once_per_challenge_and_never_in_a_url(camera: Make) -> None:
    numbers = iter(range(100))

    def handler(method: str, url: str, headers: dict[str, str]) -> bytes:
        if method == "OPTIONS":
            return answer(method, url, headers)
        return reply(headers, 401, WWW_Authenticate=f'Digest realm="r", nonce="n{next(numbers)}"')

    stub = camera(handler)
    assert _reason(stub) == "auth"
    sent = [headers.get("Authorization", "") for method, _, headers in stub.requests if method == "DESCRIBE"]
    assert len(sent) == 2
    assert "canary" not in repr(stub.requests)


def test_a_stale_nonce_is_answered_anew(camera: Make) -> None:
    def handler(method: str, url: str, headers: dict[str, str]) -> bytes:
        sent = headers.get("Authorization", "")
        nonce = "late" if method in {"SETUP", "PLAY"} else "early"
        if f'nonce="{nonce}"' in sent:
            return answer(method, url, headers)
        stale = ", stale=true" if sent else ""
        return reply(headers, 401, WWW_Authenticate=f'Digest realm="r", nonce="{nonce}", qop="auth"{stale}')

    stub = camera(handler, media(2))
    open_rtsp(ADDRESS, stub.egress, LIMITS).close()
    assert 'nonce="late"' in stub.requests[-1][2]["Authorization"] or stub.requests[-1][0] == "TEARDOWN"


def test_a_redirect_goes_through_the_policy_and_takes_no_password_elsewhere(camera: Make) -> None:
    def handler(method: str, url: str, headers: dict[str, str]) -> bytes:
        if method == "DESCRIBE" and "cam.example" in url:
            return reply(headers, 302, Location="rtsp://u:p@other.example:8554/x")
        if method == "DESCRIBE" and "Authorization" not in headers:
            return reply(headers, 401, WWW_Authenticate='Basic realm="r"')
        return answer(method, url, headers)

    stub = camera(handler)
    assert _reason(stub) == "auth"
    assert stub.egress.asked == [("cam.example", 554, None), ("other.example", 8554, "cam.example")]
    assert stub.requests[-1][1] == "rtsp://other.example:8554/x"


def test_redirects_end(camera: Make) -> None:
    stub = camera(lambda method, url, headers: reply(headers, 301, Location="rtsp://cam.example/again"))
    assert _reason(stub) == "unreachable"
    assert len(stub.egress.asked) == 4


def _without(stream: bytes, number: int) -> bytes:
    """Return interleaved packets without one of them."""
    packets = []
    while stream:
        end = 4 + struct.unpack(">H", stream[2:4])[0]
        packets.append(stream[:end])
        stream = stream[end:]
    del packets[number]
    return b"".join(packets)


def test_a_lost_packet_stops_the_frames_until_the_next_keyframe(camera: Make) -> None:
    # Keyframes are at 0, 5 and 10.
    whole = media(14)
    packets = 0
    rest = whole
    while rest:
        rest = rest[4 + struct.unpack(">H", rest[2:4])[0] :]
        packets += 1
    source = open_rtsp(ADDRESS, camera(media=_without(whole, packets // 2)).egress, LIMITS)
    frames = list(_until_error(source.frames()))
    places = [round((frame.media_s - frames[0].media_s) * 25) for frame in frames]
    missing = sorted(set(range(14)) - set(places))
    assert source.counts.lost_packets == 1
    assert missing
    # What is missing reaches from the loss up to a keyframe.
    assert missing == list(range(missing[0], missing[-1] + 1))
    assert (missing[-1] + 1) % 5 == 0
    source.close()


def _until_error(frames: Iterator[LiveFrame]) -> Iterator[LiveFrame]:
    try:
        yield from frames
    except SourceError:
        return


@pytest.mark.parametrize(("sender", "arrives"), [("127.0.0.1", True), ("127.0.0.2", False)])
def test_datagrams_are_taken_from_the_camera_alone(camera: Make, sender: str, arrives: bool) -> None:
    ports: list[int] = []

    def handler(method: str, url: str, headers: dict[str, str]) -> bytes:
        if method == "SETUP":
            ports.append(int(headers["Transport"].partition("client_port=")[2].partition("-")[0]))
            return reply(headers, Session="abc", Transport=headers["Transport"] + ";server_port=9-10")
        if method == "PLAY":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                datagrams.bind((sender, 0))
                stream = media(3)
                while stream:
                    end = 4 + struct.unpack(">H", stream[2:4])[0]
                    datagrams.sendto(stream[4:end], ("127.0.0.1", ports[0]))
                    stream = stream[end:]
        return answer(method, url, headers)

    stub = camera(handler)
    address = replace(ADDRESS, transport=Transport.UDP)
    if not arrives:
        assert _reason(stub, address, LiveLimits(0.8, 5)) == "timeout"
        return
    source = open_rtsp(address, stub.egress, LIMITS)
    assert len(list(itertools.islice(source.frames(), 3))) == 3
    source.close()


def test_datagrams_from_an_announced_source_are_taken(camera: Make) -> None:
    ports: list[int] = []

    def handler(method: str, url: str, headers: dict[str, str]) -> bytes:
        if method == "SETUP":
            ports.append(int(headers["Transport"].partition("client_port=")[2].partition("-")[0]))
            return reply(headers, Session="abc", Transport=headers["Transport"] + ";source=127.0.0.2;server_port=9-10")
        if method == "PLAY":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                datagrams.bind(("127.0.0.2", 0))
                stream = media(3)
                while stream:
                    end = 4 + struct.unpack(">H", stream[2:4])[0]
                    datagrams.sendto(stream[4:end], ("127.0.0.1", ports[0]))
                    stream = stream[end:]
        return answer(method, url, headers)

    source = open_rtsp(replace(ADDRESS, transport=Transport.UDP), camera(handler).egress, LIMITS)
    assert len(list(itertools.islice(source.frames(), 3))) == 3
    source.close()


@pytest.mark.parametrize("number", ["0", "7", ""])
def test_numbers_of_answers_do_not_matter(camera: Make, number: str) -> None:
    def handler(method: str, url: str, headers: dict[str, str]) -> bytes:
        return answer(method, url, headers | {"CSeq": number})

    open_rtsp(ADDRESS, camera(handler, media(2)).egress, LIMITS).close()


@pytest.mark.parametrize("mute", ["OPTIONS", "PLAY"])
def test_what_is_never_answered_is_not_waited_for(camera: Make, mute: str) -> None:
    stub = camera(lambda method, url, headers: b"" if method == mute else answer(method, url, headers), media(2))
    open_rtsp(ADDRESS, stub.egress, LiveLimits(6.0, 2.0)).close()


def test_the_silence_that_is_borne_grows_with_the_distance_of_frames() -> None:
    gap = FrameGap(LiveLimits(10.0, 5.0, first_frame_timeout_s=30.0))
    gap.frame(100.0)
    assert gap.limit_s == 30.0
    gap.frame(110.0)
    assert gap.limit_s == 25.0
    for number in range(10):
        gap.frame(110.04 + number / 25)
    assert gap.limit_s == 5.0


def test_media_on_another_channel_than_was_agreed(camera: Make) -> None:
    source = open_rtsp(ADDRESS, camera(media=media(60, channel=2)).egress, LIMITS)
    assert next(iter(source.frames())).width == 64
    source.close()


def test_a_camera_that_hangs_up_when_it_is_asked_what_it_can(camera: Make) -> None:
    def refuses(method: str, url: str, headers: dict[str, str]) -> bytes:
        if method == "OPTIONS":
            raise OSError
        return answer(method, url, headers)

    stub = camera(refuses, media=media(6))
    original = stub._serve

    def serve(connected: socket.socket) -> None:
        original(connected)
        with_shutdown(connected)

    stub._serve = serve  # type: ignore[method-assign]
    source = open_rtsp(ADDRESS, stub.egress, LIMITS)
    assert next(iter(source.frames())).width == 64
    source.close()


def test_a_description_without_a_length(camera: Make) -> None:
    def describes(method: str, url: str, headers: dict[str, str]) -> bytes:
        if method != "DESCRIBE":
            return answer(method, url, headers)
        return f"RTSP/1.0 200 OK\r\nCSeq: {headers['CSeq']}\r\nContent-Type: application/sdp\r\n\r\n{SDP}".encode()

    source = open_rtsp(ADDRESS, camera(describes, media=media(6)).egress, LIMITS)
    assert next(iter(source.frames())).width == 64
    source.close()
