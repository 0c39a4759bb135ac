"""Parsers of bytes that come from outside, each as a function of bytes. Whatever they get, they raise `MoodlineError` or nothing.

`python -m bench.fuzz` runs a coverage-guided fuzzer on them; `tests/security/test_fuzz_targets.py` runs their seeds and what was
once found.
"""

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from moodline.services.api.page_cursor import read_cursor, write_cursor
from moodline.services.detector.image import jpeg_size
from moodline.services.ingest.camera.http.head import cleaned_head
from moodline.services.ingest.camera.http.hls_playlist import parse_playlist
from moodline.services.ingest.camera.http.hls_segment import segment_format
from moodline.services.ingest.camera.http.mjpeg import whole_jpeg
from moodline.services.ingest.camera.http.multipart import MultipartParser, boundary_of
from moodline.services.ingest.camera.input.access_unit import Depacketiser
from moodline.services.ingest.camera.input.nal import H264Depacketiser, H265Depacketiser
from moodline.services.ingest.camera.rtsp.jpeg import JpegDepacketiser
from moodline.services.ingest.camera.rtsp.mpeg4 import Mpeg4Depacketiser
from moodline.services.ingest.camera.rtsp.payloads import (
    Av1Depacketiser,
    H263Depacketiser,
    MpegVideoDepacketiser,
    Vp8Depacketiser,
    Vp9Depacketiser,
)
from moodline.services.ingest.camera.rtsp.rtp import parse_rtcp, parse_rtp
from moodline.services.ingest.camera.rtsp.sdp import parse_sdp
from moodline.services.ingest.camera.rtsp.wire import Wire
from moodline.shared.camera_url import register_url
from moodline.shared.errors import MoodlineError
from moodline.shared.messages import decode, decode_dead_letter
from moodline.shared.seal import Sealer, new_key
from moodline.shared.store.records import decode_spec, decode_status
from moodline.shared.timeline.bucket import Bucket, pack, unpack
from moodline.shared.timeline.models import unpack_models
from moodline.shared.timeline.state import SavedState, TrackerState, load_state, present_of, save_state
from moodline.shared.timeline.tracks import unpack_track_bucket, unpack_track_summary

