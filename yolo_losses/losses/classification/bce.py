"""Binary cross entropy with logits, equal to the stock loss."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from yolo_losses.losses._function import ELEMENTS, Formula, loss_function
from yolo_losses.losses._reduction import upcast
from yolo_losses.losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.losses.classification._batch import Batch
from yolo_losses.losses.classification._modulated import weighted_negatives


@loss_function(ELEMENTS)
def bce_loss(logits: Tensor, targets: Tensor, pos_weight: Tensor | float | None = None) -> Tensor:
    """Binary cross entropy with logits, per element.

    Formula:
        L = -t log(p) - (1-t) log(1-p)

    Args:
        logits: any shape.
        targets: same shape, in [0, 1].
        pos_weight: weight of positive examples, a number or per class, as in `torch.nn.BCEWithLogitsLoss`.

    Returns:
        At least 0; 0 in the limit of a correct prediction of a hard target.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import bce_loss
        >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
        >>> targets = torch.tensor([[1.0, 0.0, 0.0]])
        >>> bce_loss(logits, targets)
        tensor([[0.1269, 0.3133, 0.9741]])
        >>> bce_loss(logits, targets, reduction="mean")
        tensor(0.4714)

    Source:
        `torch.nn.BCEWithLogitsLoss`, as in Ultralytics.

    See also:
        focal: easy examples count less
    """
    weight = (
        None
        if pos_weight is None
        else logits.new_tensor(pos_weight)
        if not isinstance(pos_weight, Tensor)
        else pos_weight
    )
    return nn.functional.binary_cross_entropy_with_logits(
        logits, targets, reduction="none", pos_weight=None if weight is None else weight.to(logits)
    )


@register_cls_loss(
    "bce",
    summary="Binary cross entropy with logits, equal to the stock loss",
    aliases=("binary_cross_entropy", "bceloss"),
    source="torch BCEWithLogitsLoss",
)
class BCELoss(ClassificationLoss):
    """Binary cross entropy with logits, equal to the stock loss up to float32 rounding.

    Args:
        weight: applied in every call, of any shape that broadcasts to the loss's, such as per class.
        pos_weight: weight of positive examples, a number or per class.
        *values: none; a subclass may declare parameters.
        **options: `reduction`, `loss_weight` and `activated`, as in every module.
    """

    formula: ClassVar[Formula] = staticmethod(bce_loss)

    def __init__(
        self,
        *values: Any,
        weight: Tensor | None = None,
        pos_weight: Tensor | float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*values, **options)
        self.pos_weight = pos_weight
        self.weight = weight

    def elementwise(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per element."""
        loss: Tensor = bce_loss(logits, targets, self.pos_weight)
        return loss if self.weight is None else loss * self.weight.to(loss)

    def closed_form(self, logits: Tensor, targets: Tensor | None, **supplied: Any) -> tuple[Tensor, Tensor]:
        """Return the loss, without weights, and its derivative per element."""
        if targets is None:
            return weighted_negatives(logits)
        value = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return value, logits.sigmoid().sub_(targets)

    def evaluate(self, batch: Batch, supplied: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Return the class term per element, and its gradient; with weights, which may be of any shape, by autograd."""
        if self.weight is None and self.pos_weight is None:
            return super().evaluate(batch, supplied)
        return self.elementwise(*upcast(batch.logits, batch.dense(batch.targets))), None
