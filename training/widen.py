"""Begin a larger network where a smaller one ended: `python -m moodline.training.widen --run A --kind large …`.

A channel is copied as often as the larger layer asks for, and whoever takes from it divides its weight among the copies, so the
larger network answers exactly what the smaller one does (Chen et al., "Net2Net: accelerating learning via knowledge transfer",
2016). A block that is new must have a shortcut; it begins as a block that adds nothing. Then a little noise makes the copies
differ, so that they can learn different things.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from moodline.shared.errors import ModelError
from moodline.training.architecture import ARCHITECTURES, NORM_EPSILON, Block
from moodline.training.config import ModelConfig
from moodline.training.made_run import write_run
from moodline.training.runs import BEST, RunResult, load_arrays, load_record

Array = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]

_NORM: Final = ("gamma", "beta", "moving_mean", "moving_variance")


def widened(
    weights: dict[str, Array], small: Sequence[Block], large: Sequence[Block], noise: float = 0.0, seed: int = 0
) -> dict[str, Array]:
    """Return the larger network's weights, by name.

    Args:
        weights: The smaller network's, as `best.npz` holds them.
        small: Its architecture.
        large: The larger one: block by block the same pooling and shortcuts, as many filters or more; further blocks may
            follow at its end, each with a shortcut.
        noise: Standard deviation of what is added to each kernel, as a share of the kernel's own.
        seed: Of the noise and of which channels are copied more often.

    Raises:
        ModelError: the one does not fit into the other.
    """
    _check(small, large)
    random = np.random.default_rng(seed)
    state: dict[str, Array] = {}
    source: Places = np.zeros(1, np.intp)  # which smaller channel each larger one is a copy of
    for index, block in enumerate(large, 1):
        if index > len(small):
            state |= _silent(index, block.filters, random)
            continue
        before = source
        # A shortcut adds channel by channel, so both sides must be copied alike.
        source = before if block.shortcut else _copies(small[index - 1].filters, block.filters, random)
        kernel = _spread(weights[f"conv{index}/kernel"], before)[..., source]
        grain = random.normal(0, noise * kernel.std() + 1e-12, kernel.shape)
        state[f"conv{index}/kernel"] = (kernel + grain).astype(np.float32)
        state |= {f"norm{index}/{name}": weights[f"norm{index}/{name}"][source] for name in _NORM}
    state["emotions/kernel"] = _spread(weights["emotions/kernel"][None, None], source)[0, 0]
    state["emotions/bias"] = weights["emotions/bias"]
    return state


def _check(small: Sequence[Block], large: Sequence[Block]) -> None:
    same = all(
        (one.pool, one.shortcut) == (other.pool, other.shortcut) and one.filters <= other.filters
        for one, other in zip(small, large, strict=False)
    )
    if len(large) < len(small) or not same or any(not block.shortcut or block.pool for block in large[len(small) :]):
        raise ModelError("the smaller network does not fit into the larger one: other pooling, shortcuts or fewer filters")


def _copies(count: int, wanted: int, random: np.random.Generator) -> Places:
    """Return which of `count` channels each of `wanted` ones copies; each at least once."""
    return np.concatenate([np.arange(count), random.permutation(np.arange(wanted - count) % count)]).astype(np.intp)


def _spread(kernel: Array, source: Places) -> Array:
    """Return a kernel (3, 3, in, out) that takes from copies: each copy has its part of the weight."""
    shares = 1 / np.bincount(source)[source]
    return (kernel[:, :, source] * shares[:, None]).astype(np.float32)


def _silent(index: int, filters: int, random: np.random.Generator) -> dict[str, Array]:
    """Return a new block with a shortcut, whose own part adds nothing at first."""
    kernel = random.normal(0, np.sqrt(2 / (9 * filters)), (3, 3, filters, filters))
    values = {"gamma": 0.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0 - NORM_EPSILON}
    norm = {f"norm{index}/{name}": np.full(filters, value, np.float32) for name, value in values.items()}
    return {f"conv{index}/kernel": kernel.astype(np.float32), **norm}


def widen(run: Path, kind: str, noise: float, data: Path, out: Path) -> RunResult:
    """Write a run of a larger network that answers like `run`, measured on the validation part.

    Raises:
        ModelError: `run` cannot be used, or does not fit into the larger network.
    """
    record = load_record(run)
    small = ARCHITECTURES[record.config.model.kind]
    weights = widened(load_arrays(run / BEST), small, ARCHITECTURES[kind], noise)
    model: ModelConfig = msgspec.structs.replace(record.config.model, kind=kind, start=str(run))
    config = msgspec.structs.replace(record.config, name=f"{record.config.name} widened to {kind}", model=model)
    return write_run(out, msgspec.structs.replace(record, config=config), weights, data)


def main() -> None:
    """Read the command line and widen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the smaller network's run")
    parser.add_argument("--kind", choices=sorted(ARCHITECTURES), required=True, help="the larger architecture")
    parser.add_argument("--noise", type=float, default=0.02, help="of each kernel, as a share of its standard deviation")
    parser.add_argument("--data", type=Path, required=True, help="image folder or CSV with the validation part")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new run")
    arguments = parser.parse_args()
    print(widen(arguments.run, arguments.kind, arguments.noise, arguments.data, arguments.out))


if __name__ == "__main__":
    main()
