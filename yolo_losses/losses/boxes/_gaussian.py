"""Shared by the losses that treat rotated boxes as Gaussians: parameters of a pair, and functions of a distance."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

# As in mmrotate, the lower bound of sides and of arguments of a square root.
EPS = 1e-7


class Pair(NamedTuple):
    """Two rotated boxes as Gaussians, each of shape `(...)`.

    Attributes:
        a: half the width of the predicted box, the standard deviation along its first axis.
        b: half its height.
        c: half the width of the target.
        d: half its height.
        dx: centre of the predicted box minus that of the target, along x.
        dy: the same along y.
        cos2: squared cosine of the angle between the boxes.
        sin2: its squared sine.
    """

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    dx: Tensor
    dy: Tensor
    cos2: Tensor
    sin2: Tensor


def gaussians(pred: Tensor, target: Tensor) -> Pair:
    """Return rotated boxes `xywhr`, shape `(..., 5)`, as Gaussians."""
    dx, dy = (pred[..., :2] - target[..., :2]).unbind(-1)
    a, b = (pred[..., 2:4].clamp_min(EPS) / 2).unbind(-1)
    c, d = (target[..., 2:4].clamp_min(EPS) / 2).unbind(-1)
    difference = pred[..., 4] - target[..., 4]
    return Pair(a, b, c, d, dx, dy, difference.cos().square(), difference.sin().square())


def along_axes(dx: Tensor, dy: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return an offset in the axes of a box rotated by `angle`."""
    cos, sin = angle.cos(), angle.sin()
    return dx * cos + dy * sin, dy * cos - dx * sin


def root(x: Tensor) -> Tensor:
    """Return the square root, with a gradient of 0 near 0, where its derivative is infinite."""
    return x.clamp_min(EPS).sqrt()


def loss_of_distance(distance: Tensor, fun: str, tau: float) -> Tensor:
    """Return `1 - 1/(tau + f(distance))`, or `f(distance)` if tau is below 1; f is `log1p`, `sqrt` or `none`."""
    if fun == "log1p":
        distance = distance.log1p()
    elif fun == "sqrt":
        distance = root(distance)
    return 1 - 1 / (tau + distance) if tau >= 1 else distance
