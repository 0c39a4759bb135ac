"""Train the detector: `python -m moodline.training.detector.train --images faces-unlabelled.tar --labels labels.jsonl --out RUN`.

Each epoch ends with a measurement on the photos that are held out and with a checkpoint that holds all that is needed to go
on; the same command goes on after the last whole epoch. Pictures are drawn from the seed, the epoch and their number, so a
run that was stopped sees the very pictures that it would have seen. The number of epochs may be changed until the learning
rate falls: `--epochs 200` makes a run longer.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import cv2
import msgspec
import numpy as np

from moodline.shared.errors import DataError, ModelError, SettingsError
from moodline.training.detector.config import DetectorTraining, load_training
from moodline.training.detector.graph import places
from moodline.training.detector.network import answers, has_shortcut, is_learnt, new_state
from moodline.training.detector.photos import Photo, load_photos
from moodline.training.detector.sampling import Sample, Sampler
from moodline.training.detector.spec import SPECS
from moodline.training.detector.targets import Faces, flat, ignored_cells, losses, make_cells
from moodline.training.detector.validate import LabelledPhoto, load_labelled, measure_all
from moodline.training.runs import load_arrays, write_arrays, write_file, write_json

CONFIG: Final = "config.json"
CHECKPOINT: Final = "checkpoint.npz"
LOG: Final = "log.jsonl"
SERVED: Final = "served/"
"""The prefix of the served weights' names in a checkpoint."""


class EpochLine(msgspec.Struct, frozen=True):
    """One line of the log: means over the epoch's pictures, and what is measured afterwards with the weights that are served."""

    epoch: int
    seconds: float
    learning_rate: float
    loss: float
    score_loss: float
    box_loss: float
    overlap: float
    measured: dict[str, float]


def learning_rate(config: DetectorTraining, progress: float) -> float:
    """Return the learning rate after `progress` epochs."""
    rise = min(1.0, (progress + 0.01) / config.warm_up) if config.warm_up else 1.0
    fall = max(0.0, progress / config.epochs - config.fall_from) / max(1e-9, 1 - config.fall_from)
    return config.learning_rate * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, fall))))


def collated(samples: list[Sample]) -> tuple[Any, Faces]:
    """Return a batch of pictures, uint8 (B, 3, S, S), and their faces."""
    import torch

    images = torch.from_numpy(np.stack([sample.image.transpose(2, 0, 1) for sample in samples]))
    most = max(1, *(len(sample.faces) for sample in samples))
    boxes = np.zeros((len(samples), most, 4), np.float32)
    real = np.zeros((len(samples), most), np.float32)
    for index, sample in enumerate(samples):
        boxes[index, : len(sample.faces)] = sample.faces
        real[index, : len(sample.faces)] = 1
    ignored = np.stack([ignored_cells(sample.ignored, *sample.image.shape[:2]) for sample in samples])
    return images, Faces(torch.from_numpy(boxes), torch.from_numpy(real), torch.from_numpy(ignored))


class _Pictures:
    """An epoch's pictures as PyTorch's loader wants them."""

    def __init__(self, sampler: Sampler, epoch: int, count: int) -> None:
        self._sampler, self._epoch, self._count = sampler, epoch, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Sample:
        return self._sampler.sample(self._epoch, number)


def _quiet_worker(_: int) -> None:
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


