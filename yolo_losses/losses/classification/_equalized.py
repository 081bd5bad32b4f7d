"""What the equalized losses share: the exponent of each class, and the gradients that it is computed from."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._math import sigmoid_and_softplus
from yolo_losses.losses._reduction import reduce_loss
from yolo_losses.losses._step import Step, sum_over_ranks
from yolo_losses.losses.classification._base import ClassificationLoss
from yolo_losses.losses.classification._fast.autograd import Positives, class_sums, elementwise, kept_gradient


def equalized(miss: Tensor, bce: Tensor, pos_neg_ratio: Tensor, gamma: float, scale: float) -> Tensor:
    """Return `g_j / gamma * miss^g_j * bce` with the exponent `g_j = gamma + scale (1 - q_j)`.

    Args:
        miss: how far each probability is from its target, in [0, 1].
        bce: of the same shape.
        pos_neg_ratio: q, of a shape that broadcasts to that of `miss`, taken into [0, 1]; no gradient flows through it.
        gamma: exponent of a class whose q is 1.
        scale: what is added to it where q is 0.
    """
    exponent = exponents(pos_neg_ratio.detach().to(miss.dtype).clamp(0, 1), gamma, scale)
    # Below an exponent of 1 the slope at 0 is infinite; there the gradient is 0.
    return exponent / gamma * miss.clamp_min(torch.finfo(miss.dtype).tiny) ** exponent * bce


def exponents(pos_neg_ratio: Tensor, gamma: float, scale: float) -> Tensor:
    """Return `gamma + scale (1 - q)`."""
    return torch.rsub(pos_neg_ratio, gamma + scale, alpha=scale)


class EqualizedLoss(ClassificationLoss):
    """A focal loss whose exponent grows, class by class, as the positives' share of the gradients falls.

    The absolute gradients by the logits are accumulated over the training steps, by class, for positive and negative
    elements. Their ratio q, at most 1, sets the exponent of the next steps; before the first step it is 1. In the
    criterion the gradient is that of the class term before upstream divides it and multiplies it by its gain: neither
    the loss scale of mixed precision nor the number of objects of a batch enters. In a call of the module it is that of
    the weighted sum.

    Where a class index stands for another class in each batch, as in open-vocabulary training, q has no meaning.
    """

    supplied_arguments: ClassVar[frozenset[str]] = ClassificationLoss.supplied_arguments | {"pos_neg_ratio"}
    gamma: float
    scale: float
    positive_gradient: Tensor
    negative_gradient: Tensor

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)
        self.register_buffer("positive_gradient", torch.zeros(0))
        self.register_buffer("negative_gradient", torch.zeros(0))
        self.ratio_of_step: Tensor | None = None  # of the last step of training

    def set_classes(self, classes: int) -> None:
        """Set the number of classes; with another number than before the state starts afresh."""
        if len(self.positive_gradient) != classes:
            self.positive_gradient = self.positive_gradient.new_zeros(classes)
            self.negative_gradient = self.negative_gradient.new_zeros(classes)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}positive_gradient")
        if saved is not None:
            self.set_classes(len(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def pos_neg_ratio(self, classes: int) -> Tensor:
        """Return q, shape `(classes,)`: 1 before the first step."""
        if len(self.positive_gradient) != classes:
            return self.positive_gradient.new_ones(classes)
        return (self.positive_gradient / self.negative_gradient).nan_to_num_(1).clamp_max_(1)

    def _ratio(self, classes: int, training: bool, again: bool = False) -> Tensor:
        """Return q for a step: where it is computed `again`, what it was before the step's gradients were collected."""
        if again and self.ratio_of_step is not None and len(self.ratio_of_step) == classes:
            return self.ratio_of_step
        ratio = self.pos_neg_ratio(classes)
        if training:
            self.ratio_of_step = ratio
        return ratio

    @torch.no_grad()
    def collect(self, positive: Tensor, negative: Tensor, joined: bool) -> None:
        """Add a step's absolute gradients, of the positive and of the negative elements, by class, shape `(C,)`."""
        self.set_classes(len(positive))
        sums = torch.stack((positive, negative)).to(self.positive_gradient)
        if joined:
            sums = sum_over_ranks(sums)
        # A batch that overflowed must not reach the state: the training recovers from it, a sum would not. Zero times
        # the total is NaN then, and with it all of the sums, which become 0.
        positive, negative = sums.add_(sums.sum(), alpha=0).nan_to_num_(0, 0, 0).unbind()
        self.positive_gradient += positive
        self.negative_gradient += negative

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return whether the gradients are to be collected, over which ranks, and whether that has been done."""
        return {"training": step.training, "joined": step.joined, "again": step.again}

    def forward(
        self,
        pred: Tensor,
        target: Tensor | tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **supplied: Any,
    ) -> Tensor:
        """Return the loss as `ClassificationLoss.forward` does; in training mode its gradients are collected."""
        supplied = {"training": self.training, "gradient_weight": weight, **supplied}
        return super().forward(pred, target, weight, avg_factor, reduction_override, **supplied)

    def elementwise(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        gradient_weight: Tensor | None = None,
        training: bool = False,
        joined: bool = True,
        **supplied: Any,
    ) -> Tensor:
        """Return the loss of every element; where `training`, its gradients are collected for the steps to come."""
        supplied = {"pos_neg_ratio": self.pos_neg_ratio(logits.shape[-1]), **supplied}
        loss = super().elementwise(logits, targets, **supplied)
        if training and loss.requires_grad and logits.requires_grad:
            total = reduce_loss(loss, gradient_weight, "sum")
            (gradient,) = torch.autograd.grad(total, logits, retain_graph=True)
            mask = supplied.get("positive_mask")
            mask = targets > 0 if mask is None else mask
            positive, negative = torch.where(mask, gradient.abs(), 0), torch.where(mask, 0, gradient.abs())
            classes = logits.shape[-1:]
            self.collect(positive.sum_to_size(classes), negative.sum_to_size(classes), joined)
        return loss

    def miss(self, logits: Tensor, p: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far each probability p is from its target, and the derivative of its logarithm by the logit."""
        raise NotImplementedError

    def balance(self, targets: Tensor) -> Tensor | float:
        """Return the weight per element, over gamma."""
        return 1 / self.gamma

    def closed_form(
        self, logits: Tensor, targets: Tensor, pos_neg_ratio: Tensor | None = None, **supplied: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative per element."""
        ratio = self.pos_neg_ratio(logits.shape[-1]) if pos_neg_ratio is None else pos_neg_ratio
        exponent = exponents(ratio.to(logits.dtype), self.gamma, self.scale)
        p = logits.sigmoid()
        miss, relative = self.miss(logits, p, targets)
        weight = miss.pow_(exponent).mul_(exponent).mul_(self.balance(targets))
        value = nn.functional.binary_cross_entropy_with_logits(logits, targets, weight, reduction="none")
        return value, p.sub_(targets).mul_(weight).addcmul_(value, relative.mul_(exponent))

    def per_element(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        positive_mask: Tensor | None = None,
        training: bool = False,
        joined: bool = True,
        again: bool = False,
        **supplied: Any,
    ) -> Tensor:
        """Return the loss per element; where `training`, its gradients are collected for the steps to come."""
        ratio = self._ratio(logits.shape[-1], training, again)

        def closed(z: Tensor) -> tuple[Tensor, Tensor]:
            value, slope = self.closed_form(z, targets, ratio)
            if training and logits.requires_grad:
                size, over = slope.abs(), tuple(range(slope.dim() - 1))
                mask = targets > 0 if positive_mask is None else positive_mask
                self.collect((size * mask).sum(over), size.masked_fill(mask, 0).sum(over), joined)
            return value, slope

        def formula(z: Tensor) -> Tensor:
            return self.elementwise(z, targets, positive_mask=positive_mask, pos_neg_ratio=ratio)

        return elementwise(closed, formula, logits)

    def class_sums(self, logits: Tensor, positives: Positives, step: Step) -> Tensor:
        """Return the loss summed over batch and anchors, by class, shape `(1, 1, C)`."""
        ratio = self._ratio(logits.shape[-1], step.training)
        ratio = ratio.to(torch.promote_types(logits.dtype, torch.float32))
        label = positives.index % max(logits.shape[-1], 1)
        foreground = functools.partial(self.elementwise, pos_neg_ratio=ratio)
        closed = functools.partial(self.closed_form, pos_neg_ratio=ratio[label])
        exponent = exponents(ratio, self.gamma, self.scale)
        sums = class_sums(self.equalized_background, foreground, logits, positives, exponent, closed=closed)
        gradient = kept_gradient(sums)
        if step.training and gradient is not None:
            slope = gradient.view(-1)[positives.index]
            if positives.valid is not None:
                slope = torch.where(positives.valid, slope, 0)
            both = slope.new_zeros(2, logits.shape[-1]).index_add_(1, label, torch.stack((slope.abs(), slope)))
            # That of a negative element is above 0: their sum is that of the absolute gradients, and much faster.
            self.collect(both[0], (gradient.sum((0, 1)) - both[1]).clamp_min_(0), step.joined)
        return sums

    def equalized_background(
        self, logits: Tensor, exponent: Tensor, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return `w g/gamma p^g softplus(z)`, w the negatives' weight, and its derivative, in `out` if given."""
        p, value = sigmoid_and_softplus(logits)
        weight = p.log().mul_(exponent).exp_().mul_(exponent * (self.negative_weight / self.gamma))
        # The derivative is the weight times p + g (1-p) softplus.
        slope = torch.addcmul(value, p, value, value=-1).mul_(exponent).add_(p)
        return value.mul_(weight), torch.mul(slope, weight, out=out)

    @property
    def negative_weight(self) -> float:
        """A factor on the negative elements."""
        return 1.0
