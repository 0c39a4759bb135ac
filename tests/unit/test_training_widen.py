import numpy as np
import pytest

from moodline.shared.errors import ModelError
from moodline.training.architecture import BASELINE, LARGE, SHIPPED, Block
from moodline.training.export import folded
from moodline.training.widen import widened
from tests.unit.test_training_export import make_state

SMALL = (Block(4, True), Block(6, False), Block(6, True, shortcut=True), Block(8, False))
WIDE = (Block(7, True), Block(6, False), Block(6, True, shortcut=True), Block(13, False), Block(13, False, shortcut=True))


def answer(weights: list[np.ndarray], blocks: tuple[Block, ...], images: np.ndarray) -> np.ndarray:
    """Return logits of folded weights for images (N, H, W, 1)."""
    x = images
    for block, kernel, bias in zip(blocks, weights[:-2:2], weights[1:-2:2], strict=True):
        height, width = x.shape[1:3]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        parts = [padded[:, r : r + height, c : c + width] @ kernel[r, c] for r in range(3) for c in range(3)]
        x = np.maximum(sum(parts) + bias, 0)
        if block.pool:
            x = x.reshape(len(x), height // 2, 2, width // 2, 2, -1).max((2, 4))
    return x.mean((1, 2)) @ weights[-2] + weights[-1]  # type: ignore[no-any-return]


def test_a_widened_network_answers_as_before() -> None:
    state, images = make_state(3, SMALL), np.random.default_rng(1).normal(size=(5, 8, 8, 1))
    large = widened(state, SMALL, WIDE)
    before, after = answer(folded(state, SMALL), SMALL, images), answer(folded(large, WIDE), WIDE, images)
    assert after == pytest.approx(before, abs=1e-4)
    assert large["conv4/kernel"].shape == (3, 3, 6, 13)
    assert large["conv5/kernel"].std() > 0, "a new block can learn"


def test_noise_makes_the_copies_differ_a_little() -> None:
    state, images = make_state(3, SMALL), np.random.default_rng(1).normal(size=(5, 8, 8, 1))
    large = widened(state, SMALL, WIDE, noise=0.01)
    kernel = large["conv1/kernel"]
    assert len(np.unique(kernel.reshape(9, -1).round(7), axis=1).T) == 7
    before, after = answer(folded(state, SMALL), SMALL, images), answer(folded(large, WIDE), WIDE, images)
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()


def test_the_shipped_network_fits_into_the_large_one_and_not_the_other_way_round() -> None:
    large = widened(make_state(1, SHIPPED), SHIPPED, LARGE)
    weights = folded(large, LARGE)
    assert 2_600_000 < sum(weight.size for weight in weights) < 5_000_000
    for small, wide in ((LARGE, SHIPPED), (SHIPPED, BASELINE), (SMALL, (*WIDE[:-1], Block(13, False)))):
        with pytest.raises(ModelError, match="does not fit into"):
            widened(make_state(1, small), small, wide)
