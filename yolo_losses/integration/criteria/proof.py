"""The proof that the parts of a criterion with anchors ran, and that its terms are made of what they returned.

The class of an equipped criterion is changed to one whose calls are watched from outside, its body left alone.
"""

from __future__ import annotations

import copy
import copyreg
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from yolo_losses.integration.criteria import masks, parts
from yolo_losses.integration.criteria.anchor_parts import (
    TOLERANCE,
    AnchorBranch,
    AssignerPart,
    BoxPart,
    DistributionPart,
    distribution_name,
)
from yolo_losses.integration.criteria.class_part import ClassPart
from yolo_losses.integration.criteria.parts import Branch
from yolo_losses.monitor.gather import has_prompts, named_terms

WITHIN = "get_assigned_targets_and_loss"  # the body of releases from 8.4.0 on
LOGGED = {"class": "cls_loss", "box": "box_loss"}


class Watched:
    """Mixed into a criterion's class as it is equipped: its calls are watched, its pickle is the stock class's."""

    yolo_losses_branch: AnchorBranch

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in self.__dict__.items() if not _holds_branches(value)}
        # `copyreg.__newobj__` insists on the class of the object itself.
        return copyreg._reconstructor, (stock_class(type(self)), object, None), state  # type: ignore[attr-defined]

    def __copy__(self) -> Any:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        other = memo[id(self)] = object.__new__(type(self))
        other.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return other


def _holds_branches(value: Any) -> bool:
    return isinstance(value, Branch) or (
        isinstance(value, dict) and any(isinstance(each, Branch) for each in value.values())
    )


@functools.cache
def watched_class(kind: type) -> type:
    """Return the class of criteria of a kind whose calls are watched; named as the kind itself."""

    def watched(name: str) -> Any:
        @functools.wraps(getattr(kind, name))
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            # The body is looked up at each call: the method may have been replaced since.
            return _watched(self, name, functools.partial(getattr(kind, name), self), args, kwargs)

        return call

    # Releases from 8.4.0 on call `loss` for each branch of a head; subclasses may call what is within.
    entries = ("__call__", "loss", WITHIN)
    methods = {name: watched(name) for name in entries if hasattr(kind, name)}
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (Watched, kind), {**names, **methods})


def unwatched_class(kind: type) -> type:
    """Return the class that a criterion had before it was equipped."""
    return kind.__mro__[2] if Watched in kind.__bases__ else kind


def stock_class(kind: type) -> type:
    """Return the class that a criterion's pickle is of."""
    return getattr(unwatched_class(kind), "stock_class", unwatched_class(kind))


def _watched(criterion: Any, entry: str, body: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a criterion's body and prove that its parts ran, and that its terms are made of what they returned."""
    branch: AnchorBranch = criterion.yolo_losses_branch
    if branch.running is not None:  # `__call__` has called `loss`
        return body(*args, **kwargs)
    check_in_place(criterion)
    branch.running = criterion
    statistics = branch.statistics
    if statistics is not None:
        statistics.begin()
    try:

        def no_positives() -> bool:
            return branch.assignment is not None and not bool(branch.assignment.mask.any())

        def call() -> Any:
            return parts.watch(criterion, branch, body, args, kwargs, no_positives)

        result = call()
        compared = bool(branch.returned) and branch.compares
        if compared and _is_finite(result):  # else the next batch is compared
            differs = _term_that_differs(criterion, branch, result, entry)
            if differs:
                raise RuntimeError(parts.differs(criterion, branch, differs))
            branch.check_due = False
        if statistics is not None and statistics.measuring:
            statistics.end(named_terms(result[-1]), by_class=not has_prompts(*args, *kwargs.values()))
        return result
    finally:
        branch.forget()


def check_in_place(criterion: Any) -> None:
    """Raise a `RuntimeError` where a part of an equipped criterion was replaced after set-up."""
    for owner, name, kind in _places(criterion, criterion.yolo_losses_branch):
        part = getattr(owner, name, None)
        if not isinstance(part, kind):
            raise parts.replaced(criterion, name, part)


def _places(criterion: Any, branch: AnchorBranch) -> Iterator[tuple[Any, str, type]]:
    """Yield where the parts of an equipped criterion are."""
    if branch.expected:
        yield criterion, "assigner", AssignerPart
    if "class" in branch.expected:
        yield criterion, "bce", ClassPart
    if "box" in branch.expected:
        yield criterion, "bbox_loss", BoxPart
    if "distribution" in branch.expected:
        box = getattr(criterion.bbox_loss, "stock", criterion.bbox_loss)
        yield box, distribution_name(box), DistributionPart
    if "mask" in branch.expected:
        yield criterion, masks.METHOD, masks.MaskPart


def _term_that_differs(criterion: Any, branch: AnchorBranch, result: Any, entry: str) -> str:
    """Return the term of a criterion that is not made of what its part returned; "" where there is none.

    What a term owes to a part is the part's result times the loss's derivative by it: that must be the term that is
    reported.
    """
    at = branch.assignment
    assert at is not None
    loss, items = result[-2], result[-1]
    images = 1 if entry == WITHIN else len(at.scores)
    total = loss.sum()
    logged = items if isinstance(items, Mapping) else dict(enumerate(items))
    values = {name: float(value) for name, value in logged.items()}
    for term, tensor in branch.returned.items():
        if not tensor.requires_grad:
            continue
        (share,) = torch.autograd.grad(total, tensor, retain_graph=True, allow_unused=True)
        own = (tensor if term == "class" else tensor - 1).detach()  # the box part returns 1 - loss
        owed = 0.0 if share is None else float((own * share).sum()) / images
        key = LOGGED[term]
        names = [key] if key in values else [] if isinstance(items, Mapping) else list(values)
        found = [name for name in names if close(values[name], owed) or close(values[name], owed * images)]
        if names and not found:
            return term
    return ""


def _is_finite(result: Any) -> bool:
    """Return whether what a criterion returned is finite: a batch that overflowed says nothing."""
    loss, items = result[-2], result[-1]
    values = items.values() if isinstance(items, Mapping) else items
    return all(math.isfinite(float(value)) for value in (loss.detach().sum(), *values))


def close(value: float, wanted: float) -> bool:
    """Return whether a logged value is the wanted one, but for the precision of the log."""
    return abs(value - wanted) <= TOLERANCE * max(abs(wanted), 1e-6)
