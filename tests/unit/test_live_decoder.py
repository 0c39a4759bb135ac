from fractions import Fraction

import av
import numpy as np
import pytest

from moodline.services.ingest.camera.input.decoder import WITHOUT_KEYFRAME_S, KeyframeDecoder, UnitTimes
from moodline.services.ingest.camera.input.frames import LiveCounts, LiveFrame
from moodline.services.ingest.camera.input.nal import H264Depacketiser
from moodline.shared.errors import SourceError

GOP = 10
CODECS = {"h264": "libx264", "hevc": "libx265", "mpeg4": "mpeg4", "mjpeg": "mjpeg"}


def _encoded(codec: str, frames: int, size_px: tuple[int, int] = (96, 64), b_frames: int = 0) -> list[tuple[bytes, bool, int]]:
    """Return units with whether they are keyframes, and their place in order of presentation. Frame n is n * 8 bright."""
    encoder = av.CodecContext.create(CODECS[codec], "w")
    encoder.width, encoder.height = size_px
    encoder.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    encoder.time_base, encoder.framerate, encoder.gop_size = Fraction(1, 25), Fraction(25), GOP
    if codec == "h264":
        encoder.options = {"preset": "ultrafast", "x264-params": f"bframes={b_frames}:scenecut=0:b-adapt=0"}
    if codec == "hevc":
        encoder.options = {"preset": "ultrafast", "x265-params": f"log-level=none:keyint={GOP}:bframes=0:scenecut=0"}
    if codec == "mpeg4":
        encoder.options = {"sc_threshold": "1000000000"}
    packets = []
    for number in range(frames):
        gray = np.full((size_px[1], size_px[0], 3), number * 8 % 256, np.uint8)
        frame = av.VideoFrame.from_ndarray(gray, "bgr24").reformat(format=encoder.pix_fmt)
        frame.pts, frame.time_base = number, Fraction(1, 25)
        packets += encoder.encode(frame)
    return [(bytes(packet), bool(packet.is_keyframe), packet.pts or 0) for packet in [*packets, *encoder.encode(None)]]


class _Rig:
    def __init__(self, codec: str = "h264", max_pixels: int = 1_000_000, extradata: bytes = b"") -> None:
        self.counts = LiveCounts()
        self.now_s = 0.0
        self.decoder = KeyframeDecoder(codec, extradata, max_pixels, self.counts, lambda: self.now_s)

    def feed(self, units: list[tuple[bytes, bool, int]]) -> list[LiveFrame]:
        times = [UnitTimes(Fraction(place), 5.0, None) for _, _, place in units]
        return [out for (data, key, _), at in zip(units, times, strict=True) for out in self.decoder.decode(data, key, at)]


def _places(frames: list[LiveFrame]) -> list[int]:
    return [int(frame.media_s) for frame in frames]


@pytest.mark.parametrize("codec", CODECS)
def test_frames_come_out_at_once_with_their_times_and_pixels(codec: str) -> None:
    rig = _Rig(codec)
    units = _encoded(codec, 12)
    for unit in units:
        frames = rig.feed([unit])
        assert _places(frames) == [unit[2]]
        assert (frames[0].width, frames[0].height, frames[0].arrived_s) == (96, 64, 5.0)
        picture = frames[0].to_bgr()
        assert picture.shape == (64, 96, 3)
        assert abs(float(picture.mean()) - unit[2] * 8) < 6
    assert (rig.counts.decoded, rig.counts.damaged) == (12, 0)


def test_nothing_comes_before_the_first_keyframe() -> None:
    rig = _Rig()
    assert _places(rig.feed(_encoded("h264", 25)[3:])) == list(range(GOP, 25))
    assert rig.counts.damaged == 0


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4"])
def test_after_a_loss_nothing_comes_until_the_next_keyframe(codec: str) -> None:
    rig = _Rig(codec)
    units = _encoded(codec, 25)
    assert _places(rig.feed(units[:5])) == [0, 1, 2, 3, 4]
    rig.decoder.lose()
    assert _places(rig.feed(units[6:])) == list(range(GOP, 25))
    assert rig.counts.damaged == 4


