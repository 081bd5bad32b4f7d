"""The data of the current step that a criterion passes to a loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor


class Step:
    """The positives of a step, as scalar tensors on the device, computed when a loss asks for them; none synchronizes.

    Args:
        iou: IoU of each positive's predicted box with its object, detached, or what computes it.
        positive: which of them count, of the same shape; `None`: all.
        training: whether state is to be updated, rather than only read as in validation.
    """

    def __init__(self, iou: Tensor | Callable[[], Tensor], positive: Tensor | None, training: bool) -> None:
        self._iou = iou
        self.positive = positive
        self.training = training

    def read_only(self) -> Step:
        """Return the same step, for a call that reads the state without updating it."""
        step = copy.copy(self)
        step.training = False
        return step

    @cached_property
    def iou(self) -> Tensor:
        """IoU of each positive's predicted box with its object, detached."""
        return self._iou if isinstance(self._iou, Tensor) else self._iou()

    @cached_property
    def sums(self) -> tuple[Tensor, Tensor]:
        """Sum of this rank's IoUs, and how many there are; boxes of NaN or infinity do not count."""
        # A batch that overflowed must not reach the state: the training recovers from it, a running mean would not.
        # An IoU is a number in [0, 1] or NaN.
        iou = self.iou.float()
        if self.positive is not None:
            iou = torch.where(self.positive, iou, torch.nan)
        return iou.nansum(), (iou == iou).sum()

    @cached_property
    def mean_iou(self) -> Tensor:
        """Mean IoU of this rank's positives, 0 without any; boxes of NaN or infinity do not count."""
        return self.sums[0] / self.sums[1].clamp_min(1)


def distributed() -> bool:
    """Return whether several ranks train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the ranks of a distributed training, the tensor itself if there is only one."""
    if distributed():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor
