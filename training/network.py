"""The networks for training, in Keras: uint8 (N, 48, 48) -> logits float32 (N, 7). Pre-processing is inside."""

from types import TracebackType
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from moodline.shared.emotions import CROP_SIDE_PX, EMOTIONS
from moodline.shared.errors import ModelError, SettingsError
from moodline.training.architecture import ARCHITECTURES, NORM_EPSILON, OFFSET, SCALE, Block
from moodline.training.config import ModelConfig
from moodline.training.layers import (
    channels_axis,
    make_channel_dropout_layer,
    make_layout_layer,
    make_normalisation_layer,
    make_rectifier_layer,
)

_TRANSFER_SIDE_PX: Final = 96
_TRANSFER_BASES: Final = {"mobilenet_v2": "MobileNetV2", "efficientnet_b0": "EfficientNetB0", "resnet50_v2": "ResNet50V2"}
_TAKES_0_TO_255: Final = frozenset({"efficientnet_b0"})


def build_network(keras: Any, config: ModelConfig, fetch_weights: bool = False) -> Any:
    """Return an untrained network.

    Args:
        keras: The module, its backend chosen.
        config: Which network, and its dropout and precision.
        fetch_weights: Let a transfer network download what it was trained to before. Nothing else is ever downloaded.

    Raises:
        ModelError: those weights were asked for and could not be fetched.
    """
    if config.kind in ARCHITECTURES:
        return _stack(keras, ARCHITECTURES[config.kind], config)
    return _transfer(keras, config, fetch_weights)


def _stack(keras: Any, blocks: tuple[Block, ...], config: ModelConfig) -> Any:
    layers, policy, axis = keras.layers, config.precision, channels_axis(keras)
    form = "channels_first" if axis == 1 else "channels_last"
    normalisation, layout = make_normalisation_layer(keras), make_layout_layer(keras)
    rectifier, channel_dropout = make_rectifier_layer(keras), make_channel_dropout_layer(keras)
    crops = layers.Input((CROP_SIDE_PX, CROP_SIDE_PX), dtype="uint8", name="crops")
    x = layers.Reshape((CROP_SIDE_PX, CROP_SIDE_PX, 1), dtype="uint8", name="channel")(crops)
    x = layers.Rescaling(SCALE, OFFSET, dtype="float32", name="scaled")(x)
    x = layout(dtype="float32", name="layout")(x)
    for index, block in enumerate(blocks, 1):
        before = x
        x = layers.Conv2D(
            block.filters,
            3,
            padding="same",
            use_bias=False,
            data_format=form,
            # He et al., "Delving deep into rectifiers" (2015).
            kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal"),
            dtype=policy,
            name=f"conv{index}",
        )(x)
        # Half the gain beside a shortcut: their sum starts with about the input's variance.
        gain = keras.initializers.Constant(0.5 if block.shortcut else 1.0)
        norm = normalisation(axis, momentum=0.9, epsilon=NORM_EPSILON, gamma_initializer=gain, dtype=policy, name=f"norm{index}")
        x = norm(x)
        if block.shortcut:
            x = layers.Add(dtype=policy, name=f"sum{index}")([x, before])
        x = rectifier(dtype=policy, name=f"relu{index}")(x)
        if block.pool:
            x = layers.MaxPooling2D(data_format=form, dtype=policy, name=f"pool{index}")(x)
        if block.dropout and config.dropout:
            x = channel_dropout(block.dropout, data_format=form, dtype=policy, name=f"drop{index}")(x)
    x = layers.GlobalAveragePooling2D(data_format=form, dtype="float32", name="average")(x)
    return keras.Model(crops, _head(keras, x, config.dropout), name=config.kind)


def _head(keras: Any, features: Any, dropout: float) -> Any:
    layers = keras.layers
    features = layers.Dropout(dropout, dtype="float32", name="drop")(features)
    return layers.Dense(len(EMOTIONS), dtype="float32", name="emotions")(features)


def _transfer(keras: Any, config: ModelConfig, fetch_weights: bool) -> Any:
    """A network of `keras.applications` under a new head: crops are enlarged and their grey is repeated three times."""
    if config.base not in _TRANSFER_BASES:
        raise SettingsError(f"model.base is {config.base!r}; there are {', '.join(_TRANSFER_BASES)}")
    layers = keras.layers
    crops = layers.Input((CROP_SIDE_PX, CROP_SIDE_PX), dtype="uint8", name="crops")
    x = layers.Reshape((CROP_SIDE_PX, CROP_SIDE_PX, 1), dtype="uint8", name="channel")(crops)
    x = layers.Rescaling(*((1.0, 0.0) if config.base in _TAKES_0_TO_255 else (SCALE, OFFSET)), dtype="float32", name="scaled")(x)
    x = layers.Resizing(_TRANSFER_SIDE_PX, _TRANSFER_SIDE_PX, dtype="float32", name="enlarged")(x)
    x = layers.Concatenate(dtype="float32", name="colour")([x, x, x])
    side = (_TRANSFER_SIDE_PX, _TRANSFER_SIDE_PX, 3)
    with _OfflineIsClear(config.base):
        make_base = getattr(keras.applications, _TRANSFER_BASES[config.base])
        base = make_base(include_top=False, pooling="avg", input_shape=side, weights="imagenet" if fetch_weights else None)
    return keras.Model(crops, _head(keras, base(x), config.dropout), name="transfer")


class _OfflineIsClear:
    """Turns what Keras raises when a download fails, a bare `Exception`, into a `ModelError` that says what to do."""

    def __init__(self, base: str) -> None:
        self._base = base

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, OSError) or (error is not None and isinstance(error.__context__, OSError)):
            raise ModelError(
                f"the weights of {self._base} could not be fetched: go online once, or train without --fetch-weights"
            ) from None


def float32_network(keras: Any, config: ModelConfig) -> Any:
    """Return an untrained network of the same weights, to measure and answer with: no dropout, full precision."""
    return build_network(keras, msgspec.structs.replace(config, precision="float32", dropout=0.0))


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return probabilities of logits (N, 7)."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)  # type: ignore[no-any-return]
