"""WIoU loss: IoU weighted by the distance of the centres, and focused by the running mean of 1 - IoU."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from yolo_losses.boxes._base import BoxLoss, Formula, register_box_loss
from yolo_losses.boxes._geometry import EPS, Corners, corners, enclosing, intersection, nonzero, offset, sides
from yolo_losses.formula import with_reduction
from yolo_losses.parameters import Param
from yolo_losses.reduction import upcast
from yolo_losses.step import Step


def shortfall(pred: Corners, target: Corners, eps: float = EPS) -> Tensor:
    """Return `1 - I`, with no eps but where the union is 0."""
    shared = intersection(pred, target)
    (w1, h1), (w2, h2) = sides(pred), sides(target)
    return 1 - shared / nonzero(w1 * h1 + w2 * h2 - shared, eps)


@with_reduction
def wiou_loss(
    pred: Tensor,
    target: Tensor,
    mean_loss: Tensor | float | None = None,
    version: Annotated[int, Param("1: no focus; 2: on bad boxes; 3: on boxes of middling quality", low=1, high=3)] = 3,
    alpha: Annotated[float, Param("version 3: how fast the focus falls off", above=0)] = 1.9,
    delta: Annotated[float, Param("version 3: the 1 - I, in means, at which the focus is 1", above=0)] = 3.0,
    eps: float = EPS,
) -> Tensor:
    """WIoU loss, one value a pair: `R (1 - I) f`.

    `R = exp(r2/c2)`, r2 the squared distance of the centres and c2 the squared diagonal of the enclosing box, through
    which no gradient flows. With `b = (1 - I)/mean_loss` the focus f, through which none flows either, is 1 in
    version 1, `sqrt(b)` in version 2, and `b/(delta alpha^(b - delta))` in version 3.

    Args:
        pred: boxes `xyxy`, shape `(..., 4)`, in any unit.
        target: of the same shape.
        mean_loss: running mean of `1 - I`; `None`: the mean over these pairs. Version 1 ignores it.
        version: 1, 2 or 3.
        alpha: base of version 3's fall, above 0.
        delta: what version 3 is centred on, above 0.
        eps: stands in for a denominator of 0.
        weight: one a pair.
        reduction: `none`, `mean` or `sum`.
        avg_factor: what `mean` divides by in place of the number of pairs.

    Returns:
        At least 0, shape `(...)`; version 1's below e.

    Raises:
        ValueError: on another version.

    Source:
        Tong et al., arXiv 2301.10051, equal to branch v1 of the authors' repository; its master has alpha 1.7 and
        delta 2.7. The mean is the caller's, not a class-wide one as in most copies.
    """
    a, b = corners(pred), corners(target)
    if version not in (1, 2, 3):
        raise ValueError(f"version must be 1, 2 or 3, not {version}")
    loss = shortfall(a, b, eps)
    dx, dy = offset(a, b)
    width, height = enclosing(a, b)
    r2 = dx * dx + dy * dy
    # Only a box turned inside out has its centre farther away than that diagonal; it must not overflow the exponential.
    c2 = torch.maximum(width * width + height * height, r2).detach()
    result = (r2 / nonzero(c2, eps)).exp() * loss
    if version == 1:
        return result
    with torch.no_grad():
        mean = loss.mean() if mean_loss is None else torch.as_tensor(mean_loss, dtype=loss.dtype, device=loss.device)
        outlier = loss.clamp_min(0) / mean.clamp_min(eps)
        focus = outlier.sqrt() if version == 2 else outlier / delta * alpha ** (delta - outlier)
    return focus * result


@register_box_loss(
    "wiou", aliases=("wiseiou", "wise_iou", "wiouloss", "wiou_loss"), source="arXiv 2301.10051; wiou, branch v1"
)
class WIoULoss(BoxLoss):
    """WIoU loss: IoU weighted by the distance of the centres, and focused by the running mean of 1 - IoU.

    The mean starts at 1 and is state, a buffer. In training every batch with boxes moves it, before it is used:
    `mean <- (1 - momentum) mean + momentum batch mean`. In `eval` mode it stays, and so it does where a call supplies
    `mean_loss`.
    """

    formula: ClassVar[Formula] = staticmethod(wiou_loss)
    version: int
    alpha: float
    delta: float
    momentum: Annotated[float, Param("share of the newest batch in the running mean", low=0, high=1)] = 0.01
    mean_loss: Tensor

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.register_buffer("mean_loss", torch.ones(()))

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return the running mean, after this step's update in training."""
        if step.training:
            self.update(1 - step.joint_mean_iou, step.joint_positives > 0)
        return {"mean_loss": self.mean_loss}

    @torch.no_grad()
    def update(self, mean_loss: Tensor | float, counts: Tensor | bool = True) -> None:
        """Take a batch's mean of `1 - I` into the running mean; `counts` false leaves it as it is."""
        mean = torch.as_tensor(mean_loss, dtype=self.mean_loss.dtype, device=self.mean_loss.device)
        counted = torch.as_tensor(counts, device=self.mean_loss.device)
        self.mean_loss.lerp_(torch.where(counted, mean, self.mean_loss), self.momentum)

    def pairs(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss of every pair by the running mean, which a batch given by hand in training updates first."""
        if supplied.get("mean_loss") is None:
            if self.training and pred.numel():
                boxes, objects = upcast(pred.detach(), target)
                self.update(shortfall(corners(boxes), corners(objects)).mean())
            supplied["mean_loss"] = self.mean_loss
        return super().pairs(pred, target, **supplied)
