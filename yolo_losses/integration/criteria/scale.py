"""The factor of `cls_scale=auto`, which keeps the class term as strong as the stock loss would be."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from yolo_losses.losses._state import Stateful
from yolo_losses.losses.classification._batch import rows_in_a_chunk

DECAY = 0.98  # of the running means: some 50 batches
LARGEST_STEP = math.log(1.05)  # the factor changes by at most 5 % per batch
LARGEST_BATCH = 2.0  # a batch counts at most this many times the running mean, so that no outlier dominates it
LIMIT = 100.0  # the factor stays between 1/LIMIT and LIMIT


class ClassScale(Stateful, nn.Module):
    """A running factor on the class term.

    It is the ratio of the gradient norms at the logits, stock loss over chosen loss, on the same predictions, from
    running means of the squared norms over about 50 batches. It starts at 1, changes by at most 5 % per batch, and
    stays in [0.01, 100]. All elements are multiplied by the same factor, which keeps the relative weights of the chosen
    loss.
    """

    own: Tensor
    stock: Tensor
    seen: Tensor
    log_factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("own", "stock", "seen", "log_factor"):
            self.register_buffer(name, torch.zeros(()))

    @property
    def factor(self) -> Tensor:
        """The factor, a scalar tensor on the device."""
        return self.log_factor.exp()

    @property
    def bounded(self) -> bool:
        """Whether the factor is at its bound; this synchronizes."""
        return bool(self.log_factor.abs() > math.log(LIMIT) - 1e-3)

    def no_sums(self) -> Tensor:
        """Return zeros for the two squared norms and the number of batches with objects."""
        return self.own.new_zeros(3)

    @torch.no_grad()
    def advance(self, squared_norms: Tensor, objects: Tensor) -> Tensor:
        """Collect the gradients of a step for the running means, and return the factor of this step.

        Args:
            squared_norms: squared norms of the gradients at the logits, of the chosen loss and of the stock loss, after
                the criterion's division, shape `(2,)`.
            objects: whether the batch has objects; if no rank has any, nothing changes.
        """
        sums = torch.cat((squared_norms.to(self.own), objects.view(1).to(self.own)))
        # A batch that overflowed must not reach the state: training recovers from it, a running mean would not.
        sums = torch.where(sums.sum().isfinite(), sums, 0)
        factor = self.moved(sums)[-1].exp()
        self.collect(sums)
        return factor

    def moved(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the buffers `own`, `stock`, `seen` and `log_factor` after a step with these sums."""
        own, stock, batches = sums.to(self.own).unbind()
        counts = (batches > 0) & (own > 0) & (stock > 0)
        weight = torch.where(counts, 1 - DECAY, 0)
        most = LARGEST_BATCH * (self.own + self.stock) / self.seen
        share = torch.where(self.seen > 0, (most / (own + stock)).clamp_max(1), 1)
        mean_own = self.own.lerp(torch.where(counts, own * share, 0), weight)
        mean_stock = self.stock.lerp(torch.where(counts, stock * share, 0), weight)
        # The means start at 0. `seen` is the running mean of a constant 1; it cancels in their ratio.
        seen = self.seen.lerp(torch.ones_like(self.seen), weight)
        target = (torch.log(mean_stock / mean_own) / 2).clamp(-math.log(LIMIT), math.log(LIMIT))
        change = (target - self.log_factor).clamp(-LARGEST_STEP, LARGEST_STEP)
        return mean_own, mean_stock, seen, self.log_factor + torch.where(counts, change, 0)

    @torch.no_grad()
    def commit(self, sums: Tensor) -> None:
        """Update the running means and the factor with the sums of a step."""
        for name, buffer in zip(("own", "stock", "seen", "log_factor"), self.moved(sums), strict=True):
            getattr(self, name).copy_(buffer)


@torch.no_grad()
def squared_norms(gradient: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the squared norms of a gradient at the logits and of the gradient of BCE, shape `(2,)`.

    Args:
        gradient: gradient of the chosen loss, shape `(b, anchors, C)`.
        logits: same shape.
        targets: targets of BCE, same shape.
    """
    rows, own, wanted = (tensor.detach().reshape(-1, tensor.shape[-1]) for tensor in (logits, gradient, targets))
    step = rows_in_a_chunk(logits)
    sums = [gradient.new_zeros(2, dtype=torch.float32)]
    for first in range(0, len(rows), step):
        part = slice(first, first + step)
        stock = rows[part].float().sigmoid().sub_(wanted[part])
        sums.append(torch.stack([each.float().square().sum() for each in (own[part], stock)]))
    return torch.stack(sums).sum(0)
