"""ProbIoU loss: Hellinger distance between rotated boxes as Gaussians; the stock loss of obb."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import ROTATED_BOXES, BoxLoss, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS


@loss_function(ROTATED_BOXES)
def probiou_loss(pred: Tensor, target: Tensor, eps: float = EPS, floor: Tensor | float = 0.0) -> Tensor:
    """ProbIoU loss, per pair: Hellinger distance between two rotated boxes as Gaussians.

    A box has the variances `w^2/12` and `h^2/12` along its own axes and the covariance `S`. `B` is the Bhattacharyya
    distance of the two Gaussians, `d` the vector between the centres.

    Formula:
        L = sqrt(1 - e^-B)
        B = d (S + S')^-1 d/4 + log(|S + S'|/(4 sqrt(|S| |S'|)))/2

    Args:
        pred: boxes `xywhr`, shape `(..., 5)`: centre, sides, and angle in radians.
        target: same shape.
        eps: added under the root, to the denominators and to the argument of the logarithm; lower bound of B.
        floor: added to the variances, which bounds the gradient of small boxes; 0.01 in Ultralytics' current loss, 0
            in earlier releases and in its metric.

    Returns:
        In (0, 1], shape `(...)`; 4.5e-4 for identical boxes at the default eps. The angle of a square has no effect,
        as its Gaussian is isotropic.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import probiou_loss
        >>> pred = torch.tensor([[5.0, 5.0, 10.0, 4.0, 0.0]])
        >>> target = torch.tensor([[6.0, 5.0, 10.0, 4.0, 0.5]])
        >>> probiou_loss(pred, target)
        tensor([0.3518])

    Source:
        Murrugarra-Llerena et al., arXiv 2106.06072, equal to one minus Ultralytics' `probiou`. There the
        determinants are differences, which float32 can round below 0 for thin boxes; here they are sums of positive
        terms.

    See also:
        rotated_iou: the exact overlap
        gwd: another distance between the Gaussians
    """
    x1, y1, w1, h1, r1 = pred.unbind(-1)
    x2, y2, w2, h2, r2 = target.unbind(-1)
    # Variances along each box's own axes, and the determinants of the covariances.
    p1, q1, p2, q2 = (side.square() / 12 + floor for side in (w1, h1, w2, h2))
    det1, det2 = p1 * q1, p2 * q2
    # Determinant of the sum of the covariances, from the angle between the boxes.
    cos2 = (r1 - r2).cos().square()
    sin2 = (r1 - r2).sin().square()
    det = det1 + det2 + p1 * (p2 * sin2 + q2 * cos2) + q1 * (p2 * cos2 + q2 * sin2)
    # Quadratic form of the centre offset with the adjugate: each covariance, rotated by 90 degrees.
    dx, dy = x2 - x1, y2 - y1
    along = torch.zeros_like(dx)
    for p, q, angle in ((p1, q1, r1), (p2, q2, r2)):
        cos, sin = angle.cos(), angle.sin()
        along = along + p * (dy * cos - dx * sin).square() + q * (dx * cos + dy * sin).square()
    both = (det1 * det2).clamp_min(torch.finfo(det.dtype).tiny).sqrt()
    bhattacharyya = along / (4 * (det + eps)) + (det / (4 * both + eps) + eps).log() / 2
    return (1 - (-bhattacharyya.clamp(eps, 100)).exp() + eps).sqrt()


@register_box_loss(
    "probiou",
    aliases=("probiouloss", "probiou_loss", "prob_iou"),
    source="arXiv 2106.06072; Ultralytics",
)
class ProbIoULoss(BoxLoss):
    """ProbIoU loss: Hellinger distance between rotated boxes as Gaussians; the stock loss of obb."""

    formula: ClassVar[Formula] = staticmethod(probiou_loss)
    rotated: ClassVar[bool] = True
