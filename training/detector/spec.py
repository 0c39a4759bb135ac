"""The detector's network as tables. Both the trained network and the served one are built from them.

A backbone of convolutions gives features at strides 8, 16 and 32; a top-down path adds the wider view to the finer one; each
level has its own head, one convolution and a 1x1 one to five numbers for each cell: the score's logit and the logarithms of the
distances, in strides, from the cell's centre to the left, top, right and bottom of the box (Tian et al., "FCOS", 2019).

In training a convolution is followed by batch normalisation and, where it keeps size and width, has a shortcut and a 1x1 branch
beside it; all of that is folded into one kernel for serving (Ding et al., "RepVGG", 2021).
"""

from typing import Final, NamedTuple

STRIDES: Final = (8, 16, 32)
OUTPUTS: Final = 5


class Conv(NamedTuple):
    """A convolution with ReLU.

    Attributes:
        filters: Channels out.
        kernel: Side of the kernel.
        stride: 1 or 2.
        depthwise: One kernel a channel; `filters` is what comes in.
    """

    filters: int
    kernel: int = 3
    stride: int = 1
    depthwise: bool = False


class Spec(NamedTuple):
    """A network.

    Attributes:
        stem: From the image to stride 4.
        stages: To stride 8, 16 and 32, one after the other.
        neck: Channels of the top-down path.
        head: Convolutions of each level before its answer.
    """

    stem: tuple[Conv, ...]
    stages: tuple[tuple[Conv, ...], tuple[Conv, ...], tuple[Conv, ...]]
    neck: int
    head: tuple[Conv, ...]


def _separable(filters: int, kernel: int = 3) -> tuple[Conv, Conv]:
    return Conv(filters, kernel, 1, depthwise=True), Conv(filters, 1)


# Chosen by measured time before any training (docs/detector.md): at 320 px on one thread `small` takes 5.4 ms in OpenCV
# and 3.4 ms in ONNX Runtime, YuNet 8.7 ms. At this size plain convolutions do more work a millisecond than depthwise ones;
# those serve at stride 32 alone, where they widen the view for few weights.
SPECS: Final[dict[str, Spec]] = {
    "small": Spec(
        stem=(Conv(16, 3, 2), Conv(24, 3, 2), Conv(24)),
        stages=(
            (Conv(40, 3, 2), Conv(40), Conv(40)),
            (Conv(48, 3, 2), Conv(48)),
            (Conv(48, 3, 2), *_separable(48, 5), *_separable(48, 5)),
        ),
        neck=32,
        head=(Conv(32),),
    ),
    "deep": Spec(
        stem=(Conv(16, 3, 2), Conv(24, 3, 2), Conv(24)),
        stages=(
            (Conv(40, 3, 2), Conv(40), Conv(40), Conv(40), Conv(40)),
            (Conv(48, 3, 2), Conv(48), Conv(48)),
            (Conv(48, 3, 2), *_separable(48, 5), *_separable(48, 5)),
        ),
        neck=32,
        head=(Conv(32), Conv(32)),
    ),
    "tiny": Spec(
        stem=(Conv(8, 3, 2), Conv(8, 3, 2)),
        stages=((Conv(16, 3, 2),), (Conv(16, 3, 2),), (Conv(16, 3, 2), *_separable(16, 5))),
        neck=16,
        head=(),
    ),
}
"""`deep` is `small` with more layers that have a shortcut, so it can go on from its weights; `tiny` is for tests."""
