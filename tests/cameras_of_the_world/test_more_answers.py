"""Tables of further answers, packets and clocks of cameras. README.md beside this file says where each was reported."""

import io
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import islice

import av
import numpy as np
import pytest

from moodline.services.ingest.camera.input.egress import PolicyEgress
from moodline.services.ingest.camera.input.frames import LiveLimits
from moodline.services.ingest.camera.rtsp.source import open_rtsp
from moodline.services.ingest.live.capture_clock import CaptureClock
from moodline.shared.camera import CameraAddress
from moodline.shared.net_policy import net_policy_of

Answer = Callable[[str, str, bytes, dict[str, int]], bytes | None]
LIMITS = LiveLimits(20.0, 10.0, first_frame_timeout_s=20.0)
FRAMES = 20


def packets(codec: str, container: str = "rtp", **options: str) -> list[bytes]:
    """What FFmpeg's own muxer sends for 25 small frames: packets of RTP, or a transport stream in pieces of 7."""
    written: list[bytes] = []

    class Sink(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            written.append(bytes(data))  # type: ignore[call-overload]
            return len(written[-1])

    muxed = av.open(Sink(), "w", format=container, options={"packetsize": "1400", **options} if container == "rtp" else {})
    stream = muxed.add_stream(codec, rate=25)
    stream.width, stream.height, stream.pix_fmt = 176, 144, "yuv420p"  # type: ignore[union-attr]
    stream.codec_context.gop_size = 10  # type: ignore[union-attr]
    if codec == "libx264":
        stream.codec_context.options = {"preset": "ultrafast", "tune": "zerolatency"}
    noise = np.random.default_rng(1).integers(0, 255, (144, 176, 3), np.uint8)
    for number in range(25):
        frame = av.VideoFrame.from_ndarray(np.roll(noise, number, 1), "rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        muxed.mux(stream.encode(frame))  # type: ignore[union-attr]
    muxed.mux(stream.encode(None))  # type: ignore[union-attr]
    muxed.close()
    if container == "rtp":
        return [one for one in written if not 192 <= one[1] <= 223]
    data = b"".join(written)
    pieces = [data[at : at + 7 * 188] for at in range(0, len(data), 7 * 188)]
    return [struct.pack(">BBHII", 0x80, 33, number, number * 900, 7) + one for number, one in enumerate(pieces)]


def described(packet: bytes, name: str) -> bytes:
    kind = packet[1] & 0x7F
    return f"v=0\r\nt=0 0\r\nm=video 0 RTP/AVP {kind}\r\na=rtpmap:{kind} {name}/90000\r\na=control:track1\r\n".encode()


def usual(head: str, body: bytes) -> bytes:
    number = re.search(r"(?i)cseq: *(\d+)", head)
    assert number is not None
    fields = {"CSeq": number[1], "Session": "1"}
    if head.startswith("DESCRIBE"):
        fields |= {"Content-Type": "application/sdp", "Content-Length": str(len(body))}
    lines = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
    return f"RTSP/1.0 200 OK\r\n{lines}\r\n".encode() + (body if "Content-Length" in fields else b"")


@pytest.fixture
def serve() -> Iterator[Callable[[bytes, list[bytes], Answer], int]]:
    """Return a function that starts a camera which answers as told, and sends these packets over TCP; it returns the port."""
    opened: list[socket.socket] = []

    def start(sdp: bytes, media: list[bytes], answer: Answer) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        opened.append(listener)
        counts: dict[str, int] = {}

        def talk(connected: socket.socket) -> None:
            held = b""
            with suppress(OSError):
                while data := connected.recv(65_536):
                    held += data
                    while b"\r\n\r\n" in held:
                        head, _, held = held.partition(b"\r\n\r\n")
                        text = head.decode()
                        method = text.split(" ")[0].rpartition("\n")[2]
                        counts[method] = counts.get(method, 0) + 1
                        said = answer(method, text, usual(text, sdp), counts)
                        if said is None:
                            connected.shutdown(socket.SHUT_RDWR)
                            return
                        connected.sendall(said)
                        if method == "PLAY" and b" 200 OK" in said:
                            connected.sendall(b"".join(b"$\0" + struct.pack(">H", len(one)) + one for one in media))

        def accept() -> None:
            while True:
                try:
                    connected, _ = listener.accept()
                except OSError:
                    return
                opened.append(connected)
                threading.Thread(target=talk, args=(connected,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for one in opened:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@pytest.fixture(scope="module")
def h264() -> list[bytes]:
    return packets("libx264")


def frames_of(port: int) -> int:
    address = CameraAddress("rtsp", "127.0.0.1", port, "/live", username="viewer", password="pw")
    source = open_rtsp(address, PolicyEgress(net_policy_of("rtsp", True, "", "")), LIMITS)
    try:
        return len(list(islice(source.frames(), FRAMES)))
    finally:
        source.close()


def refusing(method: str, status: int, when: Callable[[str], bool]) -> Answer:
    return lambda asked, head, said, _: said.replace(b"200", b"%d" % status) if asked == method and when(head) else said


def challenged(asked: str, head: str, said: bytes, counts: dict[str, int]) -> bytes | None:
    if asked != "DESCRIBE" or "Authorization" in head:
        return said
    return said.replace(b"200 OK", b'401 No\r\nWWW-Authenticate: Digest realm="r", nonce="n"')


def hanging_up(asked: str, head: str, said: bytes, counts: dict[str, int]) -> bytes | None:
    """Asks to log in, and hangs up when it is asked again on that connection."""
    if asked == "OPTIONS" and counts.get("DESCRIBE"):
        return None
    return None if counts.get("DESCRIBE") == 2 and asked == "DESCRIBE" else challenged(asked, head, said, counts)


ANSWERS: dict[str, Answer] = {
    "twice": lambda asked, head, said, _: said + said if asked != "PLAY" else said,
    "no blank in the status": lambda asked, head, said, _: said.replace(b"200 OK", b"200OK", asked != "PLAY"),
    "length in words": lambda asked, head, said, _: re.sub(rb"Length: (\d+)", rb"Length: \1 bytes", said),
    "length of -1": lambda asked, head, said, _: re.sub(rb"Length: (\d+)", rb"Length: -1", said),
    "no length, no type": lambda asked, head, said, _: re.sub(rb"Content-[TL].*\r\n", b"", said),
    "a greeting": lambda asked, head, said, counts: b"220 hello\r\n" + said if asked == "OPTIONS" else said,
    "hangs up after OPTIONS": lambda asked, head, said, counts: None if asked == "OPTIONS" else said,
    "hangs up after a challenge": hanging_up,
    "403 with a challenge": lambda *asked: (challenged(*asked) or b"").replace(b" 401 ", b" 403 "),
    "PLAY without a range": refusing("PLAY", 457, lambda head: "Range" in head),
    "PLAY of the track": refusing("PLAY", 459, lambda head: "/track1 " not in head),
    "SETUP of the session": refusing("SETUP", 404, lambda head: "/track1 " in head),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(serve: Callable[[bytes, list[bytes], Answer], int], h264: list[bytes], name: str) -> None:
    assert frames_of(serve(described(h264[0], "H264"), h264 * 2, ANSWERS[name])) == FRAMES


def header(packet: bytes, sequence: int | None = None, ssrc: int | None = None) -> bytes:
    flags, kind, number, stamp, sender = struct.unpack(">BBHII", packet[:12])
    return struct.pack(">BBHII", flags, kind, number if sequence is None else sequence, stamp, sender if ssrc is None else ssrc)


MANGLED: dict[str, Callable[[int, bytes], bytes]] = {
    "one number for all": lambda _, one: header(one, 7) + one[12:],
    "numbers by twos": lambda place, one: header(one, 2 * place & 0xFFFF) + one[12:],
    "random numbers": lambda place, one: header(one, place * 25_173 + 13_849 & 0xFFFF) + one[12:],
    "another sender each time": lambda place, one: header(one, ssrc=place) + one[12:],
    "another sender each 10 packets": lambda place, one: header(one, ssrc=place // 10) + one[12:],
    "start bit on every fragment": lambda _, one: one[:13] + bytes((one[13] | 0x80,)) + one[14:] if one[12] & 31 == 28 else one,
}


@pytest.mark.parametrize("name", MANGLED)
def test_packets(serve: Callable[[bytes, list[bytes], Answer], int], h264: list[bytes], name: str) -> None:
    numbered = [header(one, place & 0xFFFF) + one[12:] for place, one in enumerate(h264 * 6)]
    media = [MANGLED[name](place, one) for place, one in enumerate(numbered)]
    sdp = described(h264[0], "H264").replace(b"a=control", b"a=fmtp:96 packetization-mode=2\r\na=control")
    assert frames_of(serve(sdp, media, lambda _method, _head, said, _counts: said)) == FRAMES


@pytest.mark.parametrize(
    ("encoder", "name", "options"),
    [
        ("libvpx", "VP8", {}),
        ("mpeg2video", "MPV", {}),
        ("mpeg1video", "MPV", {}),
        ("h263", "H263-1998", {}),
        ("h263p", "H263-2000", {}),
        ("h263", "H263", {"rtpflags": "rfc2190"}),
        ("mpeg4", "MP4V-ES", {}),
    ],
)
def test_codecs(serve: Callable[[bytes, list[bytes], Answer], int], encoder: str, name: str, options: dict[str, str]) -> None:
    media = packets(encoder, **options)
    assert frames_of(serve(described(media[0], name), media * 2, lambda _method, _head, said, _counts: said)) == FRAMES


@pytest.mark.parametrize("encoder", ["libx264", "mpeg2video"])
def test_transport_streams(serve: Callable[[bytes, list[bytes], Answer], int], encoder: str) -> None:
    media = packets(encoder, "mpegts")
    assert frames_of(serve(described(media[0], "MP2T"), media, lambda _method, _head, said, _counts: said)) == FRAMES


@pytest.mark.parametrize("rate", [0.99, 1.01, 0.98])
def test_a_clock_of_a_slightly_wrong_rate_cuts_nothing(rate: float) -> None:
    clock, begin_s = CaptureClock(5.0, 0), 1_790_000_000.0
    times = [begin_s + number / 5 for number in range(5 * 900)]
    placed = [clock.place(Fraction(rate * (at_s - begin_s)), at_s + 0.05, None) for at_s in times]
    assert {one.segment for one in placed} == {0}
    assert max(abs(one.event_time_us / 1e6 - at_s) for one, at_s in zip(placed, times, strict=True)) < 0.7


def test_a_clock_that_begins_again_each_10_seconds_is_none() -> None:
    clock, begin_s = CaptureClock(5.0, 0), 1_790_000_000.0
    placed = [clock.place(Fraction(number % 100, 10), begin_s + number / 10, None) for number in range(3000)]
    assert placed[-1].segment <= 2


@pytest.mark.parametrize("off_s", [2.5, -2.5])
def test_a_first_report_that_is_wrong_is_outvoted(off_s: float) -> None:
    clock, begin_s = CaptureClock(5.0, 0), 1_790_000_000.0
    times = [begin_s + number / 10 for number in range(1200)]
    told = [at_s + (off_s if number < 50 else 0) for number, at_s in enumerate(times)]
    placed = [clock.place(Fraction(at_s - begin_s), at_s + 0.05, camera_s) for at_s, camera_s in zip(times, told, strict=True)]
    assert {one.segment for one in placed} == {0}
    assert abs(placed[-1].event_time_us / 1e6 - times[-1]) < 0.1
