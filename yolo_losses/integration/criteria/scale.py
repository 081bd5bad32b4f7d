"""The factor of `cls_scale=auto`: it keeps the class term at the strength that the stock loss would have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from yolo_losses.losses._step import sum_over_ranks
from yolo_losses.losses.classification._fast import cpu
from yolo_losses.losses.classification._fast.autograd import kept_gradient

DECAY = 0.98  # of the running means: some 50 batches
LARGEST_STEP = math.log(1.05)  # the factor moves by 5 % a batch at most
LARGEST_BATCH = 2.0  # a batch counts as this many times the running mean at most: squares of a single one would own it
LIMIT = 100.0  # the factor stays within 1/LIMIT and LIMIT


class ClassScale(nn.Module):
    """A running factor on the class term.

    It is the ratio of the gradient norms at the logits, stock loss over chosen loss, on the same predictions: running
    means of the squared norms over some 50 batches. It starts at 1 and moves by at most 5 % a batch, within [0.01,
    100]. All elements are multiplied by the same number, so their relative weights stay those of the chosen loss.
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
        """Whether the factor is at its bound; this synchronises."""
        return bool(self.log_factor.abs() > math.log(LIMIT) - 1e-3)

    @torch.no_grad()
    def update(self, squared_norms: Tensor, objects: Tensor, joined: bool) -> None:
        """Take a step's gradients into the running means, and move the factor.

        Args:
            squared_norms: of the gradients at the logits, of the chosen loss and of the stock loss, shape `(2,)`.
            objects: whether the batch has objects; without any on all ranks, nothing changes.
            joined: whether ranks add up their squared norms, so that the factor is the same on all of them.
        """
        given = torch.cat((squared_norms.to(self.own), objects.view(1).to(self.own)))
        own, stock, batches = sum_over_ranks(given) if joined else given
        # A batch that overflowed must not reach the state: the training recovers from it, a running mean would not.
        counts = (batches > 0) & (own > 0) & (stock > 0) & (own + stock).isfinite()
        weight = torch.where(counts, 1 - DECAY, 0)
        most = LARGEST_BATCH * (self.own + self.stock) / self.seen
        share = torch.where(self.seen > 0, (most / (own + stock)).clamp_max(1), 1)
        self.own.lerp_(torch.where(counts, own * share, 0), weight)
        self.stock.lerp_(torch.where(counts, stock * share, 0), weight)
        # The means start at 0: `seen` is what a constant 1 would have come to; it cancels in their ratio.
        self.seen.lerp_(torch.ones_like(self.seen), weight)
        target = (torch.log(self.stock / self.own) / 2).clamp(-math.log(LIMIT), math.log(LIMIT))
        step = (target - self.log_factor).clamp(-LARGEST_STEP, LARGEST_STEP)
        self.log_factor += torch.where(counts, step, 0)


def gradient_of(term: Tensor, logits: Tensor) -> Tensor:
    """Return the gradient of a class term's sum at its logits, which costs nothing where it is kept already."""
    kept = kept_gradient(term)
    return torch.autograd.grad(term.sum(), logits, retain_graph=True)[0] if kept is None else kept


@torch.no_grad()
def squared_norms(gradient: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the squared norms of a gradient at the logits and of that of BCE, shape `(2,)`.

    Args:
        gradient: of the chosen loss, shape `(b, anchors, C)`.
        logits: of the same shape.
        targets: what BCE trains toward, of the same shape.
    """
    rows, own, wanted = (tensor.detach().reshape(-1, tensor.shape[-1]) for tensor in (logits, gradient, targets))

    def of_piece(piece: Tensor, part: slice) -> Tensor:
        stock = piece.float().sigmoid().sub_(wanted[part])
        return torch.stack((own[part].float().square().sum(), stock.square_().sum()))

    return cpu.map_sum(rows, of_piece)
