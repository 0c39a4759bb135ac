"""Make a served model of a training run.

    python -m moodline.training.export --run training/runs/shipped --data fer2013 --name fer

With `--views mirror` the model answers the mean for a face and its mirror image. With `--votes` it is compared with what people
see as well, and its confidence is calibrated to that; with `--clips` its card says how it sees a neutral speaker.

Batch normalisation and shortcuts are folded into the convolutions and the temperature into the last layer, weights are
rounded to float16, and what was written is opened and measured again on the validation part: the figures in `metrics.json`
and on the model card are those of what is served.
"""

import argparse
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from moodline.services.classifier.artefact import (
    FORMAT,
    MANIFEST,
    WEIGHTS,
    InputContract,
    Manifest,
    Views,
    check_architecture,
    load_artefact,
)
from moodline.services.classifier.model import Crops, Model, Probabilities
from moodline.shared.emotions import CROP_SIDE_PX, EMOTIONS
from moodline.shared.errors import ModelError
from moodline.training.architecture import ARCHITECTURES, BASELINE, NORM_EPSILON, OFFSET, SCALE, Block
from moodline.training.backend import import_keras
from moodline.training.card import card
from moodline.training.config import config_dict
from moodline.training.data import VALIDATION, Split, load_data
from moodline.training.evaluate import Metrics, classification_report, evaluate_model
from moodline.training.measures import (
    accuracy,
    calibration_error,
    class_figures,
    confusion,
    cross_entropy,
    fitted_common_temperature,
    macro_f1,
    tempered,
    wilson,
)
from moodline.training.predictor import open_run, served_model, untempered
from moodline.training.runs import BEST, load_arrays, load_log, load_record, load_result, write_json
from moodline.training.speech import measured_speech
from moodline.training.truths import Truths, load_truths

Array = npt.NDArray[np.float32]

METRICS, CARD = "metrics.json", "README.md"

_CLEANED: Final = ", without duplicates, conflicting labels and images of the validation part"
_MAX_DIFFERENCE: Final = 0.02
"""Most that a probability may change by folding and rounding."""


def folded(state: Mapping[str, Array], blocks: Sequence[Block] = BASELINE, temperature: float = 1.0) -> list[Array]:
    """Return the serving network's weights in Keras' order.

    Args:
        state: The trained network's weights by name: `conv1/kernel` (3, 3, in, out), `norm1/gamma`, `norm1/beta`,
            `norm1/moving_mean`, `norm1/moving_variance` (out,), and so on, and `emotions/kernel` and `emotions/bias`.
        blocks: Its architecture.
        temperature: What its logits are to be divided by.

    Raises:
        ModelError: a weight is missing or has another shape.
    """
    weights: list[npt.NDArray[np.floating[Any]]] = []
    try:
        for index, block in enumerate(blocks, 1):
            kernel = state[f"conv{index}/kernel"].astype(np.float64)
            variance = state[f"norm{index}/moving_variance"].astype(np.float64)
            gain = state[f"norm{index}/gamma"] / np.sqrt(variance + NORM_EPSILON)
            kernel = kernel * gain
            if block.shortcut:
                kernel[1, 1] += np.eye(block.filters)
            weights += [kernel, state[f"norm{index}/beta"] - state[f"norm{index}/moving_mean"] * gain]
        weights += [state["emotions/kernel"] / temperature, state["emotions/bias"] / temperature]
    except (KeyError, ValueError) as error:
        raise ModelError(f"the weights do not fit the architecture: {error}") from None
    return [weight.astype(np.float32) for weight in weights]


def serving_network(keras: Any, name: str, blocks: Sequence[Block] = BASELINE) -> Any:
    """Return the untrained serving network: uint8 (N, 48, 48) -> probabilities float32 (N, 7)."""
    layers = keras.layers
    crops = layers.Input((CROP_SIDE_PX, CROP_SIDE_PX), dtype="uint8", name="crops")
    x = layers.Reshape((CROP_SIDE_PX, CROP_SIDE_PX, 1), name="channel")(crops)
    x = layers.Rescaling(SCALE, OFFSET, name="scaled")(x)
    for index, block in enumerate(blocks, 1):
        x = layers.Conv2D(block.filters, 3, padding="same", activation="relu", name=f"conv{index}")(x)
        if block.pool:
            x = layers.MaxPooling2D(name=f"pool{index}")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(crops, layers.Dense(len(EMOTIONS), activation="softmax", name="emotions")(x), name=name)


