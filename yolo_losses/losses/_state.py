"""State of a loss, such as a running mean, that is updated once per training step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from yolo_losses.losses._step import sum_over_ranks


class Stateful:
    """Mixin for an `nn.Module` whose buffers follow statistics of the training steps.

    In training, a call passes its sums to `collect`, and `commit` updates the buffers with them; in distributed
    training the sums are first added up over the ranks. A module that is used alone commits at once. In a training run
    modules are `deferred`: the run calls `commit_collected` once per batch, at a point that every rank reaches. A batch
    that is computed twice, as in activation checkpointing, therefore sees the same state both times, and no call
    contains a collective, which other ranks might not reach.

    In the current step a loss uses the state updated with its own sums, without storing it.

    Attributes:
        deferred: whether `commit_collected` is left to the training run.
        collected: the sums of the last call that are not committed yet, if any.
    """

    deferred: bool = False
    collected: Tensor | None = None

    def no_sums(self) -> Tensor:
        """Return the sums of an empty call: zeros, 1-dimensional, on the device of the buffers."""
        raise NotImplementedError

    def commit(self, sums: Tensor) -> None:
        """Update the buffers with the sums of a step over all ranks, shape as `no_sums`; zeros change nothing."""
        raise NotImplementedError

    def collect(self, sums: Tensor) -> None:
        """Store the sums of a training call; they replace those of an earlier call of the same step."""
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
