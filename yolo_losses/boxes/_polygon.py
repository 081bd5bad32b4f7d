"""Exact IoU of rotated boxes, vectorised over pairs, without shapes that depend on the data."""

from __future__ import annotations

import torch
from torch import Tensor

# In units of the longest side of a pair: lower bound of denominators, and a centre distance of disjoint boxes.
EPS = 1e-12
APART = 4.0


def rotated_overlap(pred: Tensor, target: Tensor) -> Tensor:
    """Return the IoU of rotated boxes, per pair.

    Args:
        pred: boxes `xywhr`, shape `(..., 5)`: centre, sides, and angle in radians. Negative sides count as 0.
        target: of the same shape.

    Returns:
        In [0, 1], shape `(...)`; 0 where both areas are 0.
    """
    pred, target = in_own_unit(pred, target)
    area, other = (boxes[..., 2] * boxes[..., 3] for boxes in (pred, target))
    # Rounding must not make the intersection larger than the smaller box.
    shared = torch.minimum(intersection(pred, target).clamp_min(0), torch.minimum(area, other))
    return shared / (area + other - shared).clamp_min(EPS)


def in_own_unit(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return both boxes relative to the target's centre, in units of the longest of their sides.

    Ratios of areas and of lengths, and their gradients, do not change: the unit is detached.
    """
    sides = torch.cat((pred[..., 2:4], target[..., 2:4]), -1)
    unit = sides.detach().amax(-1, keepdim=True).clamp_min(1e-7)
    offset = (pred[..., :2] - target[..., :2]) / unit
    wh1, wh2 = (boxes[..., 2:4].clamp_min(0) / unit for boxes in (pred, target))
    return (
        torch.cat((offset, wh1, pred[..., 4:]), -1),
        torch.cat((torch.zeros_like(offset), wh2, target[..., 4:]), -1),
    )


def intersection(pred: Tensor, target: Tensor) -> Tensor:
    """Return the area of intersection of rotated boxes, per pair; the boxes are as `in_own_unit` returns them.

    In the frame of `target`, the rectangle `|x| <= a, |y| <= b`, the area is by Green's theorem the integral of
    `clamp(x, -a, a) dy` along the boundary of `pred` where `|y| <= b`. On each edge of `pred` the integrand has at most
    three linear pieces. The integral is continuous in both boxes, so that coinciding and parallel edges and crossings
    in a corner need no special case, unlike in methods that collect and sort vertices.
    """
    dx, dy, w1, h1, r1 = pred.unbind(-1)
    _, _, w2, h2, r2 = target.unbind(-1)
    cos, sin = r2.cos(), r2.sin()
    x = (dx * cos + dy * sin).clamp(-APART, APART)
    y = (dy * cos - dx * sin).clamp(-APART, APART)
    a, b = w2 / 2, h2 / 2
    cos, sin = (r1 - r2).cos(), (r1 - r2).sin()
    # Half the sides of `pred` as vectors, its corners in order, and the edge from each corner to the next.
    ux, uy, vx, vy = w1 / 2 * cos, w1 / 2 * sin, h1 / -2 * sin, h1 / 2 * cos
    x = x + torch.stack((-ux - vx, ux - vx, ux + vx, vx - ux))
    y = y + torch.stack((-uy - vy, uy - vy, uy + vy, vy - uy))
    edge_x, edge_y = 2 * torch.stack((ux, vx, -ux, -vx)), 2 * torch.stack((uy, vy, -uy, -vy))
    # The part of each edge, in [0, 1], with |y| <= b ...
    start, end = _crossings(y, edge_y, b)
    start, end = start.clamp(0, 1), end.clamp(0, 1)
    # ... and the part of that with |x| <= a. The integrand is continuous at its ends: they contribute no gradient.
    with torch.no_grad():
        enter, leave = _crossings(x, edge_x, a)
        sign = torch.where(edge_x < 0, 1.0, -1.0).to(a.dtype)  # clamp(x, -a, a) before `enter` is sign * a
    enter = torch.maximum(torch.minimum(enter, end), start)
    leave = torch.maximum(torch.minimum(leave, end), start)
    inside = (leave - enter) * (x + edge_x * ((enter + leave) / 2))
    outside = sign * a * ((enter - start) - (end - leave))
    area = (edge_y * (inside + outside)).sum(0)
    with torch.no_grad():  # no rounding error in the area of boxes whose circumscribed circles are disjoint
        apart = (dx * dx + dy * dy).sqrt() > (torch.hypot(w1, h1) + torch.hypot(w2, h2)) / 2
    return torch.where(apart, 0, area)


def _crossings(start: Tensor, edge: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Return where along an edge, 0 to 1 from its start, a coordinate enters [-half, half] and where it leaves."""
    # The sign is kept: where the other coordinate enters and leaves goes by it.
    edge = torch.where(edge.abs() < EPS, torch.where(edge < 0, -EPS, EPS), edge)
    low, high = (-half - start) / edge, (half - start) / edge
    return torch.minimum(low, high), torch.maximum(low, high)
