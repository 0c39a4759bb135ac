"""Round trips with a packetiser of the tests' own, losses, and bytes that make no sense."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moodline.services.ingest.camera.input.access_unit import UNIT_LIMIT_BYTES, AccessUnit, Depacketiser
from moodline.services.ingest.camera.input.nal import START_CODE, H264Depacketiser, H265Depacketiser
from moodline.services.ingest.camera.rtsp.jpeg import JpegDepacketiser
from moodline.services.ingest.camera.rtsp.mpeg4 import Mpeg4Depacketiser

ALL: list[Callable[[], Depacketiser]] = [H264Depacketiser, H265Depacketiser, JpegDepacketiser, Mpeg4Depacketiser]


def h264_payloads(nals: list[bytes], size: int, aggregate: bool) -> list[bytes]:
    """RFC 6184: small ones together in a STAP-A when asked to, large ones as FU-A."""
    out: list[bytes] = []
    small: list[bytes] = []
    for nal in nals:
        if len(nal) <= size:
            small.append(nal)
            continue
        out += _together(small, b"\x78", aggregate)
        small = []
        pieces = [nal[1:][at : at + size] for at in range(0, len(nal) - 1, size)]
        for at, piece in enumerate(pieces):
            flags = (at == 0) << 7 | (at == len(pieces) - 1) << 6 | nal[0] & 0x1F
            out.append(bytes((nal[0] & 0xE0 | 28, flags)) + piece)
    return out + _together(small, b"\x78", aggregate)


def h265_payloads(nals: list[bytes], size: int, aggregate: bool) -> list[bytes]:
    """RFC 7798: AP and FU."""
    out: list[bytes] = []
    small: list[bytes] = []
    for nal in nals:
        if len(nal) <= size:
            small.append(nal)
            continue
        out += _together(small, b"\x60\1", aggregate)
        small = []
        pieces = [nal[2:][at : at + size] for at in range(0, len(nal) - 2, size)]
        for at, piece in enumerate(pieces):
            flags = (at == 0) << 7 | (at == len(pieces) - 1) << 6 | nal[0] >> 1 & 0x3F
            out.append(bytes((nal[0] & 0x81 | 49 << 1, nal[1], flags)) + piece)
    return out + _together(small, b"\x60\1", aggregate)


def _together(nals: list[bytes], header: bytes, aggregate: bool) -> list[bytes]:
    if not aggregate or len(nals) < 2:
        return nals
    return [header + b"".join(struct.pack(">H", len(nal)) + nal for nal in nals)]


def push_all(depacketiser: Depacketiser, payloads: list[bytes], timestamp: int = 1, lost: bool = False) -> list[AccessUnit]:
    units: list[AccessUnit] = []
    for at, payload in enumerate(payloads):
        units += depacketiser.push(payload, timestamp, at == len(payloads) - 1, lost and at == 0)
    return [*units, *depacketiser.idle()]


slices = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=4)


@given(slices, st.booleans(), st.booleans(), st.integers(4, 30))
def test_h264_comes_back_as_it_was(bodies: list[bytes], key: bool, aggregate: bool, size: int) -> None:
    kind = 0x65 if key else 0x41
    nals = [b"\x67sps", b"\x68pps", *(bytes((kind, 0x80)) + body for body in bodies)]
    units = push_all(H264Depacketiser(), h264_payloads(nals, size, aggregate), 77)
    assert units == [AccessUnit(b"".join(START_CODE + nal for nal in nals), 77, key, False, False)]


@given(slices, st.sampled_from([(1, False), (16, True), (19, True), (21, True)]), st.booleans(), st.integers(5, 30))
def test_h265_comes_back_as_it_was(bodies: list[bytes], kind: tuple[int, bool], aggregate: bool, size: int) -> None:
    nals = [b"\x40\1vps", b"\x42\1sps", *(bytes((kind[0] << 1, 1, 0x80)) + body for body in bodies)]
    units = push_all(H265Depacketiser(), h265_payloads(nals, size, aggregate), 77)
    assert units == [AccessUnit(b"".join(START_CODE + nal for nal in nals), 77, kind[1], False, False)]


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=40), max_size=12), st.data())
@pytest.mark.parametrize("make", ALL)
def test_no_payloads_raise(make: Callable[[], Depacketiser], payloads: list[bytes], data: st.DataObject) -> None:
    depacketiser = make()
    for payload in payloads:
        for unit in depacketiser.push(payload, data.draw(st.integers(0, 2)), data.draw(st.booleans()), data.draw(st.booleans())):
            assert unit.data or unit.damaged


@given(st.integers(0, 7))
def test_every_lost_piece_of_a_frame_is_noticed(missing: int) -> None:
    nal = b"\x65\x80" + bytes(range(76))
    payloads = h264_payloads([nal], 10, False)
    assert len(payloads) == 8
    depacketiser = H264Depacketiser()
    units = push_all(depacketiser, h264_payloads([b"\x65\x80whole"], 10, False), 1)
    for at, payload in enumerate(payloads):
        if at != missing:
            units += depacketiser.push(payload, 2, at == 7, at == missing + 1)
    units += push_all(depacketiser, [b"\x41\x80next"], 3, lost=missing == 7)
    assert [unit.damaged for unit in units] == [False, True, False]
    assert any(unit.after_loss for unit in units)


def test_a_loss_before_a_whole_keyframe_does_not_damage_it() -> None:
    depacketiser = H264Depacketiser()
    assert push_all(depacketiser, [b"\x65\x80key"], lost=True) == [AccessUnit(START_CODE + b"\x65\x80key", 1, True, False, True)]
    later = push_all(depacketiser, [b"\x65\x20second slice"], 2, lost=True)
    assert later[0].damaged


def test_parameter_sets_marked_as_a_frame_wait_for_their_frame() -> None:
    depacketiser = H264Depacketiser()
    assert not push_all(depacketiser, [b"\x67sps", b"\x68pps"])
    (unit,) = push_all(depacketiser, [b"\x65\x80key"])
    assert unit.data == START_CODE + b"\x67sps" + START_CODE + b"\x68pps" + START_CODE + b"\x65\x80key"


def test_a_frame_without_a_marker_ends_with_its_time_stamp() -> None:
    depacketiser = H264Depacketiser()
    assert not depacketiser.push(b"\x65\x80key", 1, False, False)
    (unit,) = depacketiser.push(b"\x41\x80next", 2, False, False)
    assert (unit.timestamp, unit.damaged) == (1, False)


def test_a_frame_without_end_takes_no_memory_without_end() -> None:
    depacketiser = H264Depacketiser()
    depacketiser.push(b"\x7c\x85\x80", 1, False, False)
    piece = b"\x7c\x05" + bytes(1024 * 1024)
    for _ in range(UNIT_LIMIT_BYTES // len(piece) + 4):
        assert not depacketiser.push(piece, 1, False, False)
    (unit,) = depacketiser.push(piece, 1, True, False)
    assert unit.damaged
    assert not unit.data


KEY, MORE, NEXT = b"\x65\x80one", b"\x65\x20two", b"\x41\x80next"


def collected(depacketiser: Depacketiser, packets: list[tuple[bytes, int, bool]]) -> list[tuple[bytes, bool, bool]]:
    units = [unit for payload, stamp, marker in packets for unit in depacketiser.push(payload, stamp, marker, False)]
    return [(unit.data, unit.keyframe, unit.damaged) for unit in [*units, *depacketiser.idle()]]


def test_markers_on_every_slice_split_no_frame() -> None:
    packets = [(nal, stamp, True) for stamp in range(1, 7) for nal in (KEY, MORE)]
    assert collected(H264Depacketiser(), packets) == [(START_CODE + KEY + START_CODE + MORE, True, False)] * 6


def test_one_time_stamp_for_all_leaves_the_markers() -> None:
    packets = [(nal, 0, nal is MORE) for _ in range(6) for nal in (KEY, MORE)]
    assert collected(H264Depacketiser(), packets) == [(START_CODE + KEY + START_CODE + MORE, True, False)] * 6


def test_neither_markers_nor_time_stamps_leave_the_pictures() -> None:
    units = collected(H264Depacketiser(by_bitstream=True), [(nal, 0, False) for _ in range(4) for nal in (b"\x67sps", KEY, MORE)])
    assert units == [(START_CODE + b"\x67sps" + START_CODE + KEY + START_CODE + MORE, True, False)] * 3


def test_parameter_sets_with_the_time_of_the_frame_before_belong_to_the_next() -> None:
    """As Reolink sends them."""
    packets = [(KEY, 1, True), (NEXT, 2, True), (NEXT, 3, True), (b"\x67sps", 3, True), (b"\x68pps", 3, False), (KEY, 4, True)]
    units = collected(H264Depacketiser(), packets)
    assert units[-1] == (START_CODE + b"\x67sps" + START_CODE + b"\x68pps" + START_CODE + KEY, True, False)
    assert len(units) == 4


@pytest.mark.parametrize("cut", [7, 30])
def test_several_nal_units_sent_as_one_are_seen(cut: int) -> None:
    """As V380 sends them, in fragments with the header of the first."""
    joined = b"\x67sps" + START_CODE + b"\x68pps" + START_CODE + b"\x65\x80" + bytes(range(1, 60))
    (unit,) = push_all(H264Depacketiser(), h264_payloads([joined], cut, False))
    assert (unit.keyframe, unit.damaged) == (True, False)
    assert unit.data == START_CODE + joined


@pytest.mark.parametrize("strange", [b"\x00\x80", b"\x00\x00\x01\x00\x80", b"\x1e\x80", b"\x1f", b"\x14\x80abc", b"\x0e\x40"])
def test_unknown_types_of_h264_are_passed_over(strange: bytes) -> None:
    (unit,) = push_all(H264Depacketiser(), [strange, KEY, strange, MORE, strange])
    assert (unit.data, unit.damaged) == (START_CODE + KEY + START_CODE + MORE, False)


@pytest.mark.parametrize("strange", [b"\x2c\x01\x80abc", b"\x60\x01", b"\x7c\x01\x80ab", b"\x52\x01ab", b"\x02\x09\x80layer"])
def test_unknown_types_and_layers_of_h265_are_passed_over(strange: bytes) -> None:
    key = b"\x26\x01\x80one"
    (unit,) = push_all(H265Depacketiser(), [strange, key, strange])
    assert (unit.data, unit.keyframe, unit.damaged) == (START_CODE + key, True, False)


def _jpeg(width: int, height: int, options: dict[str, str]) -> bytes:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2] = (0, 0, 250)
    picture[height // 2 :, :, 1] = 200
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"huffman": "default", **options}
    frame = av.VideoFrame.from_ndarray(picture, "bgr24").reformat(format="yuvj420p")
    return bytes(encoder.encode(frame)[0])


def _jpeg_parts(data: bytes) -> tuple[bytes, bytes]:
    """Return both quantisation tables, and the scan."""
    tables = [b"", b""]
    at = 2
    while True:
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xDB:
            for start in range(0, len(body), 65):
                tables[body[start] & 1] = body[start + 1 : start + 65]
        if marker == 0xDA:
            return tables[0] + (tables[1] or tables[0]), data[at:]


def _jpeg_payloads(scan: bytes, tables: bytes | None, quality: int, size_8px: tuple[int, int], restart: int = 0) -> list[bytes]:
    payloads = []
    for offset in range(0, len(scan), 100):
        head = struct.pack(">IBBBB", offset, 65 if restart else 1, quality, *size_8px)
        head += struct.pack(">HH", restart, 0xFFFF) if restart else b""
        if offset == 0 and quality >= 128:
            head += struct.pack(">BBH", 0, 0, len(tables or b"")) + (tables or b"")
        payloads.append(head + scan[offset : offset + 100])
    return payloads


def _decoded(data: bytes) -> np.ndarray:
    return av.open(io.BytesIO(data), format="mjpeg").decode(video=0).__next__().to_ndarray(format="bgr24")


def test_a_jpeg_with_its_own_tables_comes_back_as_it_was() -> None:
    data = _jpeg(96, 64, {})
    tables, scan = _jpeg_parts(data)
    depacketiser = JpegDepacketiser()
    (unit,) = push_all(depacketiser, _jpeg_payloads(scan, tables, 255, (12, 8), 6))
    assert (unit.keyframe, unit.damaged) == (True, False)
    assert np.array_equal(_decoded(unit.data), _decoded(data))
    (again,) = push_all(depacketiser, _jpeg_payloads(scan, None, 255, (12, 8), 6), 2)
    assert again.data == unit.data
    (large,) = push_all(JpegDepacketiser((96, 64)), _jpeg_payloads(scan, tables, 255, (0, 0), 6))
    assert large.data == unit.data


def test_tables_by_quality_are_those_of_the_rfc() -> None:
    (unit,) = push_all(JpegDepacketiser(), _jpeg_payloads(b"scan", None, 50, (1, 1), restart=4))
    tables, scan = _jpeg_parts(unit.data)
    assert (tables[:5], tables[64:69], scan[:4]) == (bytes((16, 11, 12, 14, 12)), bytes((17, 18, 18, 24, 21)), b"scan")
    assert b"\xff\xdd\0\4\0\4" in unit.data
    (fine,) = push_all(JpegDepacketiser(), _jpeg_payloads(b"scan", None, 99, (1, 1)))
    assert set(_jpeg_parts(fine.data)[0]) <= {1, 2}


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_jpeg_with_a_hole_is_damaged(missing: int) -> None:
    payloads = _jpeg_payloads(bytes(250), None, 50, (12, 8))
    depacketiser = JpegDepacketiser()
    for at, payload in enumerate(payloads):
        if at != missing:
            units = depacketiser.push(payload, 1, at == 2, False)
    if missing == 2:
        units = depacketiser.push(payloads[0], 2, False, True)
    assert units[0].damaged


def test_mpeg4_frames_say_whether_decoding_can_begin() -> None:
    depacketiser = Mpeg4Depacketiser()
    assert not push_all(depacketiser, [b"\0\0\1\xb0\1"])
    intra = push_all(depacketiser, [b"\0\0\1\xb6\x10abc", b"def"], 1)
    inter = push_all(depacketiser, [b"\0\0\1\xb6\x50abc"], 2)
    assert intra == [AccessUnit(b"\0\0\1\xb0\1\0\0\1\xb6\x10abcdef", 1, True, False, False)]
    assert not inter[0].keyframe
    assert push_all(depacketiser, [b"rest of a frame"], 3, lost=True)[0].damaged


def test_a_jpeg_that_is_too_large_for_its_payload_has_its_size_in_the_extension() -> None:
    data = _jpeg(96, 64, {})
    tables, scan = _jpeg_parts(data)
    frame = data[data.index(b"\xff\xc0") :][:19]
    extension = b"\xff\xd8" + frame + b"\xff\xff"
    depacketiser = JpegDepacketiser()
    payloads = _jpeg_payloads(scan, tables, 255, (0, 0), 6)
    units = [
        unit
        for at, payload in enumerate(payloads)
        for unit in depacketiser.push(payload, 1, at == len(payloads) - 1, False, b"" if at else extension)
    ]
    assert np.array_equal(_decoded(units[0].data), _decoded(data))


@pytest.mark.parametrize(("precision", "length"), [(0, 64), (0, 128), (0, 192), (1, 192), (3, 256)])
def test_tables_of_any_kind_are_taken(precision: int, length: int) -> None:
    head = struct.pack(">IBBBB", 0, 1, 255, 12, 8) + struct.pack(">BBH", 0, precision, length) + bytes([16]) * length
    (unit,) = push_all(JpegDepacketiser(), [head + b"scan"])
    assert not unit.damaged
