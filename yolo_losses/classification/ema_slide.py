"""Slide loss whose mean IoU is averaged over the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from yolo_losses.classification._base import register_cls_loss
from yolo_losses.classification.slide import SlideLoss, slide_loss
from yolo_losses.formula import Formula
from yolo_losses.parameters import Param
from yolo_losses.step import Step


@register_cls_loss(
    "ema_slide", aliases=("emaslide", "emaslideloss", "ema_slide_loss"), source="the community's EMASlideLoss"
)
class EMASlideLoss(SlideLoss):
    """Slide loss whose mean IoU is averaged over the steps: `m <- k m + (1-k) mean`, `k = decay (1 - e^(-n/tau))`.

    It starts at 1; k is tiny in the first step, so that the first batch sets m. A batch without positives updates
    nothing.
    """

    formula: ClassVar[Formula] = staticmethod(slide_loss)
    decay: Annotated[float, Param("weight of the past once it has warmed up", low=0, high=1)] = 0.999
    tau: Annotated[float, Param("steps over which the decay warms up", above=0)] = 2000.0
    average: Tensor
    updates: Tensor

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.register_buffer("average", torch.ones((), dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.float64))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> EMASlideLoss:
        try:
            return super()._apply(fn, recurse)
        except TypeError:  # Apple's Metal has no float64
            self.average, self.updates = self.average.float(), self.updates.float()
            return super()._apply(fn, recurse)

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return the averaged mean IoU, after this step's update in training."""
        if step.training:
            self.update(step.joint_mean_iou, step.joint_positives > 0)
        return {"mean_iou": self.average}

    @torch.no_grad()
    def update(self, mean_iou: Tensor | float, counts: Tensor | bool = True) -> None:
        """Take a batch's mean IoU into the average; `counts` false leaves it as it is."""
        mean = torch.as_tensor(mean_iou, dtype=self.average.dtype, device=self.average.device)
        counted = torch.as_tensor(counts, device=self.average.device)
        self.updates += counted
        keep = self.decay * (1 - (-self.updates / self.tau).exp())
        self.average.copy_(torch.where(counted, keep * self.average + (1 - keep) * mean, self.average))

    def forward(
        self,
        pred: Tensor,
        target: Tensor | tuple[Tensor, Tensor],
        *args: Any,
        mean_iou: Tensor | float | None = None,
        **kw: Any,
    ) -> Tensor:
        """Return the loss by the average, which a `mean_iou` given in training mode updates first."""
        if self.training and mean_iou is not None:
            self.update(mean_iou)
        return super().forward(pred, target, *args, mean_iou=self.average, **kw)
