"""Gradient harmonizing mechanism (GHM-C): BCE divided by the gradient density."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._function import Formula, check_same_shape, plain_signature
from yolo_losses.losses._math import sigmoid_and_softplus
from yolo_losses.losses._reduction import check_reduction, reduce_loss, upcast
from yolo_losses.losses._state import Stateful
from yolo_losses.losses._step import Step
from yolo_losses.losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.losses.classification._batch import Batch
from yolo_losses.registry.parameters import Param

WORTH_PACKING = 2**15  # pairs of indices from which on counting pairs is faster
BINS_AT_ONCE = 10  # compared with each element of a piece, in one temporary of as many bytes


def _bin(gap: Tensor, bins: int) -> Tensor:
    """Return the index of the uniform bin over [0, 1] that each gradient norm `|p - t|` falls into."""
    return (gap * bins).int().clamp_(0, bins - 1)


def _counts(index: Tensor, bins: int, counted: Tensor | None = None) -> Tensor:
    """Return the number of elements in each bin."""
    if counted is not None:
        index = torch.where(counted, index, -1)
    index = index.reshape(-1)
    if index.device.type == "cpu" and counted is None:
        return _bincount(index, bins)
    # On a GPU bincount synchronizes.
    numbers = torch.arange(bins, device=index.device, dtype=index.dtype).view(-1, 1)
    return torch.cat([(index == some).sum(1) for some in numbers.split(BINS_AT_ONCE)])


def _bincount(index: Tensor, bins: int) -> Tensor:
    """Return `torch.bincount`, faster: several indices are packed into one, since counting dominates the time."""
    half = index.numel() // 2
    if half < max(bins * bins, WORTH_PACKING):
        return torch.bincount(index, minlength=bins)
    pairs = _bincount(index[:half] * bins + index[half : 2 * half], bins * bins).view(bins, bins)
    return pairs.sum(0) + pairs.sum(1) + torch.bincount(index[2 * half :], minlength=bins)


def _weights(present: Tensor, share: Tensor) -> Tensor:
    """Return the weight of each bin, 1 / (its fraction of the elements x the number of non-empty bins); 0 if empty."""
    return (share * present.sum()).reciprocal_().nan_to_num_(posinf=0)


def _of_bins(weights: Tensor, index: Tensor) -> Tensor:
    """Return the weight of each element, given its bin."""
    return weights.index_select(0, index.reshape(-1)).view_as(index)  # several times faster than weights[index]


def _weighted(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return BCE times the weight of the bin of `|p - t|`, per element."""
    gap = (logits.detach().sigmoid() - targets).abs()
    bce = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return _of_bins(weights.to(logits.dtype), _bin(gap, len(weights))) * bce


