"""A served detector's card: what `README.md` beside its `detector.json` says."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from moodline.services.detector.own import Manifest

_CARD: Final = """# {name}

Finds faces: boxes with scores. It was trained for Moodline from random weights, and is served by `services/detector/own.py`.

| | |
| --- | --- |
| input | float32 (N, 3, H, W), 0 to 255, blue-green-red; H and W multiples of 32 |
| output | at strides 8, 16 and 32 float32 (N, 5, h, w): the score's logit, logarithms of the distances to the box's sides |
| network | {weights:,} weights, convolutions alone (`training/detector/spec.py`) |
| files | `detector.json` (contract, threshold, figures), `{file}` (its SHA-256 in `detector.json`) |
| licence | Apache-2.0, like Moodline; the terms of the training data are in `NOTICE` |
| data | public photos under mixed, partly unstated terms; none is shipped; boxes from YuNet (Apache-2.0) |
| training | `training/detector/`, {pictures:,} pictures in {runs} runs, with YuNet's labels on 5,567 photos (no part of it) |

## Figures

On {photos} photos with one labelled face each, none of them trained on, at {side} px and an overlap of at least {iou}; they also
chose the threshold of {threshold}, so expect a little less elsewhere:

| recall | precision | mean overlap with the labelled box |
| --- | --- | --- |
| {recall:.3f} | {precision:.3f} | {mean_iou:.3f} |

On held-out photos, measured against the teacher (faces from 12 px; what is smaller counts neither way; precision at
least 0.9):

| photos | average precision | recall | mean overlap with the teacher's box |
| --- | --- | --- | --- |
| crowds, at 416 px | {crowds_ap:.3f} | {crowds_recall:.3f} | {crowds_iou:.3f} |
| others, at 416 px | {others_ap:.3f} | {others_recall:.3f} | {others_iou:.3f} |

## What to know before relying on it

- It cannot be better than its teacher in what it calls a face, and took over some of its mistakes: dogs and monkeys that look
  into the camera, and backs of heads, are at times taken for faces.
- Faces below about 12 px in the searched picture, turned by more than a quarter, or covered for the most part are outside of what
  it learnt.
- Nothing is known about how evenly it finds faces of different ages, skin colours or genders; measure it on your own pictures.
- A box is no identity: it recognises nobody.
"""


def card(manifest: Manifest) -> str:
    """Return the card of a detector, with the figures of its manifest."""
    last: Mapping[str, Any] = manifest.training["last_epoch"]  # type: ignore[assignment]
    runs: Sequence[Mapping[str, Any]] = manifest.training["runs"]  # type: ignore[assignment]
    metrics: Mapping[str, Any] = manifest.metrics
    of_groups = {
        f"{group}_{key}": last.get(f"{group}_{source}", 0.0)
        for group in ("crowds", "others")
        for key, source in (("ap", "ap"), ("recall", "recall_at_0.9"), ("iou", "iou"))
    }
    return _CARD.format(
        name=manifest.name,
        file=manifest.weights,
        weights=manifest.training["weights"],
        runs=len(runs),
        pictures=sum(run["epochs"] * run["options"]["pictures"] for run in runs),
        threshold=manifest.threshold,
        photos=metrics["photos"],
        side=metrics["side_px"],
        iou=metrics["iou"],
        recall=metrics["recall"],
        precision=metrics["precision"],
        mean_iou=metrics["mean_iou"],
        **of_groups,
    )
