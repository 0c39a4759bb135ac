"""The network in PyTorch, for training."""

import torch
from torch import nn

from shared.emotions import EMOTIONS
from training.architecture import BLOCKS, OFFSET, SCALE


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
