"""Slide loss with an exponential moving average of the mean IoU as its threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Formula
from yolo_losses.losses._reduction import upcast
from yolo_losses.losses._state import Stateful
from yolo_losses.losses._step import Step
from yolo_losses.losses.classification._base import as_targets, register_cls_loss
from yolo_losses.losses.classification.slide import SlideLoss, mean_of_positives, slide_loss
from yolo_losses.registry.parameters import Param


@register_cls_loss(
    "ema_slide",
    aliases=("emaslide", "emaslideloss", "ema_slide_loss"),
    source="the community's EMASlideLoss",
)
class EMASlideLoss(Stateful, SlideLoss):
    """Slide loss with an exponential moving average of the mean IoU as its threshold.

    In step `n` the average `E` is updated by the mean IoU of the batch's positives. It starts at 1; `k` is close to 0
    in the first step, so that the first batch sets it. Batches without positives do not update it.

    Formula:
        L = w BCE
        w = 1 if t <= m - delta, e^(1-m) if m - delta < t < m, e^(1-t) if t >= m
        m = max(E, min_iou)
        E <- k E + (1-k) mean_iou
        k = decay (1 - exp(-n/tau))

    See also:
        slide: the mean of each batch
    """

    formula: ClassVar[Formula] = staticmethod(slide_loss)
    decay: Annotated[float, Param("decay of the moving average after warm-up", low=0, high=1)] = 0.999
    tau: Annotated[float, Param("time constant of the decay's warm-up, in steps", above=0)] = 2000.0
    average: Tensor
    updates: Tensor

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)
        self.register_buffer("average", torch.ones((), dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.float64))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> EMASlideLoss:
        try:
            return super()._apply(fn, recurse)
        except TypeError:  # MPS has no float64
            self.average, self.updates = self.average.float(), self.updates.float()
            return super()._apply(fn, recurse)

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return the moving average of the mean IoU, in training updated with this step."""
        if not step.training:
            return {"mean_iou": self.average}
        sums = torch.stack([each.to(self.average) for each in step.sums])
        average, _ = self.updated(sums)
        self.collect(sums)
        return {"mean_iou": average}

    def no_sums(self) -> Tensor:
        """Return zeros, shape `(2,)`: the sum of the positives' IoUs, and their number."""
        return self.average.new_zeros(2)

    def updated(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Return the moving average and the number of updates after a step with these sums."""
        total, count = sums.to(self.average).unbind()
        counts = count > 0
        updates = self.updates + counts
        weight = torch.rsub((updates / -self.tau).expm1(), 1, alpha=-self.decay)
        return self.average.lerp(total / count.clamp_min(1), weight * counts), updates

    @torch.no_grad()
    def commit(self, sums: Tensor) -> None:
        """Update the moving average by the sums of a step."""
        self.average, self.updates = self.updated(sums)

    def forward(
        self,
        pred: Tensor,
        target: Tensor | tuple[Tensor, Tensor],
        *args: Any,
        mean_iou: Tensor | float | None = None,
        **kw: Any,
    ) -> Tensor:
        """Return the loss with the moving average as threshold, updated first by `mean_iou` in training mode.

        Without `mean_iou`, that is the mean of the targets above 0, which is the mean IoU if the targets are IoUs.
        """
        if self.training:
            counts: Tensor | bool = True
            if mean_iou is None:
                mean_iou, counts = mean_of_positives(as_targets(target, upcast(pred)[0]))
            dtype, device = self.average.dtype, self.average.device
            mean, count = (torch.as_tensor(each, dtype=dtype, device=device) for each in (mean_iou, counts))
            self.collect(torch.stack((mean * count, count)))
        return super().forward(pred, target, *args, mean_iou=self.average, **kw)
