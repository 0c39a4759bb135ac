"""Clips, encoded once and kept in memory: what all cameras of the same clip and picture share."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt

from moodline.services.simulator.options import Codec, Picture, check_size
from moodline.services.simulator.packets import jpeg_payloads, nal_payloads, parameter_sets, split_nals
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

BgrImage = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), blue-green-red."""

CLOCK_HZ: Final = 90_000
BITS_PER_PX_S: Final = 500_000 / (640 * 360)
"""500 kbit/s for 640x360: what cameras with a few moving people send."""
UNITS_MAX: Final = 5_000
SCENE_FPS: Final = Fraction(25)

_ENCODERS: Final = {Codec.H264: "libx264", Codec.H265: "libx265", Codec.MJPEG: "mjpeg"}
_CODEC_NAMES: Final = {"h264": Codec.H264, "hevc": Codec.H265}


@dataclass(frozen=True, slots=True)
class Unit:
    """One coded frame. `whole` is what a decoder takes (Annex B or a JPEG), `payloads` the same for RTP."""

    keyframe: bool
    whole: bytes
    payloads: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Track:
    """A coded clip. The first unit is a keyframe, so it can be played in a loop.

    Attributes:
        codec: Of all units.
        width, height: In px.
        fps: Exact.
        units: In order of presentation, which is also that of decoding.
        parameter_sets: SPS and PPS; VPS, SPS and PPS; or nothing.
    """

    codec: Codec
    width: int
    height: int
    fps: Fraction
    units: tuple[Unit, ...]
    parameter_sets: tuple[bytes, ...]


class Film:
    """One clip, from which tracks are made on demand. Thread-safe."""

    def __init__(self, clip: Path | None) -> None:
        self.name = clip.stem if clip else "scene"
        self._clip = clip
        self._tracks: dict[Picture, Track] = {}
        self._lock = Lock()

    def track(self, picture: Picture) -> Track:
        """Return the clip encoded this way; the first time takes seconds.

        Raises:
            SourceError: the clip cannot be read, or not be copied.
            SettingsError: the codec cannot have this size.
        """
        with self._lock:
            if picture not in self._tracks:
                self._tracks[picture] = self._copied(picture) if picture.copy else self._encoded(picture)
            return self._tracks[picture]

    def _encoded(self, picture: Picture) -> Track:
        units: list[Unit] = []
        with _Frames(self._clip, picture) as frames:
            rate, encoder = frames.rate, None
            size = (0, 0)
            for image in frames:
                if encoder is None:
                    size = picture.size or _usual_size(image, picture.codec)
                    check_size(size, picture.codec)
                    encoder = _Encoder(picture, size, rate)
                units += encoder.encode(image)
            if encoder is None:
                raise SourceError(FailureReason.EMPTY, "the clip has no frames")
            units += encoder.encode(None)
        return _track(picture.codec, size, rate, units)

    def _copied(self, picture: Picture) -> Track:
        if self._clip is None:
            raise SourceError(FailureReason.CODEC, "the built-in scene has to be encoded")
        with _open(self._clip) as container:
            stream = container.streams.video[0]
            codec = _CODEC_NAMES.get(stream.codec_context.name)
            if codec is None:
                raise SourceError(FailureReason.CODEC, "only H.264 and H.265 are served as they are in the file")
            to_annex_b = av.BitStreamFilterContext(f"{stream.codec_context.name}_mp4toannexb", stream)
            rate = Fraction(stream.average_rate or SCENE_FPS)
            units: list[Unit] = []
            last: int | None = None
            for packet in container.demux(stream):
                for filtered in to_annex_b.filter(packet if packet.size else None):
                    if last is not None and filtered.pts is not None and filtered.pts <= last:
                        raise SourceError(FailureReason.CODEC, "frames of the file are not in order of presentation (B-frames)")
                    last = filtered.pts
                    units.append(_unit(codec, bytes(filtered), bool(filtered.is_keyframe)))
                if len(units) >= min(UNITS_MAX, picture.seconds * rate):
                    break
            size = (stream.codec_context.width, stream.codec_context.height)
        return _track(codec, size, rate, units)


