"""GWD loss: Gaussian Wasserstein distance between rotated boxes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import ROTATED_BOXES, BoxLoss, register_box_loss
from yolo_losses.losses.boxes._gaussian import gaussians, loss_of_distance, root
from yolo_losses.registry.parameters import Param


@loss_function(ROTATED_BOXES)
def gwd_loss(
    pred: Tensor,
    target: Tensor,
    fun: Annotated[str, Param("function of the distance", words=("log1p", "sqrt", "none"))] = "log1p",
    tau: Annotated[float, Param("below 1: the loss is f, unbounded; else 1 - 1/(tau + f)", low=0)] = 1.0,
    alpha: Annotated[float, Param("weight of the shape term relative to the centre distance", above=0)] = 1.0,
    normalize: Annotated[bool, Param("divide the distance by the geometric mean of the sides")] = True,
) -> Tensor:
    """GWD loss, per pair: a function of the Gaussian Wasserstein distance of two rotated boxes.

    A box is a Gaussian with standard deviations `w/2` and `h/2` along its axes and covariance `S`; `r` is the distance
    of the centres. `f` is `log1p`, `sqrt` or the distance itself (`none`). Without `normalize`, `D` is `G`.

    A Gaussian cannot represent the angle of a square: if one of the boxes is square, the angle has no gradient.
    `rotated_iou` has one, and so has the angle term (gain `angle`) of recent Ultralytics releases.

    Formula:
        L = 1 - 1/(tau + f(D)) if tau >= 1, f(D) otherwise
        D = G/(w h w' h')^(1/4)
        G^2 = r^2 + alpha^2 tr(S + S' - 2 (S^(1/2) S' S^(1/2))^(1/2))

    Args:
        pred: boxes `xywhr`, shape `(..., 5)`: centre, sides, and angle in radians. Sides below 1e-7 count as 1e-7.
        target: same shape.
        fun: `log1p`, `sqrt` or `none`.
        tau: at least 0; 2 gives identical boxes a loss of 0.5.
        alpha: weight of the shape term relative to the centre distance, above 0.
        normalize: makes the loss scale-invariant; without it the distance is in the unit of the boxes, in training the
            stride.

    Returns:
        At least 0, below 1 for `tau >= 1`, shape `(...)`. G is clamped at 3.2e-4, so that identical boxes of side 20
        have a loss of 1.6e-5.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import gwd_loss
        >>> pred = torch.tensor([[5.0, 5.0, 10.0, 4.0, 0.0]])
        >>> target = torch.tensor([[6.0, 5.0, 10.0, 4.0, 0.5]])
        >>> gwd_loss(pred, target)
        tensor([0.2261])

    Source:
        Yang et al., arXiv 2101.11952, equal to mmrotate's `gwd_loss`, whose configs have tau 0. mmrotate clamps the
        product of the determinants, which leaves boxes with `w h w' h' < 0.005` without a gradient; the closed form
        here needs no determinant and has no such dead zone.

    See also:
        kld: a divergence, which is scale-invariant by itself
        probiou: the stock loss
    """
    a, b, c, d, dx, dy, cos2, sin2 = gaussians(pred, target)
    # tr S + tr S' - 2 tr (...)^1/2 as two squares and a term in sin^2: no cancellation between identical boxes.
    same, crossed = a * c + b * d, a * d + b * c
    trace = (same.square() * cos2 + crossed.square() * sin2).sqrt()
    rotation = (a - b) * (a + b) * (c - d) * (c + d) * sin2
    shapes = (a - c).square() + (b - d).square() + 2 * rotation / (same + trace)
    distance = root(dx.square() + dy.square() + alpha**2 * shapes)
    if normalize:
        distance = distance / (2 * ((a * b).sqrt() * (c * d).sqrt()).sqrt())
    return loss_of_distance(distance, fun, tau)


@register_box_loss(
    "gwd",
    aliases=("gwdloss", "gwd_loss", "gaussian_wasserstein"),
    source="arXiv 2101.11952; mmrotate",
)
class GWDLoss(BoxLoss):
    """GWD loss: Gaussian Wasserstein distance between rotated boxes."""

    formula: ClassVar[Formula] = staticmethod(gwd_loss)
    rotated: ClassVar[bool] = True
