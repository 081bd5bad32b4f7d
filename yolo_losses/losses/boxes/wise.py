"""Wise-IoU focusing of axis-aligned losses by the running mean of 1 - IoU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from torch import Tensor

from yolo_losses.losses.boxes._base import BoxModifier, register_modifier
from yolo_losses.losses.boxes._geometry import corners
from yolo_losses.losses.boxes.wiou import RunningMeanLoss, distance_factor, focus, iou_distance
from yolo_losses.registry.parameters import Param


@register_modifier(
    "wise",
    summary="Wise-IoU: multiplies the loss by WIoU's focusing coefficient",
    aliases=("wiseiou",),
    source="arXiv 2301.10051; Instinct323/wiou",
)
class WiseModifier(RunningMeanLoss, BoxModifier):
    """Wise-IoU: the loss times WIoU's focusing coefficient `f`, detached.

    `b` is the outlier degree of the plain IoU, `mean` the running mean of 1 - IoU. In front of `iou`, which has no
    penalty, the loss is also multiplied by WIoU's distance attention `exp(r2/c2)`, so that `wise_iou` equals `wiou` in
    any version. The other losses keep their own penalties; there, version 1 is the base loss. It does not apply to
    `wiou`, which has the same focusing and running mean.

    The running mean of 1 - IoU is a buffer that starts at 1. In training mode each non-empty batch updates it before it
    is used: `mean <- (1 - momentum) mean + momentum batch mean`. It is not updated in `eval` mode, nor by a call that
    supplies `mean_loss`.

    Formula:
        L = f L_base
        f = 1 if version = 1, sqrt(b) if version = 2, b/(delta alpha^(b - delta)) if version = 3
        b = (1 - IoU)/mean

    Example:
        >>> import torch
        >>> from yolo_losses import make_box_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [1.0, 1.0, 11.0, 11.0]])
        >>> make_box_loss("wise_ciou")(pred, target, mean_loss=torch.tensor(0.5))
        tensor([0.9294, 0.3175])

    Source:
        Tong et al., arXiv 2301.10051; the focusing of the authors' repository, whose master has alpha 1.7 and delta
        2.7, on this package's own losses. The `WiseIouLoss` in circulation computes b from the IoU as modified by
        Inner-IoU or Focaler-IoU; here b is that of the plain IoU.

    See also:
        wiou: the loss of the paper
        focal_iou: weights by the IoU itself
    """

    position: ClassVar[int] = -1
    version: Annotated[int, Param("1: no focusing; 2: monotonic; 3: non-monotonic focusing", low=1, high=3)] = 3
    alpha: Annotated[float, Param("version 3: base of the focusing coefficient's decay", above=0)] = 1.9
    delta: Annotated[float, Param("version 3: outlier degree at which the focusing coefficient is 1", above=0)] = 3.0
    momentum: Annotated[float, Param("momentum of the running mean of 1 - IoU", low=0, high=1)] = 0.01

    @classmethod
    def fits(cls, base: str, rotated: bool) -> bool:
        """Return whether the modifier applies: to all axis-aligned losses but `wiou`, which focuses already."""
        return base != "wiou" and super().fits(base, rotated)

    def result(
        self, loss: Tensor, iou: Tensor, pred: Tensor, target: Tensor, base: str, supplied: Mapping[str, Any]
    ) -> Tensor:
        """Return the focused loss; without `mean_loss` the running mean is used, updated first in training mode."""
        mean = supplied.get("mean_loss")
        if mean is None:
            mean = self.mean_of(pred, target)
        a, b = corners(pred), corners(target)
        distance = iou_distance(a, b)
        if base == "iou":
            # WIoU's IoU has no eps, which matters for boxes of side 1e-3.
            loss = distance_factor(a, b) * (loss - (1 - iou) + distance)
        return loss if self.version == 1 else focus(distance, mean, self.version, self.alpha, self.delta) * loss
