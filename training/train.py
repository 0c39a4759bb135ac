"""Train the emotion classifier on FER-2013: `python -m training.train --data fer2013 --out training/runs/seed`.

Every epoch writes a line to `OUT/log.jsonl`; `OUT/best.npz` holds the averaged weights of the epoch that was best on the
validation part. `python -m training.export` makes a served model of them.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from shared.emotions import EMOTIONS
from training.augment import augmented
from training.data import Split, cleaned, load_split
from training.model import build, scaled


@dataclass(frozen=True, slots=True)
class Options:
    """How to train.

    The learning rate warms up over the first 3% of the run, then falls along a cosine to zero. The run ends after `epochs`
    or `minutes`, whichever comes first, and the schedule follows. A class weighs as the power `-balance` of its size in the
    loss: at 0 a rare class is never worth answering, at 1 a common one hardly.
    """

    epochs: int = 60
    minutes: float = math.inf
    batch: int = 128
    learning_rate: float = 0.08
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    balance: float = 0.25
    dropout: float = 0.3
    average_decay: float = 0.998
    threads: int = 2
    seed: int = 1


def learning_rate(options: Options, progress: float) -> float:
    """Return the learning rate at `progress`, 0 to 1, of the run."""
    warm_up = 0.03
    if progress < warm_up:
        return options.learning_rate * (progress + 1e-3) / (warm_up + 1e-3)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up))))


def predicted(network: nn.Module, split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits float32 (N, 7) in evaluation mode, and labels int64 (N,)."""
    network.eval()
    with torch.inference_mode():
        logits = torch.cat([network(scaled(images)) for images in torch.from_numpy(split.images).split(256)])
    return logits, torch.from_numpy(split.labels)


@dataclass(frozen=True, slots=True)
class Measured:
    """Accuracy, mean cross-entropy in nats, and recall per class."""

    accuracy: float
    loss: float
    recall: dict[str, float]


def measured(logits: torch.Tensor, labels: torch.Tensor) -> Measured:
    """Compare logits (N, 7) with labels (N,)."""
    hit = logits.argmax(1) == labels
    recall = {name: round(hit[labels == index].float().mean().item(), 4) for index, name in enumerate(EMOTIONS)}
    return Measured(round(hit.float().mean().item(), 4), round(nn.functional.cross_entropy(logits, labels).item(), 4), recall)


def record_of(run: Path) -> dict[str, object]:
    """Return how a run went: its options, how far it came, and its best epoch. Runs that it went on from are inside."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    best = max(log, key=lambda line: float(line["accuracy"]))
    options = json.loads((run / "options.json").read_text())
    return {"epochs": len(log), "minutes": log[-1]["minutes"], "best_epoch": best["epoch"], "options": options}


def class_weights(split: Split, balance: float) -> torch.Tensor:
    """Return the weight of each class in the loss, float32 (7,); the mean over all images is 1."""
    counts = torch.bincount(torch.from_numpy(split.labels), minlength=len(EMOTIONS)).float()
    weights = counts**-balance
    return weights * counts.sum() / (weights * counts).sum()


def train(data: Path, out: Path, options: Options, start: Path | None = None) -> None:
    """Train and keep the best epoch. `start`: weights to go on from."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    validation = load_split(data / "validation")
    fitted = cleaned(load_split(data / "train"), validation)
    network = build(options.dropout)
    if start is not None:
        network.load_state_dict(load_weights(start))
    run = Run(network, options, class_weights(fitted, options.balance))

    out.mkdir(parents=True, exist_ok=True)
    record = {**asdict(options), "images": len(fitted.labels), "start": record_of(start.parent) if start else None}
    (out / "options.json").write_text(json.dumps(record, indent=2))
    best = 0.0
    for epoch in range(options.epochs):
        train_loss = run.epoch(epoch, fitted)
        metrics = measured(*predicted(run.average.module, validation))
        line = {"epoch": epoch, "minutes": round(run.minutes(), 2), "train_loss": round(train_loss, 4), **asdict(metrics)}
        with (out / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(line, flush=True)
        if metrics.accuracy > best:
            best = metrics.accuracy
            save_weights(run.average.module, out / "best.npz")
        if run.minutes() >= options.minutes:
            break


class Run:
    """One training run: the network, its moving average (what is measured and kept), and the optimiser."""

    def __init__(self, network: nn.Sequential, options: Options, weights: torch.Tensor) -> None:
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(options.average_decay), use_buffers=True)
        self._network = network
        self._options = options
        self._generator = torch.Generator().manual_seed(options.seed)
        self._optimiser = torch.optim.SGD(
            network.parameters(), lr=0.0, momentum=0.9, nesterov=True, weight_decay=options.weight_decay
        )
        self._criterion = nn.CrossEntropyLoss(weights, label_smoothing=options.label_smoothing)
        self._began_s = time.monotonic()

    def minutes(self) -> float:
        """Return how long the run has taken."""
        return (time.monotonic() - self._began_s) / 60

    def epoch(self, number: int, fitted: Split) -> float:
        """Go once through the images in random order; return the mean loss."""
        self._network.train()
        images, labels = torch.from_numpy(fitted.images), torch.from_numpy(fitted.labels)
        steps, total = len(images) // self._options.batch, 0.0
        order = torch.randperm(len(images), generator=self._generator)[: steps * self._options.batch]
        for step, index in enumerate(order.split(self._options.batch)):
            progress = max((number + step / steps) / self._options.epochs, self.minutes() / self._options.minutes)
            for group in self._optimiser.param_groups:
                group["lr"] = learning_rate(self._options, progress)
            total += self._step(augmented(scaled(images[index]), self._generator), labels[index])
        return total / steps

    def _step(self, batch: torch.Tensor, labels: torch.Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            logits = self._network(batch.contiguous(memory_format=torch.channels_last))
        loss = self._criterion(logits.float(), labels)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        self.average.update_parameters(self._network)
        return float(loss.item())


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the network's state as plain arrays: nothing in the file can run. Replaces the file in one step."""
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **{name: value.numpy() for name, value in network.state_dict().items()})
    partial.replace(path)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read what `save_weights` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and validation/")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and log")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    for name, default in asdict(Options()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"default {default}")
    arguments = vars(parser.parse_args())
    data, out, start = (arguments.pop(name) for name in ("data", "out", "start"))
    train(data, out, Options(**arguments), start)


if __name__ == "__main__":
    main()
