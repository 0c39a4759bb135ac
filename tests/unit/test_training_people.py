import numpy as np
import pytest

from moodline.training.data import Split
from moodline.training.evaluate import classification_report, evaluate_model
from moodline.training.people_figures import frontier, people_figures, risk_coverage
from moodline.training.truths import Truths
from moodline.training.votes import People


def made(count: int = 700) -> tuple[Split, People, np.ndarray]:
    """Return images whose labels and majorities differ in three of ten, and answers that are 80% sure of the majority."""
    random = np.random.default_rng(5)
    majority = random.integers(0, 7, count)
    labels = np.where(random.random(count) < 0.3, (majority + 1) % 7, majority)
    answers = np.full((count, 7), 0.2 / 6, np.float32)
    answers[np.arange(count), majority] = 0.8
    split = Split(random.integers(0, 256, (count, 48, 48), np.uint8), labels.astype(np.int64))
    shares = np.eye(7, dtype=np.float32)[majority]
    known = np.ones(count, bool)
    known[:10] = False
    return split, People(known, np.where(known, majority, 0), shares * known[:, None]), answers


def test_both_truths_are_counted_apart_and_images_without_votes_only_for_the_labels() -> None:
    split, seen, answers = made()
    figures = people_figures(answers, split, seen)
    assert (figures.images, figures.accuracy, figures.macro_recall) == (690, 1.0, 1.0)
    against_labels = float((answers.argmax(1) == split.labels).mean())
    assert figures.agreement == pytest.approx(against_labels, abs=0.01)
    assert figures.mean_accuracy == pytest.approx((1 + against_labels) / 2, abs=1e-4)
    assert figures.calibration_error == pytest.approx(0.2, abs=1e-3)
    assert sum(map(sum, figures.confusion)) == 690
    assert sum(row.support for row in figures.classes.values()) == 690
    truths = Truths(split, seen)
    assert truths.score(answers) == pytest.approx(figures.mean_accuracy, abs=1e-4)
    assert truths.people_accuracy(answers) == 1.0


def test_the_temperature_is_fitted_to_people_where_they_voted() -> None:
    split, seen, answers = made()
    doubting = Truths(split).result(answers, 3, 2, 1.0)
    sure = Truths(split, seen).result(answers, 3, 2, 1.0)
    assert sure.temperature < 1 < doubting.temperature  # always right with people, in seven of ten with the labels
    assert (sure.people, doubting.people) == (1.0, 0.0)
    assert sure.accuracy == doubting.accuracy == pytest.approx(0.7, abs=0.05)


def test_the_surest_answers_are_the_best_ones() -> None:
    labels = np.arange(1000) % 7
    confidence = np.linspace(0.3, 0.99, 1000)
    right = np.arange(1000) >= 500  # the surer half
    answers = np.repeat((1 - confidence[:, None]) / 6, 7, 1)
    answers[np.arange(1000), np.where(right, labels, (labels + 1) % 7)] = confidence
    rows = risk_coverage(answers, labels, (labels + 3) % 7)
    assert (rows[0].coverage, rows[0].people, rows[0].confidence) == (1.0, 0.5, 0.3)
    assert (rows[-1].coverage, rows[-1].people) == (0.5, 0.0)
    assert all(row.labels == 1.0 for row in rows)
    assert [row.people for row in rows] == sorted((row.people for row in rows), reverse=True)


def test_the_frontier_trades_one_truth_for_the_other() -> None:
    # People see class 1 wherever the label says 0 or 1; an answer says which of the two the label is.
    labels = np.arange(1400) % 7
    majority = np.where(labels == 0, 1, labels)
    answers = np.full((1400, 7), 0.01)
    answers[np.arange(1400), labels] = 0.94
    rows = frontier(answers, np.eye(7, dtype=np.float32)[majority], majority, labels)
    first, last = rows[0], rows[-1]
    assert (first.share, first.labels) == (0.0, 1.0)
    assert first.people == pytest.approx(6 / 7, abs=0.01)
    assert (last.share, last.people) == (1.0, 1.0)
    assert last.labels == pytest.approx(6 / 7, abs=0.01)


def test_a_report_has_both_truths_where_there_are_votes() -> None:
    split, seen, answers = made(70)

    class StubModel:
        name = "stub"

        def predict(self, crops: np.ndarray) -> np.ndarray:
            return answers[: len(crops)]

        def close(self) -> None:
            """Nothing to release."""

    with_votes = evaluate_model(StubModel(), 1.0, split, "validation", seen=seen).metrics
    assert with_votes.people is not None
    text = classification_report(with_votes)
    assert "people (majority)          1.000" in text
    assert "macro recall, people" in text
    without = evaluate_model(StubModel(), 1.0, split, "validation").metrics
    assert without.people is None
    assert "people" not in classification_report(without)
