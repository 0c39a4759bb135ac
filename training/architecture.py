"""What the network is, in one table: a plain VGG-like stack that a CPU serves at more than a thousand crops a second.

`training.model` builds it in PyTorch for training, with batch normalisation; `training.export` builds it in Keras for
serving, with the normalisation folded into the convolutions.
"""

from typing import Final, NamedTuple


class Block(NamedTuple):
    """A 3x3 convolution, batch normalisation, ReLU and, if `pool`, a 2x2 maximum that halves the side."""

    filters: int
    pool: bool


BLOCKS: Final[tuple[Block, ...]] = (
    Block(32, True),  # 48 -> 24 px
    Block(64, True),  # 24 -> 12 px
    Block(96, False),
    Block(128, True),  # 12 -> 6 px
    Block(160, False),
    Block(160, False),
)
"""Then the average over all places, and one dense layer. 0.6 million weights, 51 million multiply-adds a crop."""

SCALE: Final = 1 / 127.5
OFFSET: Final = -1.0
"""A grey value enters the network as `value * SCALE + OFFSET`, from -1 to 1."""
