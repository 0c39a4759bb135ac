"""The target of each grid cell, and the loss.

Cells are given to faces by how well they already find them (Feng et al., "TOOD", 2021): of the cells of fitting size inside a
face, those with the best product of score and overlap are taught it, with their overlap as the score to reach; so a high score
comes to mean a good box. All others are taught that there is nothing, except in regions that are ignored.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moodline.training.detector.spec import STRIDES

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
        ignored: bool (B, A), the cells in regions that count neither way; see `ignored_cells`.
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

    (count, most), cells_count = faces.real.shape, score.shape[1]
    picture, face, cell = _fitting(cells, faces).nonzero(as_tuple=True)
    shared = overlaps(faces.boxes[picture, face], boxes[picture, cell])
    # A cell near the middle wins where nothing overlaps yet.
    middle = (faces.boxes[..., :2] + faces.boxes[..., 2:])[picture, face] / 2
    away = (torch.stack([cells.x, cells.y], 1)[cell] - middle).abs().sum(-1)
    nearness = 1e-6 / (1 + away / cells.stride[cell])
    quality = torch.zeros(count, most, cells_count)
    quality[picture, face, cell] = score[picture, cell] ** _SCORE_POWER * shared**_OVERLAP_POWER + nearness

    # Only some cells of each face are left from here on: (K,) each.
    best = quality.topk(min(_CELLS, cells_count), -1)
    picture, face, rank = (best.values > 0).nonzero(as_tuple=True)
    cell, value = best.indices[picture, face, rank], best.values[picture, face, rank]
    shared = overlaps(faces.boxes[picture, face], boxes[picture, cell])
    own = _one_face_each(picture * cells_count + cell, face, shared, count * cells_count)
    picture, face, cell, value, shared = picture[own], face[own], cell[own], value[own], shared[own]
    of_face = picture * most + face
    strongest, largest = (
        torch.zeros(count * most).scatter_reduce_(0, of_face, part, "amax")[of_face] for part in (value, shared)
    )
    target, owner = torch.zeros(count, cells_count), torch.zeros(count, cells_count, dtype=torch.long)
    target[picture, cell] = value / strongest * largest.clamp(min=0.1)
    owner[picture, cell] = face
    return target, owner


def _fitting(cells: Cells, faces: Faces) -> Any:
    """Say which cells may be taught which face: (B, M, A)."""
    import torch

    wide, high = (faces.boxes[..., side + 2] - faces.boxes[..., side] for side in (0, 1))
    longer = torch.maximum(wide, high)[..., None]
    parts = []
    for stride, (least, most) in _REACH.items():
        here = cells.stride == stride
        size_fits = (longer >= least) & (longer < most) & (faces.real[..., None] > 0)
        spare_x, spare_y = (
            (side / 2).clamp(min=_LEAST_REACH_PX)[..., None] - (at[here] - (low + side / 2)[..., None]).abs()
            for side, at, low in ((wide, cells.x, faces.boxes[..., 0]), (high, cells.y, faces.boxes[..., 1]))
        )
        parts.append(torch.where(size_fits, torch.minimum(spare_x, spare_y), -1.0))
    return torch.cat(parts, -1) > 0


def _one_face_each(cell: Any, face: Any, shared: Any, cells_count: int) -> Any:
    """Say of pairs of cell and face which ones stay: a cell goes to the face it overlaps most, of equals to the first."""
    import torch

    most = torch.zeros(cells_count).scatter_reduce_(0, cell, shared, "amax")
    good = shared >= most[cell]
    first = torch.full((cells_count,), 1 << 30).scatter_reduce_(0, cell[good], face[good], "amin")
    return good & (face == first[cell])


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
        ignored = faces.ignored & ~positive
        total = target.sum().clamp(min=1)
    each = functional.binary_cross_entropy_with_logits(logit, target, reduction="none") * (score - target).abs() ** 2
    score_loss = (each * ~ignored).sum() / total
    if not bool(positive.any()):
        return Losses(score_loss, score_loss.detach(), torch.zeros(()), torch.zeros(()))
    wanted = torch.gather(faces.boxes, 1, owner[..., None].expand(-1, -1, 4))[positive]
    complete, shared = _complete_overlap(boxes[positive], wanted)
    box_loss = ((1 - complete) * target[positive]).sum() / total
    return Losses(score_loss + box_weight * box_loss, score_loss.detach(), box_loss.detach(), shared.detach().mean())


def ignored_cells(regions: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return which cells of a picture lie in one of the regions (K, 4), or within half a cell of one: bool (A,)."""
    grids = []
    for stride in STRIDES:
        grid = np.zeros((height // stride, width // stride), bool)
        # A cell's centre is half a stride after its index: with the slack its index runs from one before the region's start.
        firsts = np.maximum(0, np.floor(regions[:, :2] / stride - 1) + 1).astype(int).tolist()
        ends = np.ceil(regions[:, 2:] / stride).astype(int).tolist()
        for (left, top), (right, bottom) in zip(firsts, ends, strict=True):
            grid[top:bottom, left:right] = True
        grids.append(grid.ravel())
    return np.concatenate(grids)


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
