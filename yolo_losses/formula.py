"""What a loss is made of: a formula with the shared arguments around it, and declared parameters.

Class and box losses alike: a formula is a function of two tensors and its parameters, one value an element or a pair.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from yolo_losses import registry
from yolo_losses.reduction import check_reduction, reduce_loss, upcast

Formula = Callable[..., Tensor]

_CONVENTION = (
    inspect.Parameter("weight", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Tensor | None"),
    inspect.Parameter("reduction", inspect.Parameter.KEYWORD_ONLY, default="none", annotation="str"),
    inspect.Parameter("avg_factor", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="float | None"),
)


def with_reduction(formula: Formula) -> Formula:
    """Give a formula, one value an element, the arguments `weight`, `reduction` and `avg_factor`, and fp32 inside."""
    signature = inspect.signature(formula)
    own = tuple(p for p in _CONVENTION if p.name not in signature.parameters)

    @functools.wraps(formula)
    def loss(
        first: Tensor,
        second: Tensor,
        *args: Any,
        weight: Tensor | None = None,
        reduction: str = "none",
        avg_factor: float | None = None,
        **kwargs: Any,
    ) -> Tensor:
        check_reduction(reduction)
        return reduce_loss(formula(*upcast(first, second), *args, **kwargs), weight, reduction, avg_factor)

    # The named arguments of the formula may also come by name: focal_loss(logits=..., targets=...).
    names = list(signature.parameters)[:2]

    @functools.wraps(formula)
    def by_name(*args: Any, **kwargs: Any) -> Tensor:
        return loss(*args, *[kwargs.pop(name) for name in names[len(args) :] if name in kwargs], **kwargs)

    parameters = [*signature.parameters.values(), *own]
    by_name.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return by_name


@functools.cache
def formula_arguments(formula: Formula) -> tuple[str, ...]:
    """Return the names of a formula's arguments after the two tensors."""
    return tuple(inspect.signature(inspect.unwrap(formula)).parameters)[2:]


def formula_parameters(formula: Formula) -> list[str]:
    """Return those of them that are parameters, not supplied by the step."""
    return [name for name in formula_arguments(formula) if name not in registry.SUPPLIED_ARGUMENTS]


def declared_names(module: type) -> list[str]:
    """Return the names of the declared parameters of a module class."""
    return [p.name for p in registry.declared_parameters(getattr(module, "registered_name", "") or "loss", module)]


def set_parameters(module: nn.Module, given: Mapping[str, Any]) -> None:
    """Set the declared parameters as attributes, from `given` or their defaults, each checked against its range."""
    kind = type(module)
    declared = list(registry.declared_parameters(getattr(kind, "registered_name", "") or "loss", kind))
    unknown = set(given).difference(p.name for p in declared)
    if unknown:
        names = ", ".join(p.name for p in declared) or "none"
        raise TypeError(f"{kind.__name__} has no parameter '{sorted(unknown)[0]}'; its own are: {names}")
    for parameter in declared:
        value = given.get(parameter.name)
        if value is None and parameter.name in given:
            value = parameter.limits.off  # as in the function, where `None` is not the default but off
        setattr(module, parameter.name, parameter.parse(value))
    check = getattr(kind, "check_parameters", None)
    if check is not None:
        check({p.key: getattr(module, p.name) for p in declared})


def describe_parameters(module: nn.Module) -> str:
    """Return a module's parameters as `gamma=1.5, alpha=0.25`."""
    return ", ".join(f"{name}={getattr(module, name)}" for name in declared_names(type(module)))
