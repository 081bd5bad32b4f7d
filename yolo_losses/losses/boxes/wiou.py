"""Wise-IoU loss: 1 - IoU with distance attention and dynamic focusing by a running mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses._reduction import upcast
from yolo_losses.losses._state import Stateful
from yolo_losses.losses._step import Step
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, Corners, corners, enclosing, intersection, nonzero, offset, sides
from yolo_losses.registry.parameters import Param


def iou_distance(pred: Corners, target: Corners, eps: float = EPS) -> Tensor:
    """Return `1 - IoU`; eps is used only where the union is 0."""
    shared = intersection(pred, target)
    (w1, h1), (w2, h2) = sides(pred), sides(target)
    return 1 - shared / nonzero(w1 * h1 + w2 * h2 - shared, eps)


def distance_factor(pred: Corners, target: Corners, eps: float = EPS) -> Tensor:
    """Return `exp(r2/c2)`, with c2 detached."""
    dx, dy = offset(pred, target)
    width, height = enclosing(pred, target)
    r2 = dx * dx + dy * dy
    # Only an inverted box has its centre farther away than that diagonal; it must not overflow the exponential.
    c2 = torch.maximum(width * width + height * height, r2).detach()
    return (r2 / nonzero(c2, eps)).exp()


@torch.no_grad()
def focus(
    loss: Tensor, mean_loss: Tensor | float, version: int, alpha: float, delta: float, eps: float = EPS
) -> Tensor:
    """Return the focus of version 2 or 3 for pairs whose `1 - IoU` is `loss`, without gradient."""
    mean = torch.as_tensor(mean_loss, dtype=loss.dtype, device=loss.device)
    outlier = loss.clamp_min(0) / mean.clamp_min(eps)
    return outlier.sqrt() if version == 2 else outlier / delta * alpha ** (delta - outlier)


@loss_function(BOXES)
def wiou_loss(
    pred: Tensor,
    target: Tensor,
    mean_loss: Tensor | float | None = None,
    version: Annotated[int, Param("1: no focusing; 2: monotonic; 3: non-monotonic focusing", low=1, high=3)] = 3,
    alpha: Annotated[float, Param("version 3: base of the focusing coefficient's decay", above=0)] = 1.9,
    delta: Annotated[float, Param("version 3: outlier degree at which the focusing coefficient is 1", above=0)] = 3.0,
    eps: float = EPS,
) -> Tensor:
    """WIoU loss, per pair: the IoU loss times a distance attention `R` and a focusing coefficient `f`.

    `c` and `f` are detached. `mean` is the running mean of 1 - IoU, and `b` is called the outlier degree.

    Formula:
        L = f R (1 - IoU)
        R = exp(r^2/c^2)
        f = 1 if version = 1, sqrt(b) if version = 2, b/(delta alpha^(b - delta)) if version = 3
        b = (1 - IoU)/mean

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        mean_loss: running mean of `1 - IoU`; `None`: the mean over these pairs. Version 1 ignores it.
        version: 1 (no focusing), 2 (monotonic) or 3 (non-monotonic focusing).
        alpha: base of the decay in version 3, above 0.
        delta: outlier degree with coefficient 1 in version 3, above 0.
        eps: replaces a denominator of 0.

    Returns:
        At least 0, shape `(...)`; below e in version 1.

    Raises:
        ValueError: if the version is unknown.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import wiou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> wiou_loss(pred, target, mean_loss=0.5)
        tensor([0.8993, 1.8896])

    Source:
        Tong et al., arXiv 2301.10051, equal to branch v1 of the authors' repository; its master has alpha 1.7 and
        delta 2.7. The mean is passed in, not a class attribute as in most ports.

    See also:
        wise: its focusing in front of another loss
    """
    a, b = corners(pred), corners(target)
    if version not in (1, 2, 3):
        raise ValueError(f"version must be 1, 2 or 3, not {version}")
    loss = iou_distance(a, b, eps)
    result = distance_factor(a, b, eps) * loss
    if version == 1:
        return result
    mean = loss.detach().mean() if mean_loss is None else mean_loss
    return focus(loss, mean, version, alpha, delta, eps) * result


class RunningMeanLoss(Stateful, nn.Module):
    """Mixin for a loss or a modifier with a running mean of `1 - IoU`, a buffer that starts at 1."""

    if TYPE_CHECKING:
        momentum: float
    mean_loss: Tensor

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)
        self.register_buffer("mean_loss", torch.ones(()))

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return the running mean, in training updated with this step."""
        mean = self.mean_loss
        if step.training:
            iou, count = step.sums
            sums = torch.stack((count - iou, count.to(iou.dtype)))
            mean = self.updated(sums)
            self.collect(sums)
        return {"mean_loss": mean}

    def no_sums(self) -> Tensor:
        """Return zeros, shape `(2,)`: the sum of `1 - IoU`, and the number of pairs."""
        return torch.zeros(2, device=self.mean_loss.device)

    def updated(self, sums: Tensor) -> Tensor:
        """Return the running mean after a batch with these sums."""
        total, count = sums.to(self.mean_loss)
        mean = self.mean_loss.lerp(total / count.clamp_min(1), self.momentum)
        return torch.where(count > 0, mean, self.mean_loss)

    @torch.no_grad()
    def commit(self, sums: Tensor) -> None:
        """Update the running mean by the sums of a batch."""
        self.mean_loss.copy_(self.updated(sums))

    def mean_of(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the running mean, in training mode updated with these pairs first."""
        if self.training and pred.numel():
            boxes, objects = upcast(pred.detach(), target)
            losses = iou_distance(corners(boxes), corners(objects))
            self.collect(torch.stack((losses.sum(), losses.new_tensor(float(losses.numel())))))
        return self.mean_loss


@register_box_loss(
    "wiou",
    aliases=("wiseiou", "wiouloss", "wiou_loss"),
    source="arXiv 2301.10051; wiou, branch v1",
)
class WIoULoss(RunningMeanLoss, BoxLoss):
    """Wise-IoU loss: 1 - IoU with distance attention and dynamic focusing by a running mean.

    The running mean of 1 - IoU is a buffer that starts at 1. In training mode each non-empty batch updates it before it
    is used: `mean <- (1 - momentum) mean + momentum batch mean`. It is not updated in `eval` mode, nor by a call that
    supplies `mean_loss`.
    """

    formula: ClassVar[Formula] = staticmethod(wiou_loss)
    version: int
    alpha: float
    delta: float
    momentum: Annotated[float, Param("momentum of the running mean of 1 - IoU", low=0, high=1)] = 0.01

    def pairs(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per pair; without `mean_loss` the running mean is used, updated first in training mode."""
        if supplied.get("mean_loss") is None:
            supplied["mean_loss"] = self.mean_of(pred, target)
        return super().pairs(pred, target, **supplied)
