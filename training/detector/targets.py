"""What each cell is to answer, and how far it is from that.

Cells are given to faces by how well they already find them (Feng et al., "TOOD", 2021): of the cells of fitting size inside a
face, those with the best product of score and overlap are taught it, with their overlap as the score to reach; so a high score
comes to mean a good box. All others are taught that there is nothing, except in regions that are ignored.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from training.detector.spec import STRIDES

_REACH: Final = {8: (0.0, 56.0), 16: (24.0, 144.0), 32: (72.0, 1e9)}
"""Longer side of the faces, in px, that a level may be taught; levels share what lies in between."""
_LEAST_REACH_PX: Final = 8.0
"""Half the side of the square around a face's middle in which cells may be taught it, however small the face is."""
_CELLS: Final = 9
_SCORE_POWER: Final = 0.5
_OVERLAP_POWER: Final = 4.0
_LARGEST_LOG: Final = 4.0

Batch = npt.NDArray[np.float32]


class Cells(NamedTuple):
    """All cells of all levels, in the order of the answers: float32 (A,) each."""

    x: Any
    y: Any
    stride: Any


class Faces(NamedTuple):
    """A batch's faces, filled up with empty boxes, on which `real` is 0.

    Attributes:
        boxes: float32 (B, M, 4), px.
        real: float32 (B, M), 1 or 0.
        ignored: float32 (B, K, 4), regions in px; filled up with empty boxes.
    """

    boxes: Any
    real: Any
    ignored: Any


class Losses(NamedTuple):
    """The parts of the loss, and the mean overlap of the taught cells' boxes with their faces."""

    total: Any
    score: Any
    box: Any
    overlap: Any


