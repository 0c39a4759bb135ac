"""The files of a training run.

`config.json` what was asked for; `log.csv` a line for each epoch; `checkpoint.npz` all that is needed to go on;
`best.npz` the averaged weights that were best on the validation part; `result.json` how it ended. Arrays are plain: nothing in
a file can run. Each file is replaced in one step, so a run that is killed at any moment leaves whole ones.
"""

import csv
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from moodline.shared.errors import ModelError, OutputError
from moodline.training.config import TrainConfig

CONFIG, LOG, CHECKPOINT, BEST, RESULT = "config.json", "log.csv", "checkpoint.npz", "best.npz", "result.json"
_STATE: Final = "state_json"

Array = npt.NDArray[Any]
T = TypeVar("T")


class EpochLine(msgspec.Struct, frozen=True):
    """One line of the log. Training figures are of changed images and mixed targets, so validation's are often better.

    `val_accuracy` is against the labels, `val_people` against the majority of the votes; 0 where the run has no votes.
    """

    epoch: int
    seconds: float
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_people: float = 0.0


class RunRecord(msgspec.Struct, frozen=True):
    """The content of `config.json`.

    Attributes:
        config: What the run was told.
        images: Training images after cleaning.
        data_sha256: Of the images and labels of training and validation, so that a run goes on with the same data only.
        backend: Keras' backend.
    """

    config: TrainConfig
    images: int
    data_sha256: str
    backend: str


class RunResult(msgspec.Struct, frozen=True):
    """The content of `result.json`: the best epoch, its figures on the validation part, and the temperature fitted there.

    `accuracy` is against the labels. Cross-entropy, calibration and temperature are against the people's majority where the run
    has votes; `people` is the accuracy against it, 0 without votes.
    """

    epochs: int
    best_epoch: int
    accuracy: float
    cross_entropy: float
    calibration_error: float
    calibration_error_tempered: float
    temperature: float
    minutes: float
    people: float = 0.0


class RunState(msgspec.Struct, frozen=True):
    """The state of a run without its arrays. `best_accuracy` chose the best epoch: see `moodline.training.truths`."""

    epoch: int
    best_epoch: int
    best_accuracy: float
    log: tuple[EpochLine, ...]


def write_file(path: Path, data: bytes) -> None:
    """Write a file in one step: another process, or the next one after a crash, sees the old content or the new.

    Raises:
        OutputError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from None


def write_json(path: Path, value: Any) -> None:
    """Write any struct or plain value as JSON that a reader can read."""
    write_file(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write plain arrays by name."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_file(path, buffer.getvalue())


def load_arrays(path: Path) -> dict[str, Array]:
    """Read what `write_arrays` wrote.

    Raises:
        ModelError: missing or damaged.
    """
    try:
        # From memory: of a damaged file NumPy would leave the handle open.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} does not hold plain arrays: {error}") from None


def load_record(run: Path) -> RunRecord:
    """Read what a run was told.

    Raises:
        ModelError: the folder holds no run.
    """
    return _load(run / CONFIG, RunRecord)


def load_result(run: Path) -> RunResult | None:
    """Return how a run ended, or nothing while it has not."""
    return _load(run / RESULT, RunResult) if (run / RESULT).is_file() else None


def write_log(run: Path, lines: Sequence[EpochLine]) -> None:
    """Write the whole log, so that it never has an epoch twice."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(EpochLine.__struct_fields__)
    writer.writerows(msgspec.structs.astuple(line) for line in lines)
    write_file(run / LOG, text.getvalue().encode())


def load_log(run: Path) -> list[EpochLine]:
    """Return the log's lines, none where there is no log."""
    path = run / LOG
    if not path.is_file():
        return []
    try:
        rows = list(csv.DictReader(path.read_text().splitlines()))
        return msgspec.convert(rows, list[EpochLine], strict=False)
    except (OSError, msgspec.ValidationError, csv.Error, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not a training log: {error}") from None


def write_checkpoint(run: Path, state: RunState, groups: Mapping[str, Sequence[Array]]) -> None:
    """Write all that is needed to go on: the state, and arrays in named, ordered groups."""
    arrays: dict[str, Array] = {_STATE: np.frombuffer(msgspec.json.encode(state), np.uint8)}
    for group, values in groups.items():
        arrays |= {f"{group}/{index:04d}": value for index, value in enumerate(values)}
    write_arrays(run / CHECKPOINT, arrays)


def load_checkpoint(run: Path) -> tuple[RunState, dict[str, list[Array]]]:
    """Read what `write_checkpoint` wrote.

    Raises:
        ModelError: missing or damaged.
    """
    arrays = load_arrays(run / CHECKPOINT)
    try:
        state = msgspec.json.decode(arrays.pop(_STATE).tobytes(), type=RunState)
    except (KeyError, msgspec.MsgspecError) as error:
        raise ModelError(f"{run / CHECKPOINT} is not a checkpoint: {error}") from None
    groups: dict[str, list[Array]] = {}
    for name in sorted(arrays):
        groups.setdefault(name.split("/")[0], []).append(arrays[name])
    return state, groups


def _load(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise ModelError(f"{path} is not what a training run writes: {error}") from None
