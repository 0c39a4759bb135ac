"""Train a small classifier on drawn faces and say how often it is right: `python examples/train_a_small_model.py`.

The seven classes are drawn as mouths and brows, so no data set is needed and it takes a minute. With FER-2013 at hand,
`moodline train --config training/configs/quick.toml --data fer2013` does the same on real faces.
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from moodline.shared.emotions import CROP_SIDE_PX, EMOTIONS
from moodline.training.config import AugmentConfig, LossConfig, ModelConfig, ScheduleConfig, TrainConfig
from moodline.training.data import Dataset, Split
from moodline.training.train import run_training


def drawn_face(emotion: int, random: np.random.Generator) -> np.ndarray:
    """Return a drawn face, uint8 (48, 48): each class bends the mouth and lifts the brows in its own way."""
    face = np.full((CROP_SIDE_PX, CROP_SIDE_PX), 90 + random.integers(40), np.uint8)
    x, y = (int(value) for value in random.integers(-3, 4, 2))
    bend, lift = 4 * (emotion % 3 - 1), 3 * (emotion // 3 - 1)
    mouth = np.array([[13 + x, 34 + y], [24 + x, 34 + y + bend], [35 + x, 34 + y]])
    cv2.polylines(face, [mouth], False, 230, 2)
    for side in (14, 34):
        cv2.circle(face, (side + x, 20 + y), 2, 230, -1)
        cv2.line(face, (side - 4 + x, 13 + y), (side + 4 + x, 13 + y + lift), 230, 2)
    return face


def drawn_faces(count: int, seed: int) -> Split:
    """Return `count` faces of each class."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(EMOTIONS)), count)
    return Split(np.stack([drawn_face(int(label), random) for label in labels]), labels.astype(np.int64))


def main() -> None:
    """Train for two epochs and print the result."""
    config = TrainConfig(
        name="drawn",
        model=ModelConfig(kind="tiny", precision="float32", dropout=0.0),
        schedule=ScheduleConfig(epochs=2, batch=32, learning_rate=0.1, average_decay=0.9),
        loss=LossConfig(label_smoothing=0.0, mixup=0.0),
        augment=AugmentConfig(enabled=False),
    )
    data = Dataset({"train": drawn_faces(200, seed=1), "validation": drawn_faces(20, seed=2)})
    with tempfile.TemporaryDirectory() as folder:
        result = run_training(config, data, Path(folder) / "run")
    print(f"{100 * result.accuracy:.0f}% of the validation faces are right after {result.epochs} epochs")


if __name__ == "__main__":
    main()
