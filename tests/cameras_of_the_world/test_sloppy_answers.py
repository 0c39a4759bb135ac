"""Answers as sloppy servers write them: playlists, descriptions, heads and what stands between them."""

import socket
import threading
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from moodline.services.ingest.camera.http.hls_playlist import MediaPlaylist, parse_playlist
from moodline.services.ingest.camera.http.hls_segment import key_of, without_junk
from moodline.services.ingest.camera.http.source import open_http
from moodline.services.ingest.camera.input.authentication import Login, best_challenge, text_of, wire_bytes
from moodline.services.ingest.camera.input.egress import PolicyEgress
from moodline.services.ingest.camera.input.frames import LiveLimits
from moodline.services.ingest.camera.rtsp.sdp import parse_sdp
from moodline.services.ingest.camera.rtsp.wire import Interleaved, Response, Wire
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.net_policy import net_policy_of

# HLS

LIVE = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:2.0,\na.ts\n#EXTINF:2.0,\nb.ts\n"
KEY = LIVE.replace("#EXTINF", "{}\n#EXTINF", 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n", "\r\n"),
        ("\n", "  \n\t"),
        ("#EXTM3U\n", ""),
        ("#EXT", "#ext"),
        ("DURATION:2", "DURATION:2.5"),
        ("DURATION:2", "DURATION:"),
        ("DURATION:2", "DURATION: two"),
        ("SEQUENCE:7", "SEQUENCE: 7"),
        ("SEQUENCE:7", "SEQUENCE:7.0"),
        (":2.0,", ":2.0"),
        (":2.0,", ":2,0,"),
        (":2.0,", ": 2.0s ,a, b"),
        (":2.0,", ":,"),
        ("#EXTM3U", "#EXTM3U\n#EXT-X-VERSION:three\n#EXT-X-DISCONTINUITY-SEQUENCE:x\n#EXT-X-START:TIME-OFFSET=x"),
        ("#EXTM3U", "#EXTM3U\n#EXT-X-SERVER-CONTROL:PART-HOLD-BACK=x\n#EXT-X-PART-INF:PART-TARGET=x"),
        ("#EXTM3U", "#EXTM3U\n#EXT-X-SKIP:SKIPPED-SEGMENTS=x"),
        ("#EXTINF", "#EXT-X-PROGRAM-DATE-TIME: yesterday\n#EXT-X-DATERANGE:DURATION=q\n#EXT-X-BITRATE:x\n#EXTINF"),
        ("#EXTINF", " #EXT-X-PROGRAM-DATE-TIME: 2026-13-45T99:00:00\n#EXTINF"),
        ("#EXTINF", "#EXT-X-KEY:METHOD=none\n#EXT-X-FOO\n#EXT-X-PART:DURATION=x\n#EXTINF"),
    ],
)  # fmt: skip
def test_playlists_as_encoders_write_them(old: str, new: str) -> None:
    playlist = parse_playlist(LIVE.replace(old, new).encode())
    assert isinstance(playlist, MediaPlaylist)
    assert [segment.uri for segment in playlist.segments] == ["a.ts", "b.ts"]
    assert [segment.sequence for segment in playlist.segments] == [7, 8]
    assert playlist.is_numbered
    assert all(segment.key is None for segment in playlist.segments)


@pytest.mark.parametrize("number", ["", "#EXT-X-MEDIA-SEQUENCE:\n", "#EXT-X-MEDIA-SEQUENCE:first\n"])
def test_a_playlist_without_a_number(number: str) -> None:
    playlist = parse_playlist(LIVE.replace("#EXT-X-MEDIA-SEQUENCE:7\n", number).encode())
    assert isinstance(playlist, MediaPlaylist)
    assert not playlist.is_numbered


