"""Training and evaluation from files to files: what the commands `moodline train` and `moodline evaluate` do."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from moodline.shared.errors import SettingsError
from moodline.training.backend import import_keras
from moodline.training.config import load_config
from moodline.training.data import load_data
from moodline.training.evaluate import classification_report, evaluate_model
from moodline.training.predictor import open_predictor
from moodline.training.report import write_report
from moodline.training.runs import load_log
from moodline.training.train import OnProgress, run_training
from moodline.training.votes import load_votes, people


def train_from_files(  # the command's options
    config: Path, data: Path | None, out: Path | None, *, resume: bool, fetch_weights: bool, on_progress: OnProgress
) -> str:
    """Run a training and return its summary in words. See `run_training`.

    Raises:
        MoodlineError: something in the configuration, the data or the folder cannot be used.
    """
    wanted = load_config(config)
    source = data or Path(wanted.data.path)
    if source == Path():
        raise SettingsError("no data: name them with --data, or as data.path in the configuration")
    wanted = msgspec.structs.replace(wanted, data=msgspec.structs.replace(wanted.data, path=""))
    folder = out or Path("training/runs") / wanted.name
    images = load_data(source)
    import_keras()  # before any teacher, which would choose the backend that it is served with
    teachers = [open_predictor(name)[0] for name in wanted.distil.teachers]
    result = run_training(
        wanted, images, folder, resume=resume, fetch_weights=fetch_weights, teachers=teachers, on_progress=on_progress
    )
    return (
        f"{folder}: epoch {result.best_epoch + 1} of {result.epochs} was best, {100 * result.accuracy:.2f}% right on validation; "
        f"temperature {result.temperature:.2f} takes the calibration error from {100 * result.calibration_error:.1f}% "
        f"to {100 * result.calibration_error_tempered:.1f}%"
    )


def evaluate_from_files(
    model: str, data: Path, out: Path | None, split: str, votes: Path | None, on_progress: Callable[[str], None]
) -> str:
    """Measure a model, write its report and return a summary in words. See `evaluate_model` and `write_report`.

    Raises:
        MoodlineError: the model, the data, the votes or the folder cannot be used.
    """
    part = load_data(data).part(split)
    seen = people(part, load_votes(votes)) if votes else None
    opened, temperature = open_predictor(model)
    try:
        evaluation = evaluate_model(opened, temperature, part, split, on_progress, seen)
    finally:
        opened.close()
    folder = out or Path("out/evaluate") / opened.name
    write_report(folder, evaluation, part, load_log(Path(model)))
    low, high = evaluation.metrics.interval_95
    return (
        f"{classification_report(evaluation.metrics)}\n{opened.name}: {100 * evaluation.metrics.accuracy:.2f}% right "
        f"(95%: {100 * low:.1f} to {100 * high:.1f}); report: {folder / 'report.html'}"
    )
