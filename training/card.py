"""A served classifier's card: what `README.md` beside its `model.json` says."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from moodline.services.classifier.artefact import Artefact, Views
from moodline.shared.emotions import EMOTIONS
from moodline.training.conditions import CONDITIONS
from moodline.training.evaluate import Metrics
from moodline.training.speech import SpeechFigures

_VIEWS: Final = {"single": "one of each face", "mirror": "the mean of a face and its mirror image"}

_CARD: Final = """# {name}

Answers how a face looks, as seven probabilities. It sees an **expression shown, not an emotion felt**: a smile may be politeness,
a frown may be sunlight.

| | |
| --- | --- |
| input | uint8 (N, 48, 48), grey, the centred square of a detected face; scaling happens inside |
| output | float32 (N, 7): {classes} |
| network | {layers} 3x3 convolutions, average, one dense layer; {weights:,} weights |
| files | `model.json` (contract, architecture, training), `weights.npz` (float16, its SHA-256 in `model.json`), `metrics.json` |
| licence | Apache-2.0, like Moodline; the terms of the training data are in `NOTICE` |
| views | {views} |
| training | `training/`, on {data}: {images:,} images; {runs} |

## Protocol

Fitted on FER-2013 Training. Everything was chosen, and the temperature fitted, on PublicTest, so the figures below are a
little too good. PrivateTest was not looked at. The figures are those of the files here, as they answer in the service;
`moodline evaluate {name} fer2013{votes_option}` repeats them.
{people}
## Figures against the labels

On PublicTest ({count:,} images): **{accuracy:.1f}%** right (95% interval {low:.1f} to {high:.1f}), macro-F1 {macro_f1:.3f},
cross-entropy {cross_entropy:.3f}. Expected calibration error {ece_before:.1f}% before the temperature of {temperature:.2f},
{ece:.1f}% with it, as served. People agree with the labels of FER-2013 in about 64% of cases.

| class | precision | recall | F1 | images |
| --- | --- | --- | --- | --- |
{rows}

Apart from what is served: the mean over {flip_text}ten crops is right in {ten:.1f}%.

What the service meets, and how many are right then:

| condition | right |
| --- | --- |
| as they are | {accuracy:.1f}% |
{conditions}

## What to know before relying on it

- FER-2013's labels are noisy, and its images were found by web search words: posed, often exaggerated faces. Some are
  drawings, or no faces at all. Disgust is 1.5% of it. Most often taken for something else: {mistakes}.
- No demographic labels exist for these images, so nothing is known about how evenly it works across ages, skin colours,
  genders or cultures. Expect uneven errors.
- Faces that are turned away, covered, very small or badly lit are outside what it has learnt.
- The last bits of an answer may differ between kinds of processors and engines; on one machine they are always the same.

## Use

