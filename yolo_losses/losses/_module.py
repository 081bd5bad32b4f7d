"""Formulas and modules: reduction around a formula, and a module with the formula's declared parameters.

A formula is a function of two tensors and its parameters that returns the loss per element, per pair or per mask.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from yolo_losses.losses._reduction import check_reduction, reduce_loss, upcast
from yolo_losses.registry.parameters import Parameter, annotated_parameters, attribute_parameters, formula_parameters

Formula = Callable[..., Tensor]

_CONVENTION = (
    inspect.Parameter("weight", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Tensor | None"),
    inspect.Parameter("reduction", inspect.Parameter.KEYWORD_ONLY, default="none", annotation="str"),
    inspect.Parameter("avg_factor", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="float | None"),
)


def with_reduction(formula: Formula) -> Formula:
    """Add the arguments `weight`, `reduction` and `avg_factor`, computation in float32 or float64, and range checks."""
    signature = inspect.signature(formula)
    names = list(signature.parameters)

    declared = annotated_parameters(formula)

    @functools.wraps(formula)
    def loss(
        *args: Any,
        weight: Tensor | None = None,
        reduction: str = "none",
        avg_factor: float | None = None,
        **kwargs: Any,
    ) -> Tensor:
        check_reduction(reduction)
        # The two tensors may be keyword arguments as well: focal_loss(logits=..., targets=...).
        given = [*args, *(kwargs.pop(name) for name in names[len(args) : 2] if name in kwargs)]
        if len(given) < 2:
            raise TypeError(f"{formula.__name__}() missing required arguments: {names[0]} and {names[1]}")
        first, second, *rest = given
        for name, value in (*zip(names[2:], rest, strict=False), *kwargs.items()):
            if isinstance(value, float | int | str) and name in declared:
                declared[name].check(value)
        return reduce_loss(formula(*upcast(first, second), *rest, **kwargs), weight, reduction, avg_factor)

    own = [p for p in _CONVENTION if p.name not in signature.parameters]
    loss.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *own]
    )
    return loss


@functools.cache
def formula_arguments(formula: Formula) -> tuple[str, ...]:
    """Return the names of a formula's arguments after the two tensors, without those of the reduction."""
    parameters = list(inspect.signature(formula).parameters.values())[2:]
    return tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)


class LossModule(nn.Module):
    """Base of the loss modules: a formula whose declared parameters are the module's attributes.

    Args:
        **parameters: the declared parameters, by name.

    Raises:
        TypeError: on an undeclared parameter.
        ValueError: on a parameter out of range.
    """

    formula: ClassVar[Any] = None
    registered_name: ClassVar[str] = ""
    supplied_arguments: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, **parameters: Any) -> None:
        super().__init__()
        declared = {p.name: p for p in type(self).declared()}
        unknown = set(parameters).difference(declared)
        if unknown:
            names = ", ".join(declared) or "none"
            raise TypeError(f"{type(self).__name__} has no parameter '{min(unknown)}'; its own are: {names}")
        for name, parameter in declared.items():
            value = parameters.get(name, parameter.default)
            if value is None:
                value = parameter.limits.off  # as in the function, where `None` switches the parameter off
            # Training keys have been parsed by now; what a caller writes by hand has not.
            setattr(self, name, value if parameter.is_valid(value) else parameter.parse(value))
        self.check_parameters({p.key: getattr(self, p.name) for p in declared.values()})
        # Kept here because `torch.compile` traces through `functools.cache`.
        kind: Any = type(self)
        self._own, self._taken = _argument_names(kind)

    @classmethod
    def declared(cls, prefix: str = "") -> list[Parameter]:
        """Return the declared parameters: the formula's arguments, then the annotated attributes."""
        prefix = prefix or f"{cls.registered_name or 'loss'}_"
        found: list[Parameter] = []
        if cls.formula is not None:
            found += formula_parameters(cls.formula, prefix, cls.supplied_arguments)
        return [*found, *attribute_parameters(cls, prefix)]

    def arguments(self, supplied: Mapping[str, Any]) -> dict[str, Any]:
        """Return the formula's arguments: this module's parameters, and those of `supplied` that the formula takes."""
        known = {name: supplied[name] for name in self._taken if name in supplied}
        return {**{name: getattr(self, name) for name in self._own}, **known}

    @classmethod
    def check_parameters(cls, values: Mapping[str, Any]) -> None:
        """Raise a `ValueError` on an invalid combination of parameters, given by key."""

    def extra_repr(self) -> str:
        """Return the parameters for `print(module)`: `gamma=1.5, alpha=0.25`."""
        return ", ".join(f"{p.name}={getattr(self, p.name)}" for p in type(self).declared() if p.limits.used)


@functools.cache
def _argument_names(module: type[LossModule]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of those arguments of a module's formula that are its parameters, and of all of them."""
    if module.formula is None:
        return (), ()
    own = formula_parameters(module.formula, "loss_", module.supplied_arguments)
    return tuple(p.name for p in own), formula_arguments(module.formula)
