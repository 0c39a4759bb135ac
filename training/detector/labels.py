"""Labels from a teacher.

    python -m moodline.training.detector.labels --images PHOTOS.tar --teacher YUNET.onnx --out LABELS.jsonl

The teacher searches each photo at several scales, and mirrored. A face is what is found in both mirrors of at least one
scale: small faces show at the large scales, large ones at the small scales, so the best scale decides, while an answer
that depends on the mirror is a weak one. Everything above a low score is kept: what is too small or too doubtful to be
taught is needed as well, as a region that training ignores.

A killed run goes on where it stopped: a finished photo is one line of the file.
"""

import argparse
import importlib
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from moodline.shared.errors import DataError, ModelError

SCALES: Final = (0.5, 1.0, 2.0)
LEAST_SCORE: Final = 0.3
_SAME_FACE_IOU: Final = 0.45
_NMS_IOU: Final = 0.3
_YUNET_STRIDES: Final = (8, 16, 32)
_YUNET_PARTS: Final = ("cls", "obj", "bbox")
_YUNET_OUTPUTS: Final = [f"{part}_{stride}" for part in _YUNET_PARTS for stride in _YUNET_STRIDES]
_NEAR_BEST: Final = 0.8
"""Scales that score at least so much of the best one have a say in where the box is."""

Boxes = npt.NDArray[np.float32]
"""float32 (N, 5): x1, y1, x2, y2 in px of the photo, score 0 to 1."""


class PhotoLabels(msgspec.Struct, frozen=True):
    """One line of a label file.

    Attributes:
        name: Path in the archive.
        width, height: Of the photo, in px.
        boxes: Rows x1, y1, x2, y2 in px and score; boxes may reach out of the photo.
    """

    name: str
    width: int
    height: int
    boxes: tuple[tuple[float, float, float, float, float], ...]

    def array(self) -> Boxes:
        """Return the boxes as float32 (N, 5)."""
        return np.array(self.boxes, np.float32).reshape(-1, 5)


class Found(NamedTuple):
    """The result of one search: its scale and the boxes, mirrored back."""

    scale: float
    boxes: Boxes


class Teacher:
    """YuNet (Wu, Peng and Yu, 2023), asked at several scales and in both mirrors.

    It runs in ONNX Runtime, which takes a third of the time of `cv2.FaceDetectorYN` for the same answers.

    Args:
        path: The ONNX file.
        scales: Of the photo.
        threads: Of one search.

    Raises:
        ModelError: the file is no such network.
    """

    def __init__(self, path: Path, scales: Sequence[float] = SCALES, threads: int = 1) -> None:
        self._scales = tuple(scales)
        self._session = _open_any_size(path, threads)

    def label(self, image: npt.NDArray[np.uint8]) -> Boxes:
        """Return the faces of a uint8 (H, W, 3) BGR photo, best first."""
        return merged([found for scale in self._scales for found in self.search(image, scale)])

    def search(self, image: npt.NDArray[np.uint8], scale: float) -> tuple[Found, Found]:
        """Return what is found at one scale, as it is and mirrored."""
        height, width = image.shape[:2]
        size = (max(8, round(width * scale)), max(8, round(height * scale)))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        sized = image if size == (width, height) else cv2.resize(image, size, interpolation=method)
        right, bottom = (-side % 32 for side in size)
        pair = [cv2.copyMakeBorder(view, 0, bottom, 0, right, cv2.BORDER_CONSTANT) for view in (sized, sized[:, ::-1])]
        answers = dict(
            zip(_YUNET_OUTPUTS, self._session.run(_YUNET_OUTPUTS, {"input": cv2.dnn.blobFromImages(pair)}), strict=True)
        )
        grid = (pair[0].shape[0], pair[0].shape[1])
        back = np.array([width / size[0], height / size[1]] * 2 + [1])
        found = []
        for mirror in (0, 1):
            boxes = _decoded(answers, grid, mirror)
            if mirror:
                boxes[:, [0, 2]] = size[0] - boxes[:, [2, 0]]
            found.append(Found(scale, (boxes * back).astype(np.float32)))
        return found[0], found[1]


