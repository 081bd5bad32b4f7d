"""NWD loss: the Wasserstein distance of the boxes as Gaussians, for objects of a few pixels."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from torch import Tensor

from yolo_losses.boxes._base import BoxLoss, Formula, register_box_loss
from yolo_losses.boxes._geometry import EPS, corners, offset, sides
from yolo_losses.boxes.ciou import ciou_loss
from yolo_losses.formula import with_reduction
from yolo_losses.parameters import Param
from yolo_losses.reduction import upcast


@with_reduction
def nwd_loss(
    pred: Tensor,
    target: Tensor,
    constant: Annotated[float, Param("the distance, in pixels, that counts; about the objects' size", above=0)] = 12.8,
    eps: float = EPS,
) -> Tensor:
    """Loss of the normalised Wasserstein distance, one value a pair: `1 - exp(-D/constant)`.

    `D = sqrt(r2 + ((w-w')^2 + (h-h')^2)/4)`, with r2 the squared distance of the centres.

    Args:
        pred: boxes `xyxy`, shape `(..., 4)`, in pixels.
        target: of the same shape.
        constant: in pixels, above 0; the paper takes the mean size of the data set's objects, 12.8 for AI-TOD.
        eps: added below the root.
        weight: one a pair.
        reduction: `none`, `mean` or `sum`.
        avg_factor: what `mean` divides by in place of the number of pairs.

    Returns:
        In (0, 1], shape `(...)`; for equal boxes 2.5e-5 by the default eps.

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
    """NWD loss: the Wasserstein distance of the boxes as Gaussians, `ratio` of it, the rest CIoU.

    Supplied with a `stride`, the pixels that are one unit of the boxes, it measures in pixels all the same. Alone
    (`ratio=1`) it does not train well; half and half is what papers report. Modifiers act on the CIoU within.
    """

    formula: ClassVar[Formula] = staticmethod(nwd_loss)
    constant: float
    ratio: Annotated[float, Param("its share, the rest is ciou", low=0, high=1)] = 0.5

    @property
    def iou_share(self) -> float:
        """Share of the IoU in the loss."""
        return 1 - self.ratio

    def pairs(self, pred: Tensor, target: Tensor, stride: Tensor | float | None = None, **supplied: Any) -> Tensor:
        """Return the loss of every pair; `stride` has shape `(..., 1)`, without it the boxes are in pixels."""
        pred, target = upcast(pred, target)
        scaled = (pred, target) if stride is None else (pred * stride, target * stride)
        loss = super().pairs(*scaled, **supplied)
        return loss if self.ratio == 1 else self.ratio * loss + (1 - self.ratio) * ciou_loss(pred, target)
