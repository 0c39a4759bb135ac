"""Teachers and students on one accelerator, in plain PyTorch: all data on the device, one network after the other.

    python -m moodline.training.gpu pack --data fer2013 --votes ferplus-votes.csv --out fer-pack.npz
    python -m moodline.training.gpu train --pack fer-pack.npz --out RUN --minutes 9

`pack` writes one file of less than 64 MiB. `train` teaches teachers of 5.6 million weights from different seeds, by votes and
labels, then the students `large` and `shipped` (`moodline.training.architecture`), by the same and by what the teachers answer
for the very images that a student sees. A network that is finished is left alone when the command is called again. What it
writes, `import_torch` makes into runs, which are measured, calibrated and exported like any other.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from moodline.shared.emotions import CROP_SIDE_PX, EMOTIONS
from moodline.shared.errors import DataError
from moodline.training.architecture import ARCHITECTURES, NORM_EPSILON, OFFSET, SCALE, Block
from moodline.training.data import cleaned_index, load_data
from moodline.training.runs import load_arrays, write_arrays, write_json
from moodline.training.votes import load_votes, people, voted_targets

TEACHER: Final[tuple[Block, ...]] = (
    Block(64, False),
    Block(64, True, shortcut=True, dropout=0.05),  # 48 -> 24 px
    Block(128, False),
    Block(128, True, shortcut=True, dropout=0.05),  # 24 -> 12 px
    Block(256, False),
    Block(256, False, shortcut=True),
    Block(256, True, shortcut=True, dropout=0.05),  # 12 -> 6 px
    Block(512, False),
    Block(512, False, shortcut=True, dropout=0.1),
)
STUDENTS: Final = ("large", "shipped")
PACK_LIMIT_BYTES: Final = 64 * 1024 * 1024

_IMAGES: Final = ("images", "measured")
_VOTES_WEIGHT: Final = 0.75
_DOUBT_WEIGHT: Final = 0.1
_DISTIL_WEIGHT: Final = 0.6
_PEAK_RATE: Final = 0.1
_WARM_UP: Final = 0.05
_WEIGHT_DECAY: Final = 5e-4
_AVERAGE_DECAY: Final = 0.999
_DROPOUT: Final = 0.3
_LEAST_EPOCHS: Final = 2


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of how the time is spent.

    Attributes:
        minutes: For all networks together.
        teachers: How many, each with a seed of its own.
        batch: Images a step.
        share: Of the training images that are used; below 1 to rehearse.
        seed: Of everything random.
    """

    minutes: float = 9.0
    teachers: int = 3
    batch: int = 256
    share: float = 1.0
    seed: int = 41


class Packed(NamedTuple):
    """Everything on the device.

    Attributes:
        images, targets, weights: To learn from: uint8 (N, 48, 48), float32 (N, 7), float32 (N,).
        measured, majority, labels: To measure on: uint8 (M, 48, 48), what most people see and the labels, int64 (M,).
    """

    images: Any
    targets: Any
    weights: Any
    measured: Any
    majority: Any
    labels: Any


