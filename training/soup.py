"""Average the weights of runs that began from one another.

    python -m moodline.training.soup --run A --run B --data fer2013 --out C

Runs of one network that start from common weights end near one another, and the mean of their weights is often better than each
of them, at no cost (Wortsman et al., "Model soups", 2022). Taken is each run's moving average as of its last epoch: the best
epoch of a run is partly chosen by chance.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from moodline.shared.errors import ModelError
from moodline.training.made_run import write_run
from moodline.training.runs import BEST, RunResult, load_arrays, load_checkpoint, load_record


def mix(runs: Sequence[Path], data: Path, out: Path) -> RunResult:
    """Write a run whose weights are the mean of those of `runs`; it says that it began with the last of them.

    Raises:
        ModelError: a folder holds no run, or the networks differ.
    """
    record = load_record(runs[-1])
    names = list(load_arrays(runs[-1] / BEST))
    averages = []
    for run in runs:
        if load_record(run).config.model.kind != record.config.model.kind:
            raise ModelError(f"{run} is of another network than {runs[-1]}")
        averages.append(load_checkpoint(run)[1]["average"])
    weights: dict[str, npt.NDArray[np.float32]] = {
        name: np.asarray(np.mean(values, 0, np.float64), np.float32) for name, *values in zip(names, *averages, strict=True)
    }
    model = msgspec.structs.replace(record.config.model, start=str(runs[-1]))
    name = f"mean of {' and '.join(load_record(run).config.name for run in runs)}"
    config = msgspec.structs.replace(record.config, name=name, model=model)
    return write_run(out, msgspec.structs.replace(record, config=config), weights, data)


def main() -> None:
    """Read the command line and average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", type=Path, action="append", required=True, help="folder of a run; give several, the last one last"
    )
    parser.add_argument("--data", type=Path, required=True, help="image folder or CSV with the validation part")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new run")
    arguments = parser.parse_args()
    print(mix(arguments.run, arguments.data, arguments.out))


if __name__ == "__main__":
    main()
