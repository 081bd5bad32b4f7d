"""What every box loss shares: reduction around the formula, the module, and the modifiers' composition."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from yolo_losses.boxes._geometry import Terms, corners, overlap, total
from yolo_losses.declaration import declares
from yolo_losses.formula import Formula, LossModule, formula_arguments
from yolo_losses.reduction import check_reduction, reduce_loss, upcast
from yolo_losses.step import Step

TermsFormula = Callable[..., Terms]


def register_box_loss(
    name: str, *, aliases: tuple[str, ...] = (), source: str = "", summary: str = ""
) -> Callable[[Any], Any]:
    """Register a box loss under `name`; a decorator for a formula or for a `BoxLoss`.

    A formula is a function `(pred, target, ...) -> loss per pair` of boxes `xyxy`, shape `(..., 4)`. Its further
    arguments are the loss's parameters and become the training keys `{name}_{argument}`; `image_wh`, `stride` and
    `mean_loss` are supplied by the criterion.

    Raises:
        ValueError: if the name is taken or no identifier, or a parameter's declaration is not usable.
    """
    return declares("box", BoxLoss, name, aliases, source, summary)


def register_modifier(
    name: str, *, aliases: tuple[str, ...] = (), source: str = "", summary: str = ""
) -> Callable[[Any], Any]:
    """Register a `BoxModifier` class under `name`, a prefix of a box loss's name: `{name}_ciou`."""
    return declares("modifier", BoxModifier, name, aliases, source, summary)


