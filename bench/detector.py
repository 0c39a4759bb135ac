"""Moodline's own face detector, YuNet and the Haar cascade side by side, in one run. Run from the checkout:

    python -m bench.detector --own models/face-small --labelled faces-labelled.tar.gz [--yunet YUNET.onnx]
        [--clips FOLDER] [--crowds PHOTOS.tar --labels LABELS.jsonl] [--classifier fer-1] [--out FOLDER]

Labelled photos have people's boxes. Clips and crowds have a stand-in for them: on clips what YuNet finds at 640 px in a frame
and in its mirror image alike; in crowds what `moodline.training.detector.labels` wrote, on the photos that training held out,
enlarged to 640 px. Both favour YuNet. What is smaller than the smallest labelled faces counts neither way where labels have a
least size, for nobody said which of those there are. Recall is given at each detector's own threshold and at the one where its
precision is just 0.93 (in brackets: what it is there). Time is CPU time, one thread each, detectors taking turns on the same
pictures. With --classifier: how often the crops of two detectors get the same answer. With --out: the table, a plot, and
sheets of detections on every clip: own green, YuNet blue, Haar red. What concerns single clips is as Moodline runs: at 480 px,
faces from 16 px."""

import argparse
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from moodline.services.classifier.model import Model
from moodline.services.detector.base import FaceDetector
from moodline.services.detector.crop import cut_faces
from moodline.services.detector.factory import HAAR, YUNET_THRESHOLD, open_detector
from moodline.services.detector.own import load_manifest
from moodline.shared.settings import DetectorSettings
from moodline.training.detector.labels import overlap
from moodline.training.detector.measure import Matches, Picture, longer_side, match, point_at, point_at_precision
from moodline.training.detector.photos import CROWDS, Rules, load_photos
from moodline.training.detector.validate import LABELLED_IOU, LABELLED_SIDE_PX, LEAST_SCORE, load_labelled

SIZES_PX = (0, 16, 32, 64, 128, 100_000)
SERVED = DetectorSettings()
LEAST_FACE_PX = 4
EQUAL_PRECISION = 0.93
COLOURS = {"own": (0, 220, 0), "YuNet": (255, 120, 0), "Haar": (0, 0, 255)}
NOTHING = np.empty((0, 4), np.float32)


class Scene(NamedTuple):
    """A picture with known faces and regions to ignore, both float (N, 4) in px, and the least size of known faces."""

    image: np.ndarray
    known: np.ndarray
    ignored: np.ndarray
    least_px: float = 0.0


class Task(NamedTuple):
    """Scenes that are searched at one size and matched at one overlap."""

    name: str
    side_px: int
    least_iou: float
    scenes: list[Scene]

    @property
    def title(self) -> str:
        return f"{self.name}, {self.side_px} px"


class Row(NamedTuple):
    task: str
    detector: str
    recall: float
    precision: float
    mean_iou: float
    recall_at: float
    precision_at: float
    ms: float
    by_size: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--own", type=Path, required=True)
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--yunet", type=Path)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--crowds", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--classifier")
    parser.add_argument("--frames", type=int, default=24, help="of each clip")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    clips = {path: sampled(path, options.frames) for path in sorted(options.clips.iterdir())} if options.clips else {}
    tasks = list(tasks_of(options, clips))
    lines, matched = [], {}
    for task in tasks:
        found, ms = search(task, options)
        matches = {name: matched_in(task, rows) for name, rows in found.items()}
        matched[task.title] = matches
        lines += rows_of(task, matches, ms, load_manifest(options.own).threshold)
    text = table(lines)
    for path, frames in clips.items():
        text += "\n" + steadiness(path, frames, options)
    if options.classifier and options.yunet:
        text += "\n" + agreement(clips, options)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "detector.md").write_text(text + "\n")
        plot(matched, options.out / "detector.png")
        for path, frames in clips.items():
            sheet(frames, options, options.out / f"{path.stem}.png")


def opened(
    options: argparse.Namespace, side_px: int, threshold: float | None = None, least_px: int = LEAST_FACE_PX
) -> dict[str, FaceDetector]:
    """Open the detectors, with their own thresholds or with another one (Haar has none, and its faces are from 16 px)."""
    models = {"own": str(options.own)} | ({"YuNet": str(options.yunet)} if options.yunet else {})
    detectors = {name: open_one(model, side_px, threshold, least_px) for name, model in models.items()}
    return detectors | {"Haar": open_one(HAAR, side_px, None, SERVED.min_face_px)}


def open_one(model: str, side_px: int, threshold: float | None = None, least_px: int = LEAST_FACE_PX) -> FaceDetector:
    return open_detector(DetectorSettings(model=model, side_px=side_px, threshold=threshold, min_face_px=least_px))


def as_served(options: argparse.Namespace) -> dict[str, FaceDetector]:
    """Open the detectors with the service's side, thresholds and least size."""
    return opened(options, SERVED.side_px, None, SERVED.min_face_px)


