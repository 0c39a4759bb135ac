"""All figures of one model on one part of the data."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from moodline.services.classifier.mirror import single_view_of
from moodline.services.classifier.model import Model, Probabilities
from moodline.shared.errors import DataError
from moodline.training.conditions import CONDITIONS, flipped_mean, ten_crop_mean
from moodline.training.data import Split
from moodline.training.measures import (
    accuracy,
    calibration_error,
    class_figures,
    confusion,
    cross_entropy,
    fitted_temperature,
    macro_f1,
    roc,
    tempered,
    wilson,
)
from moodline.training.people_figures import PeopleFigures, people_figures
from moodline.training.predictor import untempered
from moodline.training.votes import People


class ClassRow(msgspec.Struct, frozen=True):
    """One class: shares from 0 to 1, how many images have its label, and the area below its ROC curve."""

    precision: float
    recall: float
    f1: float
    support: int
    roc_area: float | None


class Calibration(msgspec.Struct, frozen=True):
    """The distance between confidence and accuracy (expected calibration error, 15 bins).

    Attributes:
        temperature: What is part of the model's answers; 1: none.
        error_before: Without it.
        error: As the model answers.
        best_temperature: What would fit these very images best, on top of what is there. Fitted and measured on the same
            images, so it is a little too good.
        error_at_best: With that.
    """

    temperature: float
    error_before: float
    error: float
    best_temperature: float
    error_at_best: float


class Metrics(msgspec.Struct, frozen=True):
    """The content of `metrics.json`. Accuracy, recall and all else are of single views, except where a field says so.

    Attributes:
        interval_95: Wilson's, of the accuracy.
        confusion: Counts (7, 7): row, the label; column, the answer; in the order of `EMOTIONS`.
        accuracy_flip: Mean of an image and its mirror image.
        accuracy_ten_crop: Mean of ten views.
        robustness: Accuracy under each condition of `moodline.training.conditions`.
        people: Against what most people see, where there are votes; everything else is against the labels.
    """

    model: str
    split: str
    images: int
    accuracy: float
    interval_95: tuple[float, float]
    macro_f1: float
    cross_entropy: float
    calibration: Calibration
    classes: dict[str, ClassRow]
    confusion: list[list[int]]
    accuracy_flip: float
    accuracy_ten_crop: float
    robustness: dict[str, float]
    people: PeopleFigures | None = None


class Evaluation(NamedTuple):
    """Figures, and the single-view answers that they come from: as the model gives them, and without temperature."""

    metrics: Metrics
    probabilities: Probabilities
    untempered: Probabilities


def evaluate_model(
    model: Model,
    temperature: float,
    split: Split,
    split_name: str,
    on_progress: Callable[[str], None] = lambda _: None,
    seen: People | None = None,
) -> Evaluation:
    """Measure a model. Takes about 20 times as long as answering once.

    Args:
        model: What to measure.
        temperature: What is part of its answers; 1: none.
        split: Labelled images.
        split_name: What the part is called in the figures.
        on_progress: Told what is being measured.
        seen: What people see in the images, to compare the answers with that as well.

    Raises:
        DataError: there are no images.
    """
    if not len(split):
        raise DataError("there is nothing to measure on")
    images, labels = split.images, split.labels
    on_progress("single views")
    answers = model.predict(images)
    plain = untempered(answers, temperature)
    best = fitted_temperature(answers, labels)
    counts, share = confusion(answers, labels), accuracy(answers, labels)
    figures = class_figures(counts)
    on_progress("mirror images and ten crops")
    single = single_view_of(model)  # both averages hold the mirror images already
    flip, ten = accuracy(flipped_mean(single, images), labels), accuracy(ten_crop_mean(single, images), labels)
    robustness = {}
    for name, (title, change) in CONDITIONS.items():
        on_progress(title)
        robustness[name] = round(accuracy(model.predict(change(images)), labels), 4)
    metrics = Metrics(
        model=model.name,
        split=split_name,
        images=len(split),
        accuracy=round(share, 4),
        interval_95=(round(wilson(share, len(split)).low, 4), round(wilson(share, len(split)).high, 4)),
        macro_f1=round(macro_f1(figures), 4),
        cross_entropy=round(cross_entropy(answers, labels), 4),
        calibration=Calibration(
            temperature=round(temperature, 4),
            error_before=round(calibration_error(plain, labels), 4),
            error=round(calibration_error(answers, labels), 4),
            best_temperature=round(best, 4),
            error_at_best=round(calibration_error(tempered(answers, best), labels), 4),
        ),
        classes={
            name: ClassRow(
                round(row.precision, 4), round(row.recall, 4), round(row.f1, 4), row.support, _area(answers, labels, index)
            )
            for index, (name, row) in enumerate(figures.items())
        },
        confusion=counts.tolist(),
        accuracy_flip=round(flip, 4),
        accuracy_ten_crop=round(ten, 4),
        robustness=robustness,
        people=None if seen is None else people_figures(answers, split, seen),
    )
    return Evaluation(metrics, answers, plain)


def confident_errors(probabilities: Probabilities, labels: npt.NDArray[np.int64], count: int = 40) -> npt.NDArray[np.intp]:
    """Return the rows of wrong answers, the surest first."""
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:count]


def classification_report(metrics: Metrics) -> str:
    """Return precision, recall, F1 and support of each class as a table."""
    lines = [f"{'':10}{'precision':>10}{'recall':>10}{'f1':>10}{'support':>10}"]
    lines += [
        f"{name:10}{row.precision:>10.3f}{row.recall:>10.3f}{row.f1:>10.3f}{row.support:>10,}"
        for name, row in metrics.classes.items()
    ]
    lines += [f"{'accuracy':10}{'':20}{metrics.accuracy:>10.3f}{metrics.images:>10,}"]
    lines += [f"{'macro f1':10}{'':20}{metrics.macro_f1:>10.3f}{metrics.images:>10,}"]
    if metrics.people is not None:
        lines += ["", *_people_lines(metrics, metrics.people)]
    return "\n".join(lines) + "\n"


def _people_lines(metrics: Metrics, people: PeopleFigures) -> list[str]:
    """Return both truths side by side."""
    lines = [f"{'people see':10}{'precision':>10}{'recall':>10}{'':>10}{'support':>10}"]
    lines += [
        f"{name:10}{row.precision:>10.3f}{row.recall:>10.3f}{'':>10}{row.support:>10,}" for name, row in people.classes.items()
    ]
    lines += [
        f"{'against':24}{'right':>8}{'calibration error':>20}",
        f"{'people (majority)':24}{people.accuracy:>8.3f}{people.calibration_error:>20.3f}",
        f"{'labels':24}{metrics.accuracy:>8.3f}{metrics.calibration.error:>20.3f}",
        f"{'mean of both':24}{people.mean_accuracy:>8.3f}",
        f"{'macro recall, people':24}{people.macro_recall:>8.3f}",
    ]
    return lines


def _area(answers: Probabilities, labels: npt.NDArray[np.int64], index: int) -> float | None:
    area = roc(answers[:, index], labels == index).area
    return None if np.isnan(area) else round(area, 4)