class BoxLoss(LossModule):
    """A box loss as a module, called as MMDetection's are.

    A subclass names its `formula` and, where it has more than the formula's parameters (state has), declares them as
    annotated attributes. The parameters become attributes of the module. A loss that is `1 - IoU` plus penalties may
    name its `terms` too, a function of the formula's arguments that returns them; modifiers then put another value
    in the place of that IoU.

    Args:
        reduction: `mean`, `sum` or `none`.
        loss_weight: a factor on the result.
        **parameters: the declared parameters, by name.

    Raises:
        TypeError: on a parameter that is not declared.
        ValueError: on one out of range, or an unknown reduction.
    """

    formula: ClassVar[Formula]
    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"image_wh", "stride", "mean_loss", "floor"})
    terms: ClassVar[TermsFormula | None] = None
    rotated: ClassVar[bool] = False

    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0, **parameters: Any) -> None:
        super().__init__(**parameters)
        check_reduction(reduction)
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        **supplied: Any,
    ) -> Tensor:
        """Return the loss of predicted boxes against targets.

        Args:
            pred: boxes `xyxy`, shape `(..., 4)`.
            target: of the same shape.
            weight: one a pair, or of the boxes' shape, where the mean over the four is taken.
            avg_factor: what `mean` divides by in place of the number of pairs.
            reduction_override: used in place of the module's reduction.
            **supplied: what the formula needs of the scene, such as `image_wh`.

        Raises:
            ValueError: on an unknown reduction or shapes that do not fit.
        """
        reduction = check_reduction(self.reduction, reduction_override)
        if weight is not None and weight.dim() > 1 and weight.shape == pred.shape:
            weight = weight.mean(-1)
        loss = self.pairs(*upcast(pred, target), **supplied)
        return self.loss_weight * reduce_loss(loss, weight, reduction, avg_factor)

    def pairs(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss of every pair, in float32 or more; `supplied` holds what the formula may ask of the scene."""
        return type(self).formula(pred, target, **self.arguments(supplied))

    @property
    def wanted(self) -> frozenset[str]:
        """What this loss is to be supplied with of `stride`, `image_wh` and `floor`."""
        taken = {*formula_arguments(type(self).formula), *inspect.signature(type(self).pairs).parameters}
        return frozenset(taken & {"stride", "image_wh", "floor"})

    @property
    def iou_share(self) -> float:
        """Share of the IoU in the loss: what modifiers put in its place counts as much."""
        return 1.0

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return what the formula is supplied with in this step; a loss with state updates it here, in training."""
        return {}


class BoxModifier(LossModule):
    """What is written in front of a box loss's name and changes a part of it; a subclass says which.

    Args:
        **parameters: the declared parameters, by name.

    Attributes:
        bases: the losses that it goes in front of; `None`: every axis-aligned one.
        position: its place in the canonical name, outermost first; what stands further in acts first.

    Raises:
        TypeError: on a parameter that is not declared.
        ValueError: on one out of range.
    """

    bases: ClassVar[tuple[str, ...] | None] = None
    position: ClassVar[int] = 100

    @classmethod
    def fits(cls, base: str, rotated: bool) -> bool:
        """Return whether this goes in front of a box loss, given its name and whether its boxes are rotated."""
        return not rotated if cls.bases is None else base in cls.bases

    def overlap(self, iou: Tensor, pred: Tensor, target: Tensor) -> Tensor:
        """Return what takes the place of the overlap `iou` of these boxes."""
        return iou

    def penalty(self, term: Tensor) -> Tensor:
        """Return what takes the place of a penalty; only for losses with `terms`."""
        return term

    def result(self, loss: Tensor, iou: Tensor) -> Tensor:
        """Return what takes the place of the whole loss, given the plain IoU."""
        return loss


class ModifiedBoxLoss(BoxLoss):
    """A box loss with modifiers: `L = L_X + I - I'`, I' what the modifiers put in the place of the IoU I.

    Of the modifiers those further in act first: `I' = focaler(inner(I))`. The base loss's penalties, and CIoU's a, are
    those of the plain I. In `L_X`, 1 - I stands once, or as often as the base's `iou_share` says; so it does where the
    base multiplies it by something (`wiou`, `piou2`), as the papers of Inner-IoU and Focaler-IoU define it.

    Args:
        base: the loss X.
        modifiers: in any order.
        reduction: `mean`, `sum` or `none`.
        loss_weight: a factor on the result.

    Raises:
        ValueError: if a modifier is repeated or does not fit the base, or on an unknown reduction.
    """

    def __init__(
        self, base: BoxLoss, modifiers: Sequence[BoxModifier], *, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        names = [modifier.registered_name for modifier in modifiers]
        for modifier in modifiers:
            name = modifier.registered_name
            if names.count(name) > 1:
                raise ValueError(f"the modifier '{name}_' is repeated")
            if not modifier.fits(base.registered_name, base.rotated):
                fitting = "axis-aligned losses" if modifier.bases is None else ", ".join(modifier.bases)
                raise ValueError(f"'{name}_' goes in front of {fitting}, not of '{base.registered_name}'")
        self.base = base
        ordered: list[BoxModifier] = sorted(modifiers, key=lambda modifier: modifier.position)
        self.modifiers = nn.ModuleList(ordered)

    def extra_repr(self) -> str:
        """Return the parts with their parameters for `print(module)`."""
        parts = [*self.modifiers, self.base]
        return " of ".join(f"{type(part).__name__}({part.extra_repr()})" for part in parts)

    @property
    def wanted(self) -> frozenset[str]:
        """What the base loss is to be supplied with."""
        return self.base.wanted

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return what the base loss is supplied with in this step."""
        return self.base.prepare(step)

    def pairs(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss of every pair, in float32 or more."""
        pred, target = upcast(pred, target)
        modifiers = cast("list[BoxModifier]", [*self.modifiers][::-1])
        terms = type(self.base).terms
        penalties: list[Tensor] = []
        if terms is None:
            iou = overlap(corners(pred), corners(target))
        else:
            iou, *penalties = terms(pred, target, **self.base.arguments(supplied))
        instead = iou
        for modifier in modifiers:
            instead = modifier.overlap(instead, pred, target)
            penalties = [modifier.penalty(penalty) for penalty in penalties]
        if terms is None:
            loss = self.base.pairs(pred, target, **supplied)
            if instead is not iou:
                loss = loss + self.base.iou_share * (iou - instead)
        else:
            loss = total((instead, *penalties))
        for modifier in modifiers:
            loss = modifier.result(loss, iou)
        return loss