def test_after_garbage_nothing_comes_until_the_next_keyframe() -> None:
    rig = _Rig()
    units = _encoded("h264", 25)
    units[5] = (b"\0\0\0\1\x41\xff\xff\xff\xff\xff\xff", False, 5)
    places = _places(rig.feed(units))
    assert places[:5] == [0, 1, 2, 3, 4]
    assert places[-15:] == list(range(10, 25))
    assert not set(places) & {5, 6, 7, 8, 9}
    assert rig.counts.damaged >= 1


def test_frames_that_are_sent_out_of_order_come_in_order_of_presentation() -> None:
    units = _encoded("h264", 30, b_frames=2)
    assert [place for _, _, place in units] != sorted(place for _, _, place in units)
    places = _places(_Rig().feed(units))
    assert places == list(range(len(places)))
    assert len(places) >= 26


def test_a_change_of_resolution_goes_on_at_its_keyframe() -> None:
    rig = _Rig()
    frames = rig.feed(_encoded("h264", 5)) + rig.feed(_encoded("h264", 5, (160, 128)))
    assert [(frame.width, frame.height) for frame in frames] == [(96, 64)] * 5 + [(160, 128)] * 5
    assert frames[-1].to_bgr().shape == (128, 160, 3)


@pytest.mark.parametrize("size_px", [(320, 256), (1920, 1088)])
@pytest.mark.parametrize("codec", CODECS)
def test_too_many_pixels_are_refused(codec: str, size_px: tuple[int, int]) -> None:
    rig = _Rig(codec, max_pixels=10_000)
    with pytest.raises(SourceError) as caught:
        rig.feed(_encoded(codec, 2, size_px))
    assert caught.value.reason == "too_large"


def test_parameter_sets_of_the_description_are_used() -> None:
    data, _, _ = _encoded("h264", 1)[0]
    place = data.index(b"\0\0\1\x65")
    rig = _Rig(extradata=data[:place])
    assert _places(rig.feed([(b"\0" + data[place:], True, 3)])) == [3]


def test_a_camera_without_keyframes_is_let_in_at_an_intra_frame_after_a_while() -> None:
    units = [(data, False, place) for data, _, place in _encoded("h264", 25)]
    rig = _Rig()
    assert not rig.feed(units[:3])
    rig.now_s = WITHOUT_KEYFRAME_S
    assert _places(rig.feed(units[3:])) == list(range(GOP, 25))


def test_pictures_outlive_the_next_frame() -> None:
    frames = _Rig().feed(_encoded("h264", 8))
    assert [round(float(frame.to_bgr().mean()) / 8) for frame in frames] == list(range(8))


def _refreshed(frames: int) -> list[tuple[bytes, bool, int]]:
    """H.264 with gradual refresh: one keyframe at the beginning, then columns of intra blocks that move on."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 96, 64, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.gop_size = Fraction(1, 25), Fraction(25), GOP
    encoder.options = {
        "preset": "ultrafast",
        "x264-params": "intra-refresh=1:bframes=0:scenecut=0:rc-lookahead=0:sync-lookahead=0",
    }
    packets = []
    for number in range(frames):
        gray = np.full((64, 96, 3), number * 8 % 256, np.uint8)
        frame = av.VideoFrame.from_ndarray(gray, "bgr24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        packets += encoder.encode(frame)
    return [(bytes(packet), False, packet.pts or 0) for packet in [*packets, *encoder.encode(None)]]


def test_a_picture_that_is_refreshed_bit_by_bit_is_shown_when_it_is_whole() -> None:
    rig = _Rig()
    frames: list[LiveFrame] = []
    depacketiser = H264Depacketiser()
    for data, _, place in _refreshed(40)[3:]:
        units = [*depacketiser.push(data, place, True, False), *depacketiser.idle()]
        for unit in units:
            frames += rig.decoder.decode(unit.data, unit.keyframe, UnitTimes(Fraction(place), 5.0, None), unit.recovery)
    assert len(frames) >= 15
    # Every picture is of one grey: none is shown of which a part is missing.
    assert all(float(frame.to_bgr().std()) < 4 for frame in frames)
