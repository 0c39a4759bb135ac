"""Moodline's own face detector: a small network in ONNX, run by OpenVINO, and in NumPy what leads from its answers to faces.

The network answers, for each cell of three grids (strides 8, 16 and 32 px), a score's logit and the logarithms of the distances
in strides from the cell's centre to the four sides of the box.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from moodline.services.detector.base import BgrImage, Detections, Found
from moodline.services.detector.crop import split_by_width
from moodline.services.detector.image import check_image, reduced
from moodline.shared.errors import ModelError
from moodline.shared.openvino_runtime import (
    bfloat16_agrees,
    chosen_precision,
    cpu_options,
    first_line,
    import_openvino,
    open_core,
)

MANIFEST: Final = "detector.json"
FORMAT: Final = "moodline-face-detector/1"
STRIDES: Final = (8, 16, 32)
OUTPUTS: Final = tuple(f"level{stride}" for stride in STRIDES)
NMS_IOU: Final = 0.45
_MOST_CANDIDATES: Final = 2000
_VOTERS_IOU: Final = 0.6
_VOTERS_SCORE: Final = 0.5
_LARGEST_LOG: Final = 4.0
_MULTIPLE_PX: Final = 32
_LEAST_WIDTH_PX: Final = 64
"""Least width of the network's input: with one cell in a row, OpenVINO 2026.4 calculates wrongly in bfloat16."""
_TOLERANCE: Final = 1.0
"""Tolerated error of a raw output in bfloat16. On noise it is up to 0.2; a wrong kernel is off by powers of ten."""

Level = npt.NDArray[np.float32]
"""The raw outputs of one grid: float32 (5, h, w)."""


class Manifest(msgspec.Struct, frozen=True):
    """`detector.json` of a detector.

    Attributes:
        format: Says how to read the rest, and what the network's outputs mean.
        name: Of the model.
        weights: The ONNX file beside it.
        weights_sha256: Of that file.
        threshold: Least score of a face, chosen on labelled photos.
        input: The input contract, in words.
        metrics: Figures on photos that training never saw.
        training: What it was trained with.
    """

    format: str
    name: str
    weights: str
    weights_sha256: str
    threshold: float
    input: dict[str, str | int]
    metrics: dict[str, object]
    training: dict[str, object]


class _Sized(NamedTuple):
    """A picture as the network takes it, and the factors back to the picture's own px."""

    image: BgrImage
    back_x: float
    back_y: float


class OwnDetector:
    """Finds faces with a network that Moodline was trained for.

    The picture is brought down to `side_px` (never up) and padded with black at its right and bottom: to multiples of 32 px, and
    to a width of at least 64 px.

    Args:
        folder: Holds `detector.json` and the ONNX file it names.
        threshold: Least score of a face, 0 to 1; nothing: the model's own.
        side_px: Longer side of the searched picture.
        min_face_px: Least width of a face in the searched picture.
        precision: `float32`; `bfloat16`, the numbers that newer processors multiply several times faster; or `auto`:
            bfloat16 where the processor has instructions for it, else float32. For a shape of picture where bfloat16 proves
            wrong, float32 after all.

    Raises:
        ModelError: OpenVINO or a file is missing, a file is damaged or no such network, or the precision cannot be had.
    """

    square_from = "longer_side"

    def __init__(
        self, folder: Path, threshold: float | None, side_px: int, min_face_px: int = 1, precision: str = "auto"
    ) -> None:
        cv2.setNumThreads(1)  # frames are searched side by side; threads within one would only fight over cores
        self.manifest = load_manifest(folder)
        self._network = _Network(folder, self.manifest, precision)
        self._threshold = self.manifest.threshold if threshold is None else threshold
        self._side_px = side_px
        self._min_face_px = min_face_px

    def detect(self, image: BgrImage) -> Detections:
        return self.search(image).faces

    def search(self, image: BgrImage) -> Found:
        check_image(image)
        height, width = image.shape[:2]
        sized = _sized(image, self._side_px)
        found = faces_of(self._network.answer(sized.image), self._threshold)
        found[:, :4] *= (sized.back_x, sized.back_y, sized.back_x, sized.back_y)
        return split_by_width(found, self._min_face_px * sized.back_x, width, height)


def load_manifest(folder: Path) -> Manifest:
    """Read a detector's `detector.json`.

    Raises:
        ModelError: it is missing, damaged, or of another format.
    """
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except OSError:
        raise ModelError(f"there is no detector model in {folder}") from None
    except msgspec.MsgspecError as error:
        raise ModelError(f"{folder / MANIFEST} is damaged: {error}") from None
    if manifest.format != FORMAT:
        raise ModelError(f"{folder / MANIFEST} is of format {manifest.format}, not {FORMAT}")
    return manifest