@pytest.mark.parametrize(
    ("tag", "vector"),
    [
        ("#EXT-X-KEY:METHOD=AES-128,URI=k", 7),
        ('#EXT-X-KEY: METHOD = aes-128 , URI = "k"', 7),
        ('#EXT-X-KEY:METHOD=AES_128,URI="k",IV=0X1F', 31),
        ('#EXT-X-KEY:METHOD=AES-128,URI="k",IV=000000000000000000000000000000ff', 255),
        ('#ext-x-key:method=AES-128,uri="k",iv="0xff",keyformat="identity"', 255),
    ],
)
def test_keys_as_encoders_write_them(tag: str, vector: int) -> None:
    playlist = parse_playlist(KEY.format(tag).encode())
    assert isinstance(playlist, MediaPlaylist)
    key = playlist.segments[0].key
    assert key is not None
    assert (key.uri, int.from_bytes(key.vector, "big")) == ("k", vector)


@pytest.mark.parametrize(
    "attributes",
    [
        "BANDWIDTH=900000,RESOLUTION=640x360", "RESOLUTION=640X360", " BANDWIDTH = many , RESOLUTION = 640 x 360", "",
        "BANDWIDTH=1000,RESOLUTION=640,FRAME-RATE=x,CODECS=avc1.42e01e", "AVERAGE-BANDWIDTH=5.5",
    ],
)  # fmt: skip
def test_lists_of_playlists_as_encoders_write_them(attributes: str) -> None:
    text = f"#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO\n#EXT-X-STREAM-INF:{attributes}\n\n  v.m3u8 \n"
    assert parse_playlist(text.encode()) == "v.m3u8"


@pytest.mark.parametrize("text", ["<html>#EXTM3U</html>", "a.ts\nb.ts", "", "#EXTM3U\n" * 60_000])
def test_what_is_no_playlist(text: str) -> None:
    with pytest.raises(SourceError):
        parse_playlist(text.encode())


def test_keys_in_hex_and_with_a_line_break() -> None:
    key = bytes(range(16))
    assert {key_of(key), key_of(key + b"\r\n"), key_of(key.hex().encode() + b"\n"), key_of(key.hex().upper().encode())} == {key}


def test_a_transport_stream_behind_something_else() -> None:
    packets = (b"G" + bytes(187)) * 4
    for before in (b"", b"ID3\4\0\0\0", b"\0" * 100, b"GG"):
        assert without_junk(before + packets).startswith(b"G\0")
    assert without_junk(b"junk" * 200) == b"junk" * 200


# SDP

SDP = (
    "v=0\r\no=- 0 0 IN IP4 0\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    "a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0IAKeKQFAe2AtwEBAaQeJEV,aM48gA==\r\na=control:track1\r\n"
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a=rtpmap:96 H264/90000\r\n", ""),
        ("a=rtpmap:96", "a=rtpmap:97"),
        ("96 H264", "96H264"),
        ("96 H264", "096  H264"),
        ("H264/90000", "H264 90000"),
        ("H264/90000", "H264 / 90000"),
        ("H264", "H.264"),
        ("H264", "avc"),
        ("RTP/AVP 96", "TCP/RTP/AVP 96"),
        ("RTP/AVP 96", "UDP 96"),
        ("video 0 RTP", "video RTP"),
        ("AVP 96", "AVP 96,97"),
        ("a=fmtp:96 ", "a=fmtp:96"),
        ("a=fmtp:96", "a=fmtp:97"),
        ("m=video", "a=rtpmap:96 H264/90000\r\nm=video"),
        ("m=video", "m=video 0 RTP/AVP 98\r\na=rtpmap:98 VND.ONVIF.METADATA/90000\r\nm=video"),
        ("v=0\r\n", ""),
        ("\r\n", "\n"),
        ("\r\n", "\r"),
        ("s=x", "s=\u00fc\0"),
    ],
)
def test_descriptions_as_cameras_write_them(old: str, new: str) -> None:
    track = parse_sdp(SDP.replace(old, new).encode()).track
    assert (track.codec, track.payload_type, track.clock_rate, track.control) == ("h264", 96, 90_000, "track1")
    assert len(track.extradata) == 30


# RTSP

ANSWER = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Type: application/sdp\r\n%s\r\n"
PACKET = b"$\0\0\x0d\x80\x60" + bytes(11)


