"""The public functions: a formula with checks, reduction and computation in single precision or more around it.

A formula is a function of two tensors and its parameters that returns the loss per element, per pair or per mask.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

from torch import Tensor

from yolo_losses.losses._reduction import check_reduction, reduce_loss, upcast
from yolo_losses.registry.parameters import annotated_parameters

Formula = Callable[..., Tensor]


class Family(NamedTuple):
    """What the losses of one family have in common.

    Attributes:
        items: plural noun for what has one loss each, such as `pairs`.
        weight: the shapes that `weight` may have, for the docstrings.
        check: raises a `ValueError` if two tensors, given with their names, do not fit.
    """

    items: str
    weight: str
    check: Callable[[str, Tensor, str, Tensor], None]


def check_same_shape(first: str, a: Tensor, second: str, b: Tensor) -> None:
    """Raise a `ValueError` if two tensors differ in shape."""
    if a.shape != b.shape:
        raise ValueError(
            f"'{second}' of shape {tuple(b.shape)} does not fit '{first}' of shape {tuple(a.shape)}:"
            " both must have the same shape"
        )


ELEMENTS = Family("elements", "of the logits' shape, of its leading dimensions, flat, or per class.", check_same_shape)

_CONVENTION = (
    inspect.Parameter("weight", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Tensor | None),
    inspect.Parameter("reduction", inspect.Parameter.KEYWORD_ONLY, default="none", annotation=str),
    inspect.Parameter("avg_factor", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=float | Tensor | None),
)


def loss_function(family: Family) -> Callable[[Formula], Formula]:
    """Return a decorator that makes a public function of a formula.

    It adds the arguments `weight`, `reduction` and `avg_factor`, also to the docstring, checks shapes and ranges, and
    computes in float32, or in float64 if one of the tensors has it.
    """

    def decorate(formula: Formula) -> Formula:
        names = list(inspect.signature(formula).parameters)
        first_name, second_name = names[:2]
        declared = annotated_parameters(formula)

        @functools.wraps(formula)
        def loss(
            *args: Any,
            weight: Tensor | None = None,
            reduction: str = "none",
            avg_factor: float | Tensor | None = None,
            **kwargs: Any,
        ) -> Tensor:
            check_reduction(reduction)
            # The two tensors may be keyword arguments as well: focal_loss(logits=..., targets=...).
            given = [*args, *(kwargs.pop(name) for name in names[len(args) : 2] if name in kwargs)]
            if len(given) < 2:
                raise TypeError(f"{formula.__name__}() missing required arguments: {first_name} and {second_name}")
            first, second, *rest = given
            family.check(first_name, first, second_name, second)
            for name, value in (*zip(names[2:], rest, strict=False), *kwargs.items()):
                if isinstance(value, float | int | str) and name in declared:
                    declared[name].check(value)
            return reduce_loss(formula(*upcast(first, second), *rest, **kwargs), weight, reduction, avg_factor)

        loss.__signature__ = _with_convention(formula)  # type: ignore[attr-defined]
        loss.__doc__ = _documented(formula.__doc__, family)
        return loss

    return decorate


def plain_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return a function's signature with its annotations evaluated, `Annotated[float, ...]` as `float`."""
    hints = get_type_hints(inspect.unwrap(function))
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=hints.get("return", signature.return_annotation))


def _with_convention(formula: Formula) -> inspect.Signature:
    signature = plain_signature(formula)
    own = [p for p in _CONVENTION if p.name not in signature.parameters]
    return signature.replace(parameters=[*signature.parameters.values(), *own])


def _documented(doc: str | None, family: Family) -> str | None:
    """Return a docstring with the arguments that the decorator adds, at the end of its section `Args`."""
    added = (
        f"        weight: {family.weight}\n"
        "        reduction: `none`, `mean` or `sum`.\n"
        f"        avg_factor: divisor of `mean`, in place of the number of {family.items}.\n"
    )
    return doc and re.sub(r"(?<=\n)    Args:\n(?:        .*\n)+", lambda args: args[0] + added, doc, count=1)


@functools.cache
def formula_arguments(formula: Formula) -> tuple[str, ...]:
    """Return the names of a formula's arguments after the two tensors, without those of the reduction."""
    parameters = list(inspect.signature(formula).parameters.values())[2:]
    return tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