_DEPACKETISERS: Final[tuple[Callable[[], Depacketiser], ...]] = (
    H264Depacketiser,
    H265Depacketiser,
    JpegDepacketiser,
    Mpeg4Depacketiser,
    MpegVideoDepacketiser,
    H263Depacketiser,
    Vp8Depacketiser,
    Vp9Depacketiser,
    Av1Depacketiser,
)
_HEAD: Final = b"v=0\r\ns=x\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\n"
_SEALER: Final = Sealer(new_key())


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        run: Gives it bytes.
        seeds: Bytes that it understands, or nearly.
    """

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]

    def __call__(self, data: bytes) -> None:
        """Run the parser; what it may raise is not passed on."""
        try:
            self.run(data)
        except MoodlineError:
            return


def _wire(data: bytes) -> None:
    wire = Wire()
    for at in range(0, len(data), 100):
        wire.feed(data[at : at + 100])
        while wire.next_item() is not None:
            pass


def _sdp(data: bytes) -> None:
    parse_sdp(data).track.depacketiser()


def _payloads(data: bytes) -> None:
    """The first byte names the codec; then payloads, each after its length and flags."""
    if not data:
        return
    made = _DEPACKETISERS[data[0] % len(_DEPACKETISERS)]()
    at, timestamp = 1, 0
    while at + 2 <= len(data):
        length, flags = data[at], data[at + 1]
        timestamp += 3000 * (flags & 1)
        made.push(data[at + 2 : at + 2 + length], timestamp, bool(flags & 2), bool(flags & 4))
        at += 2 + length
    made.idle()


def _multipart(data: bytes) -> None:
    head, _, body = data.partition(b"\n")
    parser = MultipartParser(boundary_of(head.decode("latin-1")), 10_000)
    for at in range(0, len(body), 50):
        for part in parser.feed(body[at : at + 50]):
            whole_jpeg(part)


def _all_of(functions: Iterable[Callable[[bytes], object]]) -> Callable[[bytes], None]:
    each = tuple(functions)

    def run(data: bytes) -> None:
        for function in each:
            try:
                function(data)
            except MoodlineError:
                continue

    return run


def _text(function: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: function(data.decode("utf-8", "surrogateescape"))


def _message(kind: str, **fields: object) -> bytes:
    header = {"v": 1, "stream_id": "a", "session": 1, "seq": 2, "event_time_us": 3, "captured_at_us": 4, "lane": "live"}
    return msgspec.msgpack.encode({"kind": kind, **header, **fields})


_EMOTION: Final = [[0, 0, 10, 10], 9, [0, 0, 0, 65_535, 0, 0, 0]]

TARGETS: Final[dict[str, Target]] = {
    "rtsp_wire": Target(
        _wire, (b"$\0\0\3abcRTSP/1.0 200 OK\r\nCSeq: 7\r\nContent-Length: 4\r\n\r\nbodyOPTIONS * RTSP/1.0\r\n\r\n",)
    ),
    "sdp": Target(
        _sdp,
        (
            _HEAD + b"a=rtpmap:96 H264/90000\r\na=framerate:29.97\r\na=fmtp:96 sprop-parameter-sets=Z0IAHg==,aM48gA==\r\n",
            _HEAD
            + b"a=rtpmap:96 H265/90000\r\na=fmtp:96 sprop-vps=QAE=;sprop-sps=QgE=;sprop-pps=RAE=\r\na=framesize:96 640-480\r\n",
            _HEAD + b"a=rtpmap:96 MP4V-ES/90000\r\na=fmtp:96 config=000001b0\r\na=x-dimensions:640,480\r\n",
            b"m=video 0 RTP/AVP 26\r\na=control:rtsp://x/1\r\n",
        ),
    ),
    "rtp": Target(
        _all_of((parse_rtp, parse_rtcp)),
        (b"\x80\xe0" + bytes(10) + b"payload", b"\xb0\x60" + bytes(10) + b"\xbe\xde\0\1abcd\2", b"\x80\xc8\0\6" + bytes(24)),
    ),
    "rtp_payloads": Target(
        _payloads,
        (
            b"\0\4\0\x67abc\4\2\x65abc\5\3\x7c\x85abc",
            b"\1\6\2\x40\1abcd\6\3\x62\1\x93abc",
            b"\2\x1c\2\0\0\0\0\1\x40\x10\x10" + bytes(20),
            b"\x08\5\2\x10\x0a\1abc",
        ),
    ),
    "multipart": Target(
        _multipart,
        (
            b"multipart/x-mixed-replace; boundary=xx\n--xx\r\nContent-Length: 4\r\n\r\n\xff\xd8\xff\xd9\r\n"
            b"--xx\r\n\r\n\xff\xd8\xff\xd9",
        ),
    ),
    "hls_playlist": Target(
        parse_playlist,
        (
            b'#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-KEY:METHOD=AES-128,URI="k",IV=0x1\n#EXTINF:4,\na.ts\n',
            b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=64x48\nlow.m3u8\n",
            b'#EXTM3U\n#EXT-X-MAP:URI="i.mp4",BYTERANGE="10@0"\n#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z\n#EXTINF:1,\na.m4s\n',
        ),
    ),
    "jpeg_header": Target(
        _all_of((jpeg_size, whole_jpeg, segment_format)),
        (b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x11\x08\0\x10\0\x20\3" + bytes(9) + b"\xff\xd9",),
    ),
    "http_head": Target(
        cleaned_head, (b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\nX-Odd header\r\n\r\n", b"ICY 200 OK\nA : b\n c\n\n")
    ),
    "cursor": Target(_text(read_cursor), (write_cursor("lobby").encode(),)),
    "messages": Target(
        _all_of((decode, decode_dead_letter)),
        (
            _message("frame", width=8, height=8, jpeg=b"x"),
            _message("faces", width=8, height=8, faces=[[[0, 0, 9, 9], 3, bytes(2304)]]),
            _message("emotions", width=8, height=8, faces=[_EMOTION], model="fer"),
            _message("end"),
        ),
    ),
    "camera_url": Target(
        _text(register_url),
        (b"rtsp://user:word@192.0.2.1:554/a?b=c&password=d", b"https://[fe80::1%25eth0]/x.m3u8", b"device://0"),
    ),
    "key_file": Target(_text(lambda text: _SEALER.open("a", text)), (base64.urlsafe_b64encode(bytes(90)),)),
    "key_setting": Target(_text(lambda text: Sealer(text).seal("a", None)), (new_key().encode(), b"x," + new_key().encode())),
    "timeline_values": Target(
        _all_of((unpack, unpack_track_bucket, unpack_track_summary, unpack_models, load_state, present_of)),
        (pack(Bucket(5)), save_state(SavedState(TrackerState())), msgspec.msgpack.encode([1, [[1, 2, "fer"]]])),
    ),
    "stored_records": Target(_all_of((decode_spec, decode_status)), (b'{"stream_id":"a","url":"push://"}', b'{"state":"live"}')),
}
"""By name."""


def found(folder: Path) -> dict[str, list[bytes]]:
    """Return what once broke a parser: files `NAME-anything` below the folder."""
    return {name: [path.read_bytes() for path in sorted(folder.glob(f"{name}-*"))] for name in TARGETS}
