import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.emotions import EMOTIONS
from shared.errors import ImageError
from training.architecture import BLOCKS
from training.data import Split, cleaned, load_split
from training.export import folded, measured


def make_state(seed: int = 0) -> dict[str, np.ndarray]:
    """Return a state dictionary like that of the trained network, with lively normalisation."""
    random = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}
    index, channels = 0, 1
    for filters, pool in BLOCKS:
        state[f"{index}.weight"] = random.normal(0, (2 / (9 * channels)) ** 0.5, (filters, channels, 3, 3))
        norm = {"weight": random.uniform(0.5, 1.5, filters), "bias": random.normal(0, 0.1, filters)}
        norm |= {"running_mean": random.normal(0, 0.1, filters), "running_var": random.uniform(0.5, 2, filters)}
        state |= {f"{index + 1}.{name}": value for name, value in norm.items()}
        state[f"{index + 1}.num_batches_tracked"] = np.array(5)
        index, channels = index + (4 if pool else 3), filters
    state[f"{index + 3}.weight"] = random.normal(0, 1, (7, channels))
    state[f"{index + 3}.bias"] = random.normal(0, 1, 7)
    return {name: value.astype(np.float32) for name, value in state.items()}


def test_folding_equals_normalising() -> None:
    state = make_state()
    kernel, bias = folded(state)[:2]
    patch = np.random.default_rng(1).normal(size=(3, 3, 1))
    convolved = np.array([(patch[:, :, 0] * weight[0]).sum() for weight in state["0.weight"]])
    normalised = (convolved - state["1.running_mean"]) / np.sqrt(state["1.running_var"] + 1e-5)
    expected = normalised * state["1.weight"] + state["1.bias"]
    assert np.allclose((patch[..., None] * kernel).sum((0, 1, 2)) + bias, expected, atol=1e-5)


def test_folded_weights_are_in_keras_layout() -> None:
    shapes = [weight.shape for weight in folded(make_state())]
    assert shapes[:4] == [(3, 3, 1, 32), (32,), (3, 3, 32, 64), (64,)]
    assert shapes[-2:] == [(160, 7), (7,)]
    assert len(shapes) == 2 * len(BLOCKS) + 2


def test_cleaning_drops_what_cannot_teach() -> None:
    def image(value: int) -> np.ndarray:
        return np.arange(48 * 48, dtype=np.uint8).reshape(48, 48) + np.uint8(value)

    flat = np.full((48, 48), 9, np.uint8)
    images = [image(1), image(2), image(2), image(3), image(3), flat, image(4), image(5)]
    labels = [0, 1, 1, 2, 3, 4, 5, 6]
    train = Split(np.stack(images), np.array(labels, np.int64))
    validation = Split(np.stack([image(4)]), np.array([5], np.int64))
    kept = cleaned(train, validation)
    # One of two equal images, none of those with two labels, none without contrast, none that validation holds.
    assert kept.labels.tolist() == [0, 1, 6]
    assert [hashlib.sha256(a.tobytes()).digest() for a in kept.images] == [
        hashlib.sha256(image(value).tobytes()).digest() for value in (1, 2, 5)
    ]


def test_images_are_read_in_the_order_of_the_classes(tmp_path: Path) -> None:
    for index, name in enumerate(EMOTIONS):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((48, 48), index * 30, np.uint8)).save(tmp_path / name / "a.jpg", quality=95)
    split = load_split(tmp_path)
    assert split.labels.tolist() == list(range(7))
    assert np.abs(split.images.mean((1, 2)) - np.arange(7) * 30).max() < 2


def test_a_missing_class_or_another_size_is_an_error(tmp_path: Path) -> None:
    for name in EMOTIONS[:-1]:
        (tmp_path / name).mkdir()
        Image.new("L", (48, 48)).save(tmp_path / name / "a.jpg")
    with pytest.raises(ImageError, match="neutral"):
        load_split(tmp_path)
    (tmp_path / "neutral").mkdir()
    Image.new("L", (49, 48)).save(tmp_path / "neutral" / "a.jpg")
    with pytest.raises(ImageError, match="48x48"):
        load_split(tmp_path)


def test_figures_are_those_of_the_answers() -> None:
    labels = np.array([0, 0, 1, 2, 3, 4, 5, 6], np.int64)
    answers = np.eye(7, dtype=np.float32)[[0, 1, 1, 2, 3, 4, 5, 6]]
    figures = measured(answers, Split(np.zeros((8, 48, 48), np.uint8), labels))
    assert figures["accuracy"] == 0.875
    assert figures["recall"]["angry"] == 0.5
    assert figures["recall"]["happy"] == 1.0
    assert figures["calibration_error"] == pytest.approx(0.125)
