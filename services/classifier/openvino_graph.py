"""Builds OpenVINO's network from an artefact: one row per kind of layer, from plain arrays, without a file in between.

Values travel as (N, channels, rows, columns), OpenVINO's own order; an artefact's are (N, rows, columns, channels). Between the
input and the first layer that has channels nothing differs but the shape, and after the last one there are no rows and columns.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from moodline.services.classifier.artefact import Artefact
from moodline.shared.emotions import CROP_SIDE_PX, EMOTIONS
from moodline.shared.errors import ModelError

_Few = Annotated[int, msgspec.Meta(ge=1, le=CROP_SIDE_PX)]
_Size = tuple[_Few, _Few]
"""Rows and columns. Checked here: native code is not asked to divide by zero."""
_Activation = Literal["linear", "relu", "softmax"] | None


class _Layer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The entries that the configuration of any layer may have; none of them changes the answer."""

    name: str
    trainable: Any = None
    dtype: Any = None


class _Weighted(_Layer, kw_only=True):
    activation: _Activation = None
    use_bias: bool = True
    kernel_initializer: Any = None
    bias_initializer: Any = None
    kernel_regularizer: None = None
    bias_regularizer: None = None
    activity_regularizer: None = None
    kernel_constraint: None = None
    bias_constraint: None = None


class _Input(_Layer, kw_only=True):
    batch_shape: list[int | None]
    sparse: Literal[False] = False
    ragged: Literal[False] = False
    optional: Literal[False] = False


class _Reshape(_Layer, kw_only=True):
    target_shape: tuple[int, int, int]


class _Rescaling(_Layer, kw_only=True):
    scale: float
    offset: float


class _Conv2D(_Weighted, kw_only=True):
    filters: Annotated[int, msgspec.Meta(ge=1)]
    kernel_size: _Size
    strides: _Size = (1, 1)
    padding: Literal["same", "valid"] = "valid"
    data_format: Literal["channels_last"] = "channels_last"
    dilation_rate: _Size = (1, 1)
    groups: Literal[1] = 1


class _Pooling(_Layer, kw_only=True):
    pool_size: _Size
    strides: _Size
    padding: Literal["same", "valid"] = "valid"
    data_format: Literal["channels_last"] = "channels_last"


class _GlobalPooling(_Layer, kw_only=True):
    data_format: Literal["channels_last"] = "channels_last"
    keepdims: Literal[False] = False


class _Dense(_Weighted, kw_only=True):
    units: Annotated[int, msgspec.Meta(ge=1)]
    quantization_config: None = None


class _Activated(_Layer, kw_only=True):
    activation: _Activation


class _Merge(_Layer, kw_only=True):
    pass


class _Dropout(_Layer, kw_only=True):
    rate: float = 0.0
    seed: Any = None
    noise_shape: Any = None


_Config = TypeVar("_Config", bound=_Layer)


