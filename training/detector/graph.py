"""The served network as an ONNX graph, from folded weights: plain convolutions, ReLU, nearest enlarging and sums."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moodline.training.detector.spec import OUTPUTS, STRIDES, Conv, Spec

Array = npt.NDArray[np.float32]

INPUT: Final = "image"
_OPSET: Final = 17
_IR: Final = 8


class Place(NamedTuple):
    """A convolution in the network: its name, its table entry, the channels that come in, and whether ReLU follows."""

    name: str
    conv: Conv
    inputs: int
    relu: bool = True


def places(spec: Spec) -> Iterator[Place]:
    """Yield all convolutions of a network, in the order of the data."""
    inputs = 3
    widths = []
    for part, convs in (
        ("stem", spec.stem),
        *((f"stage{stride}", stage) for stride, stage in zip(STRIDES, spec.stages, strict=True)),
    ):
        for index, conv in enumerate(convs):
            yield Place(f"{part}.{index}", conv, inputs)
            inputs = conv.filters
        widths.append(inputs)
    for stride, width in zip(STRIDES, widths[1:], strict=True):
        yield Place(f"lateral{stride}", Conv(spec.neck, 1), width)
        inputs = spec.neck
        for index, conv in enumerate(spec.head):
            yield Place(f"head{stride}.{index}", conv, inputs)
            inputs = conv.filters
        yield Place(f"answer{stride}", Conv(OUTPUTS, 1), inputs, relu=False)


def kernel_shape(place: Place) -> tuple[int, int, int, int]:
    """Return the shape of a convolution's weights: out, in (of a group), height, width."""
    conv = place.conv
    return conv.filters, 1 if conv.depthwise else place.inputs, conv.kernel, conv.kernel


def weight_count(spec: Spec) -> int:
    """Return how many numbers the served network has."""
    return sum(int(np.prod(kernel_shape(place))) + place.conv.filters for place in places(spec))


def build_graph(spec: Spec, weights: Mapping[str, Array], name: str, notes: Mapping[str, str] | None = None) -> bytes:
    """Return an ONNX file: `image` float32 (N, 3, H, W), H and W multiples of 32 -> `level8`, `level16`, `level32`.

    Args:
        spec: The network.
        weights: For each place `NAME.weight` (out, in, h, w) and `NAME.bias` (out,).
        name: Of the graph.
        notes: Written into the file's metadata.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants = [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")]

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def convolve(place: Place, source: str, output: str) -> str:
        for part in ("weight", "bias"):
            constants.append(
                numpy_helper.from_array(np.ascontiguousarray(weights[f"{place.name}.{part}"]), f"{place.name}.{part}")
            )
        side, pad = place.conv.kernel, place.conv.kernel // 2
        answer = add(
            "Conv", [source, f"{place.name}.weight", f"{place.name}.bias"], output if not place.relu else f"{place.name}.sum",
            kernel_shape=[side, side], strides=[place.conv.stride] * 2, pads=[pad] * 4,
            group=place.conv.filters if place.conv.depthwise else 1,
        )  # fmt: skip
        return add("Relu", [answer], output) if place.relu else answer

    by_name = {place.name: place for place in places(spec)}
    at = INPUT
    features = {}
    for place in by_name.values():
        if place.name.startswith(("stem", "stage")):
            at = convolve(place, at, f"{place.name}.out")
            features[place.name.split(".")[0]] = at
    above = ""
    for stride in reversed(STRIDES):
        own = convolve(by_name[f"lateral{stride}"], features[f"stage{stride}"], f"lateral{stride}.out")
        if above:
            larger = add(
                "Resize", [above, "", "twice"], f"larger{stride}",
                mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
            )  # fmt: skip
            own = add("Add", [own, larger], f"merged{stride}")
        above = at = own
        for index in range(len(spec.head)):
            at = convolve(by_name[f"head{stride}.{index}"], at, f"head{stride}.{index}.out")
        convolve(by_name[f"answer{stride}"], at, f"level{stride}")
    shape: dict[int, list[str | int | None]] = {stride: ["n", OUTPUTS, f"h{stride}", f"w{stride}"] for stride in STRIDES}
    graph = helper.make_graph(
        nodes, name, [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info(f"level{stride}", TensorProto.FLOAT, shape[stride]) for stride in STRIDES], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="moodline")
    helper.set_model_props(model, dict(notes or {}))
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