def tasks_of(options: argparse.Namespace, clips: dict[Path, list[np.ndarray]]) -> Iterator[Task]:
    if options.labelled:
        scenes = [Scene(photo.image, photo.boxes, NOTHING) for photo in load_labelled(options.labelled)]
        yield Task("labelled photos", LABELLED_SIDE_PX, LABELLED_IOU, scenes)
    if options.crowds:
        photos = load_photos(options.crowds, options.labels, held_out=True)
        for name, group in (
            ("crowds", [photo for photo in photos if photo.group == CROWDS]),
            ("other photos", [photo for photo in photos if photo.group != CROWDS]),
        ):
            side = 640 if name == "crowds" else 320
            scenes = [scene_of(photo.image, photo.boxes, side if name == "crowds" else 0) for photo in group]
            yield Task(f"{name} held out", side, 0.5, scenes)
    if clips and options.yunet:
        for side in (320, SERVED.side_px, 640):
            yield Task("clips", side, 0.5, [reference(frame, options.yunet) for frame in itertools.chain(*clips.values())])


def scene_of(image: np.ndarray, boxes: np.ndarray, enlarged_px: int) -> Scene:
    """Return a scene of a teacher's labels, enlarged to so many px at the longer side; 0: as it is."""
    taught = Rules().taught(boxes)
    limit = np.array([image.shape[1], image.shape[0]] * 2)
    scale = enlarged_px / max(image.shape[:2]) if enlarged_px else 1.0
    boxes = np.clip(boxes[:, :4], 0, limit) * scale
    larger = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR) if scale != 1 else image
    return Scene(larger, boxes[taught], boxes[~taught], Rules().least_side_px * scale)


def reference(frame: np.ndarray, yunet: Path) -> Scene:
    """Return what YuNet finds at 640 px in a frame and its mirror image alike; what it finds in one alone is ignored."""
    detector = open_one(str(yunet), 640, 0.4)
    plain, mirrored = detector.detect(frame), detector.detect(np.ascontiguousarray(frame[:, ::-1]))
    mirrored[:, [0, 2]] = frame.shape[1] - mirrored[:, [2, 0]]
    both = overlap(plain, mirrored).max(1, initial=0) > 0.5
    sure = both & (plain[:, 4] >= YUNET_THRESHOLD)
    return Scene(frame, plain[sure, :4], np.concatenate([plain[~sure, :4], mirrored[:, :4]]))


def sampled(path: Path, most: int) -> list[np.ndarray]:
    """Return frames spread evenly over a clip."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    return [frames[index] for index in np.linspace(0, len(frames) - 1, min(most, len(frames))).astype(int)]


def search(task: Task, options: argparse.Namespace) -> tuple[dict[str, list[np.ndarray]], dict[str, float]]:
    """Return what each detector finds down to low scores, and its median CPU time at its own threshold, in ms."""
    quick, low = opened(options, task.side_px), opened(options, task.side_px, LEAST_SCORE)
    spent, found = defaultdict(list), defaultdict(list)
    for scene in task.scenes:
        for name, detector in quick.items():
            began_s = time.process_time()
            detector.detect(scene.image)
            spent[name].append(1000 * (time.process_time() - began_s))
            found[name].append(low[name].detect(scene.image))
    return found, {name: statistics.median(values) for name, values in spent.items()}


def matched_in(task: Task, found: list[np.ndarray]) -> Matches:
    scenes = zip(found, task.scenes, strict=True)
    return match([Picture(rows, scene.known, scene.ignored, scene.least_px) for rows, scene in scenes], task.least_iou)


def rows_of(task: Task, matches: dict[str, Matches], ms: dict[str, float], own_threshold: float) -> Iterator[Row]:
    thresholds = {"own": own_threshold, "YuNet": YUNET_THRESHOLD, "Haar": 0.0}
    for name, found in matches.items():
        point, equal = point_at(found, thresholds[name]), point_at_precision(found, EQUAL_PRECISION)
        taken = found.right & (found.score >= thresholds[name])
        sizes = []
        for low, high in itertools.pairwise(SIZES_PX):
            total = int(((found.known_side_px >= low) & (found.known_side_px < high)).sum())
            hit = int((taken & (found.side_px >= low) & (found.side_px < high)).sum())
            sizes.append(f"{hit / total:.3f} ({total})" if total else "")
        yield Row(task.title, name, point.recall, point.precision, point.mean_iou, equal.recall, equal.precision, ms[name], sizes)


def table(rows: list[Row]) -> str:
    sizes = [f"{low} to {high} px" if high < 10_000 else f"from {low} px" for low, high in itertools.pairwise(SIZES_PX)]
    head = [
        "pictures",
        "detector",
        "recall",
        "precision",
        "mean IoU",
        f"recall at precision {EQUAL_PRECISION}",
        "ms",
        *(f"recall, {size}" for size in sizes),
    ]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        lines.append([
            row.task, row.detector, f"{row.recall:.3f}", f"{row.precision:.3f}", f"{row.mean_iou:.3f}",
            f"{row.recall_at:.3f} ({row.precision_at:.3f})", f"{row.ms:.1f}", *row.by_size,
        ])  # fmt: skip
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def steadiness(path: Path, frames: list[np.ndarray], options: argparse.Namespace) -> str:
    """Say how many faces each detector finds in a clip's frames, and in the first consecutive ones how much boxes tremble."""
    parts = []
    with av.open(str(path)) as container:
        run = [frame.to_ndarray(format="bgr24") for frame in itertools.islice(container.decode(video=0), 30)]
    for name, detector in as_served(options).items():
        count = sum(len(detector.detect(frame)) for frame in frames)
        tremble = trembling([detector.detect(frame)[:1, :4] for frame in run])
        parts.append(f"{name} {count} faces, trembling {100 * tremble:.1f}%")
    return f"{path.name} ({len(frames)} frames): " + "; ".join(parts)