class _Frames:
    """Upright pictures of a clip at the asked rate, or at its own."""

    def __init__(self, clip: Path | None, picture: Picture) -> None:
        self._container = _open(clip) if clip else None
        stream = self._container.streams.video[0] if self._container else None
        own = Fraction(stream.average_rate or SCENE_FPS) if stream else SCENE_FPS
        self.rate = picture.rate or own
        self._limit = max(1, min(UNITS_MAX, int(picture.seconds * self.rate)))

    def __enter__(self) -> "_Frames":
        return self

    def __exit__(self, *_: object) -> None:
        if self._container is not None:
            self._container.close()

    def __iter__(self) -> Iterator[BgrImage]:
        given = 0
        for at_s, image in self._read():
            # A frame stands until the next one, so a slow clip repeats frames and a fast one leaves some out.
            while given <= at_s * self.rate:
                if given >= self._limit:
                    return
                given += 1
                yield image()

    def _read(self) -> Iterator[tuple[Fraction, Any]]:
        if self._container is None:
            from moodline.services.ingest.file.synthetic import open_scene

            seconds = -(-self._limit * self.rate.denominator // self.rate.numerator)
            scene = open_scene(f"synthetic://astronaut?seconds={seconds}&fps={self.rate}&faces=1&seed=1")
            for frame in scene.frames():
                yield frame.pts_s, frame.to_bgr
            return
        first: Fraction | None = None
        try:
            for frame in self._container.decode(video=0):
                at_s = Fraction(frame.pts or 0) * (frame.time_base or 0)
                first = at_s if first is None else first
                yield at_s - first, lambda frame=frame: _upright(frame)
        except av.FFmpegError:
            raise SourceError(FailureReason.CORRUPT, "the clip cannot be decoded") from None


class _Encoder:
    """Frames in, units out: no B-frames, no delay, parameter sets with each keyframe."""

    def __init__(self, picture: Picture, size: tuple[int, int], rate: Fraction) -> None:
        self._codec, self._size, self._next = picture.codec, size, 0
        context: Any = av.CodecContext.create(_ENCODERS[picture.codec], "w")
        context.width, context.height = size
        context.time_base, context.framerate = 1 / rate, rate
        context.thread_count = 1
        gop = max(1, round(picture.gop_s * rate))
        if picture.codec is Codec.MJPEG:
            context.pix_fmt = "yuvj420p"
            context.qmin, context.qmax = 4, 6
            context.options = {"huffman": "default"}
        else:
            name = "x264" if picture.codec is Codec.H264 else "x265"
            extra = "sliced-threads=0:threads=1" if name == "x264" else "pools=1:frame-threads=1:log-level=none:info=0"
            context.pix_fmt = "yuv420p"
            context.gop_size = gop
            context.bit_rate = int(size[0] * size[1] * BITS_PER_PX_S * rate / 25)
            context.options = {
                "preset": "superfast" if name == "x264" else "ultrafast",
                "tune": "zerolatency",
                f"{name}-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:repeat-headers=1:bframes=0:{extra}",
            }
        self._context = context

    def encode(self, image: BgrImage | None) -> list[Unit]:
        frame = None
        if image is not None:
            plain = av.VideoFrame.from_ndarray(_boxed(image, self._size), format="bgr24")
            jpeg = self._codec is Codec.MJPEG
            frame = plain.reformat(format=self._context.pix_fmt, dst_color_range="JPEG" if jpeg else "MPEG")
            frame.pts, frame.time_base = self._next, self._context.time_base
            self._next += 1
        return [_unit(self._codec, bytes(packet), bool(packet.is_keyframe)) for packet in self._context.encode(frame)]


def _unit(codec: Codec, coded: bytes, keyframe: bool) -> Unit:
    payloads = jpeg_payloads(coded) if codec is Codec.MJPEG else nal_payloads(split_nals(coded), codec)
    return Unit(keyframe, coded, payloads)


def _track(codec: Codec, size: tuple[int, int], rate: Fraction, units: list[Unit]) -> Track:
    first = next((number for number, unit in enumerate(units) if unit.keyframe), None)
    if first is None:
        raise SourceError(FailureReason.EMPTY, "the clip has no keyframe")
    units = units[first:]
    if codec is not Codec.MJPEG and len(units) > 1 and units[-1].keyframe:
        # Two IDR frames in a row would need different idr_pic_ids.
        units.pop()
    sets = () if codec is Codec.MJPEG else parameter_sets(split_nals(units[0].whole), codec)
    return Track(codec, *size, rate, tuple(units), sets)


def _open(clip: Path) -> Any:
    try:
        container = av.open(str(clip))
    except (av.FFmpegError, OSError):
        raise SourceError(FailureReason.NOT_FOUND, f"{clip} cannot be opened as a video") from None
    if not container.streams.video:
        container.close()
        raise SourceError(FailureReason.NO_VIDEO, f"{clip} has no video")
    return container


def _upright(frame: Any) -> BgrImage:
    image: BgrImage = frame.to_ndarray(format="bgr24")
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _usual_size(image: BgrImage, codec: Codec) -> tuple[int, int]:
    step = 8 if codec is Codec.MJPEG else 2
    return image.shape[1] // step * step, image.shape[0] // step * step


def _boxed(image: BgrImage, size: tuple[int, int]) -> BgrImage:
    """Return the image reduced or enlarged to fit the size, undistorted, on black."""
    width, height = size
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = (min(width, max(2, round(image.shape[1] * scale))), min(height, max(2, round(image.shape[0] * scale))))
    if inner != (image.shape[1], image.shape[0]):
        scaled = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(width=inner[0], height=inner[1])
        image = scaled.to_ndarray(format="bgr24")
    if inner == size:
        return image
    canvas: BgrImage = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = image
    return canvas
