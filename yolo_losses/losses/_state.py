"""State of a loss, such as a running mean, that moves once per training step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from yolo_losses.losses._step import sum_over_ranks


class Stateful:
    """Mixed into an `nn.Module` whose buffers are moved by what a training step's predictions showed.

    A call in training hands its sums to `collect`; they add up over the ranks of a distributed training. `commit` moves
    the buffers by such sums. A module that is used alone commits at once. In a training run modules are `deferred`:
    the run calls `commit_collected` once per batch, where every rank comes by, with what the last call collected. So a
    batch that is computed again, as activation checkpointing does, sees the state that it had the first time, and
    no call holds a collective, which a rank may not make.

    For the current step a loss uses the state as its own sums would move it, without writing it.

    Attributes:
        deferred: whether `commit_collected` is left to the training run.
        collected: the sums of the last call that are not committed yet; `None`: none.
    """

    deferred: bool = False
    collected: Tensor | None = None

    def no_sums(self) -> Tensor:
        """Return the sums of a call that has seen nothing: zeros, 1-dimensional, on the device of the buffers."""
        raise NotImplementedError

    def commit(self, sums: Tensor) -> None:
        """Move the buffers by the sums of a step, shape as `no_sums`, over all ranks; zeros move nothing."""
        raise NotImplementedError

    def collect(self, sums: Tensor) -> None:
        """Take the sums of a training call, in place of those of an earlier call of the same step."""
        self.collected = sums.detach()
        if not self.deferred:
            commit_collected([self], joined=False)


@torch.no_grad()
def commit_collected(modules: Iterable[Stateful], joined: bool = True) -> None:
    """Commit what the modules collected in a step.

    Args:
        modules: the same ones, in the same order, on every rank.
        joined: whether sums are added up over ranks, in one collective; then every rank has to call this.
    """
    found = list(modules)
    if not found:
        return
    sums = [module.no_sums() if module.collected is None else module.collected for module in found]
    # Float64 where there is one: counts of elements are exact in it.
    dtype = torch.float32 if any(each.device.type == "mps" for each in sums) else torch.float64
    whole = torch.cat([each.reshape(-1).to(sums[0].device, dtype) for each in sums])
    if joined:
        whole = sum_over_ranks(whole)
    for module, each in zip(found, whole.split([each.numel() for each in sums]), strict=True):
        module.commit(each)
        module.collected = None