def trembling(best: list[np.ndarray]) -> float:
    """Return the median second difference of the best face's box over frames, relative to its side."""
    changes = []
    for one, two, three in zip(best, best[1:], best[2:], strict=False):
        if len(one) and len(two) and len(three) and overlap(one, two)[0, 0] > 0.5 < overlap(two, three)[0, 0]:
            changes.append(float(np.abs(one - 2 * two + three).mean() / longer_side(two)[0]))
    return statistics.median(changes) if changes else 0.0


def agreement(clips: dict[Path, list[np.ndarray]], options: argparse.Namespace) -> str:
    """Say how often the classifier answers alike for the crops of two detectors, on faces that both find.

    How much of it is the detector's and how much the classifier's shows YuNet beside itself on pictures a tenth smaller.
    """
    from moodline.services.classifier.factory import open_model
    from moodline.shared.settings import ClassifierSettings

    classifier = open_model(ClassifierSettings(model=options.classifier, threads=1))
    lines = []
    for side in (320, SERVED.side_px):
        others = {f"{name} at {side} px": other for name, other in opened(options, side).items() if name != "YuNet"}
        others[f"YuNet at {side * 9 // 10} px"] = open_one(str(options.yunet), side * 9 // 10)
        yunet = open_one(str(options.yunet), side, None, SERVED.min_face_px)
        for name, other in others.items():
            alike, total = alike_and_total(itertools.chain(*clips.values()), yunet, other, classifier)
            share = 100 * alike / max(1, total)
            lines.append(f"{options.classifier}: YuNet at {side} px and {name} alike on {alike} of {total} faces ({share:.1f}%)")
    return "\n".join(lines)


def alike_and_total(frames: Iterable[np.ndarray], one: FaceDetector, other: FaceDetector, classifier: Model) -> tuple[int, int]:
    """Return for how many faces that two detectors find a classifier answers alike, and how many they are."""
    alike = total = 0
    for frame in frames:
        first, second = one.detect(frame), other.detect(frame)
        shared = overlap(first, second)
        for index in np.flatnonzero(shared.max(1, initial=0) > 0.4):
            pair = ((first[index], one), (second[shared[index].argmax()], other))
            cuts = [cut_faces(frame, box[None], found.square_from, 1)[0].crop for box, found in pair]
            answers = classifier.predict(np.stack([np.frombuffer(crop, np.uint8).reshape(48, 48) for crop in cuts])).argmax(1)
            alike, total = alike + int(answers[0] == answers[1]), total + 1
    return alike, total


def plot(matched: dict[str, dict[str, Matches]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows = -(-len(matched) // 3)
    figure, axes = pyplot.subplots(rows, 3, figsize=(13, 3.8 * rows), squeeze=False)
    for spare in axes.flat[len(matched) :]:
        spare.set_axis_off()
    for axis, (task, detectors) in zip(axes.flat, matched.items(), strict=False):
        for name, found in detectors.items():
            right = np.cumsum(found.right)
            blue, green, red = (value / 255 for value in COLOURS[name])
            curve = right / max(1, len(found.known_side_px)), right / np.arange(1, len(right) + 1)
            axis.plot(*curve, label=name, color=(red, green, blue))
        axis.set(title=task, xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0.5, 1.01))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def sheet(frames: list[np.ndarray], options: argparse.Namespace, path: Path) -> None:
    """Write twelve frames with all detectors' boxes."""
    detectors, tiles = as_served(options), []
    for frame in frames[:: max(1, len(frames) // 12)][:12]:
        scale = 400 / frame.shape[1]
        tile = cv2.resize(frame, (400, round(frame.shape[0] * scale)), interpolation=cv2.INTER_AREA)
        for name, detector in reversed(detectors.items()):
            for x1, y1, x2, y2, score in detector.detect(frame).tolist():
                corners = [(round(x * scale), round(y * scale)) for x, y in ((x1, y1), (x2, y2))]
                cv2.rectangle(tile, corners[0], corners[1], COLOURS[name], 2 if name == "own" else 1)
                if name == "own":
                    cv2.putText(tile, f"{score:.2f}", corners[0], cv2.FONT_HERSHEY_PLAIN, 0.9, COLOURS[name], 1)
        tiles.append(tile)
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % 4)
    rows = [np.concatenate(tiles[start : start + 4], 1) for start in range(0, len(tiles), 4)]
    cv2.imwrite(str(path), np.concatenate(rows))


if __name__ == "__main__":
    main()
