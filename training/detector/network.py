"""The network in training: PyTorch functions over a plain dictionary of weights."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moodline.training.detector.graph import Place, kernel_shape, places
from moodline.training.detector.spec import STRIDES, Spec

Array = npt.NDArray[np.float32]

EPSILON: Final = 1e-5
_MOMENTUM: Final = 0.03
_PRIOR: Final = 0.01
"""The score that every cell has at the start: faces are rare (Lin et al., "Focal Loss for Dense Object Detection", 2017)."""
_FIRST_REACH: Final = 1.0
"""Distances from the cell to the box's sides at the start, in strides."""
INPUT_SCALE: Final = 1 / 128
"""Pixels are only scaled, not shifted: the black that surrounds a picture is then the zero that convolutions pad with."""


def has_shortcut(place: Place) -> bool:
    """Say whether what comes in is added to what the convolution gives."""
    return place.relu and place.conv.stride == 1 and place.conv.filters == place.inputs


def new_state(spec: Spec, seed: int) -> dict[str, Any]:
    """Return random weights by name: `NAME.kernel`, then `.gamma`, `.beta`, `.mean` and `.variance`, or for answers `.bias`."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Any] = {}
    for place in places(spec):
        shape = kernel_shape(place)
        spread = (2 / float(np.prod(shape[1:]))) ** 0.5 if place.relu else 0.01
        state[f"{place.name}.kernel"] = torch.randn(shape, generator=generator) * spread
        if place.relu:
            state |= {f"{place.name}.{part}": torch.ones(shape[0]) for part in ("gamma", "variance")}
            state |= {f"{place.name}.{part}": torch.zeros(shape[0]) for part in ("beta", "mean")}
        else:
            state[f"{place.name}.bias"] = torch.full((shape[0],), float(np.log(_FIRST_REACH)))
            state[f"{place.name}.bias"][0] = float(np.log(_PRIOR / (1 - _PRIOR)))
    return state


def is_learnt(name: str) -> bool:
    """Say whether a weight gets a gradient; running means and variances do not."""
    return not name.endswith((".mean", ".variance"))


def answers(
    spec: Spec, state: Mapping[str, Any], images: Any, training: bool, observe: Callable[[str, Any], None] | None = None
) -> list[Any]:
    """Return the raw answers at strides 8, 16 and 32, each (N, 5, h, w).

    Args:
        spec: The network.
        state: Its weights; in training the running means and variances are changed in place.
        images: uint8 (N, 3, H, W), blue-green-red; H and W multiples of 32.
        training: Normalise by the batch.
        observe: Told the name of each convolution that is normalised, and what it gave before that.
    """
    import torch
    from torch.nn import functional

    def convolve(place: Place, inputs: Any) -> Any:
        conv, name = place.conv, place.name
        groups = conv.filters if conv.depthwise else 1
        x = functional.conv2d(
            inputs, state[f"{name}.kernel"], state.get(f"{name}.bias"), conv.stride, conv.kernel // 2, groups=groups
        )
        if not place.relu:
            return x
        if observe is not None:
            observe(name, x)
        x = functional.batch_norm(
            x, state[f"{name}.mean"], state[f"{name}.variance"], state[f"{name}.gamma"], state[f"{name}.beta"],
            training, _MOMENTUM, EPSILON,
        )  # fmt: skip
        return functional.relu_(x + inputs if has_shortcut(place) else x)

    by_name = {place.name: place for place in places(spec)}
    at = images.to(memory_format=torch.channels_last).float() * INPUT_SCALE
    features = {}
    for name, place in by_name.items():
        if name.startswith(("stem", "stage")):
            at = convolve(place, at)
            features[name.split(".")[0]] = at
    found: dict[int, Any] = {}
    above = None
    for stride in reversed(STRIDES):
        own = convolve(by_name[f"lateral{stride}"], features[f"stage{stride}"])
        if above is not None:
            own = own + functional.interpolate(above, scale_factor=2, mode="nearest")
        above = at = own
        for index in range(len(spec.head)):
            at = convolve(by_name[f"head{stride}.{index}"], at)
        found[stride] = convolve(by_name[f"answer{stride}"], at)
    return [found[stride] for stride in STRIDES]


def folded(spec: Spec, state: Mapping[str, Array]) -> dict[str, Array]:
    """Return the served network's weights as `NAME.weight` and `NAME.bias`: scaling, normalisation and shortcuts folded in."""
    weights: dict[str, Array] = {}
    for index, place in enumerate(places(spec)):
        name, kernel = place.name, state[f"{place.name}.kernel"].astype(np.float64)
        if place.relu:
            gain = state[f"{name}.gamma"] / np.sqrt(state[f"{name}.variance"].astype(np.float64) + EPSILON)
            bias = state[f"{name}.beta"] - state[f"{name}.mean"] * gain
            kernel = kernel * gain[:, None, None, None]
            if has_shortcut(place):
                middle = place.conv.kernel // 2
                for channel in range(place.conv.filters):
                    kernel[channel, 0 if place.conv.depthwise else channel, middle, middle] += 1
        else:
            bias = state[f"{name}.bias"].astype(np.float64)
        scale = INPUT_SCALE if index == 0 else 1.0
        weights[f"{name}.weight"] = (kernel * scale).astype(np.float32)
        weights[f"{name}.bias"] = bias.astype(np.float32)
    return weights
