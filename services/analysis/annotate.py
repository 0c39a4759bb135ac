"""Drawing results over a video: boxes, track numbers and the leading emotion.

The frames' results come from the pipeline; this is a second pass over the file that samples it the same way and keeps the last
result on screen until the next sampled frame. Every frame keeps its exact time, and the sound is kept.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import cv2
import numpy as np

from moodline.services.aggregator.tracker import TrackedFace
from moodline.services.analysis.overlay import Overlay, draw
from moodline.services.analysis.sound import Sound, open_sound
from moodline.services.ingest.media.frames import BgrImage, Source
from moodline.services.ingest.media.sampling import Sampler
from moodline.shared.emotions import EMOTIONS, PROBABILITY_SCALE
from moodline.shared.errors import ImageError, OutputError
from moodline.shared.messages import Emotions

TIME_BASE: Final = Fraction(1, 360_000)
"""Exact for ticks of 1/1000 and 1/90000 s, and for 24, 25, 30, 48, 50 and 60 frames per second with and without 1000/1001."""

_LONGEST_S: Final = 600
"""A picture that stays for longer is written again: containers limit how long a frame may last."""
_LEAST_SIDE_PX: Final = 16
_MOST_SIDE_PX: Final = 8192
_LARGE_PX: Final = 4_000_000
"""From this size on the encoder keeps as few pictures as it can: one of 8K has 50 MB."""
_HUGE_PX: Final = 16_000_000
"""From this size on it searches for movement in whole pixels: half of them take three pictures more for each that it keeps."""


class _Container(NamedTuple):
    """The way a kind of file is written: FFmpeg's muxer, video encoder with options, and sounds that are copied as they are."""

    muxer: str
    encoder: str
    options: Mapping[str, str]
    sounds: frozenset[str] | None
    other_sound: str