def pack(data: Path, votes: Path, out: Path) -> int:
    """Write images and targets as one file, and return its size in bytes.

    Raises:
        DataError: data or votes are missing or do not fit, or the file would be too large to send.
    """
    dataset, voted = load_data(data), load_votes(votes)
    train, validation = dataset.part("train"), dataset.part("validation")
    train = train.subset(cleaned_index(train, validation))
    targets = voted_targets(train, voted, _VOTES_WEIGHT, _DOUBT_WEIGHT)
    seen = people(validation, voted)
    arrays: dict[str, Any] = {
        "images": train.images,
        "targets": targets.targets,
        "weights": targets.weights,
        "measured": validation.images[seen.known],
        "majority": seen.majority[seen.known],
        "labels": validation.labels[seen.known],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    # Differences between neighbouring pixels take a seventh less room than pixels.
    for name in _IMAGES:
        arrays[name] = np.diff(arrays[name], axis=2, prepend=np.zeros((len(arrays[name]), CROP_SIDE_PX, 1), np.uint8))
    np.savez_compressed(out, **arrays)
    size = out.stat().st_size
    if size > PACK_LIMIT_BYTES:
        raise DataError(f"{out} has {size} bytes, more than the {PACK_LIMIT_BYTES} that can be sent")
    return size


def unpack(path: Path, share: float, device: Any) -> Packed:
    """Read a pack onto a device, with the first `share` of its training images in a mixed order.

    Raises:
        DataError: it is no such file.
    """
    import torch

    arrays = load_arrays(path)
    missing = [name for name in Packed._fields if name not in arrays]
    if missing:
        raise DataError(f"{path} lacks {missing[0]!r}: make it with `python -m moodline.training.gpu pack`")
    arrays |= {name: np.cumsum(arrays[name], axis=2, dtype=np.uint8) for name in _IMAGES}
    order = np.random.default_rng(0).permutation(len(arrays["images"]))[: max(64, round(share * len(arrays["images"])))]
    chosen = {name: arrays[name][order] if name in ("images", "targets", "weights") else arrays[name] for name in Packed._fields}
    if share < 1:
        chosen |= {name: chosen[name][: max(64, len(order) // 4)] for name in ("measured", "majority", "labels")}
    return Packed(*(torch.from_numpy(np.ascontiguousarray(chosen[name])).to(device) for name in Packed._fields))


def make_network(blocks: tuple[Block, ...]) -> Any:
    """Return an untrained network, uint8 or float (N, 48, 48) of 0 to 255 -> logits (N, 7), whose state `import_torch` takes."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Network(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            inputs = 1
            self.parts = nn.ModuleList()
            for block in blocks:
                conv = nn.Conv2d(inputs, block.filters, 3, padding=1, bias=False)
                nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
                norm = nn.BatchNorm2d(block.filters, eps=NORM_EPSILON)
                nn.init.constant_(norm.weight, 0.5 if block.shortcut else 1.0)
                self.parts.extend([conv, norm])
                inputs = block.filters
            self.emotions = nn.Linear(inputs, len(EMOTIONS))

        def forward(self, images: Any) -> Any:
            x = (images.float() * SCALE + OFFSET)[:, None]
            for index, block in enumerate(blocks):
                before, x = x, self.parts[2 * index + 1](self.parts[2 * index](x))
                x = functional.relu(x + before if block.shortcut else x)
                if block.pool:
                    x = functional.max_pool2d(x, 2)
                if block.dropout:
                    x = functional.dropout2d(x, block.dropout, self.training)
            return self.emotions(functional.dropout(x.float().mean((2, 3)), _DROPOUT, self.training))

    return Network().to(memory_format=torch.channels_last)


def changed(images: Any, generator: Any) -> Any:
    """Return changed copies of images uint8 (N, 48, 48) as float32, 0 to 255: as `moodline.training.augment`, on the device."""
    import torch
    from torch.nn import functional

    count, device = len(images), images.device

    def draw(low: float, high: float, *shape: int) -> Any:
        return torch.rand(count, *shape, device=device, generator=generator) * (high - low) + low

    x = images.float()[:, None]
    small = torch.rand(1, device=device, generator=generator).item() * 16 + 18
    coarse = functional.interpolate(x, size=(int(small), int(small)), mode="area")
    coarse = functional.interpolate(coarse, size=x.shape[2:], mode="bilinear", align_corners=False)
    x = torch.where(draw(0, 1, 1, 1, 1) < 0.12, coarse, x)
    angle = torch.randn(count, device=device, generator=generator) * math.radians(8)
    scale, mirror = draw(0.85, 1.15), torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = draw(-0.2, 0.2, 2)
    matrix = torch.stack([cosine * mirror, -sine, shift[:, 0], sine * mirror, cosine, shift[:, 1]], 1).reshape(-1, 2, 3)
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    x = functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    light = (x / 255).clamp(1e-4, 1) ** torch.exp(draw(-0.35, 0.35, 1, 1, 1))
    light = ((2 * light - 1) * draw(0.5, 1.25, 1, 1, 1) + draw(-0.25, 0.25, 1, 1, 1)).clamp(-1, 1)
    grain = torch.randn(light.shape, device=device, generator=generator) * draw(0, 0.1, 1, 1, 1)
    light = torch.where(draw(0, 1, 1, 1, 1) < 0.2, (light + grain).clamp(-1, 1), light)
    return _erased((light + 1) * 127.5, draw)[:, 0]


def _erased(x: Any, draw: Any) -> Any:
    """Return the images with a rectangle of one grey in three of ten (Zhong et al., "Random erasing", 2017)."""
    import torch

    place = torch.arange(CROP_SIDE_PX, device=x.device)[None]
    middle, half = draw(0, CROP_SIDE_PX, 2), draw(3, 10, 2)
    down, across = ((place - middle[:, at, None]).abs() < half[:, at, None] for at in (0, 1))
    hole = (down[:, :, None] & across[:, None])[:, None] & (draw(0, 1, 1, 1, 1) < 0.3)
    return torch.where(hole, draw(0, 255, 1, 1, 1), x)


def learning_rate(progress: float) -> float:
    """Return the rate at a share of the run: it rises over `_WARM_UP` and falls along a cosine to zero."""
    if progress < _WARM_UP:
        return _PEAK_RATE * progress / _WARM_UP
    return _PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))


def teach(network: Any, packed: Packed, teachers: list[Any], plan: Plan, seed: int, seconds: float) -> Any:
    """Train a network for so many seconds, at least two epochs, and return its state averaged over the last steps, on the CPU.

    The rate follows the time that is spent, so a slow device ends in time as well.
    """
    import torch
    from torch.nn import functional

    device = packed.images.device
    generator = torch.Generator(device).manual_seed(seed)
    torch.manual_seed(seed)
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=_WEIGHT_DECAY)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    began_s, epoch, step, spent = time.monotonic(), 0, 0, 0.0
    size = min(plan.batch, len(packed.images))
    while spent < 1 or epoch < _LEAST_EPOCHS:
        network.train()
        for at in torch.randperm(len(packed.images), device=device, generator=generator).split(size):
            if len(at) < size:
                continue
            spent = min(1.0, (time.monotonic() - began_s) / seconds)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(spent)
            images = changed(packed.images[at], generator)
            targets = packed.targets[at]
            # Half precision only on an accelerator: processors without instructions for it take many times as long.
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                if teachers:
                    with torch.no_grad():
                        told = torch.stack([teacher(images).float().softmax(1) for teacher in teachers]).mean(0)
                    targets = (1 - _DISTIL_WEIGHT) * targets + _DISTIL_WEIGHT * told
                logits = network(images)
            lost = (functional.cross_entropy(logits.float(), targets, reduction="none") * packed.weights[at]).mean()
            optimiser.zero_grad(set_to_none=True)
            lost.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            step += 1
            keep = min(_AVERAGE_DECAY, step / (step + 10))
            for name, value in network.state_dict().items():
                average[name] = average[name].lerp(value, 1 - keep) if value.is_floating_point() else value.clone()
            if spent >= 1 and epoch >= _LEAST_EPOCHS:
                break
        epoch += 1
    return {name: value.cpu() for name, value in average.items()}, epoch


def measure(network: Any, packed: Packed) -> dict[str, float]:
    """Return the shares of right answers for a face and its mirror image: by people, by the labels, and their mean."""
    import torch

    network.eval()
    with torch.no_grad():
        answers = [(network(part).softmax(1) + network(part.flip(2)).softmax(1)).argmax(1) for part in packed.measured.split(512)]
    given = torch.cat(answers)
    found = [float((given == truth).float().mean()) for truth in (packed.majority, packed.labels)]
    return {"people": round(found[0], 4), "labels": round(found[1], 4), "mean": round(sum(found) / 2, 4)}


def train(path: Path, out: Path, plan: Plan) -> list[dict[str, Any]]:
    """Train all networks that `out` does not hold yet, and return what is known of each."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    packed = unpack(path, plan.share, device)
    out.mkdir(parents=True, exist_ok=True)
    names = [*(f"teacher-{number + 1}" for number in range(plan.teachers)), *STUDENTS]
    seconds = 60 * plan.minutes / len(names)
    teachers: list[Any] = []
    for number, name in enumerate(names):
        blocks = ARCHITECTURES.get(name, TEACHER)
        network = make_network(blocks).to(device)
        told = out / f"{name}.json"
        if not told.is_file():
            state, epochs = teach(network, packed, teachers if name in STUDENTS else [], plan, plan.seed + number, seconds)
            network.load_state_dict(state)
            torch.save(state, out / f"{name}.pt")
            weights = sum(value.numel() for value in network.parameters())
            facts = {"name": name, "weights": weights, "epochs": epochs, "device": str(device)}
            write_json(told, facts | measure(network, packed))
        network.load_state_dict(torch.load(out / f"{name}.pt", map_location=device, weights_only=True))
        print(told.read_text(), flush=True)
        if name not in STUDENTS:
            teachers.append(network.eval())
    write_arrays(out / "soft-labels.npz", {"probabilities": _ensemble(teachers, packed)})
    return [json.loads((out / f"{name}.json").read_text()) for name in names]


def _ensemble(teachers: list[Any], packed: Packed) -> Any:
    """Return what the teachers answer together for the images and their mirror images, float32 (N, 7)."""
    import torch

    with torch.no_grad():
        rows = [
            torch.stack([view for one in teachers for view in (one(part).softmax(1), one(part.flip(2)).softmax(1))]).mean(0)
            for part in packed.images.split(512)
        ]
    return torch.cat(rows).float().cpu().numpy()


def main() -> None:
    """Read the command line and pack, or train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    does = parser.add_subparsers(dest="does", required=True)
    packing, training = does.add_parser("pack"), does.add_parser("train")
    for name in ("data", "votes", "out"):
        packing.add_argument(f"--{name}", type=Path, required=True)
    training.add_argument("--pack", type=Path, required=True)
    training.add_argument("--out", type=Path, required=True)
    for name, default in msgspec.to_builtins(Plan()).items():
        training.add_argument(f"--{name}", type=type(default), default=default)
    told = vars(parser.parse_args())
    if told.pop("does") == "pack":
        print(pack(told["data"], told["votes"], told["out"]), "bytes in", told["out"])
    else:
        path, out = told.pop("pack"), told.pop("out")
        for line in train(path, out, Plan(**told)):
            print(json.dumps(line))


if __name__ == "__main__":
    main()
