"""Geometry shared by the box losses: functions of the boxes' `corners`, per pair, shape `(...)`."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-7

# Top left and bottom right, each of shape `(..., 2)`.
Corners = tuple[Tensor, Tensor]

# The IoU and the penalties that a loss adds to `1 - IoU`.
Terms = tuple[Tensor, ...]


def total(terms: Terms) -> Tensor:
    """Return `1 - IoU + penalties`."""
    iou, *penalties = terms
    loss = 1 - iou
    for penalty in penalties:
        loss = loss + penalty
    return loss


def nonzero(x: Tensor, eps: float) -> Tensor:
    """Return `x` with `eps` in place of an exact 0: an inverted box may cancel the eps in a denominator."""
    return torch.where(x == 0, eps, x)


def corners(boxes: Tensor) -> Corners:
    """Return the corners of boxes `xyxy`, shape `(..., 4)`; split once, since backward concatenates them."""
    top_left, bottom_right = boxes.chunk(2, -1)
    return top_left, bottom_right


def sides(boxes: Corners) -> tuple[Tensor, Tensor]:
    """Return width and height."""
    width, height = (boxes[1] - boxes[0]).unbind(-1)
    return width, height


def intersection(pred: Corners, target: Corners) -> Tensor:
    """Return the area of the intersection."""
    top_left = torch.maximum(pred[0], target[0])
    bottom_right = torch.minimum(pred[1], target[1])
    width, height = (bottom_right - top_left).clamp_min(0).unbind(-1)
    return width * height


def enclosing(pred: Corners, target: Corners) -> tuple[Tensor, Tensor]:
    """Return width and height of the smallest enclosing box."""
    top_left = torch.minimum(pred[0], target[0])
    bottom_right = torch.maximum(pred[1], target[1])
    width, height = (bottom_right - top_left).unbind(-1)
    return width, height


def offset(pred: Corners, target: Corners) -> tuple[Tensor, Tensor]:
    """Return the offset from the centre of `pred` to that of `target`, in x and in y."""
    # Differences first: the sum of two large coordinates would lose the difference to rounding.
    dx, dy = (((target[0] - pred[0]) + (target[1] - pred[1])) / 2).unbind(-1)
    return dx, dy


def centre_penalty(pred: Corners, target: Corners, eps: float) -> Tensor:
    """Return the squared centre distance over the squared diagonal of the enclosing box."""
    dx, dy = offset(pred, target)
    width, height = enclosing(pred, target)
    return (dx * dx + dy * dy) / (width * width + height * height + eps)


def overlap(pred: Corners, target: Corners, eps: float = EPS) -> Tensor:
    """Return the IoU with Ultralytics' eps for `xyxy`: on both heights and on the union."""
    shared = intersection(pred, target)
    w1, h1 = sides(pred)
    w2, h2 = sides(target)
    return shared / nonzero(w1 * (h1 + eps) + w2 * (h2 + eps) - shared + eps, eps)


def overlap_and_union(pred: Corners, target: Corners, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Return the IoU with torchvision's eps, on the union only, and the union without eps."""
    shared = intersection(pred, target)
    w1, h1 = sides(pred)
    w2, h2 = sides(target)
    union = w1 * h1 + w2 * h2 - shared
    return shared / nonzero(union + eps, eps), union


def relative_difference(a: Tensor, b: Tensor, eps: float) -> Tensor:
    """Return `|a - b|` over the larger of the two; 0 where both are 0."""
    return (a - b).abs() / torch.maximum(a, b).clamp_min(eps)
