"""Normalized Wasserstein distance loss for tiny objects, combined with CIoU."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses._reduction import upcast
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, corners, offset, sides
from yolo_losses.losses.boxes.ciou import ciou_loss
from yolo_losses.registry.parameters import Param


@loss_function(BOXES)
def nwd_loss(
    pred: Tensor,
    target: Tensor,
    constant: Annotated[float, Param("normalising constant in pixels, about the mean object size", above=0)] = 12.8,
    eps: float = EPS,
) -> Tensor:
    """Normalized Wasserstein distance loss, per pair.

    Formula:
        L = 1 - exp(-D/constant)
        D = sqrt(r^2 + ((w-w')^2 + (h-h')^2)/4)

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in pixels.
        target: same shape.
        constant: in pixels, above 0; the mean object size of the data set in the paper, 12.8 for AI-TOD.
        eps: added under the root.

    Returns:
        In (0, 1], shape `(...)`; 2.5e-5 for identical boxes at the default eps.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import nwd_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> nwd_loss(pred, target, constant=10.0)
        tensor([0.4024, 0.8647])

    Source:
        Wang et al., arXiv 2110.13389, equal to the authors' `wasserstein_loss(mode="exp")`.
    """
    a, b = corners(pred), corners(target)
    (w1, h1), (w2, h2) = sides(a), sides(b)
    dx, dy = offset(a, b)
    distance = (dx * dx + dy * dy + ((w1 - w2).square() + (h1 - h2).square()) / 4 + eps).sqrt()
    return 1 - (distance / -constant).exp()


@register_box_loss(
    "nwd",
    aliases=("nwdloss", "nwd_loss", "wasserstein", "normalized_wasserstein"),
    source="arXiv 2110.13389, its authors' code",
)
class NWDLoss(BoxLoss):
    """Normalized Wasserstein distance loss for tiny objects, combined with CIoU.

    Boxes are in pixels, or in units of the `stride` that a call supplies. NWD alone (`ratio=1`) does not train well;
    papers report 0.5. Modifiers act on the CIoU term.

    Formula:
        L = ratio (1 - exp(-D/constant)) + (1-ratio) ciou
        D = sqrt(r^2 + ((w-w')^2 + (h-h')^2)/4)

    See also:
        gcd: scale-invariant
        sdiou: CIoU weighted by the size of the target
    """

    formula: ClassVar[Formula] = staticmethod(nwd_loss)
    constant: float
    ratio: Annotated[float, Param("weight of the NWD term; CIoU gets 1 - ratio", low=0, high=1)] = 0.5

    @property
    def iou_share(self) -> float:
        """Weight of 1 - IoU in the loss."""
        return 1 - self.ratio

    def pairs(self, pred: Tensor, target: Tensor, stride: Tensor | float | None = None, **supplied: Any) -> Tensor:
        """Return the loss per pair; boxes are in units of `stride`, shape `(..., 1)`, or in pixels without it."""
        pred, target = upcast(pred, target)
        scaled = (pred, target) if stride is None else (pred * stride, target * stride)
        loss = super().pairs(*scaled, **supplied)
        return loss if self.ratio == 1 else self.ratio * loss + (1 - self.ratio) * ciou_loss(pred, target)
