"""Make a served detector of a run: `python -m moodline.training.detector.export --run RUN --labelled PHOTOS.tar.gz --name NAME`.

Normalisation and shortcuts are folded into plain convolutions and written as ONNX. The threshold is chosen on
the labelled photos, through the very detector that is served, and the figures in `detector.json` are measured with it there.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from moodline.services.detector.own import FORMAT, MANIFEST, Manifest, OwnDetector
from moodline.shared.errors import ModelError
from moodline.training.detector.card import card
from moodline.training.detector.config import DetectorTraining
from moodline.training.detector.graph import build_graph, weight_count
from moodline.training.detector.measure import Matches, point_at, point_at_precision
from moodline.training.detector.network import folded
from moodline.training.detector.spec import SPECS
from moodline.training.detector.train import CHECKPOINT, CONFIG, SERVED, EpochLine
from moodline.training.detector.validate import (
    LABELLED_IOU,
    LABELLED_SIDE_PX,
    LEAST_SCORE,
    LabelledPhoto,
    against_labels,
    load_labelled,
)
from moodline.training.runs import load_arrays, write_file, write_json

WEIGHTS: Final = "detector.onnx"
CARD: Final = "README.md"
PRECISION: Final = 0.93
_CONTRACT: Final[dict[str, str | int]] = {
    "image": "float32 (N, 3, H, W), 0 to 255, blue-green-red; H and W multiples of 32",
    "level8, level16, level32": "float32 (N, 5, H/stride, W/stride): logit of the score, then logarithms of the distances from "
    "the cell's centre to the box's left, top, right and bottom, in strides",
}


def export(run: Path, labelled: Sequence[LabelledPhoto], folder: Path, name: str) -> Manifest:
    """Write the ONNX file, `detector.json` and the card, and return what is in the second.

    Raises:
        ModelError: the run, or one that it began with, has no whole epoch yet or is damaged.
    """
    told, arrays = _read(run)
    runs = _runs(run)
    spec = SPECS[told.network]
    served = {key.removeprefix(SERVED): value for key, value in arrays.items() if key.startswith(SERVED)}
    data = build_graph(spec, folded(spec, served), name)
    write_file(folder / WEIGHTS, data)
    manifest = Manifest(
        format=FORMAT,
        name=name,
        weights=WEIGHTS,
        weights_sha256=hashlib.sha256(data).hexdigest(),
        threshold=0.5,
        input=_CONTRACT,
        metrics={},
        training={
            "weights": weight_count(spec),
            "epochs": sum(one["epochs"] for one in runs),
            "last_epoch": _lines(arrays)[-1].measured,
            "runs": runs,
        },
    )
    write_json(folder / MANIFEST, manifest)
    matches = search_labelled(folder, labelled)
    threshold = _threshold(matches)
    manifest = msgspec.structs.replace(manifest, threshold=threshold, metrics=figures(matches, threshold, len(labelled)))
    write_json(folder / MANIFEST, manifest)
    write_file(folder / CARD, card(manifest).encode())
    return manifest


def _threshold(matches: Matches) -> float:
    """Return the least threshold, in thousandths, with which the precision is reached."""
    exact = point_at_precision(matches, PRECISION).threshold
    steps = np.arange(np.floor(exact * 1000), 1001) / 1000
    return float(next((step for step in steps if point_at(matches, step).precision >= PRECISION), 1.0))


def search_labelled(folder: Path, labelled: Sequence[LabelledPhoto]) -> Matches:
    """Search the labelled photos with the detector in a folder, at `LABELLED_SIDE_PX`, down to low scores."""
    detector = OwnDetector(folder, LEAST_SCORE, LABELLED_SIDE_PX)
    return against_labels([detector.detect(photo.image).astype(np.float64) for photo in labelled], labelled)


def figures(matches: Matches, threshold: float, photos: int) -> dict[str, object]:
    """Return what a manifest says of its labelled photos."""
    point = point_at(matches, threshold)
    return {
        "photos": photos,
        "side_px": LABELLED_SIDE_PX,
        "iou": LABELLED_IOU,
        "recall": round(point.recall, 4),
        "precision": round(point.precision, 4),
        "mean_iou": round(point.mean_iou, 4),
    }


def _runs(run: Path) -> list[dict[str, Any]]:
    """Return what was trained, first run first: each went on from the weights of the one before it."""
    told, arrays = _read(run)
    before = Path(told.start) if told.start else None
    options = msgspec.to_builtins(msgspec.structs.replace(told, start=before.name if before else ""))
    one = {"name": run.name, "epochs": len(_lines(arrays)), "options": options}
    return [*(_runs(before) if before else []), one]


def _lines(arrays: dict[str, Any]) -> list[EpochLine]:
    return msgspec.json.decode(arrays["log"].tobytes(), type=list[EpochLine])


def _read(run: Path) -> tuple[DetectorTraining, dict[str, Any]]:
    try:
        told = msgspec.json.decode((run / CONFIG).read_bytes(), type=DetectorTraining)
    except (OSError, msgspec.MsgspecError) as error:
        raise ModelError(f"{run} holds no training run: {error}") from None
    return told, load_arrays(run / CHECKPOINT)


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder that training wrote; its predecessors are read, too")
    parser.add_argument("--labelled", type=Path, required=True, help="tar.gz of photos with boxes")
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument("--out", type=Path, help="folder of the artefact; default models/NAME")
    arguments = parser.parse_args()
    folder = arguments.out or Path(__file__).resolve().parents[2] / "models" / arguments.name
    manifest = export(arguments.run, load_labelled(arguments.labelled), folder, arguments.name)
    print(json.dumps({"threshold": manifest.threshold, **manifest.metrics}, indent=2))


if __name__ == "__main__":
    main()
