import numpy as np
import pytest

from moodline.training.targets import TrainTargets

torch = pytest.importorskip("torch", reason="the last layer is fitted with torch: install moodline[train]")


def test_a_last_layer_follows_its_targets_and_the_weights_of_images() -> None:
    from moodline.training.head import fitted

    random = np.random.default_rng(2)
    features = random.normal(size=(600, 12)).astype(np.float32)
    true = features @ random.normal(size=(12, 7)).astype(np.float32)
    targets = np.eye(7, dtype=np.float32)[true.argmax(1)]
    wrong = np.arange(600) % 3 == 0  # a third of the images say something else, and do not count
    noisy = np.where(wrong[:, None], np.eye(7, dtype=np.float32)[(true.argmax(1) + 1) % 7], targets)
    start = (np.zeros((12, 7), np.float32), np.zeros(7, np.float32))
    kernel, bias = fitted(features, TrainTargets(noisy, np.where(wrong, 0, 1).astype(np.float32)), start, 1e-4)
    assert ((features @ kernel + bias).argmax(1) == targets.argmax(1)).mean() > 0.95
    held, _ = fitted(features, TrainTargets(targets, np.ones(600, np.float32)), (kernel, bias), 1e3)
    assert np.abs(held - kernel).max() < 1e-2
