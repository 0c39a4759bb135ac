"""Loads what answers are compared with: the labels of FER-2013, and, where there are votes, what most people see.

The two differ in more than a third of the images. With votes, what is chosen is chosen by the mean of both accuracies, and
confidence is calibrated to the people: they are who looks at a timeline.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moodline.training.data import Split
from moodline.training.measures import Floats, accuracy, calibration_error, cross_entropy, fitted_temperature, tempered
from moodline.training.runs import RunResult
from moodline.training.votes import People, load_votes, people


@dataclass(frozen=True, slots=True)
class Truths:
    """A part of the data and, where there are votes, what people see in it."""

    split: Split
    people: People | None = None

    def people_accuracy(self, answers: Floats) -> float:
        """Return the share of images with votes whose likeliest class is the majority's; 0 where there are no votes."""
        if self.people is None:
            return 0.0
        return accuracy(answers[self.people.known], self.people.majority[self.people.known])

    def score(self, answers: Floats) -> float:
        """Return what an epoch is chosen by: the mean of both accuracies, or the one against the labels alone."""
        against_labels = accuracy(answers, self.split.labels)
        return against_labels if self.people is None else (against_labels + self.people_accuracy(answers)) / 2

    def compared(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Return which images confidence is calibrated on, bool (N,), and the truth of those, int64 (M,)."""
        if self.people is None:
            return np.ones(len(self.split), bool), self.split.labels
        return self.people.known, self.people.majority[self.people.known]

    def result(self, answers: Floats, epochs: int, best_epoch: int, minutes: float) -> RunResult:
        """Return the figures of a run's best answers, float (N, 7) before any temperature, with the temperature that fits."""
        known, truth = self.compared()
        compared = answers[known]
        temperature = fitted_temperature(compared, truth)
        calm = tempered(compared, temperature)
        return RunResult(
            epochs=epochs,
            best_epoch=best_epoch,
            accuracy=round(accuracy(answers, self.split.labels), 6),
            cross_entropy=round(cross_entropy(calm, truth), 4),
            calibration_error=round(calibration_error(compared, truth), 4),
            calibration_error_tempered=round(calibration_error(calm, truth), 4),
            temperature=round(temperature, 4),
            minutes=minutes,
            people=round(self.people_accuracy(answers), 6),
        )


def load_truths(split: Split, votes: str) -> Truths:
    """Return a part with the votes of a FER+ CSV, or with its labels alone where `votes` is empty.

    Raises:
        DataError: the votes cannot be read, or do not fit the images.
    """
    return Truths(split, people(split, load_votes(Path(votes))) if votes else None)
