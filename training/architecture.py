"""The networks as tables: plain stacks of 3x3 convolutions that a CPU serves fast.

`moodline.training.network` builds them for training, with batch normalisation and shortcuts; `moodline.training.export` builds
them for serving, where both are folded into the convolutions.
"""

from typing import Final, NamedTuple


class Block(NamedTuple):
    """A 3x3 convolution, batch normalisation, ReLU and, if `pool`, a 2x2 maximum that halves the side.

    With `shortcut` the block's input is added before the ReLU, which needs as many filters as channels come in. It eases
    training and costs nothing afterwards: it is one more weight at the kernel's centre (Ding et al., "RepVGG", 2021).
    `dropout` is the share of whole channels that are left out after the block.
    """

    filters: int
    pool: bool
    shortcut: bool = False
    dropout: float = 0.0


TINY: Final[tuple[Block, ...]] = (Block(16, True), Block(32, True), Block(64, True), Block(96, False))
"""To try things out: 79 thousand weights, 8 million multiply-adds a crop."""

BASELINE: Final[tuple[Block, ...]] = (
    Block(32, True),  # 48 -> 24 px
    Block(64, True),  # 24 -> 12 px
    Block(96, False),
    Block(128, True),  # 12 -> 6 px
    Block(160, False),
    Block(160, False),
)
"""The family of the first model, fer-seed: 0.6 million weights, 51 million multiply-adds a crop."""

SHIPPED: Final[tuple[Block, ...]] = (
    Block(32, True),  # 48 -> 24 px
    Block(64, False),
    Block(64, True, shortcut=True, dropout=0.05),  # 24 -> 12 px
    Block(128, False),
    Block(128, True, shortcut=True, dropout=0.05),  # 12 -> 6 px
    Block(192, False),
    Block(192, False, shortcut=True),
    Block(224, False, dropout=0.1),
)
"""1.2 million weights, 98 million multiply-adds a crop."""

LARGE: Final[tuple[Block, ...]] = (
    Block(40, True),  # 48 -> 24 px
    Block(80, False),
    Block(80, True, shortcut=True, dropout=0.05),  # 24 -> 12 px
    Block(160, False),
    Block(160, True, shortcut=True, dropout=0.05),  # 12 -> 6 px
    Block(288, False),
    Block(288, False, shortcut=True),
    Block(320, False, dropout=0.1),
    Block(320, False, shortcut=True, dropout=0.1),
)
"""3.3 million weights, 206 million multiply-adds a crop. `SHIPPED` fits into it, see `moodline.training.widen`."""

ARCHITECTURES: Final[dict[str, tuple[Block, ...]]] = {"tiny": TINY, "baseline": BASELINE, "shipped": SHIPPED, "large": LARGE}
"""All end with the average over all places and one dense layer."""

SCALE: Final = 1 / 127.5
OFFSET: Final = -1.0
"""A grey value enters the network as `value * SCALE + OFFSET`, from -1 to 1."""

NORM_EPSILON: Final = 1e-5
"""Added to the variance that batch normalisation divides by."""