class Run:
    """A training run in its folder.

    Args:
        config: What to do.
        photos: To learn from.
        out: The folder; a run in it goes on.
        workers: Processes that make pictures; 0: made in between the steps.

    Raises:
        SettingsError: the run in the folder was told something else.
        ModelError: its checkpoint is damaged.
    """

    def __init__(self, config: DetectorTraining, photos: list[Photo], out: Path, workers: int) -> None:
        import torch

        self._torch, self._config, self._out, self._workers = torch, config, out, workers
        self._spec = SPECS[config.network]
        self._sampler = Sampler(photos, config.rules, config.sampling, config.seed)
        self._cells = make_cells(config.sampling.side_px, config.sampling.side_px)
        self._state = new_state(self._spec, config.seed)
        self._learnt = [name for name in self._state if is_learnt(name)]
        for name in self._learnt:
            self._state[name].requires_grad_(True)
        kernels = [self._state[name] for name in self._learnt if name.endswith(".kernel")]
        others = [self._state[name] for name in self._learnt if not name.endswith(".kernel")]
        groups = [{"params": kernels, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)
        self._average = {name: value.detach().clone() for name, value in self._state.items()}
        self.epoch, self._step = 0, 0
        self._log: list[EpochLine] = []
        if config.start and not (out / CHECKPOINT).is_file():
            self._begin_with(Path(config.start) / CHECKPOINT)
        self._begin = {name: value.clone() for name, value in self._average.items()}
        self._resume()

    def served(self) -> dict[str, Any]:
        """Return the weights that are measured and served: the moving average, and of the starting weights what is kept."""
        return {
            name: self._torch.lerp(value, self._begin[name], self._config.keep_start) for name, value in self._average.items()
        }

    def train_epoch(self) -> dict[str, float]:
        """Train for an epoch and return the means of what `Losses` holds."""
        sums, steps = np.zeros(4), 0
        for images, faces in self._batches():
            rate = learning_rate(self._config, self.epoch + steps * self._config.batch / self._config.pictures)
            for group in self._optimiser.param_groups:
                group["lr"] = rate
            sums += self._train_step(images, faces)
            steps += 1
        if not np.isfinite(sums).all():
            raise ModelError(f"the loss is no number any more in epoch {self.epoch}: lower the learning rate")
        names = ("loss", "score_loss", "box_loss", "overlap")
        return dict(zip(names, (sums / steps).round(4).tolist(), strict=True)) | {"learning_rate": round(rate, 6)}

    def end_epoch(self, seconds: float, means: dict[str, float], measured: dict[str, float]) -> EpochLine:
        """Write the checkpoint, then the log."""
        line = EpochLine(epoch=self.epoch, seconds=round(seconds, 1), measured=measured, **means)
        self._log.append(line)
        self.epoch += 1
        arrays = {f"network/{name}": value.detach().numpy() for name, value in self._state.items()}
        arrays |= {f"average/{name}": value.numpy() for name, value in self._average.items()}
        arrays |= {f"{SERVED}{name}": value.numpy() for name, value in self.served().items()}
        # Kept here, for the run that this one began with may have gone on, or be gone, when this one goes on.
        arrays |= {f"begin/{name}": value.numpy() for name, value in self._begin.items()}
        for name in self._learnt:
            moments = self._optimiser.state[self._state[name]]
            arrays |= {f"{part}/{name}": moments[part].numpy() for part in ("exp_avg", "exp_avg_sq")}
        arrays["progress"] = np.array([self.epoch, self._step])
        arrays["log"] = np.frombuffer(msgspec.json.encode(self._log), np.uint8)
        write_arrays(self._out / CHECKPOINT, arrays)
        self._write_log()
        return line

    def _batches(self) -> Iterator[tuple[Any, Faces]]:
        pictures = _Pictures(self._sampler, self.epoch, self._config.pictures)
        loader = self._torch.utils.data.DataLoader(
            pictures, self._config.batch, collate_fn=collated, num_workers=self._workers, drop_last=True,
            worker_init_fn=_quiet_worker, prefetch_factor=4 if self._workers else None,
        )  # fmt: skip
        return iter(loader)

    def _train_step(self, images: Any, faces: Faces) -> Any:
        torch = self._torch
        with torch.autocast("cpu", dtype=torch.bfloat16):
            levels = answers(self._spec, self._state, images, training=True)
        lost = losses(flat(levels), self._cells, faces, self._config.box_weight)
        self._optimiser.zero_grad(set_to_none=True)
        lost.total.backward()
        torch.nn.utils.clip_grad_norm_([self._state[name] for name in self._learnt], self._config.clip)
        self._optimiser.step()
        self._step += 1
        # At the start the average follows quickly, or it would remember the random weights.
        keep = min(self._config.average_decay, (1 + self._step) / (10 + self._step))
        with torch.no_grad():
            for name, value in self._state.items():
                self._average[name].lerp_(value, 1 - keep)
        return np.array([float(value.detach()) for value in lost], np.float64)

    def _begin_with(self, checkpoint: Path) -> None:
        arrays = load_arrays(checkpoint)
        held = {name.removeprefix(SERVED): value for name, value in arrays.items() if name.startswith(SERVED)}
        new = {place.name for place in places(self._spec) if f"{place.name}.kernel" not in held}
        if any(place.name in new and not has_shortcut(place) for place in places(self._spec)):
            raise ModelError(f"{checkpoint} does not fit this network: it lacks layers that have no shortcut")
        try:
            with self._torch.no_grad():
                for name, value in self._state.items():
                    layer, _, part = name.rpartition(".")
                    if layer not in new:
                        value.copy_(self._torch.from_numpy(held[name]))
                    elif part == "gamma":
                        value.zero_()  # only its shortcut speaks at first, so the network still says the same
                    self._average[name].copy_(value)
        except (KeyError, RuntimeError) as error:
            raise ModelError(f"{checkpoint} does not fit this network: {error}") from None

    def _resume(self) -> None:
        path, told = self._out / CONFIG, msgspec.to_builtins(self._config)
        if path.is_file():
            # Read as a configuration, so that what did not exist when the run began counts as its default.
            before = msgspec.to_builtins(msgspec.json.decode(path.read_bytes(), type=DetectorTraining))
            if {**before, "epochs": 0} != {**told, "epochs": 0}:
                raise SettingsError(f"{self._out} was begun with another configuration ({path}): use that one, or another folder")
        write_json(path, told)
        if not (self._out / CHECKPOINT).is_file():
            return
        arrays = load_arrays(self._out / CHECKPOINT)
        try:
            with self._torch.no_grad():
                for name, value in self._state.items():
                    value.copy_(self._torch.from_numpy(arrays[f"network/{name}"]))
                    self._average[name].copy_(self._torch.from_numpy(arrays[f"average/{name}"]))
                    self._begin[name].copy_(self._torch.from_numpy(arrays[f"begin/{name}"]))
            self.epoch, self._step = (int(value) for value in arrays["progress"])
            for name in self._learnt:
                moments = {part: self._torch.from_numpy(arrays[f"{part}/{name}"].copy()) for part in ("exp_avg", "exp_avg_sq")}
                self._optimiser.state[self._state[name]] = {"step": self._torch.tensor(float(self._step)), **moments}
            self._log = msgspec.json.decode(arrays["log"].tobytes(), type=list[EpochLine])
        except (KeyError, ValueError, RuntimeError, msgspec.MsgspecError) as error:
            raise ModelError(f"{self._out / CHECKPOINT} does not fit this network: {error}") from None
        self._write_log()

    def _write_log(self) -> None:
        write_file(self._out / LOG, b"".join(msgspec.json.encode(line) + b"\n" for line in self._log))


def run_training(
    config: DetectorTraining, photos: list[Photo], held_out: list[Photo], labelled: list[LabelledPhoto], out: Path, workers: int
) -> Path:
    """Train to the last epoch, going on where `out` stands, and return the checkpoint's path. See `Run`."""
    run = Run(config, photos, out, workers)
    while run.epoch < config.epochs:
        began_s = time.monotonic()
        means = run.train_epoch()
        spent_s = time.monotonic() - began_s
        measured = measure_all(SPECS[config.network], run.served(), held_out, labelled, config.rules)
        line = run.end_epoch(spent_s, means, measured)
        print(msgspec.json.encode(line).decode(), flush=True)
    return out / CHECKPOINT


def main() -> None:
    """Read the command line and train."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="tar archive of photos")
    parser.add_argument("--labels", type=Path, required=True, help="what moodline.training.detector.labels wrote")
    parser.add_argument("--labelled", type=Path, help="tar.gz of photos with boxes, for measuring only")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--config", type=Path, help="TOML file")
    parser.add_argument("--epochs", type=int, help="instead of the configuration's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that make pictures beside the training")
    arguments = parser.parse_args()
    config = load_training(arguments.config) if arguments.config else DetectorTraining()
    if arguments.epochs:
        config = msgspec.structs.replace(config, epochs=arguments.epochs)
    cv2.setNumThreads(1)
    torch.set_num_threads(arguments.threads)
    photos, held_out = (load_photos(arguments.images, arguments.labels, part) for part in (False, True))
    labelled = load_labelled(arguments.labelled) if arguments.labelled else []
    if not any(config.rules.taught(photo.boxes).any() for photo in photos):
        raise DataError("the teacher found no face that could be taught")
    print(f"{len(photos)} photos, {len(held_out)} held out, {len(labelled)} labelled", flush=True)
    print("done:", run_training(config, photos, held_out, labelled, arguments.out, arguments.workers))


if __name__ == "__main__":
    main()