def _open_any_size(path: Path, threads: int) -> Any:
    """Open the network with its input's fixed size taken out: its layers fit any multiple of 32 px, and any batch."""
    import onnx

    onnxruntime: Any = importlib.import_module("onnxruntime")  # it has no types

    if not path.is_file():
        raise ModelError(f"there is no teacher at {path}")
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}_{index}"
    del model.graph.value_info[:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    if {value.name for value in session.get_outputs()} < set(_YUNET_OUTPUTS):
        raise ModelError(f"{path} is not YuNet: its answers have other names")
    return session


def _decoded(answers: dict[str, npt.NDArray[np.float32]], size: tuple[int, int], item: int) -> npt.NDArray[np.float64]:
    """Return one picture's boxes, float64 (N, 5), after suppression, from the raw answers for a batch of two."""
    rows = []
    for stride in _YUNET_STRIDES:
        high, wide = size[0] // stride, size[1] // stride
        part = slice(item * high * wide, (item + 1) * high * wide)
        kind, thing, box = (answers[f"{name}_{stride}"][0, part].astype(np.float64) for name in _YUNET_PARTS)
        score = np.sqrt(np.clip(kind[:, 0], 0, 1) * np.clip(thing[:, 0], 0, 1))
        kept = np.flatnonzero(score >= LEAST_SCORE)
        box, score = box[kept], score[kept]
        x, y = (kept % wide + box[:, 0]) * stride, (kept // wide + box[:, 1]) * stride
        half_x, half_y = np.exp(box[:, 2]) * stride / 2, np.exp(box[:, 3]) * stride / 2
        rows.append(np.stack([x - half_x, y - half_y, x + half_x, y + half_y, score], 1))
    boxes = np.concatenate(rows)
    return boxes[suppressed(boxes, _NMS_IOU)]


def suppressed(boxes: npt.NDArray[np.floating], iou: float) -> npt.NDArray[np.int64]:
    """Return the indices of the boxes (N, 5) that no better box covers by more than `iou`, best first."""
    order = np.argsort(-boxes[:, 4], kind="stable")
    shared = overlap(boxes[order], boxes[order]) > iou
    kept: list[int] = []
    for index in range(len(order)):
        if not shared[index, kept].any():
            kept.append(index)
    chosen: npt.NDArray[np.int64] = order[kept]
    return chosen


def overlap(one: npt.NDArray[np.floating], many: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return intersection over union of boxes (N, 4+) with boxes (M, 4+), as float64 (N, M)."""
    a, b = np.asarray(one, np.float64)[:, None], np.asarray(many, np.float64)[None]
    wide = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    high = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    inside = np.clip(wide, 0, None) * np.clip(high, 0, None)
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    shared: npt.NDArray[np.float64] = inside / np.maximum(area_a + area_b - inside, 1e-9)
    return shared


def merged(searches: Sequence[Found]) -> Boxes:
    """Return one box for each face of several searches, best first.

    A face's score is, over the scales, the largest mean of both mirrors, where a mirror that missed it counts as 0; its box
    is the mean of the searches at the scales that come near that score, weighted by score.
    """
    rows = [(row, search) for search, found in enumerate(searches) for row in found.boxes]
    if not rows:
        return np.empty((0, 5), np.float32)
    boxes = np.stack([row for row, _ in rows]).astype(np.float64)
    source = np.array([search for _, search in rows])
    scale = np.array([found.scale for found in searches])
    shared = overlap(boxes, boxes)
    free = np.ones(len(boxes), bool)
    faces = []
    for index in np.argsort(-boxes[:, 4], kind="stable"):
        if free[index]:
            group = free & (shared[index] > _SAME_FACE_IOU)
            free &= ~group
            faces.append(_face(boxes[group], source[group], scale))
    found = np.array(faces, np.float32).reshape(-1, 5)
    found = found[found[:, 4] >= LEAST_SCORE / 2]
    return found[np.argsort(-found[:, 4], kind="stable")]


def _face(boxes: npt.NDArray[np.float64], source: npt.NDArray[np.int64], scale: npt.NDArray[np.float64]) -> list[float]:
    best = np.zeros(len(scale))
    np.maximum.at(best, source, boxes[:, 4])
    of_scale = {value: best[scale == value].mean() for value in set(scale.tolist())}
    score = max(of_scale.values())
    chosen = np.array([of_scale[scale[search]] >= _NEAR_BEST * score for search in source])
    weight = boxes[chosen, 4] / boxes[chosen, 4].sum()
    return [*(weight @ boxes[chosen, :4]).tolist(), float(score)]


def read_photos(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and JPEG bytes of each photo of a tar archive, in the archive's order.

    Raises:
        DataError: the archive is missing or damaged.
    """
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() and member.name.endswith((".jpg", ".jpeg", ".png")) else None
                if file is not None:
                    yield member.name, file.read()
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{archive} cannot be read: {error}") from None


def decode_photo(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Return a photo as uint8 (H, W, 3) BGR.

    Raises:
        DataError: it is damaged.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise DataError(f"{name} is not a photo")
    decoded: npt.NDArray[np.uint8] = image
    return decoded


def load_labels(path: Path) -> dict[str, PhotoLabels]:
    """Read a label file by photo's name; a last line that was cut off is left out.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n")
        complete = lines[:-1]  # what follows the last line's end is empty, or half a line
        return {found.name: found for found in (msgspec.json.decode(line, type=PhotoLabels) for line in complete)}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is not a label file: {error}") from None


def label_photos(archive: Path, teacher: Teacher, out: Path) -> int:
    """Label the photos of an archive that `out` does not hold yet, and return how many it holds then."""
    done = set(load_labels(out)) if out.is_file() else set()
    if out.is_file():
        whole = out.read_bytes()
        out.write_bytes(whole[: whole.rfind(b"\n") + 1])
    began_s, new = time.monotonic(), 0
    with out.open("ab") as file:
        for name, data in read_photos(archive):
            if name in done:
                continue
            image = decode_photo(data, name)
            rows = tuple(tuple(round(float(value), 3) for value in row) for row in teacher.label(image))
            line = PhotoLabels(name, image.shape[1], image.shape[0], rows)  # type: ignore[arg-type]
            file.write(msgspec.json.encode(line) + b"\n")
            new += 1
            file.flush()
            if new % 200 == 0:
                print(f"{len(done) + new} photos, {(time.monotonic() - began_s) / new:.3f} s each", flush=True)
    return len(done) + new


def main() -> None:
    """Read the command line and label."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="tar archive of photos")
    parser.add_argument("--teacher", type=Path, required=True, help="YuNet as an ONNX file")
    parser.add_argument("--out", type=Path, required=True, help="label file (JSON lines); goes on with it if it exists")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    cv2.setNumThreads(arguments.threads)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(label_photos(arguments.images, Teacher(arguments.teacher, threads=arguments.threads), arguments.out), "photos labelled")


if __name__ == "__main__":
    main()
