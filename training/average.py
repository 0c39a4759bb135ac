"""A moving average of a network's weights: smoother than the weights themselves, and what is measured and kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def array_of(variable: Any) -> npt.NDArray[Any]:
    """Return a Keras variable's value; on a CPU mostly without a copy, so it may change with the variable.

    `keras.ops.convert_to_numpy` warns of a variable on TensorFlow.
    """
    value = variable.value
    if hasattr(value, "detach"):  # torch
        value = value.detach().cpu()
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


class WeightAverage:
    """Averages all weights, moving means and variances too, in NumPy, so with any backend. Starts as a copy.

    Args:
        weights: The network's variables.
        decay: What remains of the average at each update.
    """

    def __init__(self, weights: Sequence[Any], decay: float) -> None:
        self._weights, self._decay = list(weights), decay
        self.values: list[Array] = [array_of(weight).astype(np.float32) for weight in weights]
        self._room = [np.empty_like(value) for value in self.values]

    def update(self) -> None:
        """Take the present weights in."""
        for weight, value, room in zip(self._weights, self.values, self._room, strict=True):
            np.subtract(array_of(weight), value, out=room)
            np.multiply(room, 1 - self._decay, out=room)
            np.add(value, room, out=value)


def named(weights: Sequence[Any], values: Sequence[Array]) -> dict[str, Array]:
    """Return values by their variables' paths, such as `conv1/kernel`."""
    return {weight.path: value for weight, value in zip(weights, values, strict=True)}


def ordered(weights: Sequence[Any], values: Mapping[str, Array]) -> list[Array]:
    """Return named values in the order of the variables. Raises KeyError where one is missing."""
    return [values[weight.path] for weight in weights]