def write_artefact(
    folder: Path,
    network: Any,
    weights: Sequence[Array],
    metrics: dict[str, Any],
    training: dict[str, Any],
    views: Views = "single",
) -> None:
    """Write `weights.npz` (float16) and `model.json` of a Keras network whose name is the model's."""
    architecture = msgspec.json.decode(json.dumps(network.get_config()))
    check_architecture(architecture)
    buffer = io.BytesIO()
    arrays = {f"{index:03d}": weight.astype(np.float16) for index, weight in enumerate(weights)}
    np.savez(buffer, allow_pickle=False, **arrays)
    manifest = Manifest(
        format=FORMAT,
        name=network.name,
        weights_sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
        input=InputContract(),
        classes=EMOTIONS,
        architecture=architecture,
        metrics=metrics,
        training=training,
        views=views,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(buffer.getvalue())
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")


def measured(probabilities: Array, truths: Truths) -> dict[str, Any]:
    """Return the figures that an artefact carries: cross-entropy in nats, calibration error over 15 bins."""
    labels = truths.split.labels
    share, figures = accuracy(probabilities, labels), class_figures(confusion(probabilities, labels))
    return {
        "split": f"FER-2013 PublicTest, {len(labels)} images",
        "accuracy": round(share, 4),
        "interval_95": [round(end, 4) for end in wilson(share, len(labels))],
        "macro_f1": round(macro_f1(figures), 4),
        "recall": {name: round(row.recall, 4) for name, row in figures.items()},
        "support": {name: row.support for name, row in figures.items()},
        "cross_entropy": round(cross_entropy(probabilities, labels), 4),
        "calibration_error": round(calibration_error(probabilities, labels), 4),
        **({} if truths.people is None else {"accuracy_people": round(truths.people_accuracy(probabilities), 4)}),
    }


def export(
    run: Path, data: Path, folder: Path, name: str, votes: str = "", views: Views = "single", clips: Path | None = None
) -> Metrics:
    """Fold, round, write, measure what was written, and write the figures and the card. Returns the figures.

    Args:
        run: What training wrote.
        data: Image folder or CSV with the validation part.
        folder: Of the artefact.
        name: Of the model.
        votes: FER+ votes CSV, or nothing.
        views: How many views of a face are taken; see `moodline.services.classifier.artefact.Manifest`.
        clips: Folder of the clip with a neutral speaker, see `moodline.training.speech`, or nothing.

    Raises:
        ModelError: the run is of a kind that cannot be folded, or the serving network does not answer like the trained one.
    """
    record = load_record(run)
    kind = record.config.model.kind
    if kind not in ARCHITECTURES:
        raise ModelError(f"{run} is a {kind} network; only {', '.join(ARCHITECTURES)} can be served")
    truths = load_truths(load_data(data).part(VALIDATION), votes)
    trained, temperature = _calibrated(run, truths, views)
    network, weights, served = _serving(run, ARCHITECTURES[kind], name, temperature, truths.split)
    difference = float(np.abs(served - tempered(trained.predict(truths.split.images), temperature)).max())
    if difference > _MAX_DIFFERENCE:
        raise ModelError(f"a probability changed by {difference} when the network was folded and rounded")
    training = {
        "data": f"FER-2013 Training{_CLEANED if record.config.data.clean else ''}",
        "runs": _runs(run),
    }
    # Written twice: what is measured is what the files say.
    write_artefact(folder, network, weights, {"temperature": temperature}, training, views)
    model = served_model(load_artefact(folder))
    answers = model.predict(truths.split.images)
    write_artefact(folder, network, weights, {**measured(answers, truths), "temperature": temperature}, training, views)
    metrics = evaluate_model(model, temperature, truths.split, VALIDATION, seen=truths.people).metrics
    speech = measured_speech(model, clips) if clips else None
    write_json(folder / METRICS, metrics)
    (folder / CARD).write_text(card(load_artefact(folder), metrics, speech), "utf-8")
    return metrics


def _calibrated(run: Path, truths: Truths, views: Views) -> tuple[Model, float]:
    """Return the run's model without a temperature, and the one that fits what is served: of one view, or of the mean of two."""
    model, there = open_run(run)
    images = truths.split.images
    given = [images] if views == "single" else [images, np.ascontiguousarray(images[:, :, ::-1])]
    plain = _Untempered(model, there)
    known, truth = truths.compared()
    return plain, round(fitted_common_temperature([plain.predict(view)[known] for view in given], truth), 4)


class _Untempered:
    """A run's model without the temperature that its training found."""

    def __init__(self, model: Model, temperature: float) -> None:
        self.name, self._model, self._temperature = model.name, model, temperature

    def predict(self, crops: Crops) -> Probabilities:
        return untempered(self._model.predict(crops), self._temperature)

    def close(self) -> None:
        self._model.close()


def _serving(run: Path, blocks: Sequence[Block], name: str, temperature: float, split: Split) -> tuple[Any, list[Array], Array]:
    """Return the serving network, its weights as float16 holds them, and its answers for one view."""
    weights = folded(load_arrays(run / BEST), blocks, temperature)
    weights = [weight.astype(np.float16).astype(np.float32) for weight in weights]
    network = serving_network(import_keras(), name, blocks)
    network.set_weights(weights)
    return network, weights, np.asarray(network.predict(split.images, batch_size=256, verbose=0))


def _runs(run: Path) -> list[dict[str, Any]]:
    """Return what was done, the first run first: a run may begin with another's weights. Folders shrink to their names."""
    record, result = load_record(run), load_result(run)
    options = config_dict(record.config)
    start, soft = options["model"]["start"], options["distil"]["soft_labels"]
    options["model"]["start"], options["distil"]["soft_labels"] = Path(start).name, Path(soft).name
    options["distil"]["teachers"] = [Path(teacher).name for teacher in options["distil"]["teachers"]]
    epochs = result.epochs if result else len(load_log(run))
    here = {"images": record.images, "epochs": epochs, "backend": record.backend, "options": options}
    return [*(_runs(Path(start)) if start else []), here]


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder that training wrote")
    parser.add_argument("--data", type=Path, required=True, help="image folder or CSV with the validation part")
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument("--votes", default="", help="FER+ votes CSV, to calibrate to and compare with what people see")
    parser.add_argument("--views", choices=("single", "mirror"), default="single", help="views of a face that are averaged")
    parser.add_argument("--clips", type=Path, help="folder with the clip of a neutral speaker, for the card")
    parser.add_argument("--out", type=Path, help="folder of the artefact; default models/NAME")
    arguments = parser.parse_args()
    views: Views = "mirror" if arguments.views == "mirror" else "single"
    folder = arguments.out or Path(__file__).resolve().parents[1] / "models" / arguments.name
    metrics = export(arguments.run, arguments.data, folder, arguments.name, arguments.votes, views, arguments.clips)
    print(classification_report(metrics))


if __name__ == "__main__":
    main()
