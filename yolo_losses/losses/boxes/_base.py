"""Base of the box losses: the module, and the composition of modifiers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Family, check_same_shape, formula_arguments
from yolo_losses.losses._module import DeclaredModule, LossModule
from yolo_losses.losses._reduction import upcast
from yolo_losses.losses._step import Step
from yolo_losses.losses.boxes._geometry import Terms, corners, overlap, total

TermsFormula = Callable[..., Terms]


def register_box_loss(
    name: str, *, aliases: tuple[str, ...] = (), source: str = "", summary: str = ""
) -> Callable[[Any], Any]:
    """Register a box loss under `name`; a decorator for a formula or for a `BoxLoss`.

    A formula is a function `(pred, target, ...) -> loss per pair` of boxes `xyxy`, shape `(..., 4)`. Its further
    arguments are the loss's parameters and become the training keys `{name}_{argument}`; `image_wh` (in
    units of the stride) and `stride` (pixels per unit) are supplied by the criterion.

    Raises:
        ValueError: if the name is taken or is not an identifier, or a parameter's declaration is invalid.
    """
    return declares("box", BoxLoss, name, aliases, source, summary)


def register_modifier(
    name: str, *, aliases: tuple[str, ...] = (), source: str = "", summary: str = ""
) -> Callable[[Any], Any]:
    """Register a `BoxModifier` class under `name`, the prefix of a box loss: `{name}_ciou`."""
    return declares("modifier", BoxModifier, name, aliases, source, summary)


def check_boxes(columns: int, names: str) -> Callable[[str, Tensor, str, Tensor], None]:
    """Return a function that raises a `ValueError` unless two tensors are boxes of that many numbers, of one shape."""

    def check(first: str, a: Tensor, second: str, b: Tensor) -> None:
        if a.dim() == 0 or a.shape[-1] != columns:
            raise ValueError(
                f"'{first}' of shape {tuple(a.shape)} is not valid: allowed are boxes {names}, shape (..., {columns})"
            )
        check_same_shape(first, a, second, b)

    return check


BOXES = Family("pairs", "per pair.", check_boxes(4, "xyxy"))
ROTATED_BOXES = Family("pairs", "per pair.", check_boxes(5, "xywhr"))


class BoxLoss(LossModule):
    """Base class of box losses; see `LossModule` for its arguments.

    A subclass sets `formula`, and declares parameters beyond the formula's (such as those of state) as annotated
    attributes. A loss of the form `1 - IoU + penalties` may set `terms` too, a function of the formula's arguments that
    returns IoU and penalties; modifiers then replace that IoU. `rotated` says that its boxes are `xywhr`, shape
    `(..., 5)`, not `xyxy`, shape `(..., 4)`.
    """

    family: ClassVar[Family] = BOXES
    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"image_wh", "stride", "mean_loss", "floor"})
    terms: ClassVar[TermsFormula | None] = None
    rotated: ClassVar[bool] = False

    def inputs(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Return the boxes in float32 or float64."""
        (ROTATED_BOXES if self.rotated else BOXES).check("pred", pred, "target", target)
        return upcast(pred, target)

    def unreduced(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per pair."""
        return self.pairs(pred, target, **supplied)

    def pairs(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per pair, in float32 or float64; the formula takes what it needs from `supplied`."""
        return super().unreduced(pred, target, **supplied)

    @property
    def wanted(self) -> frozenset[str]:
        """What this loss is to be supplied with of `stride`, `image_wh` and `floor`."""
        taken = {*formula_arguments(type(self).formula), *inspect.signature(type(self).pairs).parameters}
        return frozenset(taken & {"stride", "image_wh", "floor"})

    @property
    def iou_share(self) -> float:
        """Weight of `1 - IoU` in the loss, which the IoU of the modifiers takes over."""
        return 1.0

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return what the formula is supplied with in this step; a loss with state updates it here, in training."""
        return {}


class BoxModifier(DeclaredModule):
    """A modifier of box losses: its name is a prefix of theirs, and it changes a part of the loss, as `inner_siou`.

    Args:
        *values: the declared parameters in order.
        **parameters: the declared parameters by name.

    Attributes:
        bases: the axis-aligned losses that it applies to; `None`: all.
        rotated_bases: the rotated losses that it applies to.
        position: place in the canonical name, outermost first; inner modifiers act first.

    Raises:
        TypeError: if a parameter is not declared.
        ValueError: if a parameter is out of range.
    """

    bases: ClassVar[tuple[str, ...] | None] = None
    rotated_bases: ClassVar[tuple[str, ...]] = ()
    position: ClassVar[int] = 100

    @classmethod
    def fits(cls, base: str, rotated: bool) -> bool:
        """Return whether the modifier applies to a box loss, given its name and whether its boxes are rotated."""
        if rotated:
            return base in cls.rotated_bases
        return cls.bases is None or base in cls.bases

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return what the loss is supplied with in this step; a modifier with state updates it here, in training."""
        return {}

    def overlap(self, iou: Tensor, pred: Tensor, target: Tensor) -> Tensor:
        """Return the value that replaces the IoU of these boxes."""
        return iou

    def penalty(self, term: Tensor) -> Tensor:
        """Return the value that replaces a penalty; called for losses with `terms` only."""
        return term

    def result(
        self, loss: Tensor, iou: Tensor, pred: Tensor, target: Tensor, base: str, supplied: Mapping[str, Any]
    ) -> Tensor:
        """Return the value that replaces the whole loss.

        Args:
            loss: per pair, shape `(...)`.
            iou: the plain IoU of each.
            pred: the boxes.
            target: of the same shape.
            base: the registered name of the loss without modifiers.
            supplied: the tensors supplied to the call, by name.
        """
        return loss


class ModifiedBoxLoss(BoxLoss):
    """A box loss with modifiers: `L = L_X + I - I'`, where I is the IoU and I' the modified one.

    Inner modifiers act first: `I' = focaler(inner(I))`. The penalties of the base loss, and CIoU's a, use the plain I.
    `I - I'` has weight 1, or the base's `iou_share`, even if the base multiplies 1 - I by a factor (`wiou`, `piou2`):
    the definition in the papers of Inner-IoU and Focaler-IoU.

    Args:
        base: the loss X.
        modifiers: in any order.
        reduction: `mean`, `sum` or `none`.
        loss_weight: factor on the loss.

    Raises:
        ValueError: if a modifier is repeated or does not fit the base, or the reduction is unknown.
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
                bases = ("axis-aligned losses",) if modifier.bases is None else modifier.bases
                fitting = ", ".join((*bases, *modifier.rotated_bases))
                raise ValueError(f"the modifier '{name}_' applies to {fitting}, not to '{base.registered_name}'")
        self.base = base
        ordered: list[BoxModifier] = sorted(modifiers, key=lambda modifier: modifier.position)
        self.modifiers = nn.ModuleList(ordered)

    def extra_repr(self) -> str:
        """Return modifiers and base with their parameters for `print(module)`."""
        parts = [*self.modifiers, self.base]
        return " of ".join(f"{type(part).__name__}({part.extra_repr()})" for part in parts)

    def inputs(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Return the boxes in float32 or float64."""
        return self.base.inputs(pred, target)

    @property
    def wanted(self) -> frozenset[str]:
        """What the base loss needs to be supplied with."""
        return self.base.wanted

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return what the base loss and the modifiers are supplied with in this step."""
        supplied = self.base.prepare(step)
        for modifier in self._modifiers():
            supplied |= modifier.prepare(step)
        return supplied

    def _modifiers(self) -> list[BoxModifier]:
        """Return the modifiers in the order in which they act."""
        return cast("list[BoxModifier]", [*self.modifiers][::-1])

    def pairs(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss of every pair, in float32 or more."""
        pred, target = upcast(pred, target)
        modifiers = self._modifiers()
        terms = type(self.base).terms
        penalties: list[Tensor] = []
        if terms is None:
            iou = overlap(corners(pred), corners(target))
        else:
            iou, *penalties = terms(pred, target, **self.base.arguments(supplied))
        replaced = iou
        for modifier in modifiers:
            replaced = modifier.overlap(replaced, pred, target)
            penalties = [modifier.penalty(penalty) for penalty in penalties]
        if terms is None:
            loss = self.base.pairs(pred, target, **supplied)
            if replaced is not iou:
                loss = loss + self.base.iou_share * (iou - replaced)
        else:
            loss = total((replaced, *penalties))
        for modifier in modifiers:
            loss = modifier.result(loss, iou, pred, target, self.base.registered_name, supplied)
        return loss
