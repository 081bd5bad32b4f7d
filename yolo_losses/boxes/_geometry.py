"""The geometry that the box losses share: of boxes by their `corners`, one number a pair, shape `(...)`."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-7

# Top left and bottom right, each of shape `(..., 2)`.
Corners = tuple[Tensor, Tensor]

# The IoU and the penalties that a loss adds to `1 - IoU`.
Terms = tuple[Tensor, ...]


def total(terms: Terms) -> Tensor:
    """Return the loss that IoU and penalties make: `1 - IoU + penalties`."""
    iou, *penalties = terms
    loss = 1 - iou
    for penalty in penalties:
        loss = loss + penalty
    return loss


def nonzero(x: Tensor, eps: float) -> Tensor:
    """Return `x` with `eps` in place of an exact 0: a box turned inside out may cancel the eps in a denominator."""
    return torch.where(x == 0, eps, x)


def corners(boxes: Tensor) -> Corners:
    """Return the corners of boxes `xyxy`, shape `(..., 4)`; to be split once: backward joins them again."""
    top_left, bottom_right = boxes.chunk(2, -1)
    return top_left, bottom_right


def sides(boxes: Corners) -> tuple[Tensor, Tensor]:
    """Return width and height."""
    width, height = (boxes[1] - boxes[0]).unbind(-1)
    return width, height


def intersection(pred: Corners, target: Corners) -> Tensor:
    """Return the area that two boxes share."""
    top_left = torch.maximum(pred[0], target[0])
    bottom_right = torch.minimum(pred[1], target[1])
    width, height = (bottom_right - top_left).clamp_min(0).unbind(-1)
    return width * height


def enclosing(pred: Corners, target: Corners) -> tuple[Tensor, Tensor]:
    """Return width and height of the smallest box around both."""
    top_left = torch.minimum(pred[0], target[0])
    bottom_right = torch.maximum(pred[1], target[1])
    width, height = (bottom_right - top_left).unbind(-1)
    return width, height


def offset(pred: Corners, target: Corners) -> tuple[Tensor, Tensor]:
    """Return the way from the centre of `pred` to that of `target`, along x and along y."""
    # The difference first: the sum of two large coordinates would round away what separates the boxes.
    dx, dy = (((target[0] - pred[0]) + (target[1] - pred[1])) / 2).unbind(-1)
    return dx, dy


def centre_penalty(pred: Corners, target: Corners, eps: float) -> Tensor:
    """Return the squared distance of the centres over the squared diagonal of the enclosing box."""
    dx, dy = offset(pred, target)
    width, height = enclosing(pred, target)
    return (dx * dx + dy * dy) / (width * width + height * height + eps)


def overlap(pred: Corners, target: Corners, eps: float = EPS) -> Tensor:
    """Return the IoU as Ultralytics has it on `xyxy`: eps on both heights and on the union."""
    shared = intersection(pred, target)
    w1, h1 = sides(pred)
    w2, h2 = sides(target)
    return shared / nonzero(w1 * (h1 + eps) + w2 * (h2 + eps) - shared + eps, eps)


def overlap_and_union(pred: Corners, target: Corners, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Return the IoU as torchvision has it, with eps on the union alone, and the union without eps."""
    shared = intersection(pred, target)
    w1, h1 = sides(pred)
    w2, h2 = sides(target)
    union = w1 * h1 + w2 * h2 - shared
    return shared / nonzero(union + eps, eps), union


def relative_difference(a: Tensor, b: Tensor, eps: float) -> Tensor:
    """Return `|a - b|` over the larger of the two; 0 where both are 0."""
    return (a - b).abs() / torch.maximum(a, b).clamp_min(eps)
