"""Replacements of the stock parts of a criterion, shared by all kinds of heads."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from yolo_losses.config import class_weights
from yolo_losses.config.settings import KEYS, LossSettings


class Part:
    """Replaces a stock part of a criterion. Attributes of the stock part can be read and set through it.

    A copy has the same branch, since NaN recovery rebuilds the EMA by a deep copy. A pickle is that of the stock part:
    a checkpoint that contains a criterion also loads without this package.
    """

    def __init__(self, stock: Any, branch: Any) -> None:
        self.__dict__.update(stock=stock, branch=branch)

    def record(self, term: str, output: Tensor) -> Tensor:
        """Record in the branch that the part of a term was called, and return its output."""
        result: Tensor = self.branch.record(term, output)
        return result

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
    """Return a context that disables autocast on a tensor's device: sums and powers overflow in half precision."""
    try:
        return torch.autocast(tensor.device.type, enabled=False)
    except RuntimeError:  # this torch has no autocast for the device, such as Metal in 2.3
        return contextlib.nullcontext()


def put(owner: Any, name: str, part: Any) -> None:
    """Set a part as an attribute of its owner, which may be an `nn.Module`."""
    # A child of an nn.Module can only be replaced by a module, and does not hide a method of the class.
    getattr(owner, "_modules", {}).pop(name, None)
    if isinstance(part, nn.Module) and hasattr(type(owner), name):
        owner.__dict__[name] = part
    else:
        setattr(owner, name, part)


def with_globals(function: Any, replaced: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a copy of a function in which some global names are replaced."""
    body = FunctionType(
        function.__code__,
        {**function.__globals__, **replaced},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    body.__kwdefaults__ = function.__kwdefaults__
    return body


def functional_with(**replaced: Callable[..., Any]) -> SimpleNamespace:
    """Return a namespace like `torch.nn.functional` in which some functions are replaced."""
    return SimpleNamespace(**{**vars(nn.functional), **replaced})


def put_back(owner: Any, name: str) -> None:
    """Restore the stock part: an attribute of the owner, a module in it, or a method of its class."""
    part = vars(owner).get(name)
    if isinstance(part, Part):
        del vars(owner)[name]
        if getattr(owner, name, None) != part.stock:  # not a method of the class
            put(owner, name, part.stock)


@torch.no_grad()
def bce_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of BCE, computed image by image so that the first batch needs no more memory than the others."""
    pairs = zip(logits.detach(), targets, strict=True)
    sums = [nn.functional.binary_cross_entropy_with_logits(z.float(), t.float(), reduction="sum") for z, t in pairs]
    return torch.stack(sums).sum() if sums else logits.new_zeros(())


def check_term(criterion: Any, settings: LossSettings, term: str, part: str) -> None:
    """Raise a `ValueError` if a term was chosen that a criterion does not have."""
    if term in settings.terms and not hasattr(criterion, part):
        raise missing_term(type(criterion).__name__, settings, term)


def missing_term(head: str, settings: LossSettings, term: str) -> ValueError:
    """Return the error for a chosen term that the named head or criterion does not have."""
    own = {name: key for name, key in KEYS.items() if key.term == term}
    name, value = next((name, value) for name, value in settings.non_default().items() if name in own)
    allowed = " and ".join(f"{name}={key.default}" for name, key in own.items())
    return ValueError(
        f"'{name}={value}' cannot be used with {head}, which has no {term} term: allowed"
        f" {'are' if len(own) > 1 else 'is'} {allowed}"
    )


def check_class_weights(criterion: Any, settings: LossSettings) -> None:
    """Raise a `ValueError` if class weights are not one number per class, or Ultralytics also weights the classes."""
    if settings.cls_weights == class_weights.NONE:
        return
    what = class_weights.format_option(settings.cls_weights)
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


def check_attributes(criterion: Any, names: Iterable[str]) -> None:
    """Raise a `RuntimeError` if a criterion lacks one of the attributes that are to be replaced."""
    for name in names:
        if not hasattr(criterion, name):
            raise unknown_release(criterion, name)


def unknown_release(criterion: Any, missing: str) -> RuntimeError:
    """Return the error for a criterion that lacks an attribute in this Ultralytics release."""
    import ultralytics

    return RuntimeError(
        f"yolo_losses does not know this Ultralytics ({ultralytics.__version__}):"
        f" {type(criterion).__name__} has no '{missing}'"
    )