def items(*pieces: bytes) -> list[Interleaved | Response]:
    wire, found = Wire(), list[Interleaved | Response]()
    wire.expects_body = True
    for piece in pieces:
        wire.feed(piece)
        while (item := wire.next_item()) is not None:
            found.append(item)
    if (item := wire.idle(10.0)) is not None:
        found.append(item)
    return found


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("length", [b"", b"Content-Length:\r\n", b"Content-Length: 9999\r\n"])
def test_a_body_without_a_length_or_shorter_than_it_ends_when_nothing_comes(length: bytes, step: int) -> None:
    data = ANSWER % length + SDP.encode()
    (answer,) = items(*(data[at : at + step] for at in range(0, len(data), step)))
    assert isinstance(answer, Response)
    assert answer.body == SDP.encode()


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("junk", [b"", b"\r\n", b"garbage", b"a=control:track1\r\n", b"\x16\x03\x01", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_what_stands_between_is_passed_over(junk: bytes, step: int) -> None:
    answer = ANSWER % b"Content-Length: 4\r\n" + b"v=0\n"
    data = answer + junk + PACKET + PACKET + junk + answer + PACKET
    found = items(*(data[at : at + step] for at in range(0, len(data), step)))
    assert [type(item) for item in found] == [Response, Interleaved, Interleaved, Response, Interleaved]


def test_junk_without_end_is_no_rtsp() -> None:
    with pytest.raises(SourceError):
        items(ANSWER % b"Content-Length: 0\r\n", *([b"junk " * 20_000] * 10))


@pytest.mark.parametrize(
    "realm", ["f\u00fcr".encode(), "f\u00fcr".encode("latin-1"), "\u6444\u50cf".encode("gbk"), b'a, b="c'[:4]]
)
def test_realms_in_any_letters_come_back_as_they_were(realm: bytes) -> None:
    challenge = best_challenge([text_of(b'Digest realm="' + realm + b'", nonce="n"')])
    assert challenge is not None
    login = Login("viewer", "hunter2")
    login.accept(challenge)
    header = login.header("GET", "/")
    assert header is not None
    assert b'realm="' + realm + b'"' in wire_bytes(header)


# HTTP

JPEG = bytes(cv2.imencode(".jpg", np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8))[1])
PART = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(JPEG), JPEG)
MIXED = b"Content-Type: multipart/x-mixed-replace; boundary=b\r\n"


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], int]]:
    """Return a function that lets a server answer every connection with these bytes; it returns the port."""
    listeners: list[socket.socket] = []

    def start(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def answer_all() -> None:
            while True:
                try:
                    connected, _ = listener.accept()
                except OSError:
                    return
                with connected:
                    connected.recv(65_536)
                    connected.sendall(answer)

        threading.Thread(target=answer_all, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for each in listeners:
        each.close()


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n" + MIXED, PART),
        (b"HTTP 200 OK\r\n" + MIXED, PART),
        (b"HTTP/1.1 200OK\r\n" + MIXED, PART),
        (None, PART),
        (None, JPEG),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + MIXED, PART),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + MIXED, PART),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: utf-8\r\n" + MIXED, PART),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + MIXED, PART),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n" + MIXED, PART),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n", b"Content-Type: image/jpeg\r\n\r\n" + JPEG),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n", b"\0\0\0\0junk" + JPEG),
        (b"HTTP/1.1 200 OK\r\n", b"\r\n\r\n" + PART),
    ],
)
def test_pictures_from_sloppy_servers(serve: Callable[[bytes], int], head: bytes | None, body: bytes) -> None:
    answer = body * 6 if head is None else head + b"\r\n" + body * 6
    address = CameraAddress("http", "127.0.0.1", serve(answer), "/video")
    source = open_http(address, PolicyEgress(net_policy_of("http", True, "", "")), LiveLimits(3.0, 3.0))
    try:
        frames = source.frames()
        assert [(frame.width, frame.height) for frame, _ in zip(frames, range(4), strict=False)] == [(64, 48)] * 4
    finally:
        source.close()