def make_cells(height: int, width: int) -> Cells:
    """Return the cells of an image of this size in px."""
    import torch

    xs, ys, strides = [], [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        xs.append((x.flatten() + 0.5) * stride)
        ys.append((y.flatten() + 0.5) * stride)
        strides.append(torch.full((x.numel(),), float(stride)))
    return Cells(torch.cat(xs), torch.cat(ys), torch.cat(strides))


def flat(levels: list[Any]) -> Any:
    """Return the levels' answers as one float32 (B, A, 5)."""
    import torch

    return torch.cat([level.flatten(2) for level in levels], 2).transpose(1, 2).float()


def boxes_of(answer: Any, cells: Cells) -> Any:
    """Return the boxes of flat answers, (B, A, 4) in px."""
    import torch

    reach = answer[..., 1:].clamp(-_LARGEST_LOG, _LARGEST_LOG).exp() * cells.stride[:, None]
    centre = torch.stack([cells.x, cells.y], 1)
    return torch.cat([centre - reach[..., :2], centre + reach[..., 2:]], -1)


def overlaps(one: Any, other: Any) -> Any:
    """Return intersection over union of boxes (..., 4), with broadcasting."""
    import torch

    # Planes in one piece are several times as fast as every fourth number.
    left, top, right, bottom = (side.contiguous() for side in one.unbind(-1))
    other_left, other_top, other_right, other_bottom = (side.contiguous() for side in other.unbind(-1))
    wide = torch.minimum(right, other_right) - torch.maximum(left, other_left)
    high = torch.minimum(bottom, other_bottom) - torch.maximum(top, other_top)
    inside = wide.clamp(min=0) * high.clamp(min=0)
    area_one = (right - left) * (bottom - top)
    area_other = (other_right - other_left) * (other_bottom - other_top)
    return inside / (area_one + area_other - inside).clamp(min=1e-6)


def assign(score: Any, boxes: Any, cells: Cells, faces: Faces) -> tuple[Any, Any]:
    """Give cells to faces.

    Args:
        score: (B, A), 0 to 1.
        boxes: (B, A, 4), px.
        cells: The cells.
        faces: The faces.

    Returns:
        The score that each cell is to reach, (B, A), 0 where it has no face; and the index of its face, (B, A).
    """
    import torch

    face = faces.boxes
    middle_x, middle_y = (face[..., 0] + face[..., 2]) / 2, (face[..., 1] + face[..., 3]) / 2
    wide, high = face[..., 2] - face[..., 0], face[..., 3] - face[..., 1]
    longer = torch.maximum(wide, high)[..., None]
    away_x, away_y = (cells.x - middle_x[..., None]).abs(), (cells.y - middle_y[..., None]).abs()
    half_x, half_y = ((side / 2).clamp(min=_LEAST_REACH_PX)[..., None] for side in (wide, high))
    least = torch.zeros_like(cells.stride)
    most = torch.zeros_like(cells.stride)
    for stride, (low, top) in _REACH.items():
        least[cells.stride == stride], most[cells.stride == stride] = low, top
    inside = torch.minimum(half_x - away_x, half_y - away_y)
    fitting = torch.minimum(longer - least, most - longer)
    allowed = (torch.minimum(inside, fitting) > 0).float() * faces.real[..., None]

    shared = overlaps(face[:, :, None], boxes[:, None]) * allowed  # (B, M, A)
    # A cell near the middle wins where nothing overlaps yet.
    nearness = 1e-6 / (1 + (away_x + away_y) / cells.stride)
    quality = ((score**_SCORE_POWER)[:, None] * (shared * shared) ** (_OVERLAP_POWER / 2) + nearness) * allowed
    best = quality.topk(min(_CELLS, quality.shape[-1]), -1)
    chosen = torch.zeros_like(quality).scatter_(-1, best.indices, (best.values > 0).float())
    # A cell that several faces want goes to the one it overlaps most.
    owner = (chosen * (shared + 1e-6)).argmax(1)
    chosen = chosen * (owner[:, None] == torch.arange(quality.shape[1])[:, None])
    quality, shared = quality * chosen, shared * chosen
    strongest = quality.amax(-1, keepdim=True).clamp(min=1e-12)
    target = (quality / strongest * shared.amax(-1, keepdim=True).clamp(min=0.1)).amax(1)
    return target, owner


def losses(answer: Any, cells: Cells, faces: Faces, box_weight: float) -> Losses:
    """Return the loss of flat answers (B, A, 5).

    The score's part is the quality focal loss (Li et al., "Generalized Focal Loss", 2020), the boxes' part the complete IoU
    loss (Zheng et al., "Distance-IoU Loss", 2019), both weighted by the scores to reach.
    """
    import torch
    from torch.nn import functional

    boxes = boxes_of(answer, cells)
    logit = answer[..., 0]
    score = logit.sigmoid()
    with torch.no_grad():
        target, owner = assign(score, boxes, cells, faces)
        positive = target > 0
        ignored = _inside(cells, faces.ignored) & ~positive
        total = target.sum().clamp(min=1)
    each = functional.binary_cross_entropy_with_logits(logit, target, reduction="none") * (score - target).abs() ** 2
    score_loss = (each * ~ignored).sum() / total
    if not bool(positive.any()):
        return Losses(score_loss, score_loss.detach(), torch.zeros(()), torch.zeros(()))
    wanted = torch.gather(faces.boxes, 1, owner[..., None].expand(-1, -1, 4))[positive]
    complete, shared = _complete_overlap(boxes[positive], wanted)
    box_loss = ((1 - complete) * target[positive]).sum() / total
    return Losses(score_loss + box_weight * box_loss, score_loss.detach(), box_loss.detach(), shared.detach().mean())


def _inside(cells: Cells, regions: Any) -> Any:
    """Say of each cell whether it lies in a region, or within half a cell of one: (B, A)."""
    import torch

    if not regions.shape[1]:
        return (cells.x < 0)[None].expand(regions.shape[0], -1)
    x, y, slack = cells.x, cells.y, cells.stride / 2
    left, top, right, bottom = (regions[..., side, None] for side in range(4))
    # Sums and minima take a fifth of the time of four comparisons and their conjunction.
    depth_x = torch.minimum(x - left, right - x)
    depth_y = torch.minimum(y - top, bottom - y)
    deepest = torch.where(right > left, torch.minimum(depth_x, depth_y), -1e6).amax(1)
    return deepest + slack > 0


def _complete_overlap(boxes: Any, wanted: Any) -> tuple[Any, Any]:
    import torch

    shared = overlaps(boxes, wanted)
    low, high = torch.minimum(boxes[:, :2], wanted[:, :2]), torch.maximum(boxes[:, 2:], wanted[:, 2:])
    diagonal = ((high - low) ** 2).sum(-1).clamp(min=1e-6)
    apart = ((boxes[:, :2] + boxes[:, 2:] - wanted[:, :2] - wanted[:, 2:]) ** 2).sum(-1) / 4
    sides, wanted_sides = boxes[:, 2:] - boxes[:, :2], wanted[:, 2:] - wanted[:, :2]
    angle = torch.atan(sides[:, 0] / sides[:, 1].clamp(min=1e-6))
    turned = (torch.atan(wanted_sides[:, 0] / wanted_sides[:, 1].clamp(min=1e-6)) - angle) ** 2 * (4 / np.pi**2)
    with torch.no_grad():
        share = turned / (1 - shared + turned).clamp(min=1e-6)
    return shared - apart / diagonal - share * turned, shared
