"""Make a run of a served model, so that training goes on from its weights: `python -m moodline.training.unfold --model fer-1 …`.

In a served model, batch normalisation and shortcuts are folded into the convolutions. What the convolutions answer is measured
over training images, and becomes the normalisation's mean and variance; its gain and offset undo that. So the run answers as
the served model does, and a training step, which normalises with the statistics of its batch, starts near the same function.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from moodline.services.classifier.artefact import load_artefact
from moodline.services.classifier.factory import model_folder
from moodline.shared.errors import ModelError
from moodline.training.architecture import ARCHITECTURES, NORM_EPSILON, OFFSET, SCALE, Block
from moodline.training.augment import Images
from moodline.training.config import DataConfig, ModelConfig, TrainConfig
from moodline.training.data import TRAIN, load_data
from moodline.training.made_run import write_run
from moodline.training.runs import RunRecord, RunResult

Array = npt.NDArray[np.float32]

_IMAGES: Final = 1024


def unfolded(weights: Sequence[Array], blocks: Sequence[Block], images: Images) -> dict[str, Array]:
    """Return a served network's weights as those of the training network, by name.

    Args:
        weights: As `moodline.training.export.folded` gives them.
        blocks: The architecture.
        images: Training images to measure on, uint8 (N, 48, 48).

    Raises:
        ModelError: the weights are of another architecture.
    """
    if [weight.shape[-1] for weight in weights[:-2:2]] != [block.filters for block in blocks]:
        raise ModelError("these weights are of another architecture")
    state: dict[str, Array] = {"emotions/kernel": weights[-2], "emotions/bias": weights[-1]}
    x = images[..., None].astype(np.float32) * np.float32(SCALE) + np.float32(OFFSET)
    for index, block in enumerate(blocks, 1):
        kernel, bias = weights[2 * index - 2].astype(np.float64), weights[2 * index - 1].astype(np.float64)
        before = x if block.shortcut else None
        if block.shortcut:
            kernel = kernel.copy()
            kernel[1, 1] -= np.eye(block.filters)
        scale = np.sqrt((kernel**2).sum((0, 1, 2))) + 1e-12  # each filter gets length 1, as fits the decay of weights
        kernel = (kernel / scale).astype(np.float32)
        answer = _convolved(x, kernel)
        mean, variance = answer.mean((0, 1, 2), np.float64), answer.var((0, 1, 2), np.float64)
        state |= {
            f"conv{index}/kernel": kernel,
            f"norm{index}/gamma": (scale * np.sqrt(variance + NORM_EPSILON)).astype(np.float32),
            f"norm{index}/beta": (bias + scale * mean).astype(np.float32),
            f"norm{index}/moving_mean": mean.astype(np.float32),
            f"norm{index}/moving_variance": variance.astype(np.float32),
        }
        x = answer * scale.astype(np.float32) + bias.astype(np.float32)
        x = np.maximum(x if before is None else x + before, 0)
        if block.pool:
            count, height, width, channels = x.shape
            x = x.reshape(count, height // 2, 2, width // 2, 2, channels).max((2, 4))
    return state


def _convolved(x: Array, kernel: Array) -> Array:
    """Return a 3x3 convolution with zeros around, (N, H, W, C) by (3, 3, C, F)."""
    _, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = np.zeros((*x.shape[:3], kernel.shape[3]), np.float32)
    for row in range(3):
        for column in range(3):
            total += padded[:, row : row + height, column : column + width] @ kernel[row, column]
    return total


def unfold(model: str, kind: str, data: Path, votes: str, out: Path) -> RunResult:
    """Write a run of a served model's weights, measured on the validation part.

    Raises:
        ModelError: there is no such model, or it is of another architecture.
        DataError: the images or the votes cannot be used.
    """
    artefact = load_artefact(model_folder(model))
    images = load_data(data).part(TRAIN).images
    chosen = images[np.linspace(0, len(images) - 1, min(_IMAGES, len(images))).round().astype(int)]
    weights = unfolded(artefact.weights, ARCHITECTURES[kind], chosen)
    network = ModelConfig(kind=kind)  # type: ignore[arg-type]  # checked by the look-up
    config = TrainConfig(name=f"weights of {artefact.manifest.name}", model=network, data=DataConfig(votes=votes))
    return write_run(out, RunRecord(config, 0, "", "torch"), weights, data)


def main() -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name of a shipped model, or folder of an artefact")
    parser.add_argument("--kind", choices=sorted(ARCHITECTURES), default="shipped", help="its architecture")
    parser.add_argument("--data", type=Path, required=True, help="image folder or CSV with training and validation part")
    parser.add_argument("--votes", default="", help="FER+ votes CSV, to measure against people as well")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    arguments = parser.parse_args()
    print(unfold(arguments.model, arguments.kind, arguments.data, arguments.votes, arguments.out))


if __name__ == "__main__":
    main()
