"""What the criterion tells a loss about the current step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor


class Step:
    """The positives of a step, as scalar tensors on the device, computed when a loss asks for them; none synchronises.

    Args:
        iou: IoU of each positive's predicted box with its object, detached, or what computes it.
        positive: which of them count, of the same shape; `None`: all.
        training: whether state is to be updated, rather than only read as in validation.
        joined: whether sums are joined over the ranks of a distributed training. Every rank has to say the same, and
            has to ask for the same attributes.
        again: whether state has been updated for this step already: it is to be computed as it was then.
    """

    def __init__(
        self,
        iou: Tensor | Callable[[], Tensor],
        positive: Tensor | None,
        training: bool,
        joined: bool = True,
        again: bool = False,
    ) -> None:
        self._iou = iou
        self.positive = positive
        self.training = training and not again
        self.joined = joined and self.training
        self.again = again

    def read_only(self) -> Step:
        """Return the same step for reading the state, which it has updated already where it is one of training."""
        step = copy.copy(self)
        step.again = self.training or self.again
        step.training = step.joined = False
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
    def _joint_sums(self) -> tuple[Tensor, Tensor]:
        if not (self.joined and distributed()):
            return self.sums
        total, count = sum_over_ranks(torch.stack((self.sums[0], self.sums[1].float())))
        return total, count

    @cached_property
    def mean_iou(self) -> Tensor:
        """Mean IoU of this rank's positives, 0 without any; boxes of NaN or infinity do not count."""
        return self.sums[0] / self.sums[1].clamp_min(1)

    @cached_property
    def joint_mean_iou(self) -> Tensor:
        """The same over the positives of all ranks, in training: what state is made of."""
        return self._joint_sums[0] / self._joint_sums[1].clamp_min(1)

    @cached_property
    def joint_positives(self) -> Tensor:
        """Number of positives over all ranks, in training."""
        return self._joint_sums[1]


def distributed() -> bool:
    """Return whether several ranks train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the ranks of a distributed training, the tensor itself where there is one."""
    if distributed():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor
