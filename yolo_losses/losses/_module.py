"""The modules: a formula whose declared parameters are the module's attributes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from yolo_losses.losses._function import ELEMENTS, Family, Formula, formula_arguments, plain_signature
from yolo_losses.losses._reduction import check_reduction, reduce_loss, upcast
from yolo_losses.registry.parameters import Parameter, attribute_parameters, formula_parameters


class _Signature:
    """The signature of a module class, which names the declared parameters that `__init__` takes as a whole."""

    def __get__(self, instance: Any, owner: type[DeclaredModule]) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")
        signature = inspect.signature(owner.__init__, eval_str=True)
        parameters = list(signature.parameters.values())[1:]
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            # `__init__` only passes its arguments on: the declared parameters, then the options of the base classes.
            inits = (vars(base)["__init__"] for base in reversed(owner.__mro__) if "__init__" in vars(base))
            found = [p for init in inits for p in inspect.signature(init, eval_str=True).parameters.values()]
            parameters = [*owner.init_parameters(), *{p.name: p for p in found if p.kind is p.KEYWORD_ONLY}.values()]
        return signature.replace(parameters=parameters)


class DeclaredModule(nn.Module):
    """Base of losses and modifiers: a module whose attributes are parameters that are declared once, with their ranges.

    They are the parameters of the class's `formula`, if it has one, and its attributes annotated with `Param`.

    Args:
        *values: the declared parameters in order.
        **parameters: the declared parameters by name.

    Raises:
        TypeError: if a parameter is not declared.
        ValueError: if a parameter is out of range.
    """

    formula: ClassVar[Any] = None
    registered_name: ClassVar[str] = ""
    supplied_arguments: ClassVar[frozenset[str]] = frozenset()
    __signature__: ClassVar[Any] = _Signature()

    def __init__(self, *values: Any, **parameters: Any) -> None:
        super().__init__()
        declared = {p.name: p for p in type(self).declared()}
        name = type(self).__name__
        if len(values) > len(declared):
            raise TypeError(f"{name} takes {len(declared)} parameters by position, not {len(values)}")
        positional = dict(zip(declared, values, strict=False))
        if twice := positional.keys() & parameters:
            raise TypeError(f"{name} got two values of the parameter '{min(twice)}'")
        parameters |= positional
        if unknown := parameters.keys() - declared:
            raise TypeError(f"{name} has no parameter '{min(unknown)}'; its own are: {', '.join(declared) or 'none'}")
        for parameter in declared.values():
            value = parameters.get(parameter.name, parameter.default)
            if value is None:
                value = parameter.limits.off  # as in the function, where `None` switches the parameter off
            if not parameter.is_valid(value):  # training keys have been parsed by now; a caller's values have not
                parameter.check(value)
                value = parameter.parse(value)
            setattr(self, parameter.name, value)
        self.check_parameters({name: getattr(self, name) for name in declared})
        # Kept here because `torch.compile` traces through `functools.cache`.
        kind: Any = type(self)
        self._own, self._taken = _argument_names(kind)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled module; a parameter that was declared since has its default."""
        super().__setstate__({**{p.name: p.default for p in type(self).declared()}, **state})

    @classmethod
    def declared(cls, prefix: str = "") -> list[Parameter]:
        """Return the declared parameters: the formula's arguments, then the annotated attributes."""
        prefix = prefix or f"{cls.registered_name or 'loss'}_"
        found: list[Parameter] = []
        if cls.formula is not None:
            found += formula_parameters(cls.formula, prefix, cls.supplied_arguments)
        return [*found, *attribute_parameters(cls, prefix)]

    @classmethod
    def init_parameters(cls) -> list[inspect.Parameter]:
        """Return the declared parameters as `__init__` takes them, with the formula's types and defaults."""
        formula = {} if cls.formula is None else plain_signature(cls.formula).parameters
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return [
            formula.get(p.name) or inspect.Parameter(p.name, kind, default=p.default, annotation=p.type)
            for p in cls.declared()
        ]

    def arguments(self, supplied: Mapping[str, Any]) -> dict[str, Any]:
        """Return the formula's arguments: this module's parameters, and those of `supplied` that the formula takes."""
        known = {name: supplied[name] for name in self._taken if name in supplied}
        return {**{name: getattr(self, name) for name in self._own}, **known}

    @classmethod
    def check_parameters(cls, values: Mapping[str, Any], prefix: str = "") -> None:
        """Raise a `ValueError` if parameters contradict each other.

        Args:
            values: all parameters by name.
            prefix: prefix of the names in the message, such as that of the training keys.
        """

    def extra_repr(self) -> str:
        """Return the parameters for `print(module)`: `gamma=1.5, alpha=0.25`."""
        return ", ".join(f"{p.name}={getattr(self, p.name)}" for p in type(self).declared() if p.limits.used)


class LossModule(DeclaredModule):
    """A loss as a module, with MMDetection's calling convention.

    A subclass sets `formula`, and declares parameters beyond the formula's (such as those of state) as annotated
    attributes.

    Args:
        *values: the declared parameters in order.
        reduction: `mean`, `sum` or `none`.
        loss_weight: factor on the loss.
        **parameters: the declared parameters by name.

    Raises:
        TypeError: if a parameter is not declared.
        ValueError: if a parameter is out of range, or the reduction is unknown.
    """

    formula: ClassVar[Formula]
    family: ClassVar[Family] = ELEMENTS

    def __init__(self, *values: Any, reduction: str = "mean", loss_weight: float = 1.0, **parameters: Any) -> None:
        super().__init__(*values, **parameters)
        self.reduction = check_reduction(reduction)
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **supplied: Any,
    ) -> Tensor:
        """Return the loss of predictions against targets, reduced.

        Args:
            pred: the predictions, of the shape that the function of the same loss takes.
            target: the targets, a tensor; of a class loss also integer labels.
            weight: as in the function.
            avg_factor: divisor of `mean`, in place of the number of elements, pairs or masks.
            reduction_override: overrides the module's reduction.
            **supplied: further tensors that the formula takes, such as `image_wh`; in training the criterion supplies
                them.

        Raises:
            ValueError: if the reduction is unknown or the shapes do not fit.
        """
        reduction = check_reduction(self.reduction, reduction_override)
        loss = self.unreduced(*self.inputs(pred, target), **supplied)
        if weight is not None and weight.shape == pred.shape and loss.dim() == pred.dim() - 1:
            weight = weight.mean(-1)  # per coordinate of a box, as MMDetection's are
        return self.loss_weight * reduce_loss(loss, weight, reduction, avg_factor)

    def inputs(self, pred: Tensor, target: Any) -> tuple[Tensor, ...]:
        """Return what the formula takes of the arguments of a call, in float32 or float64.

        Raises:
            ValueError: if the shapes do not fit.
        """
        self.family.check("pred", pred, "target", target)
        return upcast(pred, target)

    def unreduced(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss before weight and reduction, in float32 or float64."""
        return type(self).formula(pred, target, **self.arguments(supplied))


@functools.cache
def _argument_names(module: type[DeclaredModule]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of those arguments of a module's formula that are its parameters, and of all of them."""
    if module.formula is None:
        return (), ()
    own = formula_parameters(module.formula, "loss_", module.supplied_arguments)
    return tuple(p.name for p in own), formula_arguments(module.formula)
