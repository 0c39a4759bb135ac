"""Pictures of figures, as PNG bytes. Drawn without a display and without Matplotlib's global state."""

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from moodline.services.classifier.model import Probabilities
from moodline.shared.emotions import EMOTIONS
from moodline.training.augment import Images
from moodline.training.measures import calibration_bins, roc
from moodline.training.people_figures import PeopleFigures
from moodline.training.runs import EpochLine

_COLOURS: Final = ("#c0392b", "#7d8b2f", "#7b4fa3", "#e0a100", "#2c6fb0", "#e07b39", "#6b7280")
"""One for each emotion, in their order."""
_COLUMNS: Final = 8


def draw_history(log: Sequence[EpochLine]) -> bytes:
    """Return accuracy and loss over the epochs."""
    figure, (left, right) = _figure(10, 4, 2)
    epochs = [line.epoch + 1 for line in log]
    for axes, name, factor in ((left, "accuracy", 100), (right, "loss", 1)):
        axes.plot(
            epochs, [factor * getattr(line, f"train_{name}") for line in log], color="#9aa3ad", label="training, changed images"
        )
        axes.plot(epochs, [factor * getattr(line, f"val_{name}") for line in log], color="#1f5f8b", label="validation")
        axes.set_xlabel("epoch")
        axes.legend(frameon=False)
    left.set_ylabel("right answers, %")
    right.set_ylabel("loss")
    return _png(figure)


def draw_confusion(counts: npt.NDArray[np.int64], normalised: bool) -> bytes:
    """Return the confusion matrix, in counts or in percent of each label."""
    figure, (axes,) = _figure(6.4, 5.6, 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(EMOTIONS)):
        for column in range(len(EMOTIONS)):
            text = f"{100 * share[row, column]:.0f}%" if normalised else f"{counts[row, column]}"
            axes.text(
                column, row, text, ha="center", va="center", color="white" if share[row, column] > 0.5 else "#1b2733", fontsize=9
            )
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=35)
    axes.set_yticks(range(len(EMOTIONS)), EMOTIONS)
    axes.set_xlabel("answer")
    axes.set_ylabel("label")
    for side in axes.spines.values():
        side.set_visible(False)
    return _png(figure)


def draw_calibration(before: Probabilities, after: Probabilities, labels: npt.NDArray[np.int64], tempered: bool) -> bytes:
    """Return accuracy over confidence, without the temperature and as the model answers."""
    figure, (left, right) = _figure(10, 4.2, 2)
    left.plot([0, 1], [0, 1], color="#b8c0c8", linestyle="--", label="as sure as right")
    series = [("as it answers", after, "#1f5f8b")]
    if tempered:
        series.insert(0, ("without temperature", before, "#c77b30"))
    for title, answers, colour in series:
        bins = calibration_bins(answers, labels)
        left.plot(
            [one.confidence for one in bins], [one.accuracy for one in bins], marker="o", markersize=4, color=colour, label=title
        )
    left.set_xlabel("confidence")
    left.set_ylabel("share of right answers")
    left.legend(frameon=False)
    right.hist(after.max(1), bins=15, range=(0, 1), color="#1f5f8b")
    right.set_xlabel("confidence")
    right.set_ylabel("images")
    return _png(figure)


def draw_roc(answers: Probabilities, labels: npt.NDArray[np.int64]) -> bytes:
    """Return a ROC curve for each class against the rest."""
    figure, (axes,) = _figure(6, 5.4, 1)
    axes.plot([0, 1], [0, 1], color="#b8c0c8", linestyle="--")
    for index, name in enumerate(EMOTIONS):
        curve = roc(answers[:, index], labels == index)
        if not np.isnan(curve.area):
            axes.plot(curve.false_share, curve.true_share, color=_COLOURS[index], label=f"{name} ({curve.area:.3f})")
    axes.set_xlabel("share of other classes taken for it")
    axes.set_ylabel("share of the class found")
    axes.legend(frameon=False, title="area below")
    return _png(figure)


def draw_both_truths(people: PeopleFigures) -> bytes:
    """Return the errors over the share of images that is answered, and the frontier between both truths."""
    figure, (left, right) = _figure(10, 4.2, 2)
    coverage = [100 * row.coverage for row in people.risk_coverage]
    for name, title, colour in (("people", "people's majority", "#1f5f8b"), ("labels", "labels", "#c77b30")):
        left.plot(coverage, [100 * getattr(row, name) for row in people.risk_coverage], marker="o", color=colour, label=title)
    left.set_xlabel("surest answers that are believed, %")
    left.set_ylabel("of these differ from the truth, %")
    left.legend(frameon=False)
    points = [(100 * row.labels, 100 * row.people) for row in people.frontier]
    right.plot(*zip(*points, strict=True), marker="o", color="#1f5f8b")
    for row, point in zip(people.frontier, points, strict=True):
        right.annotate(f"{100 * row.share:.0f}% votes", point, textcoords="offset points", xytext=(6, 4), fontsize=8)
    right.set_xlabel("right against labels, %")
    right.set_ylabel("right against people's majority, %")
    return _png(figure)


def draw_errors(images: Images, answers: Probabilities, labels: npt.NDArray[np.int64]) -> bytes:
    """Return a sheet of images with label, answer and confidence."""
    rows = max(1, -(-len(images) // _COLUMNS))
    figure, axes = _figure(11, 1.75 * rows, _COLUMNS, rows)
    for place in axes:
        place.set_axis_off()
    for place, image, answer, label in zip(axes, images, answers, labels, strict=False):
        place.imshow(image, cmap="gray", vmin=0, vmax=255)
        title = f"{EMOTIONS[label]}\n→ {EMOTIONS[int(answer.argmax())]} {100 * answer.max():.0f}%"
        place.set_title(title, fontsize=8, color="#1b2733")
    return _png(figure)


def _figure(width: float, height: float, columns: int, rows: int = 1) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(rows * columns)]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
