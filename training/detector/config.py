"""A detector training's configuration: one TOML file, everything in it optional, unknown names refused."""

from pathlib import Path
from typing import Annotated

import msgspec

from moodline.training.config import read_toml
from moodline.training.detector.photos import Rules
from moodline.training.detector.sampling import SamplingConfig

Positive = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class DetectorTraining(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole configuration.

    Attributes:
        network: A name in `moodline.training.detector.spec.SPECS`.
        start: Folder of a finished or unfinished run of the same network, or of one with fewer layers that have a shortcut: its
            served weights are where this one begins, and new layers begin by changing nothing.
        epochs: Of `pictures` pictures each.
        pictures: An epoch.
        batch: Pictures a step.
        learning_rate: AdamW's; it rises over `warm_up` epochs, stays, and from the share `fall_from` of the run on falls along
            a cosine to a hundredth.
        warm_up: Epochs.
        fall_from: Share of the run.
        weight_decay: Of kernels.
        average_decay: Of the moving average of the weights, which is what is measured and served (EMA).
        keep_start: Share of the starting weights in what is measured and served; the rest is the moving average (WiSE-FT:
            Wortsman et al., "Robust fine-tuning of zero-shot models", 2022). Needs `start`.
        clip: Longest gradient.
        box_weight: Of the boxes' part of the loss.
        seed: Of everything random.
        rules: Which labels are taught.
        sampling: What the pictures are like.
    """

    network: str = "small"
    start: str = ""
    epochs: Positive = 100
    pictures: Positive = 6000
    batch: Positive = 32
    learning_rate: float = 2e-3
    warm_up: float = 1.0
    fall_from: Share = 0.5
    weight_decay: float = 0.02
    average_decay: Share = 0.9985
    keep_start: Share = 0.0
    clip: float = 5.0
    box_weight: float = 2.0
    seed: int = 7
    rules: Rules = Rules()
    sampling: SamplingConfig = SamplingConfig()

    def __post_init__(self) -> None:
        if self.keep_start and not self.start:
            raise ValueError("keep_start needs start: without it there are only random weights to keep")


def load_training(path: Path) -> DetectorTraining:
    """Read a detector's configuration. Raises as `read_toml`."""
    return read_toml(path, DetectorTraining)
