"""Fit a run's last layer again, and show what one truth costs the other.

    python -m moodline.training.head --run A --data fer2013 …

The layers below stay as they are; what they see in each training image, and in its mirror image, is computed once. The last layer
is then the softmax regression (L-BFGS) towards a mixture of votes and labels. That takes minutes where training takes hours, so
the share of the votes can be chosen after training; `--share` may be given several times, and the last one is written.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from moodline.training.augment import Images
from moodline.training.backend import import_keras
from moodline.training.config import TrainConfig
from moodline.training.data import TRAIN, VALIDATION, Dataset, cleaned_index, load_data
from moodline.training.made_run import write_run
from moodline.training.measures import accuracy
from moodline.training.network import float32_network
from moodline.training.predictor import load_into
from moodline.training.runs import BEST, RunResult, load_arrays, load_record
from moodline.training.targets import TrainTargets, class_weights, make_targets
from moodline.training.truths import Truths, load_truths

Array = npt.NDArray[np.float32]

_BATCH: Final = 256
_ITERATIONS: Final = 200


class Head(NamedTuple):
    """A last layer, kernel float32 (C, 7) and bias float32 (7,), and its accuracies on validation."""

    share: float
    kernel: Array
    bias: Array
    people: float
    labels: float


def refit(run: Path, data: Path, votes: str, shares: Sequence[float], ridge: float, out: Path) -> tuple[list[Head], RunResult]:
    """Fit a last layer for each share, and write the run with the last one.

    Args:
        run: A run with weights.
        data: Image folder or CSV with the training and the validation part.
        votes: FER+ votes CSV.
        shares: Of the votes in the targets, 0 to 1.
        ridge: Weight of the squared difference from the present last layer.
        out: Folder of the new run.

    Raises:
        ModelError: the run cannot be used.
        DataError: the images or the votes cannot be used.
    """
    record, dataset = load_record(run), load_data(data)
    kept = cleaned_index(dataset.part(TRAIN), dataset.part(VALIDATION))
    weights = load_arrays(run / BEST)
    start = (weights["emotions/kernel"], weights["emotions/bias"])
    features_of = _features(record.config, run)
    images = dataset.part(TRAIN).images[kept]
    features = np.concatenate([features_of(images), features_of(np.ascontiguousarray(images[:, :, ::-1]))])
    truths = load_truths(dataset.part(VALIDATION), votes)
    seen = features_of(truths.split.images)
    heads = []
    for share in shares:
        targets = _targets(record.config, dataset, kept, votes, share)
        kernel, bias = fitted(features, TrainTargets(*(np.concatenate([part, part]) for part in targets)), start, ridge)
        heads.append(_measured(share, kernel, bias, seen, truths))
    last = heads[-1]
    config = _config(record.config, run, votes, last.share)
    new = weights | {"emotions/kernel": last.kernel, "emotions/bias": last.bias}
    return heads, write_run(out, msgspec.structs.replace(record, config=config, images=len(kept)), new, data)


def fitted(features: Array, targets: TrainTargets, start: tuple[Array, Array], ridge: float) -> tuple[Array, Array]:
    """Return kernel and bias of the softmax regression from features (N, C) to targets, with a ridge towards `start`."""
    import torch

    inputs, answers = torch.from_numpy(features), torch.from_numpy(targets.targets * targets.image_weights[:, None])
    origin = [torch.from_numpy(np.array(part, np.float32)) for part in start]
    kernel, bias = (part.clone().requires_grad_() for part in origin)
    optimiser = torch.optim.LBFGS([kernel, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimiser.zero_grad()
        entropy = -(answers * torch.log_softmax(inputs @ kernel + bias, 1)).sum(1).mean()
        total = entropy + ridge * ((kernel - origin[0]) ** 2).sum()
        total.backward()
        return total

    optimiser.step(loss)
    return kernel.detach().numpy(), bias.detach().numpy()


def _features(config: TrainConfig, run: Path) -> Any:
    keras = import_keras()
    network = float32_network(keras, config.model)
    load_into(network, run)
    below = keras.Model(network.inputs, network.get_layer("average").output)

    def features(images: Images) -> Array:
        return np.asarray(below.predict(images, batch_size=_BATCH, verbose=0), np.float32)

    return features


def _targets(config: TrainConfig, dataset: Dataset, kept: npt.NDArray[np.intp], votes: str, share: float) -> TrainTargets:
    """Return the targets; an image counts as much as its own weight and its class's say."""
    given = make_targets(_config(config, Path(), votes, share), dataset.part(TRAIN), kept)
    balance = class_weights(dataset.part(TRAIN).labels[kept], config.loss.balance)
    return TrainTargets((given.targets * balance).astype(np.float32), given.image_weights)


def _config(config: TrainConfig, run: Path, votes: str, share: float) -> TrainConfig:
    data = msgspec.structs.replace(config.data, votes=votes, votes_weight=share)
    name = f"last layer of {config.name} fitted again"
    loss = msgspec.structs.replace(config.loss, label_smoothing=0.0)
    return msgspec.structs.replace(
        config, name=name, data=data, loss=loss, model=msgspec.structs.replace(config.model, start=str(run))
    )


def _measured(share: float, kernel: Array, bias: Array, features: Array, truths: Truths) -> Head:
    logits = features @ kernel + bias
    return Head(share, kernel, bias, truths.people_accuracy(logits), accuracy(logits, truths.split.labels))


def main() -> None:
    """Read the command line and fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run")
    parser.add_argument("--data", type=Path, required=True, help="image folder or CSV with training and validation part")
    parser.add_argument("--votes", required=True, help="FER+ votes CSV")
    parser.add_argument("--share", type=float, action="append", required=True, help="of the votes, 0 to 1; the last is written")
    parser.add_argument("--ridge", type=float, default=1e-4, help="how strongly the present layer is kept")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new run")
    arguments = parser.parse_args()
    heads, result = refit(arguments.run, arguments.data, arguments.votes, arguments.share, arguments.ridge, arguments.out)
    for head in heads:
        mean = (head.people + head.labels) / 2
        print(f"{100 * head.share:.0f}% votes: people {head.people:.4f}, labels {head.labels:.4f}, mean {mean:.4f}")
    print(result)


if __name__ == "__main__":
    main()
