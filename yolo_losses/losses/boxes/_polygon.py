"""Exact IoU of rotated boxes, vectorised over pairs, without shapes that depend on the data."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# In units of the longest side of a pair: lower bound of denominators, and a centre distance of disjoint boxes.
EPS = 1e-12
FAR = 4.0


class Pair(NamedTuple):
    """Two rotated boxes relative to the target's centre, in units of the longest of their sides; shape `(...)` each.

    Attributes:
        dx: centre of the predicted box minus that of the target, along x.
        dy: the same along y.
        w1: width of the predicted box, at least 0.
        h1: its height.
        r1: its angle.
        w2: width of the target, at least 0.
        h2: its height.
        r2: its angle.
    """

    dx: Tensor
    dy: Tensor
    w1: Tensor
    h1: Tensor
    r1: Tensor
    w2: Tensor
    h2: Tensor
    r2: Tensor


def in_own_unit(pred: Tensor, target: Tensor) -> Pair:
    """Return rotated boxes `xywhr`, shape `(..., 5)`, as a pair; negative sides become 0.

    Ratios of areas and of lengths, and their gradients, do not change: the unit is detached.
    """
    with torch.no_grad():
        longest = torch.maximum(pred[..., 2:4], target[..., 2:4]).amax(-1, keepdim=True)
        per_unit = longest.clamp_min(1e-7).reciprocal()
    dx, dy = ((pred[..., :2] - target[..., :2]) * per_unit).unbind(-1)
    (w1, h1), (w2, h2) = ((boxes[..., 2:4].clamp_min(0) * per_unit).unbind(-1) for boxes in (pred, target))
    return Pair(dx, dy, w1, h1, pred[..., 4], w2, h2, target[..., 4])


def rotated_overlap(pair: Pair) -> Tensor:
    """Return the IoU of rotated boxes, per pair, in [0, 1]; 0 where both areas are 0."""
    area, other = pair.w1 * pair.h1, pair.w2 * pair.h2
    # Rounding must not make the intersection larger than the smaller box.
    shared = torch.minimum(intersection(pair).clamp_min(0), torch.minimum(area, other))
    return shared / (area + other - shared).clamp_min(EPS)


def intersection(pair: Pair) -> Tensor:
    """Return the area of intersection of rotated boxes, per pair.

    In the frame of the target, the rectangle `|x| <= a, |y| <= b`, the area is by Green's theorem the integral of
    `clamp(x, -a, a) dy` along the boundary of the predicted box where `|y| <= b`. On each edge the integrand has at
    most three linear pieces. The integral is continuous in both boxes, so that coinciding and parallel edges and
    crossings in a corner need no special case, unlike in methods that collect and sort vertices.
    """
    dx, dy, w1, h1, r1, w2, h2, r2 = pair
    cos, sin = r2.cos(), r2.sin()
    x = (dx * cos + dy * sin).clamp(-FAR, FAR)
    y = (dy * cos - dx * sin).clamp(-FAR, FAR)
    a, b = w2 / 2, h2 / 2
    cos, sin = (r1 - r2).cos(), (r1 - r2).sin()
    # Two edges of the predicted box, its width and its height, as vectors. The middle of each lies half the other
    # vector away from the centre; the opposite edges, on the other side, are traversed in the opposite direction.
    ux, uy, vx, vy = w1 * cos, w1 * sin, h1 * -sin, h1 * cos
    edge_x, edge_y = torch.stack((ux, vx)), torch.stack((uy, vy))
    middle_x, middle_y = torch.stack((-vx, ux)) / 2, torch.stack((-vy, uy)) / 2
    x, y = torch.stack((x + middle_x, x - middle_x)), torch.stack((y + middle_y, y - middle_y))
    # The part of each edge, in [-1/2, 1/2], with |y| <= b ...
    start, end = _crossings(y, edge_y, b)
    start, end = start.clamp(-0.5, 0.5), end.clamp(-0.5, 0.5)
    # ... and the part of that with |x| <= a. The integrand is continuous at its ends: they contribute no gradient.
    with torch.no_grad():
        enter, leave = _crossings(x, edge_x, a)
    enter, leave = enter.clamp(start, end), leave.clamp(start, end)
    inside = (leave - enter) * (x + edge_x * ((enter + leave) / 2))
    outside = a * _sign(edge_x) * ((end - leave) - (enter - start))
    forward, backward = inside + outside
    area = (edge_y * (forward - backward)).sum(0)
    with torch.no_grad():  # no rounding error in the area of boxes whose circumscribed circles are disjoint
        disjoint = (dx * dx + dy * dy).sqrt() > ((w1 * w1 + h1 * h1).sqrt() + (w2 * w2 + h2 * h2).sqrt()) / 2
    return area.masked_fill(disjoint, 0)


def _crossings(middle: Tensor, edge: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Return where along an edge, from its middle in units of its length, a coordinate is within [-half, half]."""
    per_edge = _nonzero(edge).reciprocal()
    centre, reach = middle * -per_edge, half * per_edge.abs()
    return centre - reach, centre + reach


def _nonzero(edge: Tensor) -> Tensor:
    return edge.masked_fill(edge.abs() < EPS, EPS)


def _sign(edge: Tensor) -> Tensor:
    return _nonzero(edge.detach()).sign()