class _Network:
    """The network, compiled for one picture at a time on one thread: batches gain little, frames are searched side by side."""

    def __init__(self, folder: Path, manifest: Manifest, wanted: str) -> None:
        self._name = manifest.name
        path = folder / Path(manifest.weights).name
        data = _checked_weights(path, manifest)
        precision = chosen_precision(open_core(), wanted)
        try:
            self._exact = _Compiled(data, "float32")
            self._quick = _Compiled(data, precision) if precision != "float32" else self._exact
            shapes = [level.shape for level in self._exact.answer(np.zeros((_MULTIPLE_PX, _MULTIPLE_PX, 3), np.uint8))]
        except RuntimeError as error:
            raise ModelError(f"{path} is not an ONNX face detector: {first_line(error)}") from None
        if shapes != [(5, _MULTIPLE_PX // stride, _MULTIPLE_PX // stride) for stride in STRIDES]:
            raise ModelError(f"{path} answers in shapes {shapes}, which a face detector does not")
        self._of_shape: dict[tuple[int, int], _Compiled] = {}

    def answer(self, image: BgrImage) -> list[Level]:
        """Return the levels of an image whose sides are multiples of 32; they are gone with the next call."""
        shape = (image.shape[0], image.shape[1])
        if shape not in self._of_shape:
            self._of_shape[shape] = self._exact if self._quick is self._exact else self._checked(shape)
        return self._of_shape[shape].answer(image)

    def _checked(self, shape: tuple[int, int]) -> "_Compiled":
        """Hold bfloat16 against float32 for a shape, with noise: what is chosen must not depend on who is in the first frame."""
        noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        agrees = bfloat16_agrees(self._quick.answer(noise), self._exact.answer(noise), _TOLERANCE, self._name, str(noise.shape))
        return self._quick if agrees else self._exact


class _Compiled:
    """The network in one precision."""

    def __init__(self, data: bytes, precision: str) -> None:
        openvino, core = import_openvino(), open_core()
        network = core.read_model(data, b"")
        # It takes pixels as they lie in memory: no copy of them as floats, colour by colour, is made before it.
        steps = openvino.preprocess.PrePostProcessor(network)
        steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        compiled = core.compile_model(steps.build(), "CPU", cpu_options(precision, 1))
        self._outputs = [compiled.output(name) for name in OUTPUTS]
        self._request = compiled.create_infer_request()

    def answer(self, image: BgrImage) -> list[Level]:
        self._request.infer({0: np.ascontiguousarray(image)[None]}, share_inputs=True)
        return [self._request.get_tensor(output).data[0] for output in self._outputs]


def _checked_weights(path: Path, manifest: Manifest) -> bytes:
    try:
        data = path.read_bytes()
    except OSError:
        raise ModelError(f"there is no detector model at {path}") from None
    if hashlib.sha256(data).hexdigest() != manifest.weights_sha256:
        raise ModelError(f"{path} is not the file that {MANIFEST} speaks of: install the model again")
    return data


def _sized(image: BgrImage, side_px: int) -> _Sized:
    small, back_x, back_y = reduced(image, side_px)
    bottom, right = -small.shape[0] % _MULTIPLE_PX, -small.shape[1] % _MULTIPLE_PX
    right = max(right, _LEAST_WIDTH_PX - small.shape[1])
    if bottom or right:
        small = cv2.copyMakeBorder(small, 0, bottom, 0, right, cv2.BORDER_CONSTANT)
    return _Sized(small, back_x, back_y)


def faces_of(levels: Sequence[Level], threshold: float) -> npt.NDArray[np.float64]:
    """Turn the network's raw answers for one picture into faces.

    Args:
        levels: Grids at strides 8, 16 and 32, each float32 (5, h, w).
        threshold: Least score, 0 to 1.

    Returns:
        float64 (N, 5): x1, y1, x2, y2 in px of the network's input, not clipped, and score; of faces that overlap by more
        than `NMS_IOU` only the best, its box voted on by those that nearly agree with it (Gidaris and Komodakis, "Object
        Detection via a Multi-Region and Semantic Segmentation-Aware CNN Model", 2015). In no particular order.
    """
    found = _candidates(levels, threshold * _VOTERS_SCORE)
    if len(found) < 2:
        return found[found[:, 4] >= threshold]
    corners = np.concatenate([found[:, :2], found[:, 2:4] - found[:, :2]], 1)
    best = cv2.dnn.NMSBoxes(corners, found[:, 4], threshold, NMS_IOU)  # type: ignore[arg-type]  # arrays are taken as well
    return _voted(found[np.asarray(best, np.int64).ravel()], found)


def _candidates(levels: Sequence[Level], least_score: float) -> npt.NDArray[np.float64]:
    """Return the boxes of all cells of at least this score: float64 (N, 5), at most `_MOST_CANDIDATES`."""
    least_logit = np.log(max(least_score, 1e-6) / max(1 - least_score, 1e-6))
    rows = []
    for stride, level in zip(STRIDES, levels, strict=True):
        y, x = np.nonzero(level[0] >= least_logit)
        logit, *logs = level[:, y, x].astype(np.float64)
        left, top, right, bottom = np.exp(np.clip(logs, -_LARGEST_LOG, _LARGEST_LOG)) * stride
        middle_x, middle_y = (x + 0.5) * stride, (y + 0.5) * stride
        score = 1 / (1 + np.exp(-logit))
        rows.append(np.stack([middle_x - left, middle_y - top, middle_x + right, middle_y + bottom, score], 1))
    found = np.concatenate(rows)
    if len(found) > _MOST_CANDIDATES:
        found = found[np.argsort(-found[:, 4], kind="stable")[:_MOST_CANDIDATES]]
    return found


def _voted(best: npt.NDArray[np.float64], candidates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return each best box with its sides averaged over its voters, weighted by the squares of their scores.

    Voters overlap it by `_VOTERS_IOU` and score half as much as it does, so who votes does not depend on the threshold.
    """
    low = np.maximum(best[:, None, :2], candidates[None, :, :2])
    high = np.minimum(best[:, None, 2:4], candidates[None, :, 2:4])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (best, candidates)]
    near = shared >= _VOTERS_IOU * (areas[0][:, None] + areas[1][None] - shared)
    weights = np.where(near & (candidates[None, :, 4] >= _VOTERS_SCORE * best[:, None, 4]), candidates[None, :, 4] ** 2, 0.0)
    return np.concatenate([weights @ candidates[:, :4] / weights.sum(1, keepdims=True), best[:, 4:]], 1)
