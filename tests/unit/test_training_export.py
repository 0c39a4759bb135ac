import numpy as np
import pytest

from moodline.shared.errors import ModelError
from moodline.training.architecture import BASELINE, SHIPPED, Block
from moodline.training.data import Split
from moodline.training.export import folded, measured
from moodline.training.import_torch import named_weights
from moodline.training.truths import Truths


def make_state(seed: int = 0, blocks: tuple[Block, ...] = BASELINE) -> dict[str, np.ndarray]:
    """Return weights like those of a trained network, with lively normalisation."""
    random = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}
    channels = 1
    for index, block in enumerate(blocks, 1):
        filters = block.filters
        state[f"conv{index}/kernel"] = random.normal(0, (2 / (9 * channels)) ** 0.5, (3, 3, channels, filters))
        norm = {"gamma": random.uniform(0.5, 1.5, filters), "beta": random.normal(0, 0.1, filters)}
        norm |= {"moving_mean": random.normal(0, 0.1, filters), "moving_variance": random.uniform(0.5, 2, filters)}
        state |= {f"norm{index}/{name}": value for name, value in norm.items()}
        channels = filters
    state["emotions/kernel"] = random.normal(0, 1, (channels, 7))
    state["emotions/bias"] = random.normal(0, 1, 7)
    return {name: value.astype(np.float32) for name, value in state.items()}


def test_folding_equals_normalising() -> None:
    state = make_state()
    kernel, bias = folded(state)[:2]
    patch = np.random.default_rng(1).normal(size=(3, 3, 1))
    convolved = (patch[..., None] * state["conv1/kernel"]).sum((0, 1, 2))
    normalised = (convolved - state["norm1/moving_mean"]) / np.sqrt(state["norm1/moving_variance"] + 1e-5)
    expected = normalised * state["norm1/gamma"] + state["norm1/beta"]
    assert np.allclose((patch[..., None] * kernel).sum((0, 1, 2)) + bias, expected, atol=1e-5)


def test_a_shortcut_is_folded_into_the_kernels_centre() -> None:
    state = make_state(blocks=SHIPPED)
    kernel, bias = folded(state, SHIPPED)[4:6]  # the third block adds its input
    patch = np.random.default_rng(1).normal(size=(3, 3, 64))
    gain = state["norm3/gamma"] / np.sqrt(state["norm3/moving_variance"] + 1e-5)
    convolved = (patch[..., None] * state["conv3/kernel"]).sum((0, 1, 2))
    expected = (convolved - state["norm3/moving_mean"]) * gain + state["norm3/beta"] + patch[1, 1]
    assert np.allclose((patch[..., None] * kernel).sum((0, 1, 2)) + bias, expected, atol=1e-4)


def test_the_temperature_divides_the_last_layer() -> None:
    state = make_state()
    kernel, bias = folded(state, temperature=2.0)[-2:]
    assert np.allclose(kernel, state["emotions/kernel"] / 2)
    assert np.allclose(bias, state["emotions/bias"] / 2)


def test_folded_weights_are_in_keras_layout() -> None:
    shapes = [weight.shape for weight in folded(make_state())]
    assert shapes[:4] == [(3, 3, 1, 32), (32,), (3, 3, 32, 64), (64,)]
    assert shapes[-2:] == [(160, 7), (7,)]
    assert len(shapes) == 2 * len(BASELINE) + 2


def test_weights_of_another_architecture_are_refused() -> None:
    with pytest.raises(ModelError, match="do not fit"):
        folded(make_state(), SHIPPED)
    with pytest.raises(ModelError, match="emotions/bias"):
        folded({name: value for name, value in make_state().items() if name != "emotions/bias"})


def test_figures_are_those_of_the_answers() -> None:
    labels = np.array([0, 0, 1, 2, 3, 4, 5, 6], np.int64)
    answers = np.eye(7, dtype=np.float32)[[0, 1, 1, 2, 3, 4, 5, 6]]
    figures = measured(answers, Truths(Split(np.zeros((8, 48, 48), np.uint8), labels)))
    assert figures["accuracy"] == 0.875
    assert figures["recall"]["angry"] == 0.5
    assert figures["recall"]["happy"] == 1.0
    assert figures["support"]["angry"] == 2
    assert figures["calibration_error"] == pytest.approx(0.125)


def make_torch_state(state: dict[str, np.ndarray], blocks: tuple[Block, ...]) -> dict[str, np.ndarray]:
    """Return the same weights as a PyTorch network would hold them."""
    names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    converted: dict[str, np.ndarray] = {}
    for index in range(1, len(blocks) + 1):
        converted[f"{index}.conv.weight"] = state[f"conv{index}/kernel"].transpose(3, 2, 0, 1)
        converted |= {f"{index}.bn.{torch}": state[f"norm{index}/{ours}"] for torch, ours in names.items()}
        converted[f"{index}.bn.num_batches_tracked"] = np.array(3)
    return converted | {"99.weight": state["emotions/kernel"].T, "99.bias": state["emotions/bias"]}


@pytest.mark.parametrize("blocks", [BASELINE, SHIPPED])
def test_weights_from_pytorch_get_our_names_and_layout(blocks: tuple[Block, ...]) -> None:
    state = make_state(1, blocks)
    imported = named_weights(make_torch_state(state, blocks), blocks)
    assert imported.keys() == state.keys()
    assert all((imported[name] == state[name]).all() for name in state)


def test_weights_from_pytorch_of_another_architecture_are_refused() -> None:
    with pytest.raises(ModelError, match="another architecture"):
        named_weights(make_torch_state(make_state(), BASELINE), SHIPPED)
