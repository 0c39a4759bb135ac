"""Make a run of weights that were trained in plain PyTorch with one of our architectures.

`python -m moodline.training.import_torch --state best.pt --kind shipped --data fer2013 --out training/runs/imported`; then
evaluate and export it like any other run.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moodline.shared.errors import ModelError
from moodline.training.architecture import ARCHITECTURES, Block
from moodline.training.config import ModelConfig, TrainConfig
from moodline.training.made_run import write_run
from moodline.training.runs import RunRecord, RunResult

Array = npt.NDArray[np.float32]

_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def named_weights(state: Mapping[str, Array], blocks: Sequence[Block]) -> dict[str, Array]:
    """Return a `state_dict`'s arrays under our names and in Keras' layout.

    Args:
        state: In the order of the network: for each block a convolution without bias and its batch normalisation; then a
            dense layer. What the modules are called does not matter.
        blocks: The architecture.

    Raises:
        ModelError: it is another architecture's.
    """
    weights: dict[str, Array] = {}
    index = 0
    for name, value in state.items():
        kind = name.rsplit(".", 1)[-1]
        if value.ndim == 4:
            index += 1
            weights[f"conv{index}/kernel"] = value.transpose(2, 3, 1, 0)  # out, in, h, w -> h, w, in, out
        elif value.ndim == 2:
            weights["emotions/kernel"] = value.T
        elif "emotions/kernel" in weights:
            weights["emotions/bias"] = value
        elif kind in _NORM:
            weights[f"norm{index}/{_NORM[kind]}"] = value
    filters = [weights[f"conv{number}/kernel"].shape[3] for number in range(1, index + 1)]
    if filters != [block.filters for block in blocks] or len(weights) != 5 * len(blocks) + 2:
        raise ModelError(f"these weights are of another architecture: convolutions of {filters} filters")
    return {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}


def import_state(state: Mapping[str, Array], kind: str, data: Path, out: Path) -> RunResult:
    """Write a run of these weights, measured and calibrated on the validation part."""
    weights = named_weights(state, ARCHITECTURES[kind])
    config = TrainConfig(name=kind, model=ModelConfig(kind=kind))  # type: ignore[arg-type]  # checked by the look-up
    return write_run(out, RunRecord(config, 0, "", "torch"), weights, data)


def main() -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True, help="a state_dict that torch.save wrote")
    parser.add_argument("--kind", choices=sorted(ARCHITECTURES), required=True, help="architecture")
    parser.add_argument("--data", type=Path, required=True, help="image folder or CSV with the validation part")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    arguments = parser.parse_args()
    import torch

    state = torch.load(arguments.state, map_location="cpu", weights_only=True)
    arrays = {name: value.float().numpy() for name, value in state.items()}
    print(import_state(arrays, arguments.kind, arguments.data, arguments.out))


if __name__ == "__main__":
    main()
