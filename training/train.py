"""One training run: `moodline train` calls `run_training`."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moodline.services.classifier.model import Model
from moodline.shared.errors import DataError, ModelError, OutputError, SettingsError
from moodline.training.average import WeightAverage, array_of, named, ordered
from moodline.training.backend import import_keras, set_threads
from moodline.training.batches import Batches
from moodline.training.config import ScheduleConfig, TrainConfig
from moodline.training.data import TRAIN, VALIDATION, Dataset, Split, cleaned_index
from moodline.training.data_report import report_data
from moodline.training.measures import accuracy, cross_entropy
from moodline.training.network import build_network, float32_network, softmax
from moodline.training.predictor import load_into
from moodline.training.runs import (
    BEST,
    CHECKPOINT,
    CONFIG,
    RESULT,
    EpochLine,
    RunRecord,
    RunResult,
    RunState,
    load_arrays,
    load_checkpoint,
    load_record,
    write_arrays,
    write_checkpoint,
    write_file,
    write_json,
    write_log,
)
from moodline.training.targets import class_weights, make_targets
from moodline.training.truths import Truths, load_truths


class Progress(NamedTuple):
    """The progress of a run. `line` is the log's line of an epoch that has just ended."""

    epoch: int
    step: int
    steps: int
    line: EpochLine | None = None


OnProgress = Callable[[Progress], None]


def learning_rate(schedule: ScheduleConfig, progress: float) -> float:
    """Return the learning rate at `progress`, 0 to 1, of the run: a cosine, times a straight rise at its start."""
    rise = min(1.0, (progress + 1e-3) / schedule.warm_up) if schedule.warm_up else 1.0
    return schedule.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimiser(keras: Any, schedule: ScheduleConfig) -> Any:
    """Return stochastic gradient descent with Nesterov's momentum, and weight decay of kernels alone.

    PyTorch adds the decay to the gradient, so momentum sums it up to 1 / (1 - momentum) times as much; Keras applies it to
    the weight itself, once. The configuration means PyTorch's.
    """
    decay = schedule.weight_decay / (1 - schedule.momentum)
    optimiser = keras.optimizers.SGD(
        schedule.learning_rate, momentum=schedule.momentum, nesterov=True, weight_decay=decay or None
    )
    if decay:
        optimiser.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimiser


def run_training(
    config: TrainConfig,
    data: Dataset,
    out: Path,
    *,
    resume: bool = False,
    fetch_weights: bool = False,
    teachers: Sequence[Model] = (),
    on_progress: OnProgress = lambda _: None,
) -> RunResult:
    """Train, choose the epoch and fit the temperature on the validation part, and write the data's report and the run's files.

    With `resume`, goes on after the last epoch that was finished, if there is one; on the same machine, backend and number
    of threads the outcome is then the one of a run that was never stopped, bit for bit.

    Args:
        config: What to do.
        data: With a `train` and a `validation` part; no other is used.
        out: Folder of the run.
        resume: Go on with the run in `out`.
        fetch_weights: Let a transfer network download what it starts from.
        teachers: Models to learn from.
        on_progress: Called after each step and each epoch.

    Raises:
        OutputError: `out` holds a run already and `resume` is off, or cannot be written.
        SettingsError, DataError: the run in `out` was told something else, or had other data.
        ModelError: its files are damaged.
    """
    keras = import_keras()
    set_threads(keras, config.schedule.threads)
    chosen = cleaned_index(data.part(TRAIN), data.part(VALIDATION)) if config.data.clean else np.arange(len(data.part(TRAIN)))
    if config.data.limit and config.data.limit < len(chosen):
        chosen = chosen[np.linspace(0, len(chosen) - 1, config.data.limit).round().astype(int)]
    if not len(chosen):
        raise DataError(f"{data.source}: after cleaning no training image is left")
    train = data.part(TRAIN).subset(chosen)
    record = RunRecord(config, len(chosen), _digest(train, data.part(VALIDATION)), keras.config.backend())
    resumed = _prepare(out, record, resume)
    report = report_data(data)
    write_json(out / "data.json", report)
    write_file(out / "data.txt", report.text().encode())
    targets = make_targets(config, data.part(TRAIN), chosen)
    batches = Batches(config, train.images, targets, class_weights(train.labels, config.loss.balance), teachers)
    truths = load_truths(data.part(VALIDATION), config.data.votes)
    run = _Run(keras, config, batches, truths, out, fetch_weights and not resumed)
    return run.until_the_end(resumed, on_progress)


def _prepare(out: Path, record: RunRecord, resume: bool) -> bool:
    """Write `config.json`, or see that it says the same; return whether there is something to go on with."""
    if not (out / CONFIG).exists():
        write_json(out / CONFIG, record)
        return False
    if not resume:
        raise OutputError(f"{out} holds a run already: go on with --resume, or name another folder")
    before = load_record(out)
    if before.config != record.config:
        raise SettingsError(f"{out} was begun with another configuration ({out / CONFIG}): use that one, or another folder")
    if before.data_sha256 != record.data_sha256:
        raise DataError(f"{out} was begun with other images: use the same, or another folder")
    if before.backend != record.backend:
        raise SettingsError(f"{out} was begun with the backend {before.backend}: set KERAS_BACKEND={before.backend}")
    return (out / CHECKPOINT).exists()


