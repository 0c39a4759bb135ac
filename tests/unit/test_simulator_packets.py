"""How the camera simulator cuts coded frames into RTP payloads: what a receiver puts together is what was coded."""

import contextlib
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.simulator.absurd import absurd_sps
from moodline.services.simulator.film import Film, Track
from moodline.services.simulator.options import Codec, Picture
from moodline.services.simulator.packets import jpeg_payloads, nal_kind, nal_payloads, split_nals
from moodline.shared.errors import SourceError

BODIES = st.binary(min_size=2, max_size=400).filter(lambda body: b"\x00\x00" not in body and body[-1] != 0)


def heads(codec: Codec) -> st.SearchStrategy[bytes]:
    kinds = st.integers(1, 23) if codec is Codec.H264 else st.integers(0, 47)
    if codec is Codec.H264:
        return kinds.map(lambda kind: bytes([0x60 | kind]))
    return kinds.map(lambda kind: bytes([kind << 1, 1]))


def put_together(payloads: tuple[bytes, ...], codec: Codec) -> list[bytes]:
    """Undo nal_payloads, as RFC 6184 (5.8) and RFC 7798 (4.4.3) say."""
    width, fragment_kind = (1, 28) if codec is Codec.H264 else (2, 49)
    nals: list[bytes] = []
    for payload in payloads:
        if nal_kind(payload, codec) != fragment_kind:
            nals.append(payload)
            continue
        mark, body = payload[width], payload[width + 1 :]
        if mark & 0x80:
            kind = mark & (0x1F if codec is Codec.H264 else 0x3F)
            first = payload[0] & 0xE0 | kind if codec is Codec.H264 else payload[0] & 0x81 | kind << 1
            nals.append(bytes([first]) + payload[1:width])
        nals[-1] += body
    return nals


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
@given(data=st.data(), limit=st.integers(5, 120))
def test_fragments_put_together_are_the_frame(codec: Codec, data: st.DataObject, limit: int) -> None:
    nals = data.draw(st.lists(st.tuples(heads(codec), BODIES).map(b"".join), min_size=1, max_size=5))
    payloads = nal_payloads(nals, codec, limit)
    assert max(len(payload) for payload in payloads) <= limit
    assert put_together(payloads, codec) == nals
    width, kind = (1, 28) if codec is Codec.H264 else (2, 49)
    ends = [payload[width] & 0x40 for payload in payloads if nal_kind(payload, codec) == kind]
    assert sum(bool(end) for end in ends) == sum(len(nal) > limit for nal in nals)


@given(st.lists(st.tuples(heads(Codec.H264), BODIES).map(b"".join), max_size=6), st.booleans())
def test_a_byte_stream_is_split_at_start_codes_of_both_lengths(nals: list[bytes], long: bool) -> None:
    code = b"\x00\x00\x00\x01" if long else b"\x00\x00\x01"
    assert split_nals(b"".join(code + nal for nal in nals)) == nals


@pytest.fixture(scope="module")
def film() -> Film:
    return Film(None)


def track(film: Film, codec: Codec) -> Track:
    return film.track(Picture(size=(320, 240), codec=codec, seconds=1.5, gop_s=0.5))


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
def test_a_track_loops_cleanly_and_each_keyframe_brings_its_parameter_sets(film: Film, codec: Codec) -> None:
    made = track(film, codec)
    assert (made.width, made.height, made.fps) == (320, 240, 25)
    assert made.units[0].keyframe
    keyframes = [number for number, unit in enumerate(made.units) if unit.keyframe]
    assert {after - before for before, after in pairwise(keyframes)} <= {12, 13}
    assert all(set(made.parameter_sets) <= set(unit.payloads) for unit in made.units if unit.keyframe)
    decoder = av.CodecContext.create("h264" if codec is Codec.H264 else "hevc", "r")
    frames = []
    for unit in made.units * 2:
        rebuilt = b"".join(b"\x00\x00\x00\x01" + nal for nal in put_together(unit.payloads, codec))
        frames += decoder.decode(av.Packet(rebuilt))
    frames += decoder.decode(None)
    assert len(frames) == 2 * len(made.units), "each frame of both rounds is decoded"
    assert frames[0].to_ndarray(format="bgr24").std() > 10, "there is a picture"


def test_a_jpeg_is_cut_with_its_tables_and_offsets(film: Film) -> None:
    unit = track(film, Codec.MJPEG).units[0]
    scan = b""
    for number, payload in enumerate(unit.payloads):
        assert int.from_bytes(payload[1:4], "big") == len(scan)
        assert (payload[4], payload[5], payload[6], payload[7]) == (1, 255, 320 // 8, 240 // 8)
        scan += payload[8 + 4 + 128 :] if number == 0 else payload[8:]
    assert unit.whole.endswith(scan + b"\xff\xd9")
    assert unit.payloads[0][8:12] == b"\x00\x00\x00\x80"


def test_other_jpegs_are_refused() -> None:
    with pytest.raises(SourceError, match="JPEG"):
        jpeg_payloads(b"\xff\xd8\xff\xd9")


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
def test_no_decoder_takes_the_absurd_parameter_sets(film: Film, codec: Codec) -> None:
    made = track(film, codec)
    decoder = av.CodecContext.create("h264" if codec is Codec.H264 else "hevc", "r")
    own = made.parameter_sets[-2]
    broken = made.units[0].whole.replace(own, absurd_sps(codec))
    assert broken != made.units[0].whole
    frames: list[object] = []
    with contextlib.suppress(av.FFmpegError):
        frames = [*decoder.decode(av.Packet(broken)), *decoder.decode(None)]
    assert frames == []


def test_a_picture_is_not_distorted(film: Film) -> None:
    """4:3 on 2:1 leaves black at both sides, and the scene in between."""
    made = film.track(Picture(size=(320, 160), codec=Codec.MJPEG, seconds=0.1))
    decoder = av.CodecContext.create("mjpeg", "r")
    frames = [*decoder.decode(av.Packet(made.units[0].whole)), *decoder.decode(None)]
    grey = frames[0].to_ndarray(format="bgr24").mean(axis=(0, 2))
    inner = np.flatnonzero(grey > 25)
    assert abs(inner[0] - 53) <= 2
    assert abs(inner[-1] - 266) <= 2
