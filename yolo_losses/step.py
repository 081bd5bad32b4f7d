"""What the criterion tells a loss of the step at hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """The step at hand, as scalar tensors on the device; nothing here makes the host wait.

    Attributes:
        mean_iou: mean IoU of this rank's positives: their predicted boxes with their objects; 0 without positives.
            A box of NaN or infinity does not count, here and below.
        joint_mean_iou: the same over the positives of all ranks, which is what state is made of, in training.
        joint_positives: number of positives over all ranks.
        training: whether state is to be written (it is read in validation) and ranks may talk.
    """

    mean_iou: Tensor
    joint_mean_iou: Tensor
    joint_positives: Tensor
    training: bool


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the ranks of a distributed training, the tensor itself where there is one."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def observe(iou: Tensor, positive: Tensor | None, training: bool, join: bool) -> Step:
    """Return the step whose positives have these IoUs.

    Args:
        iou: detached, shape `(N,)`.
        positive: which of them count, shape `(N,)`; `None`: all.
        training: whether this is a training step.
        join: whether the ranks' sums are joined, which only a loss with state needs. Every rank has to say the same.
    """
    iou = iou.float()
    # A batch that overflowed must not reach the state: the training recovers from it, a running mean would not.
    counted = iou.isfinite() if positive is None else positive & iou.isfinite()
    sums = torch.stack((torch.where(counted, iou, 0).sum(), counted.sum().float()))
    joint = sum_over_ranks(sums) if join else sums
    return Step(sums[0] / sums[1].clamp_min(1), joint[0] / joint[1].clamp_min(1), joint[1], training)