def _digest(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        digest.update(split.images.tobytes())
        digest.update(split.labels.tobytes())
    return digest.hexdigest()


class _Run:
    """The network, its moving average, its twin for measuring, and the optimiser."""

    def __init__(  # the parts of one run
        self, keras: Any, config: TrainConfig, batches: Batches, truths: Truths, out: Path, fetch_weights: bool
    ) -> None:
        keras.utils.set_random_seed(config.schedule.seed)
        self._keras, self._config, self._batches, self._truths, self._out = keras, config, batches, truths, out
        self._network = build_network(keras, config.model, fetch_weights)
        if config.model.start:
            load_into(self._network, Path(config.model.start))
        self._twin = float32_network(keras, config.model)
        self._network.compile(
            optimizer=make_optimiser(keras, config.schedule),
            loss=self._loss,
            metrics=[self._hit],
            jit_compile=False,
        )
        self._optimiser = self._network.optimizer
        self._optimiser.build(self._network.trainable_variables)
        self._average = WeightAverage(self._network.weights, config.schedule.average_decay)
        self._state = RunState(-1, -1, -1.0, ())

    def until_the_end(self, resumed: bool, on_progress: OnProgress) -> RunResult:
        if resumed:
            self._load()
        for epoch in range(self._state.epoch + 1, self._config.schedule.epochs):
            self._epoch(epoch, on_progress)
        return self._finish()

    def _loss(self, targets: Any, logits: Any) -> Any:
        """Cross-entropy with targets that carry the classes' weights, so they need not sum to 1."""
        ops = self._keras.ops
        return -ops.sum(ops.cast(targets, "float32") * ops.log_softmax(logits), axis=-1)

    def _hit(self, targets: Any, logits: Any) -> Any:
        ops = self._keras.ops
        return ops.cast(ops.equal(ops.argmax(targets, axis=-1), ops.argmax(logits, axis=-1)), "float32")

    def _epoch(self, epoch: int, on_progress: OnProgress) -> None:
        began_s, steps, rate = time.monotonic(), self._batches.steps, 0.0
        # Each epoch begins from its own seed, so nothing random needs to be in the checkpoint.
        self._keras.utils.set_random_seed(self._config.schedule.seed + 1000 + epoch)
        self._reset_dropout(epoch)
        sums = np.zeros(2)
        for step, batch in enumerate(self._batches.epoch(epoch)):
            rate = learning_rate(self._config.schedule, (epoch + step / steps) / self._config.schedule.epochs)
            self._optimiser.learning_rate = rate
            sums += np.array(self._network.train_on_batch(batch.images, batch.targets), np.float64)
            self._average.update()
            on_progress(Progress(epoch, step + 1, steps))
        if not np.isfinite(sums).all():
            raise ModelError(f"the loss is no number any more in epoch {epoch + 1}: lower the learning rate")
        answers = self._answers(self._average.values)
        labels = self._truths.split.labels
        line = EpochLine(
            epoch=epoch,
            seconds=round(time.monotonic() - began_s, 1),
            learning_rate=round(rate, 6),
            train_loss=round(float(sums[0] / steps), 4),
            train_accuracy=round(float(sums[1] / steps), 4),
            val_loss=round(cross_entropy(answers, labels), 4),
            val_accuracy=round(accuracy(answers, labels), 6),
            val_people=round(self._truths.people_accuracy(answers), 6),
        )
        self._save(line, self._truths.score(answers))
        on_progress(Progress(epoch, steps, steps, line))

    def _reset_dropout(self, epoch: int) -> None:
        """Keras' own random state lives in variables of its layers."""
        for index, layer in enumerate(self._network.layers):
            generator = getattr(layer, "seed_generator", None)
            if generator is not None:
                seed = np.array([self._config.schedule.seed + 1000 * (index + 1), epoch])
                generator.state.assign(self._keras.ops.cast(seed, generator.state.dtype))

    def _answers(self, values: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        self._twin.set_weights(list(values))
        return softmax(np.asarray(self._twin.predict(self._truths.split.images, batch_size=256, verbose=0)))

    def _save(self, line: EpochLine, reached: float) -> None:
        """Best weights, then the checkpoint, then the log: killed in between, the epoch is done again, with the same outcome."""
        state = self._state
        best_epoch, best = state.best_epoch, state.best_accuracy
        if reached > best:
            best_epoch, best = line.epoch, reached
            write_arrays(self._out / BEST, named(self._network.weights, self._average.values))
        self._state = RunState(line.epoch, best_epoch, best, (*state.log, line))
        groups = {
            "network": [array_of(variable) for variable in self._network.weights],
            "optimiser": [array_of(variable) for variable in self._optimiser.variables],
            "average": self._average.values,
        }
        write_checkpoint(self._out, self._state, groups)
        write_log(self._out, self._state.log)

    def _load(self) -> None:
        self._state, groups = load_checkpoint(self._out)
        targets = {"network": self._network.weights, "optimiser": self._optimiser.variables}
        try:
            for name, variables in targets.items():
                for variable, value in zip(variables, groups[name], strict=True):
                    variable.assign(value)
            for old, new in zip(self._average.values, groups["average"], strict=True):
                old[...] = new
        except (KeyError, ValueError) as error:
            raise ModelError(f"{self._out / CHECKPOINT} does not fit this network: {error}") from None
        write_log(self._out, self._state.log)

    def _finish(self) -> RunResult:
        """Fit the temperature to the best weights' answers and write the result."""
        answers = self._answers(ordered(self._network.weights, load_arrays(self._out / BEST)))
        minutes = round(sum(line.seconds for line in self._state.log) / 60, 2)
        result = self._truths.result(answers, len(self._state.log), self._state.best_epoch, minutes)
        write_json(self._out / RESULT, result)
        return result
