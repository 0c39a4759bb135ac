"""The random changes that a training image goes through."""

import torch
from torch.nn import functional


def augmented(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return randomly changed copies of network inputs, float32 (N, 1, 48, 48) from -1 to 1.

    Mirrored half of the time; turned by up to 15 degrees, scaled by up to 15%, shifted by up to 12% of the side (a
    detector's box is no steadier than that); contrast 0.6 to 1.4 times and brightness up to 0.3, clipped as a camera does.
    """

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(len(batch), generator=generator) * (high - low) + low

    angle, scale = torch.deg2rad(uniform(-15, 15)), uniform(0.85, 1.15)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    # affine_grid's unit is half a side, so a shift of 12% of the side is 0.24.
    rows = [cos * mirror, -sin, uniform(-0.24, 0.24), sin * mirror, cos, uniform(-0.24, 0.24)]
    grid = functional.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(batch.shape), align_corners=False)
    moved = functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)
    contrast, brightness = uniform(0.6, 1.4).view(-1, 1, 1, 1), uniform(-0.3, 0.3).view(-1, 1, 1, 1)
    return (moved * contrast + brightness).clamp(-1, 1)
