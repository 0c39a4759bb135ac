"""Drawing results over a video: boxes, track ids and the leading emotion.

The frames' results come from the pipeline; this is a second pass over the file that samples it the same way and keeps the last
result on screen until the next sampled frame.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
import numpy.typing as npt

from moodline.services.aggregator.tracker import StreamTracker
from moodline.services.ingest.media.frames import Source
from moodline.services.ingest.media.sampling import Sampler
from moodline.shared.emotions import EMOTIONS, PROBABILITY_SCALE
from moodline.shared.messages import Emotions

_TIME_BASE: Final = Fraction(1, 60_000)
_COLOURS_BGR: Final[tuple[tuple[int, int, int], ...]] = (
    (0, 94, 213),
    (115, 158, 0),
    (167, 121, 204),
    (66, 228, 240),
    (178, 114, 0),
    (0, 159, 230),
    (190, 190, 190),
)
"""Okabe and Ito's colour-blind-safe palette, in the order of `EMOTIONS`."""


_UNREADABLE_BGR: Final = (110, 110, 110)


@dataclass(frozen=True, slots=True)
class Overlay:
    """One face as drawn. `box` is x1, y1, x2, y2 in 1/65536 of width and height; `share` is 0 to 1.

    `emotion` is None where no expression could be read from the face.
    """

    box: tuple[int, int, int, int]
    track_id: int
    emotion: int | None
    share: float


def make_overlays(frames: Iterable[Emotions], tracker: StreamTracker) -> dict[int, list[Overlay]]:
    """Return what to draw per `seq`, with the track ids and smoothed emotions that the timeline has."""
    overlays = {}
    for message in frames:
        drawn = []
        for face, seen in zip(message.faces, tracker.observe(message), strict=True):
            if not seen.is_readable:
                drawn.append(Overlay(face.box, seen.track_id, None, 0.0))
                continue
            leading = max(range(len(EMOTIONS)), key=lambda index: seen.smoothed[index])
            drawn.append(Overlay(face.box, seen.track_id, leading, seen.smoothed[leading] / PROBABILITY_SCALE))
        overlays[message.seq] = drawn
    return overlays


def write_annotated(source: Source, sampler: Sampler, overlays: dict[int, list[Overlay]], path: Path) -> int:
    """Write the annotated video as H.264 in the container that the path's suffix names; return the number of frames.

    Raises:
        SourceError: the source cannot be read.
        OSError: the file cannot be written.
    """
    count, seq = 0, -1
    shown: Sequence[Overlay] = ()
    with av.open(str(path), "w") as container:
        stream = None
        for frame in source.frames():
            image = frame.to_bgr()
            if stream is None:
                stream = container.add_stream("libx264", rate=source.info.fps or 25, options={"crf": "20", "preset": "veryfast"})
                stream.width, stream.height = image.shape[1] // 2 * 2, image.shape[0] // 2 * 2
                stream.pix_fmt, stream.time_base = "yuv420p", _TIME_BASE
                stream.codec_context.time_base = _TIME_BASE
            if sampler.take(frame.pts_s):
                seq += 1
                shown = overlays.get(seq, ())
            draw(image, shown)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[: stream.height, : stream.width]), format="bgr24")
            picture.pts, picture.time_base = round(frame.pts_s / _TIME_BASE), _TIME_BASE
            container.mux(stream.encode(picture))
            count += 1
        if stream is not None:
            container.mux(stream.encode(None))
    return count


def draw(image: npt.NDArray[np.uint8], overlays: Iterable[Overlay]) -> None:
    """Draw faces on a BGR image uint8 (H, W, 3), in place."""
    height, width = image.shape[:2]
    scale = max(0.4, min(width, height) / 720)
    thickness = max(1, round(2 * scale))
    for overlay in overlays:
        x1, x2 = (round(value * width / 65536) for value in overlay.box[::2])
        y1, y2 = (round(value * height / 65536) for value in overlay.box[1::2])
        colour = _UNREADABLE_BGR if overlay.emotion is None else _COLOURS_BGR[overlay.emotion]
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, thickness)
        shown = "unreadable" if overlay.emotion is None else f"{EMOTIONS[overlay.emotion]} {overlay.share:.0%}"
        label = f"#{overlay.track_id} {shown}"
        (label_width, label_height), baseline = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * scale, thickness)
        left = max(0, min(x1, width - label_width - 6))
        top = y1 - label_height - baseline - 4 if y1 > label_height + baseline + 4 else y2
        cv2.rectangle(image, (left, top), (left + label_width + 6, top + label_height + baseline + 4), colour, -1)
        origin = (left + 3, top + label_height + 2)
        cv2.putText(image, label, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * scale, (20, 20, 20), thickness, cv2.LINE_AA)
