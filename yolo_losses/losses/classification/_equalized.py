"""What the equalized losses share: the exponent of each class, and the gradients that it is computed from."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._math import sigmoid_and_softplus
from yolo_losses.losses._reduction import check_reduction, reduce_loss
from yolo_losses.losses._state import Stateful
from yolo_losses.losses._step import Step
from yolo_losses.losses.classification._base import ClassificationLoss
from yolo_losses.losses.classification._batch import Batch


def equalized(distance: Tensor, bce: Tensor, pos_neg_ratio: Tensor, gamma: float, scale: float) -> Tensor:
    """Return `gamma_j / gamma * distance^gamma_j * bce` with the exponent `gamma_j = gamma + scale (1 - q_j)`.

    Args:
        distance: how far each probability is from its target, in [0, 1].
        bce: of the same shape.
        pos_neg_ratio: `q`, of a shape that broadcasts to that of `distance`, clamped to [0, 1] and detached.
        gamma: exponent of a class whose `q` is 1.
        scale: added to it where `q` is 0.
    """
    exponent = exponents(pos_neg_ratio.detach().to(distance.dtype).clamp(0, 1), gamma, scale)
    # Below an exponent of 1 the derivative at 0 is infinite; the gradient there is 0.
    return exponent / gamma * distance.clamp_min(torch.finfo(distance.dtype).tiny) ** exponent * bce


def exponents(pos_neg_ratio: Tensor, gamma: float, scale: float) -> Tensor:
    """Return `gamma + scale (1 - q)`."""
    return torch.rsub(pos_neg_ratio, gamma + scale, alpha=scale)


class EqualizedLoss(Stateful, ClassificationLoss):
    """A focal loss whose exponent grows, class by class, as the positives' share of the gradients falls.

    The absolute gradients by the logits are accumulated over the training steps, by class, for positive and negative
    elements. Their ratio q, at most 1, sets the exponent of the next steps; before the first step it is 1. In the
    criterion the gradient is that of the class term before Ultralytics divides it and multiplies it by its gain; it
    does not depend on the loss scale of mixed precision or on the number of objects in the batch. In a call of the
    module it is that of the weighted sum.

    If a class index stands for another class in each batch, as in open-vocabulary training, q has no meaning.
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

    def set_classes(self, classes: int) -> None:
        """Set the number of classes; if it changes, the state is reset."""
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

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return the ratio of each class."""
        return {"pos_neg_ratio": self.pos_neg_ratio(len(self.positive_gradient))}

    def no_sums(self) -> Tensor:
        """Return zeros, shape `(2 C,)`: gradients of the positive elements by class, then of the negative ones."""
        return self.positive_gradient.new_zeros(2 * len(self.positive_gradient))

    @torch.no_grad()
    def commit(self, sums: Tensor) -> None:
        """Add a step's absolute gradients."""
        self.set_classes(len(sums) // 2)
        positive, negative = sums.to(self.positive_gradient).view(2, -1)
        self.positive_gradient += positive
        self.negative_gradient += negative

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
        reduction = check_reduction(self.reduction, reduction_override)
        logits, targets = self.inputs(pred, target)
        loss = self.elementwise(logits, targets, **supplied)
        if self.training and loss.requires_grad and logits.requires_grad and logits.numel():
            total = reduce_loss(loss, weight, "sum")
            (gradient,) = torch.autograd.grad(total, logits, retain_graph=True)
            mask = supplied.get("positive_mask")
            shape = (-1, logits.shape[-1])
            rows = (logits.reshape(shape), targets.reshape(shape), None if mask is None else mask.reshape(shape))
            self._collect(gradient.reshape(shape), Batch(*rows))
        return self.loss_weight * reduce_loss(loss, weight, reduction, avg_factor)

    def elementwise(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per element, by default with the accumulated gradients."""
        return super().elementwise(
            logits, targets, **{"pos_neg_ratio": self.pos_neg_ratio(logits.shape[-1]), **supplied}
        )

    def per_element(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor | None]:
        """Return the class term per element and its gradient, which in training is collected for the next steps."""
        self.set_classes(batch.logits.shape[-1])
        loss, gradient = super().per_element(batch, step)
        if step.training and gradient is not None:
            self._collect(gradient, batch)
        return loss, gradient

    @torch.no_grad()
    def _collect(self, gradient: Tensor, batch: Batch) -> None:
        """Collect the absolute gradients of a batch, by class."""
        rows = gradient if batch.rows is None else gradient.view(-1, gradient.shape[-1])[batch.rows]
        of_positives = rows * batch.positive_mask
        over = list(range(rows.dim() - 1))
        # That of a negative element is at least 0: its target is 0.
        negative = (gradient.sum(list(range(gradient.dim() - 1))) - of_positives.sum(over)).clamp_min_(0)
        sums = torch.cat((torch.linalg.vector_norm(of_positives, 1, over), negative))
        # A batch that overflowed must not reach the state: the training recovers from it, a sum would not. Zero times
        # the total is NaN then, and with it all of the sums, which become 0.
        self.collect(sums.add_(sums.sum(), alpha=0).nan_to_num_(0, 0, 0))

    def distance(self, logits: Tensor, p: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far each probability p is from its target, and the derivative of its logarithm by the logit."""
        raise NotImplementedError

    def balance(self, targets: Tensor) -> Tensor | float:
        """Return the weight per element, over gamma."""
        return 1 / self.gamma

    @property
    def negative_weight(self) -> float:
        """Weight of negatives."""
        return 1.0

    def closed_form(self, logits: Tensor, targets: Tensor | None, **supplied: Any) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative per element."""
        exponent = exponents(supplied["pos_neg_ratio"].to(logits.dtype), self.gamma, self.scale)
        if targets is None:
            p, value = sigmoid_and_softplus(logits)
            weight = p.log().mul_(exponent).exp_().mul_(exponent * (self.negative_weight / self.gamma))
            # The derivative is the weight times p + gamma_j (1-p) softplus.
            gradient = torch.addcmul(value, p, value, value=-1).mul_(exponent).add_(p)
            return value.mul_(weight), gradient.mul_(weight)
        p = logits.sigmoid()
        distance, relative = self.distance(logits, p, targets)
        weight = distance.pow_(exponent).mul_(exponent).mul_(self.balance(targets))
        value = nn.functional.binary_cross_entropy_with_logits(logits, targets, weight, reduction="none")
        return value, p.sub_(targets).mul_(weight).addcmul_(value, relative.mul_(exponent))