class _Builder:
    """Builds node after node; takes an artefact's weights in their order, as the layers ask for them."""

    def __init__(self, openvino: Any, artefact: Artefact, batch_size: int) -> None:
        self._ops = openvino.opset13
        self._openvino = openvino
        self._weights = iter(artefact.weights)
        self._batch_size = batch_size
        self._results: dict[str, Any] = {}
        self.input: Any = None

    def add(self, layer: dict[str, Any]) -> None:
        """Add a layer of the artefact's architecture; those that it takes from must be there."""
        kind = layer["class_name"]
        if kind not in _KINDS:
            raise ModelError(f"the layer {kind} is not served by OpenVINO; set MOODLINE_CLASSIFIER_ENGINE=tensorflow")
        config_type, build = _KINDS[kind]
        config = msgspec.convert(layer["config"], config_type)
        inputs = [self._results[name] for name in _sources(layer["inbound_nodes"])]
        result = build(self, config, *inputs)
        # The first output of each node; only pooling has more than one.
        self._results[config.name] = self._activated(result, getattr(config, "activation", None)).output(0)

    def finish(self, output: str) -> Any:
        """Return the network that ends at a layer."""
        if next(self._weights, None) is not None:
            raise ModelError("the artefact has more weights than its architecture: other shapes")
        answer = self._results[output]
        if list(answer.shape) != [self._batch_size, len(EMOTIONS)]:
            raise ModelError(f"the network answers {list(answer.shape)[1:]}, not {len(EMOTIONS)} classes")
        if self.input is None:
            raise ModelError("the network takes nothing")
        return self._openvino.Model([self._ops.result(answer)], [self.input], "classifier")

    def crops(self, config: _Input) -> Any:
        taken, kind = config.batch_shape, config.dtype
        if taken != [None, CROP_SIDE_PX, CROP_SIDE_PX] or kind != "uint8" or self.input is not None:
            raise ModelError(f"the network takes {kind} {taken}, not uint8 crops")
        shape = [self._batch_size, CROP_SIDE_PX, CROP_SIDE_PX]
        self.input = self._ops.parameter(shape, self._openvino.Type.u8, name="crops")
        return self.input

    def reshape(self, config: _Reshape, value: Any) -> Any:
        if config.target_shape != (CROP_SIDE_PX, CROP_SIDE_PX, 1):
            raise ModelError("only crops are given another shape")
        shape = np.array([self._batch_size, 1, CROP_SIDE_PX, CROP_SIDE_PX])
        return self._ops.reshape(value, self._ops.constant(shape), special_zero=False)

    def rescaling(self, config: _Rescaling, value: Any) -> Any:
        scaled = self._ops.multiply(self._ops.convert(value, "f32"), self._constant(np.float32(config.scale)))
        return self._ops.add(scaled, self._constant(np.float32(config.offset)))

    def convolution(self, config: _Conv2D, value: Any) -> Any:
        channels = value.shape[1]
        kernel = self._take((*config.kernel_size, channels, config.filters)).transpose(3, 2, 0, 1)
        padding = {"same": "SAME_UPPER", "valid": "VALID"}[config.padding]
        result = self._ops.convolution(
            value, self._constant(kernel), config.strides, [0, 0], [0, 0], config.dilation_rate, padding
        )
        if not config.use_bias:
            return result
        return self._ops.add(result, self._constant(self._take((config.filters,)).reshape(1, -1, 1, 1)))

    def maximum(self, config: _Pooling, value: Any) -> Any:
        padding = {"same": "SAME_UPPER", "valid": "VALID"}[config.padding]
        return self._ops.max_pool(value, config.strides, [1, 1], [0, 0], [0, 0], config.pool_size, "floor", padding)

    def average_of_all(self, config: _GlobalPooling, value: Any) -> Any:  # noqa: ARG002  # checked where it was read
        return self._ops.reduce_mean(value, self._ops.constant(np.array([2, 3])), keep_dims=False)

    def maximum_of_all(self, config: _GlobalPooling, value: Any) -> Any:  # noqa: ARG002
        return self._ops.reduce_max(value, self._ops.constant(np.array([2, 3])), keep_dims=False)

    def dense(self, config: _Dense, value: Any) -> Any:
        shape = list(value.shape)
        if len(shape) != 2:
            raise ModelError("a dense layer comes after the average over all places")
        kernel = self._take((shape[1], config.units))
        result = self._ops.matmul(value, self._constant(kernel), transpose_a=False, transpose_b=False)
        return self._ops.add(result, self._constant(self._take((config.units,)))) if config.use_bias else result

    def same(self, config: _Layer, value: Any) -> Any:  # noqa: ARG002
        return value.get_node()

    def sum(self, config: _Layer, *values: Any) -> Any:  # noqa: ARG002
        total, *others = values
        for value in others:
            total = self._ops.add(total, value).output(0)
        return total.get_node()

    def _activated(self, value: Any, activation: str | None) -> Any:
        if activation == "relu":
            return self._ops.relu(value)
        if activation == "softmax":
            return self._ops.softmax(value, 1)
        return value

    def _constant(self, value: npt.NDArray[np.float32] | np.float32) -> Any:
        return self._ops.constant(np.ascontiguousarray(value, np.float32))

    def _take(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        weight = next(self._weights, None)
        if weight is None or weight.shape != shape:
            given = "none" if weight is None else weight.shape
            raise ModelError(f"the artefact's weights have other shapes than its architecture: {given}, not {shape}")
        return weight


_KINDS: Final[dict[str, tuple[type[_Layer], Callable[..., Any]]]] = {
    "InputLayer": (_Input, _Builder.crops),
    "Reshape": (_Reshape, _Builder.reshape),
    "Rescaling": (_Rescaling, _Builder.rescaling),
    "Conv2D": (_Conv2D, _Builder.convolution),
    "MaxPooling2D": (_Pooling, _Builder.maximum),
    "GlobalAveragePooling2D": (_GlobalPooling, _Builder.average_of_all),
    "GlobalMaxPooling2D": (_GlobalPooling, _Builder.maximum_of_all),
    "Dense": (_Dense, _Builder.dense),
    "Activation": (_Activated, _Builder.same),
    "Dropout": (_Dropout, _Builder.same),
    "Add": (_Merge, _Builder.sum),
}


def build_network(openvino: Any, artefact: Artefact, batch_size: int) -> Any:
    """Return an artefact as an `openvino.Model`: uint8 (batch_size, 48, 48) -> float32 (batch_size, 7).

    Args:
        openvino: The module.
        artefact: A checked artefact.
        batch_size: Crops per call of the network.

    Raises:
        ModelError: the architecture has a layer or a setting that is not served, or the weights do not fit it.
    """
    name, architecture = artefact.manifest.name, artefact.manifest.architecture
    builder = _Builder(openvino, artefact, batch_size)
    try:
        for layer in architecture["layers"]:
            builder.add(layer)
        return builder.finish(architecture["output_layers"][0])
    except (msgspec.ValidationError, KeyError, TypeError, IndexError, AttributeError, ValueError, RuntimeError) as error:
        raise ModelError(f"the architecture of the model {name} cannot be built: {error}") from None
    except ModelError as error:
        raise ModelError(f"the model {name} cannot be used: {error}") from None


def _sources(value: Any) -> Iterator[str]:
    """Yield the names of the layers that a layer takes from, in their order."""
    if isinstance(value, dict):
        if "keras_history" in value:
            yield value["keras_history"][0]
        else:
            for each in value.values():
                yield from _sources(each)
    elif isinstance(value, list):
        for each in value:
            yield from _sources(each)