Only with the knowledge of the people who are filmed, and within the law. In the European Union the AI Act, Article 5(1)(f),
forbids inferring emotions at work and in education except for medical or safety reasons, and elsewhere people must be informed.
Not for decisions about people. FER-2013 was published for research (Goodfellow et al., "Challenges in Representation
Learning", 2013).
"""


_PEOPLE: Final = """
## What people see

FER-2013's labels came with a search word. About ten people voted on each image (FER+); their majority is the label in
{agreement:.0f}%. So no model agrees well with both, nor is as sure as it is right against both; the confidence of this one is
calibrated to people.

| on PublicTest, {images:,} images with votes | |
| --- | --- |
| right against what most people see | **{accuracy:.1f}%** (95%: {low:.1f} to {high:.1f}) |
| right against the labels | {labels:.1f}% |
| mean of both | {mean:.1f}% |
| mean recall of the classes, as people see them | {macro:.3f} |
| expected calibration error, people | {ece:.1f}% |
| expected calibration error, labels | {ece_labels:.1f}% |

| class, as people see it | precision | recall | images |
| --- | --- | --- | --- |
{rows}

If only the surest answers are believed (risk and coverage):

| answers believed | confidence from | of these differ from people | from the label |
| --- | --- | --- | --- |
{risk}

What one truth costs the other, after a correction of the answers towards a mixture of both (`training/people_figures.py`):

| share of the votes | right, people | right, labels |
| --- | --- | --- |
{frontier}
"""

_SPEECH: Final = """
A neutral speaker (one woman, {neutral} neutral frames labelled by eye, `training/speech.py`): {single:.0f}% of the single frames
are called neutral, {smoothed:.0f}% of the same moments of the smoothed track{others}.
"""


def card(artefact: Artefact, metrics: Metrics, speech: SpeechFigures | None = None) -> str:
    """Return the card of a model, with its figures."""
    manifest, training = artefact.manifest, artefact.manifest.training
    low, high = metrics.interval_95
    return _CARD.format(
        name=manifest.name,
        classes=", ".join(EMOTIONS),
        layers=sum(layer["class_name"] == "Conv2D" for layer in manifest.architecture["layers"]),
        weights=sum(weight.size for weight in artefact.weights),
        views=_VIEWS[manifest.views],
        votes_option=" --votes VOTES" if metrics.people else "",
        people=_people(metrics) + _speech(speech),
        data=training["data"],
        images=training["runs"][-1]["images"],
        runs=_runs(training["runs"]),
        count=metrics.images,
        accuracy=100 * metrics.accuracy,
        low=100 * low,
        high=100 * high,
        macro_f1=metrics.macro_f1,
        cross_entropy=metrics.cross_entropy,
        ece_before=100 * metrics.calibration.error_before,
        ece=100 * metrics.calibration.error,
        temperature=metrics.calibration.temperature,
        rows="\n".join(
            f"| {name} | {row.precision:.2f} | {row.recall:.2f} | {row.f1:.2f} | {row.support:,} |"
            for name, row in metrics.classes.items()
        ),
        flip_text=""
        if manifest.views == "mirror"
        else f"an image and its mirror image is right in {100 * metrics.accuracy_flip:.1f}%, over ",
        ten=100 * metrics.accuracy_ten_crop,
        conditions="\n".join(f"| {CONDITIONS[name][0]} | {100 * share:.1f}% |" for name, share in metrics.robustness.items()),
        mistakes=_mistakes(metrics),
    )


def _people(metrics: Metrics) -> str:
    people = metrics.people
    if people is None:
        return ""
    return _PEOPLE.format(
        agreement=100 * people.agreement,
        images=people.images,
        accuracy=100 * people.accuracy,
        low=100 * people.interval_95[0],
        high=100 * people.interval_95[1],
        labels=100 * metrics.accuracy,
        mean=100 * people.mean_accuracy,
        macro=people.macro_recall,
        ece=100 * people.calibration_error,
        ece_labels=100 * metrics.calibration.error,
        rows=_lines(
            f"| {name} | {row.precision:.2f} | {row.recall:.2f} | {row.support:,} |" for name, row in people.classes.items()
        ),
        risk=_lines(
            f"| {100 * row.coverage:.0f}% | {row.confidence:.2f} | {100 * row.people:.1f}% | {100 * row.labels:.1f}% |"
            for row in people.risk_coverage
        ),
        frontier=_lines(
            f"| {100 * row.share:.0f}% | {100 * row.people:.1f}% | {100 * row.labels:.1f}% |" for row in people.frontier
        ),
    )


def _flip(views: Views, metrics: Metrics) -> str:
    if views == "mirror":  # that is what is served
        return ""
    return f"an image and its mirror image is right in {100 * metrics.accuracy_flip:.1f}%, over "


def _speech(speech: SpeechFigures | None) -> str:
    if speech is None:
        return ""
    wrong = {name: count for name, count in speech.answers.items() if name != "neutral"}
    others = ", ".join(f"{name} ({count})" for name, count in sorted(wrong.items(), key=lambda item: -item[1]))
    return _SPEECH.format(
        neutral=speech.frames["neutral"],
        single=100 * speech.single["neutral"],
        smoothed=100 * speech.smoothed["neutral"],
        others=f"; the other frames are called {others}" if others else "",
    )


def _lines(rows: Iterable[str]) -> str:
    return "\n".join(rows)


def _runs(runs: list[dict[str, Any]]) -> str:
    told = [
        f"{run['epochs']} epochs ({run['options']['name']})" if run["epochs"] else f"the {run['options']['name']}" for run in runs
    ]
    return told[0] if len(told) == 1 else f"{len(told)} steps, each from the one before: {', '.join(told)}"


def _mistakes(metrics: Metrics) -> str:
    counts = np.array(metrics.confusion, float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    worst = np.argsort(-shares, axis=None, kind="stable")[:3]
    pairs = [(EMOTIONS[place // len(EMOTIONS)], EMOTIONS[place % len(EMOTIONS)], shares.flat[place]) for place in worst]
    return ", ".join(f"{shown} for {answered} ({100 * share:.0f}%)" for shown, answered, share in pairs)
