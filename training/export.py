"""Make a served model of trained weights: `python -m training.export --run training/runs/seed --data fer2013 --name fer-seed`.

Batch normalisation is folded into the convolutions, weights are rounded to float16, and the result is measured again on
the validation part before it is written: the figures in the artefact are those of what is served.
"""

import argparse
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from services.classifier.artefact import FORMAT, MANIFEST, WEIGHTS, InputContract, Manifest, check_architecture
from shared.emotions import CROP_SIDE_PX, EMOTIONS
from shared.errors import ModelError
from training.architecture import BLOCKS, OFFSET, SCALE
from training.data import Split, load_split

Array = npt.NDArray[np.float32]

_BATCH_NORM_EPSILON: Final = 1e-5
_MAX_DIFFERENCE: Final = 0.02
"""Most that a probability may change by folding and rounding."""


def folded(state: Mapping[str, Array]) -> list[Array]:
    """Return the serving network's weights in Keras' order and layout.

    Args:
        state: The trained network's `state_dict` as arrays: convolutions without bias, each followed by its batch
            normalisation, and a dense layer at the end.
    """
    weights: list[Array] = []
    for index in sorted({int(name.split(".")[0]) for name in state}):
        weight = state[f"{index}.weight"].astype(np.float64)
        if weight.ndim == 4:
            kernel = weight.transpose(2, 3, 1, 0)  # out, in, height, width -> height, width, in, out
        elif weight.ndim == 1:
            gain = weight / np.sqrt(state[f"{index}.running_var"].astype(np.float64) + _BATCH_NORM_EPSILON)
            shift = state[f"{index}.bias"] - state[f"{index}.running_mean"] * gain
            weights += [(kernel * gain).astype(np.float32), shift.astype(np.float32)]
        else:
            weights += [weight.T.astype(np.float32), state[f"{index}.bias"]]
    return weights


def serving_network(keras: Any, name: str) -> Any:
    """Return the untrained serving network: uint8 (N, 48, 48) -> probabilities float32 (N, 7)."""
    layers = keras.layers
    crops = layers.Input((CROP_SIDE_PX, CROP_SIDE_PX), dtype="uint8", name="crops")
    x = layers.Reshape((CROP_SIDE_PX, CROP_SIDE_PX, 1), name="channel")(crops)
    x = layers.Rescaling(SCALE, OFFSET, name="scaled")(x)
    for index, (filters, pool) in enumerate(BLOCKS, 1):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{index}")(x)
        if pool:
            x = layers.MaxPooling2D(name=f"pool{index}")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(crops, layers.Dense(len(EMOTIONS), activation="softmax", name="emotions")(x), name=name)


def write_artefact(
    folder: Path, network: Any, weights: Sequence[Array], metrics: dict[str, Any], training: dict[str, Any]
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
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(buffer.getvalue())
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")


def measured(probabilities: Array, split: Split) -> dict[str, Any]:
    """Return accuracy, recall per class, mean cross-entropy in nats, and expected calibration error over 15 bins."""
    labels, rows = split.labels, np.arange(len(split.labels))
    hit, confidence = probabilities.argmax(1) == labels, probabilities.max(1)
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(hit[bins == b].sum() - confidence[bins == b].sum()) for b in range(15)]
    return {
        "split": f"FER-2013 PublicTest, {len(labels)} images",
        "accuracy": round(float(hit.mean()), 4),
        "recall": {name: round(float(hit[labels == index].mean()), 4) for index, name in enumerate(EMOTIONS)},
        "cross_entropy": round(float(-np.log(np.maximum(probabilities[rows, labels], 1e-9)).mean()), 4),
        "calibration_error": round(float(sum(gaps) / len(labels)), 4),
    }


def export(run: Path, data: Path, folder: Path, name: str) -> dict[str, Any]:
    """Fold, round, measure and write. Returns the figures.

    Raises:
        ModelError: the serving network does not answer like the trained one.
    """
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import torch

    from training.model import build
    from training.train import load_weights, predicted, record_of

    validation = load_split(data / "validation")
    state = load_weights(run / "best.npz")
    trained = build()
    trained.load_state_dict(state)
    expected = torch.softmax(predicted(trained, validation)[0], 1).numpy()

    weights = [weight.astype(np.float16).astype(np.float32) for weight in folded({k: v.numpy() for k, v in state.items()})]
    network = serving_network(keras, name)
    network.set_weights(weights)
    served = np.asarray(network.predict(validation.images, batch_size=256, verbose=0))
    difference = float(np.abs(served - expected).max())
    if difference > _MAX_DIFFERENCE:
        raise ModelError(f"a probability changed by {difference} when the network was folded and rounded")
    metrics = measured(served, validation)
    data_used = "FER-2013 Training, without duplicates, conflicting labels and images of the validation part"
    training = {"data": data_used, **record_of(run)}
    write_artefact(folder, network, weights, metrics, training)
    return {**metrics, "largest_change": round(difference, 5)}


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder that training wrote")
    parser.add_argument("--data", type=Path, required=True, help="folder with validation/")
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument("--out", type=Path, help="folder of the artefact; default models/NAME")
    arguments = parser.parse_args()
    folder = arguments.out or Path(__file__).resolve().parents[1] / "models" / arguments.name
    print(json.dumps(export(arguments.run, arguments.data, folder, arguments.name), indent=2))


if __name__ == "__main__":
    main()
