"""What the criteria of every kind of head share: the parts that stand in for stock parts, and the proof that they ran.

A criterion's call is watched from outside (`watch`): before it, its parts must be in place; after a batch with
objects, each of them must have been called. So a part that was replaced, or a body that computes a term by other means,
is an error in the batch in which it happens, before the optimizer's step.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from yolo_losses import registry
from yolo_losses.config import class_weights
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria.scale import ClassScale
from yolo_losses.losses import build as factory
from yolo_losses.losses.boxes._base import BoxLoss
from yolo_losses.losses.classification._base import ClassificationLoss
from yolo_losses.losses.masks._base import MaskLoss
from yolo_losses.monitor.gather import Statistics

B = TypeVar("B", bound="Branch")


@dataclass
class Branch:
    """The losses of one branch of the head, their state, and what its calls have shown.

    Attributes:
        settings: the parsed keys.
        cls: the module of the class term; `None`: stock.
        box: the module of the box term; `None`: stock.
        seg: the module of the mask term; `None`: stock.
        scale: the running factor of `cls_scale=auto`; `None`: a fixed one.
        weights: weights of the classes, shape `(C,)`; `None`: none.
        statistics: what `loss_stats` gathers; `None`: nothing.
        expected: the swapped parts by the name of their term: `class`, `box`, `distribution`, `mask`.
        joined: whether state is joined over ranks.
        called: the terms whose part was called in the current call.
        batches: number of training calls; `validations`, of calls without gradients.
        calls: number of those with objects, in each of which every swapped part was called.
        ratios: the class term against the reference's on the same predictions, in `value` and in gradient on the
            positives, `pull`, of the first such batch.
        check_due: whether the next training call with objects compares the reported class term with what was returned.
    """

    settings: LossSettings
    cls: ClassificationLoss | None = None
    box: BoxLoss | None = None
    seg: MaskLoss | None = None
    scale: ClassScale | None = None
    weights: Tensor | None = None
    statistics: Statistics | None = None
    expected: tuple[str, ...] = ()
    joined: bool = True
    called: set[str] = field(default_factory=set)
    batches: int = 0
    validations: int = 0
    calls: int = 0
    ratios: dict[str, float] = field(default_factory=dict)
    check_due: bool = True

    reference: ClassVar[str] = "BCE"  # the stock class loss of this kind of head, for which the gains were tuned

    @classmethod
    def build(cls: type[B], settings: LossSettings, **options: Any) -> B:
        """Return a branch with modules of its own, built from the parsed keys.

        Raises:
            ValueError: where a third party's loss is not usable; it is named.
        """
        class_loss = box_loss = None
        if settings.swaps_cls:
            spec = settings.cls_spec
            class_loss = factory.build_cls_loss(spec, settings.parameters)
            if not spec.built_in:
                factory.check_cls_loss(spec, class_loss)
        if settings.swaps_box:
            modifiers, base = registry.split_box_name(settings.box_loss)
            box_loss = factory.build_box_loss(modifiers, base, settings.parameters)
            if not all(spec.built_in for spec in (*modifiers, base)):
                factory.check_box_loss(base, box_loss)
        mask_loss = settings.seg_spec.build(settings.parameters) if settings.swaps_seg else None
        scale = ClassScale() if settings.cls_scale == "auto" else None
        weights = torch.tensor(settings.cls_weights) if isinstance(settings.cls_weights, tuple) else None
        statistics = Statistics() if settings.loss_stats else None
        return cls(settings, class_loss, box_loss, mask_loss, scale, weights, statistics, **options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Branch:
        return self

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules of the swapped terms, and the running factor; their buffers are the state of the branch."""
        found = {"cls": self.cls, "box": self.box, "seg": self.seg, "scale": self.scale}
        return {term: module for term, module in found.items() if module is not None}

    @property
    def needs_image_size(self) -> bool:
        """Whether `image_size` is to be set before each batch: a loss counts in pixels that the criterion has not."""
        return False

    @property
    def cls_factor(self) -> Tensor | float:
        """The factor on the class term, a tensor on the device where it is a running one."""
        return float(self.settings.cls_scale) if self.scale is None else self.scale.factor

    def weighted(self, loss: Tensor) -> Tensor:
        """Return a class loss, whose last dimension is the classes, times their weights."""
        if self.weights is None:
            return loss
        self.weights = self.weights.to(loss.device)
        return loss * self.weights

    def begin(self) -> None:
        """Start a call of the criterion."""
        self.called.clear()

    def forget(self) -> None:
        """Drop what belongs to the call that has ended."""

    def check_deviation(self) -> None:
        """Raise where a reported term differed from the returned one in this epoch; this synchronises."""

    @property
    def proven(self) -> bool:
        """Whether every swapped part was called in a batch with objects, and its class term compared."""
        return self.calls > 0 and (self.cls is None or bool(self.ratios))