_X264: Final = {"crf": "20", "preset": "veryfast", "bf": "0"}
_VP9: Final = {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "1", "lag-in-frames": "0"}
_MP4_SOUNDS: Final = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
_MOV_SOUNDS: Final = frozenset(
    {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_f32le"}
)
CONTAINERS: Final[dict[str, _Container]] = {
    ".mp4": _Container("mp4", "libx264", _X264, _MP4_SOUNDS, "aac"),
    ".mov": _Container("mov", "libx264", _X264, _MOV_SOUNDS, "aac"),
    ".mkv": _Container("matroska", "libx264", _X264, None, "aac"),
    ".webm": _Container("webm", "libvpx-vp9", _VP9, frozenset({"opus", "vorbis"}), "libopus"),
}
"""By the file's ending. No B-frames, so that each frame is written with its own time, and none is negative."""


@dataclass(frozen=True, slots=True)
class Annotated:
    """An annotated video that was written: `frames` in it until `end_s`. `silent` says why sound is missing; empty: it is not."""

    frames: int
    end_s: Fraction
    silent: str


def overlays_of(results: Iterator[tuple[Emotions, list[TrackedFace]]]) -> Iterator[list[Overlay]]:
    """Yield what to draw from each sampled frame on, in their order."""
    for message, tracked in results:
        drawn = []
        for face, seen in zip(message.faces, tracked, strict=True):
            if not seen.is_readable:
                drawn.append(Overlay(face.box, seen.track_id, None, 0.0))
                continue
            leading = max(range(len(EMOTIONS)), key=lambda index: seen.smoothed[index])
            drawn.append(Overlay(face.box, seen.track_id, leading, seen.smoothed[leading] / PROBABILITY_SCALE))
        yield drawn


def write_annotated(  # what is read, what is drawn, where, and who looks on
    source: Source,
    sampler: Sampler,
    overlays: Iterator[list[Overlay]],
    path: Path,
    *,
    suffix: str = "",
    sound: Callable[[], int] | None = None,
    on_frame: Callable[[Fraction], bool] = lambda _: True,
) -> Annotated:
    """Write the annotated video.

    Args:
        source: The video, at its beginning.
        sampler: Chooses the same frames that were analysed.
        overlays: What to draw from each sampled frame on.
        path: Where it is written; replaced if it is there.
        suffix: Ending that says which kind of file is written, one of `CONTAINERS`; that of `path` unless given.
        sound: Opens the file whose sound is kept, as a file descriptor that is closed here; None: no sound.
        on_frame: Told the time of each frame in s; answers False to end the video here.

    Raises:
        SourceError: the source cannot be read.
        OutputError: the kind of file is unknown, or the encoder fails.
        OSError: the file cannot be written.
    """
    kind = CONTAINERS.get((suffix or path.suffix).lower())
    if kind is None:
        raise OutputError(f"an annotated video ends with {', '.join(CONTAINERS)}")
    try:
        return _write(source, sampler, overlays, _Target(path, kind, sound, on_frame))
    except av.FFmpegError as error:
        # PyAV's errors are those of the operating system where there is one, such as a full disk.
        if isinstance(error, OSError) and error.errno is not None and 0 < error.errno < _FIRST_OF_FFMPEG:
            raise OSError(error.errno, error.strerror) from None
        raise OutputError(f"the video cannot be encoded: {error.strerror}") from None


_FIRST_OF_FFMPEG: Final = 1000


class _Target(NamedTuple):
    path: Path
    kind: _Container
    sound: Callable[[], int] | None
    on_frame: Callable[[Fraction], bool]


def _write(source: Source, sampler: Sampler, overlays: Iterator[list[Overlay]], target: _Target) -> Annotated:
    with av.open(str(target.path), "w", format=target.kind.muxer) as container, closing(_sound(target)) as sound:
        video: _Video | None = None
        shown: list[Overlay] = []
        stopped_s: Fraction | None = None
        for frame in source.frames():
            if not target.on_frame(frame.pts_s):
                stopped_s = frame.pts_s
                break
            if sampler.choose(frame.pts_s, frame.until_s, source.info.fps) is not None:
                shown = next(overlays, [])
            try:
                image = frame.to_bgr()
            except ImageError:
                # A damaged picture: the one before it stays.
                continue
            draw(image, shown)
            if video is None:
                video = _Video(container, target.kind, image, source.info.fps)
                sound.add_to(container)
            # Packets go into the file in the order in which they are played, as far as the encoder's delay allows.
            sound.mux_until(container, frame.pts_s)
            picture = video.picture(image)
            # Before it is encoded, and the next is made: one of 8K has 100 MB.
            del image
            video.add(picture, frame.pts_s, frame.until_s)
            del picture
        end_s = Fraction(0)
        if video is not None:
            end_s = video.finish(source.end_s if stopped_s is None else stopped_s)
            sound.mux_until(container, end_s)
            sound.finish(container)
        return Annotated(0 if video is None else video.frames, end_s, sound.silent)


def _sound(target: _Target) -> Sound:
    return open_sound(target.sound, target.kind.sounds, target.kind.other_sound)


class _Video:
    """The video track of the file that is written: all pictures have the size of the first."""

    def __init__(self, container: Any, kind: _Container, first: BgrImage, rate: Fraction | None) -> None:
        height, width = first.shape[:2]
        shrink = max(1.0, max(width, height) / _MOST_SIDE_PX)
        self._size = tuple(_even(round(side / shrink)) for side in (width, height))
        options = dict(kind.options)
        if width * height > _LARGE_PX and kind.encoder == "libx264":
            subme = ":subme=0" if width * height > _HUGE_PX else ""
            options |= {"x264-params": f"rc-lookahead=0:sync-lookahead=0:ref=1:mbtree=0:weightp=0:sliced-threads=1{subme}"}
        stream = container.add_stream(kind.encoder, rate=rate or 25, options=options)
        stream.width, stream.height = self._size
        stream.pix_fmt, stream.time_base = "yuv420p", TIME_BASE
        codec = stream.codec_context
        codec.time_base = TIME_BASE
        # BT.709, limited range, and said so: what players take for granted in pictures of this size differs.
        codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range = 1, 1, 1, 1
        self._container, self._stream = container, stream
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._nominal = round(1 / (rate or Fraction(25)) / TIME_BASE)
        self._begun: int | None = None
        self._kept: Any = None
        self._held: deque[Any] = deque()
        self._durations: dict[int, int] = {}
        self.frames = 0

    def picture(self, image: BgrImage) -> Any:
        """Return an image in the size and the colours of the video."""
        # Without a copy: a picture of 8K has 100 MB.
        frame = av.VideoFrame.from_numpy_buffer(_fitted(image, *self._size), format="bgr24")
        return self._reformatter.reformat(frame, format="yuv420p", dst_colorspace=1, dst_color_range=1)

    def add(self, picture: Any, pts_s: Fraction, until_s: Fraction | None) -> None:
        """Take the next picture; times never go back, and two pictures at one time are one tick apart.

        Args:
            picture: As `picture` makes it.
            pts_s: From when it is shown, in s.
            until_s: Until when at least; None: not known.
        """
        pts = round(pts_s / TIME_BASE)
        if self._begun is not None:
            pts = max(pts, self._begun + 1)
            self._end_at(pts)
        self._begun = pts
        self._kept = picture if until_s is None or until_s - pts_s > _LONGEST_S else None
        self._encode(picture, pts)
        self.frames += 1

    def finish(self, end_s: Fraction) -> Fraction:
        """Write what is left; return where the video ends, in s."""
        end = 0
        if self._begun is not None:
            end = max(round(end_s / TIME_BASE), self._begun + 1)
            self._end_at(end)
        self._mux(self._stream.encode(None), is_end=True)
        return end * TIME_BASE

    def _encode(self, picture: Any, pts: int) -> None:
        picture.pts, picture.time_base = pts, TIME_BASE
        self._mux(self._stream.encode(picture))

    def _end_at(self, until: int) -> None:
        """Note until when the newest picture is shown, which is known by now."""
        assert self._begun is not None
        begun, longest = self._begun, int(_LONGEST_S / TIME_BASE)
        while self._kept is not None and until - begun > longest:
            self._durations[begun] = longest
            begun += longest
            self._encode(self._kept, begun)
        self._durations[begun] = until - begun

    def _mux(self, packets: list[Any], *, is_end: bool = False) -> None:
        """Write the packets whose length is known; the newest waits for it."""
        self._held.extend(packets)
        while self._held and (is_end or self._held[0].pts in self._durations):
            packet = self._held.popleft()
            packet.duration = self._durations.pop(packet.pts, self._nominal)
            self._container.mux(packet)


def _even(side_px: int) -> int:
    """Return the next even number: the encoders' pictures have one colour for each 2x2 px."""
    return max(_LEAST_SIDE_PX, side_px + side_px % 2)


def _fitted(image: BgrImage, width: int, height: int) -> BgrImage:
    """Return the image in the given size, proportions kept; a missing row or column is the outermost one, more is black."""
    rows, columns = image.shape[:2]
    if (columns, rows) == (width, height):
        return np.ascontiguousarray(image)
    if rows > height or columns > width or max(width - columns, height - rows) > 1:
        scale = min(width / columns, height / rows)
        size = (max(1, min(width, round(columns * scale))), max(1, min(height, round(rows * scale))))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)
        rows, columns = image.shape[:2]
    top, left = (height - rows) // 2, (width - columns) // 2
    border = cv2.BORDER_REPLICATE if max(width - columns, height - rows) <= 1 else cv2.BORDER_CONSTANT
    padded: BgrImage = cv2.copyMakeBorder(image, top, height - rows - top, left, width - columns - left, border)
    return padded
