"""The network: a plain VGG-like stack, small enough that a CPU serves more than a thousand crops a second.

One table says what the network is. `build` makes it in PyTorch for training, with batch normalisation; `training.export`
makes the same stack in Keras for serving, with the normalisation folded into the convolutions.
"""

from typing import Final, NamedTuple

import torch
from torch import nn

from shared.emotions import EMOTIONS


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
"""0.6 million weights, 50 million multiply-adds a crop."""

SCALE: Final = 1 / 127.5
OFFSET: Final = -1.0
"""A grey value enters the network as `value * SCALE + OFFSET`, from -1 to 1."""


def build(dropout: float = 0.3) -> nn.Sequential:
    """Return the untrained network: float32 (N, 1, 48, 48) from -1 to 1 -> logits float32 (N, 7)."""
    layers: list[nn.Module] = []
    channels = 1
    for filters, pool in BLOCKS:
        layers += [nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
        if pool:
            layers.append(nn.MaxPool2d(2))
        channels = filters
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, len(EMOTIONS))]
    network = nn.Sequential(*layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network.to(memory_format=torch.channels_last)


def scaled(crops: torch.Tensor) -> torch.Tensor:
    """Return uint8 crops (N, 48, 48) as the network's input."""
    return (crops.float() * SCALE + OFFSET).unsqueeze(1)