class Part:
    """A part in place of a stock part, whose attributes stay readable and settable through it.

    A copy is a part with the same branch (NaN recovery rebuilds the EMA by a deep copy); a pickle is the stock part's,
    so that a checkpoint that holds a criterion loads where this package is not installed.
    """

    def __init__(self, stock: Any, branch: Any) -> None:
        self.__dict__.update(stock=stock, branch=branch)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__dict__["stock"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["stock"], name, value)

    def __copy__(self) -> Part:
        return type(self)(self.__dict__["stock"], self.__dict__["branch"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Part:
        return type(self)(copy.deepcopy(self.__dict__["stock"], memo), self.__dict__["branch"])

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (self.__dict__["stock"],)


def full_precision(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return a context without autocast on a tensor's device, for what a sum or a power in half precision overflows."""
    try:
        return torch.autocast(tensor.device.type, enabled=False)
    except RuntimeError:  # a device that this torch has no autocast for, such as Metal in 2.3
        return contextlib.nullcontext()


def put(owner: Any, name: str, part: Any) -> None:
    """Set a part on its owner, which may be an `nn.Module`."""
    # In an nn.Module, a child cannot be replaced by something that is none, nor hide a method of the class.
    getattr(owner, "_modules", {}).pop(name, None)
    if isinstance(part, nn.Module) and hasattr(type(owner), name):
        owner.__dict__[name] = part
    else:
        setattr(owner, name, part)


def objects_in(*candidates: Any) -> int | None:
    """Return the number of objects of a batch, found among a criterion's arguments; `None` where there is no batch."""
    for candidate in candidates:
        if isinstance(candidate, Mapping) and isinstance(candidate.get("cls"), Tensor):
            return len(candidate["cls"])
    return None


def watch(
    criterion: Any,
    branch: Branch,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    no_positives: Callable[[], bool],
) -> Any:
    """Call a criterion and check that every swapped part was called.

    Args:
        criterion: named in errors.
        branch: its branch.
        call: its own body.
        args: the body's arguments.
        kwargs: the body's keyword arguments.
        no_positives: whether the batch had objects but no positives, where the box and distribution terms may be
            skipped. It may synchronise: it is asked where one of the two was not called.

    Raises:
        RuntimeError: where a swapped part was not called in a batch with objects.
    """
    branch.begin()
    objects = objects_in(*args, *kwargs.values())
    if torch.is_grad_enabled():
        branch.batches += 1
    else:
        branch.validations += 1
    result = call(*args, **kwargs)
    if objects == 0:
        return result
    missing = [term for term in branch.expected if term not in branch.called]
    if missing and not (set(missing) <= {"box", "distribution", "mask"} and no_positives()):
        raise RuntimeError(not_called(criterion, branch, missing[0]))
    if objects and not missing and torch.is_grad_enabled():
        branch.calls += 1
    return result


TERM_CHOICE = {"class": "cls_loss", "box": "box_loss", "distribution": "dfl_loss", "mask": "seg_loss"}


def not_called(criterion: Any, branch: Branch, term: str) -> str:
    """Return the message for a swapped part that a criterion did not call."""
    kind = type(criterion)
    key = TERM_CHOICE[term]
    return (
        f"yolo_losses: {kind.__module__}.{kind.__qualname__} computed its {term} term without the part that holds"
        f" {key}={getattr(branch.settings, key)}, which did not run: a subclass or a fork computes it by other means."
        f" Remove that change, or leave {key} at stock"
    )


def differs(criterion: Any, branch: Branch, term: str) -> str:
    """Return the message for a term that is not made of what the swapped part returned."""
    kind = type(criterion)
    key = TERM_CHOICE[term]
    return (
        f"yolo_losses: the {term} term that {kind.__module__}.{kind.__qualname__} reports differs from what the part"
        f" that holds {key}={getattr(branch.settings, key)} returned: a subclass or a fork adds to it or replaces it."
        f" Remove that change, or leave {key} at stock"
    )


def replaced(criterion: Any, name: str, part: Any) -> RuntimeError:
    """Return the error for a part that was replaced after set-up."""
    return RuntimeError(
        f"yolo_losses: '{name}' of {type(criterion).__name__} was replaced after set-up by a"
        f" {type(part).__name__}, with which the chosen loss would not run: remove the code that replaces it"
    )


@torch.no_grad()
def bce_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of BCE, an image at a time: the first batch is to need no more memory than the others."""
    pairs = zip(logits.detach(), targets, strict=True)
    sums = [nn.functional.binary_cross_entropy_with_logits(z.float(), t.float(), reduction="sum") for z, t in pairs]
    return torch.stack(sums).sum() if sums else logits.new_zeros(())


def check_class_weights(criterion: Any, settings: LossSettings) -> None:
    """Raise a `ValueError` where class weights are not numbers, one per class, or Ultralytics weights classes too."""
    if settings.cls_weights == class_weights.NONE:
        return
    what = class_weights.written(settings.cls_weights)
    if settings.cls_weights == class_weights.BALANCED:
        raise ValueError(
            f"{what} needs the labels of the training set, which a criterion does not know: pass a list, such as"
            " yolo_losses.functional.class_balanced_weights(counts)"
        )
    if not isinstance(settings.cls_weights, tuple):
        raise ValueError(f"{what} names classes, which a criterion does not know: pass a list, one number per class")
    classes = getattr(criterion, "nc", None)
    if classes is not None and len(settings.cls_weights) != classes:
        raise ValueError(f"{what} is not valid: allowed are as many numbers as there are classes, {classes}")
    if getattr(criterion, "class_weights", None) is not None:
        raise ValueError(f"{what} cannot be used together with cls_pw, which weights the classes too: allowed is one")


def unknown_release(criterion: Any, missing: str) -> RuntimeError:
    """Return the error for a criterion of an Ultralytics release that lacks a part."""
    import ultralytics

    return RuntimeError(
        f"yolo_losses does not know this Ultralytics ({ultralytics.__version__}):"
        f" {type(criterion).__name__} has no '{missing}'"
    )
