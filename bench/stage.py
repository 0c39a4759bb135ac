"""What a frame costs the detector's worker, in ms of CPU time: its JPEG, the search, the crops. Run from the checkout:

    python -m bench.stage CLIP… [--model face-small --model haar --model YUNET.onnx] [--side 320 --side 480]

Frames are spread over the clips and sent as ingest sends them, with a longer side of 640 px and 1280 px, quality 90. One thread;
detectors take turns; the median over all frames. The last column is what `bench.sizing --detect-ms` wants.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from bench.detector import sampled
from moodline.services.detector.crop import cut_faces
from moodline.services.detector.factory import open_detector
from moodline.services.detector.image import decode_jpeg
from moodline.shared.settings import DetectorSettings

SIDES_PX = (640, 1280)
QUALITY = 90
HEAD = ["frames", "model", "searched at", "faces", "JPEG", "search", "crops", "whole"]
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", action="append", help="as MOODLINE_DETECTOR_MODEL; may be given several times")
    parser.add_argument("--side", action="append", type=int, help="as MOODLINE_DETECTOR_SIDE_PX; may be given several times")
    parser.add_argument("--precision", default="auto", help="as MOODLINE_DETECTOR_PRECISION")
    parser.add_argument("--frames", type=int, default=20, help="of each clip")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    frames = [frame for clip in options.clips for frame in sampled(clip, options.frames)]
    for row in (HEAD, ["---"] * len(HEAD)):
        print("| " + " | ".join(row) + " |")
    for sent_px in SIDES_PX:
        jpegs = [encoded(frame, sent_px) for frame in frames]
        settings = [
            DetectorSettings(model=model, side_px=side, precision=options.precision)
            for model in options.model or ["face-small", "haar"]
            for side in options.side or [320, 480]
        ]
        for told, (faces, parts) in zip(settings, measured(jpegs, settings), strict=True):
            cells = " | ".join(f"{part:.1f}" for part in (*parts, sum(parts)))
            print(f"| {sent_px} px | {Path(told.model).stem} | {told.side_px} px | {faces} | {cells} |")


def encoded(frame: np.ndarray, longer_px: int) -> bytes:
    scale = longer_px / max(frame.shape[:2])
    sized = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return cv2.imencode(".jpg", sized, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def measured(jpegs: list[bytes], settings: list[DetectorSettings]) -> Iterator[tuple[int, list[float]]]:
    """Yield for each detector how many faces it finds, and the medians of its three parts in ms."""
    detectors = [open_detector(told) for told in settings]
    spent: list[list[list[float]]] = [[[], [], []] for _ in settings]
    counts = [0] * len(settings)
    for jpeg in (jpegs[0], *jpegs):  # the first one twice: its first turn warms up
        for index, detector in enumerate(detectors):
            image, decode_ms = timed(lambda jpeg=jpeg: decode_jpeg(jpeg))
            found, search_ms = timed(lambda image=image, detector=detector: detector.detect(image))
            faces, crop_ms = timed(
                lambda image=image, found=found, detector=detector: cut_faces(image, found, detector.square_from, 64)
            )
            counts[index] += len(faces)
            for part, ms in zip(spent[index], (decode_ms, search_ms, crop_ms), strict=True):
                part.append(ms)
    for count, parts in zip(counts, spent, strict=True):
        yield count, [statistics.median(part[1:]) for part in parts]


def timed(work: Callable[[], T]) -> tuple[T, float]:
    began_s = time.process_time()
    answer = work()
    return answer, 1000 * (time.process_time() - began_s)


if __name__ == "__main__":
    main()
