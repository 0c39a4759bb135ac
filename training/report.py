"""The report of an evaluation: `metrics.json`, `report.txt`, pictures, and `report.html`, one file that needs no other."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

import numpy as np

from moodline.training.conditions import CONDITIONS
from moodline.training.data import Split
from moodline.training.evaluate import Evaluation, Metrics, classification_report, confident_errors
from moodline.training.plots import draw_both_truths, draw_calibration, draw_confusion, draw_errors, draw_history, draw_roc
from moodline.training.runs import EpochLine, write_file, write_json

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b2733; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .8rem; border-bottom: 1px solid #dde3e8; text-align: right; }
td:first-child, th:first-child { text-align: left; } img { max-width: 100%; height: auto; }
.big { font-size: 2.4rem; font-weight: 600; } .note { color: #5b6875; }
"""

_TITLES: Final = {
    "history": "Training",
    "confusion": "Confusion, counts",
    "confusion_normalised": "Confusion, share of each label",
    "calibration": "Calibration",
    "both_truths": "What people see: the surest answers, and what both truths cost each other",
    "roc": "Each class against the rest",
    "errors": "The surest wrong answers",
}
_NOTES: Final = {
    "errors": "Above each image its label, and below that the answer. Many of these labels are open to dispute.",
    "history": "Training figures are of changed images and smoothed or mixed targets, so validation's are often better.",
}


def write_report(out: Path, evaluation: Evaluation, split: Split, log: Sequence[EpochLine] = ()) -> None:
    """Write everything into the folder `out`.

    Raises:
        OutputError: it cannot be written.
    """
    pictures = draw_all(evaluation, split, log)
    for name, png in pictures.items():
        write_file(out / f"{name}.png", png)
    write_json(out / "metrics.json", evaluation.metrics)
    write_file(out / "report.txt", classification_report(evaluation.metrics).encode())
    write_file(out / "report.html", html_page(evaluation.metrics, pictures).encode())


def draw_all(evaluation: Evaluation, split: Split, log: Sequence[EpochLine] = ()) -> dict[str, bytes]:
    """Return every picture as PNG by its name; the training's only where there is a log."""
    metrics, answers, labels = evaluation.metrics, evaluation.probabilities, split.labels
    counts = np.array(metrics.confusion)
    worst = confident_errors(answers, labels)
    return {
        **({"history": draw_history(log)} if log else {}),
        "confusion": draw_confusion(counts, normalised=False),
        "confusion_normalised": draw_confusion(counts, normalised=True),
        "calibration": draw_calibration(evaluation.untempered, answers, labels, metrics.calibration.temperature != 1),
        "roc": draw_roc(answers, labels),
        **({} if metrics.people is None else {"both_truths": draw_both_truths(metrics.people)}),
        "errors": draw_errors(split.images[worst], answers[worst], labels[worst]),
    }


def html_page(metrics: Metrics, pictures: dict[str, bytes]) -> str:
    """Return the page, with the pictures inside."""
    low, high = metrics.interval_95
    calm = metrics.calibration
    title = f"{escape(metrics.model)} on {escape(metrics.split)}"
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1><p><span class='big'>{_percent(metrics.accuracy)}</span> of {metrics.images:,} images right",
        f"<br><span class='note'>95% interval {_percent(low)} to {_percent(high)}; ",
        "an expression shown, not an emotion felt</span></p>",
        _table(
            ("figure", ""),
            [
                ("macro F1", f"{metrics.macro_f1:.3f}"),
                ("cross-entropy, nats", f"{metrics.cross_entropy:.3f}"),
                ("with the mirror image (two views)", _percent(metrics.accuracy_flip)),
                ("with ten crops (ten views)", _percent(metrics.accuracy_ten_crop)),
                ("calibration error without temperature", _percent(calm.error_before)),
                (f"calibration error as it answers (temperature {calm.temperature:.2f})", _percent(calm.error)),
                (
                    f"calibration error if refitted to these images (times {calm.best_temperature:.2f})",
                    _percent(calm.error_at_best),
                ),
            ],
        ),
        "<h2>Classes</h2>",
        _table(
            ("class", "precision", "recall", "F1", "images", "ROC area"),
            [
                (name, _percent(row.precision), _percent(row.recall), f"{row.f1:.3f}", f"{row.support:,}", _or_dash(row.roc_area))
                for name, row in metrics.classes.items()
            ],
        ),
        *_people(metrics),
        "<h2>Under what a service meets</h2>",
        _table(
            ("condition", "right", "change"),
            [("as they are", _percent(metrics.accuracy), "")]
            + [
                (CONDITIONS[name][0], _percent(share), f"{100 * (share - metrics.accuracy):+.1f}")
                for name, share in metrics.robustness.items()
            ],
        ),
    ]
    for name, png in pictures.items():
        data = base64.b64encode(png).decode()
        note = f"<p class='note'>{_NOTES[name]}</p>" if name in _NOTES else ""
        parts.append(f"<h2>{_TITLES[name]}</h2>{note}<img alt='{_TITLES[name]}' src='data:image/png;base64,{data}'>")
    return "\n".join([*parts, "</body></html>\n"])


def _people(metrics: Metrics) -> list[str]:
    people = metrics.people
    if people is None:
        return []
    return [
        "<h2>What people see</h2>",
        f"<p class='note'>Most votes of about ten people, on {people.images:,} images. They agree with the label in ",
        f"{_percent(people.agreement)}, so no answers agree well with both, nor are as sure as they are right against both.</p>",
        _table(
            ("against", "right", "calibration error"),
            [
                ("what most people see", _percent(people.accuracy), _percent(people.calibration_error)),
                ("the labels", _percent(metrics.accuracy), _percent(metrics.calibration.error)),
                ("mean of both", _percent(people.mean_accuracy), ""),
                ("mean recall of the classes, people", _percent(people.macro_recall), ""),
            ],
        ),
        _table(
            ("class, as people see it", "precision", "recall", "images"),
            [(name, _percent(row.precision), _percent(row.recall), f"{row.support:,}") for name, row in people.classes.items()],
        ),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