def _counted(logits: Tensor, targets: Tensor, bins: int, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the number of elements in each bin, their total, and the mask of valid ones (weight above 0)."""
    mask = None
    if weight is not None:
        mask = reduce_loss(torch.ones_like(logits), weight, "none") > 0
    counts = _counts(_bin((logits.detach().sigmoid() - targets).abs(), bins), bins, mask)
    return counts, counts.sum().clamp_min(1), mask


def _reduced(
    loss: Tensor, mask: Tensor | None, total: Tensor, reduction: str, avg_factor: float | Tensor | None
) -> Tensor:
    if mask is not None:
        loss = torch.where(mask, loss, 0)
    if reduction == "mean" and avg_factor is None:
        return loss.sum() / total
    return reduce_loss(loss, None, reduction, avg_factor)


def ghm_loss(
    logits: Tensor,
    targets: Tensor,
    bins: Annotated[int, Param("number of uniform bins over the gradient norm |p - t|", low=1, high=1000)] = 10,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """GHM-C loss, per element: BCE divided by the density of the gradients `|p - t|` among the elements of this call.

    The gradients are counted in bins. Of `N` elements `n_b` are in the bin of the element, and `M` bins are not empty.
    The density is detached.

    Formula:
        L = N/(M n_b) BCE

    Args:
        logits: any shape.
        targets: same shape, in [0, 1].
        bins: number of uniform bins over [0, 1].
        weight: of the logits' shape, of its leading dimensions, or flat: elements are valid where it is above 0.
        reduction: `none`, `mean` (over the valid elements) or `sum`.
        avg_factor: divisor of `mean`, in place of the number of valid elements.

    Returns:
        At least 0.

    Raises:
        ValueError: if the reduction is unknown or the shapes do not fit.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import ghm_loss
        >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
        >>> targets = torch.tensor([[1.0, 0.0, 0.0]])
        >>> ghm_loss(logits, targets, bins=2)
        tensor([[0.0952, 0.2349, 1.4611]])

    Source:
        Li et al., arXiv 1811.05181, equal to MMDetection's `GHMC` with momentum 0.

    See also:
        focal: weights by the error itself, not by the number of elements with that error
    """
    check_reduction(reduction)
    check_same_shape("logits", logits, "targets", targets)
    logits, targets = upcast(logits, targets)
    counts, total, mask = _counted(logits, targets, bins, weight)
    weights = _weights(counts > 0, counts.to(logits.dtype) / total)
    return _reduced(_weighted(logits, targets, weights), mask, total, reduction, avg_factor)


ghm_loss.__signature__ = plain_signature(ghm_loss)  # type: ignore[attr-defined]


@register_cls_loss(
    "ghm",
    aliases=("ghmc", "ghmloss", "ghm_loss", "ghm_c"),
    source="arXiv 1811.05181; MMDetection GHMC",
)
class GHMLoss(Stateful, ClassificationLoss):
    """Gradient harmonizing mechanism (GHM-C): BCE divided by the gradient density.

    The counts of the bins are moving averages over the training steps; a bin that is empty in a batch keeps its
    average. They start at 0, which gives the first steps larger weights, as in MMDetection. They are kept relative to
    the number of elements, so that the batch size (multi-scale, validation) does not change the weights. In the
    criterion the class term is the mean over all elements.
    """

    formula: ClassVar[Formula] = staticmethod(ghm_loss)
    own_divisor: ClassVar[bool] = True
    bins: int
    momentum: Annotated[
        float, Param("momentum of the bins' moving average; 0 uses the current batch only", low=0, high=0.9999)
    ] = 0.75
    counts: Tensor

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)
        self.register_buffer("counts", torch.zeros(self.bins))

    def forward(
        self,
        pred: Tensor,
        target: Tensor | tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **supplied: Any,
    ) -> Tensor:
        """Return the loss as `ClassificationLoss.forward` does; in training mode the moving average is updated first.

        Elements are valid where `weight` is above 0.
        """
        reduction = check_reduction(self.reduction, reduction_override)
        logits, targets = self.inputs(pred, target)
        counts, total, mask = _counted(logits, targets, self.bins, weight)
        loss = _weighted(logits, targets, self.bin_weights(counts.to(logits.dtype), self.training))
        return self.loss_weight * _reduced(loss, mask, total, reduction, avg_factor)

    def elementwise(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per element, by default with the density of these elements."""
        weights = supplied.get("weights")
        if weights is None:
            counts, _, _ = _counted(logits, targets, self.bins, None)
            weights = self.bin_weights(counts.to(logits.dtype), training=False)
        return _weighted(logits, targets, weights)

    def no_sums(self) -> Tensor:
        """Return zero elements in each bin, shape `(bins,)`."""
        return torch.zeros_like(self.counts)

    def updated(self, counts: Tensor) -> Tensor:
        """Return the moving average of the bins after a step with these counts."""
        share = (counts / counts.sum().clamp_min(1)).to(self.counts)
        return torch.where(counts > 0, self.counts.lerp(share, 1 - self.momentum), self.counts)

    @torch.no_grad()
    def commit(self, sums: Tensor) -> None:
        """Update the moving average by the counts of a step."""
        self.counts.copy_(self.updated(sums))

    @torch.no_grad()
    def bin_weights(self, counts: Tensor, training: bool, logits: Tensor | None = None) -> Tensor:
        """Return the weight of each bin, shape `(bins,)`.

        Args:
            counts: number of elements of a batch in each bin, shape `(bins,)`, floating point.
            training: whether the moving average is updated.
            logits: the logits of the batch, so that one that overflowed does not reach the average.
        """
        if training and self.momentum:
            share = self.updated(counts).to(counts.dtype)
            # In float32, since a sum in half precision overflows by itself. Zero times infinity is NaN.
            finite = counts if logits is None else counts.add(logits.sum(dtype=torch.float32), alpha=0).nan_to_num_(0)
            self.collect(finite)
        else:
            share = counts / counts.sum().clamp_min(1)
            if self.momentum:
                share = torch.where(self.counts > 0, self.counts.to(counts.dtype), share)
        return _weights(counts > 0, share)

    def per_element(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor | None]:
        """Return the class term per element and its gradient; the density is that of the whole batch."""
        with torch.no_grad():
            counts = [self._counts(logits, targets) for _, logits, targets in batch.chunks()]
            if batch.rows is not None:
                logits, targets = batch.selected()
                counts.append(self._counts(logits, targets) - self._counts(logits, None))
            total = torch.stack(counts).sum(0) if counts else self.no_sums()
            dtype = torch.promote_types(batch.logits.dtype, torch.float32)
            weights = self.bin_weights(total.to(dtype), step.training, batch.logits)
        return self.evaluate(batch, {"weights": weights})

    def _counts(self, logits: Tensor, targets: Tensor | None) -> Tensor:
        gap = logits.sigmoid() if targets is None else logits.sigmoid().sub_(targets).abs_()
        return _counts(_bin(gap, self.bins), self.bins)

    def closed_form(self, logits: Tensor, targets: Tensor | None, **supplied: Any) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative per element, given the weight of each bin."""
        if targets is None:
            gradient, value = sigmoid_and_softplus(logits)
            weight = _of_bins(supplied["weights"].to(value.dtype), _bin(gradient, self.bins))
            return value.mul_(weight), gradient.mul_(weight)
        gradient = logits.sigmoid().sub_(targets)
        weight = _of_bins(supplied["weights"].to(gradient.dtype), _bin(gradient.abs(), self.bins))
        value = nn.functional.binary_cross_entropy_with_logits(logits, targets, weight, reduction="none")
        return value, gradient.mul_(weight)
