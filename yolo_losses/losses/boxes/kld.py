"""KLD loss: Kullback-Leibler divergence between rotated boxes as Gaussians."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import ROTATED_BOXES, BoxLoss, register_box_loss
from yolo_losses.losses.boxes._gaussian import along_axes, gaussians, loss_of_distance, root
from yolo_losses.registry.parameters import Param


@loss_function(ROTATED_BOXES)
def kld_loss(
    pred: Tensor,
    target: Tensor,
    fun: Annotated[str, Param("function of the divergence", words=("log1p", "sqrt", "none"))] = "log1p",
    tau: Annotated[float, Param("below 1: the loss is f, unbounded; else 1 - 1/(tau + f)", low=0)] = 1.0,
    alpha: Annotated[float, Param("weight of the shape term relative to the centre distance", above=0)] = 1.0,
    sqrt: Annotated[bool, Param("use the square root of the divergence; less accurate gradients near a match")] = False,
) -> Tensor:
    """KLD loss, per pair: a function of the Kullback-Leibler divergence of two rotated boxes.

    A box is a Gaussian with standard deviations `a`, `b` (half the predicted sides) or `c`, `d` (half the target's)
    along its axes; `u`, `v` is the centre offset in the axes of the predicted box and phi the angle between the boxes.
    `D` is the divergence `KL(target || pred)`. `f` is `log1p`, `sqrt` or the divergence itself (`none`).

    A Gaussian cannot represent the angle of a square: if one of the boxes is square, the angle has no gradient.
    `rotated_iou` has one, and so has the angle term (gain `angle`) of recent Ultralytics releases. The divergence of
    thin boxes at a wrong angle grows with the square of the aspect ratio; `log1p` limits that.

    Formula:
        L = 1 - 1/(tau + f(D)) if tau >= 1, f(D) otherwise
        D = (u^2/a^2 + v^2/b^2)/(2 alpha^2) + K/2 + log(a b/(c d)) - 1
        K = (c^2/a^2 + d^2/b^2) cos(phi)^2 + (d^2/a^2 + c^2/b^2) sin(phi)^2

    Args:
        pred: boxes `xywhr`, shape `(..., 5)`: centre, sides, and angle in radians, in any unit. Sides below 1e-7
            count as 1e-7.
        target: same shape.
        fun: `log1p`, `sqrt` or `none`.
        tau: at least 0; 2 gives identical boxes a loss of 0.5.
        alpha: weight of the shape term relative to the centre distance, above 0.
        sqrt: whether to take the square root of the divergence, before `fun`.

    Returns:
        At least 0, below 1 for `tau >= 1`, shape `(...)`. Under a root the divergence is clamped at 1e-7.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import kld_loss
        >>> pred = torch.tensor([[5.0, 5.0, 10.0, 4.0, 0.0]])
        >>> target = torch.tensor([[6.0, 5.0, 10.0, 4.0, 0.5]])
        >>> kld_loss(pred, target)
        tensor([0.2974])

    Source:
        Yang et al., arXiv 2106.01883, equal to mmrotate's `kld_loss`; the defaults are those of its `kld_stable`
        configs. Its older `gaussian_dist_loss_v1` has twice the divergence in the other direction.

    See also:
        gwd: a distance in place of the divergence
    """
    a, b, c, d, dx, dy, _, sin2 = gaussians(pred, target)
    u, v = along_axes(dx, dy, pred[..., 4])
    distance = ((u / a).square() + (v / b).square()) / (2 * alpha**2)
    for own, other in ((a, c), (b, d)):
        # (r^2 - 1)/2 - ln r of the ratio r, in terms of r - 1, which float32 represents well near a match.
        relative = (other - own) / own
        log = torch.where(relative.abs() < 0.5, relative.clamp_min(-0.5).log1p(), (other / own).log())
        distance = distance + (relative + relative.square() / 2 - log)
    rotation = ((d - c) / a * ((d + c) / a) - (d - c) / b * ((d + c) / b)) / 2
    distance = distance + rotation * sin2
    # Of thin boxes the terms are large and cancel; what is left below 0 is rounding, and keeps its gradient.
    distance = distance + (distance.clamp_min(0) - distance).detach()
    if sqrt:
        distance = root(distance)
    return loss_of_distance(distance, fun, tau)


@register_box_loss(
    "kld",
    aliases=("kldloss", "kld_loss", "kullback_leibler"),
    source="arXiv 2106.01883; mmrotate",
)
class KLDLoss(BoxLoss):
    """KLD loss: Kullback-Leibler divergence between rotated boxes as Gaussians."""

    formula: ClassVar[Formula] = staticmethod(kld_loss)
    rotated: ClassVar[bool] = True
