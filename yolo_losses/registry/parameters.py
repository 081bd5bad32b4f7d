"""Declared parameters of a loss: type, range, default and help, and the parsing of their training keys."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

Value = float | int | bool | str

# Arguments of the built-in formulas that are constants, not training keys.
CONSTANTS = frozenset({"eps", "pos_weight"})

TRUTH = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


@dataclass(frozen=True)
class Param:
    """Help and range in a parameter's annotation: `gamma: Annotated[float, Param("exponent", low=0)] = 2.0`.

    Args:
        help: description of a few words.
        low: inclusive lower bound.
        high: inclusive upper bound.
        above: exclusive lower bound.
        off: value of the training key that means `None`, if `None` is allowed.
        words: allowed values of a parameter of type `str`.
        used: whether the loss depends on it; one that it only accepts is named in a warning where it is set.
    """

    help: str = ""
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    off: float | None = None
    words: tuple[str, ...] = ()
    used: bool = True


@dataclass(frozen=True)
class Parameter:
    """One declared parameter of one loss.

    Attributes:
        key: the training key, such as `focal_gamma`.
        name: name of the argument, such as `gamma`.
        type: `float`, `int`, `bool` or `str`.
        default: default of the key.
        limits: range and help.
    """

    key: str
    name: str
    type: type
    default: Value
    limits: Param

    @property
    def allowed(self) -> str:
        """The allowed values as text, for messages and listings."""
        if self.type is bool:
            return "True or False"
        if self.type is str:
            return ", ".join(self.limits.words)
        low, high, above = self.limits.low, self.limits.high, self.limits.above
        bounds = []
        if above > -math.inf:
            bounds.append(f"> {above:g}")
        if low > -math.inf:
            bounds.append(f">= {low:g}")
        if high < math.inf:
            bounds.append(f"<= {high:g}")
        return " ".join(["an integer" if self.type is int else "a number", " and ".join(bounds)]).strip()

    def parse(self, value: Any) -> Value:
        """Return a value of the training key in the declared type.

        Numbers and booleans may be strings (YAML reads `1e-1` as one), integers may be integral floats (as from the
        tuner). `None` and `none` mean the default, unless `none` is one of the words.

        Raises:
            ValueError: on an invalid value; one line with key, value, range and default.
        """
        if self.type is str:
            word = "none" if value is None else value.strip().lower() if isinstance(value, str) else ""
            word = "off" if value is False else word  # YAML reads a bare `off` as a truth value
            if word not in self.limits.words:
                if word == "none":
                    return self.default
                raise self._error(value)
            return word
        number = parse_value(value, self.type, self.default)
        if number is None or not self.in_range(number):
            raise self._error(value)
        return number

    def check(self, value: Any) -> None:
        """Check an argument of a function as a value of the training key.

        Raises:
            ValueError: on an invalid value; one line with argument, value and range.
        """
        try:
            self.parse(value)
        except ValueError:
            raise ValueError(f"'{self.name}={shown(value)}' is not valid: allowed is {self.allowed}") from None

    def holds(self, value: Any) -> bool:
        """Return whether a value is of the declared type and allowed already, so that it need not be parsed."""
        if isinstance(value, str):
            return self.type is str and value in self.limits.words
        if not isinstance(value, float | int) or type(value) is not self.type:
            return False
        return math.isfinite(value) and self.in_range(value)

    def in_range(self, number: Any) -> bool:
        """Return whether a number is within the bounds."""
        return bool(self.limits.low <= number <= self.limits.high and number > self.limits.above)

    def _error(self, value: Any) -> ValueError:
        return ValueError(
            f"'{self.key}={shown(value)}' is not valid: allowed is {self.allowed} (default {self.default})"
        )


def shown(value: Any) -> str:
    """Return `value` as text for a message: on one line, printable, at most 60 characters."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # an error in a third party's __repr__ must not replace the message
        text = f"<{type(value).__name__}>"
    text = text[:200].encode("unicode_escape", "replace").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= 60 else text[:57] + "..."


def parse_value(value: Any, kind: type, default: Value | None) -> Value | None:
    """Return `value` as a finite `kind`, the default for `None` and `none`, or `None` if it is not a `kind`."""
    if isinstance(value, str):
        value = value.strip()
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return default
    if kind is bool:
        if isinstance(value, str):
            return TRUTH.get(value.lower())
        return bool(value) if isinstance(value, numbers.Real) and value in (0, 1) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if len(value) > 40 or not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", value, re.ASCII):
            return None
        value = float(value)
    if not isinstance(value, numbers.Real):  # includes NumPy scalars, as in a sweep over an array
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number) or (kind is int and number != int(number)):
        return None
    return int(number) if kind is int else number


def annotated_parameters(formula: Callable[..., Any]) -> dict[str, Parameter]:
    """Return the arguments of a formula that are annotated with `Param`, by name."""
    hints = _hints(inspect.unwrap(formula))
    return {
        name: _parameter(f"{formula.__name__}_", name, hints[name], argument.default)
        for name, argument in inspect.signature(formula).parameters.items()
        if _limits(hints.get(name)) is not None
    }


def formula_parameters(formula: Callable[..., Any], prefix: str, supplied: Collection[str]) -> Iterator[Parameter]:
    """Yield the parameters of a formula: its positional arguments after the two tensors that are not supplied.

    Args:
        formula: a function of two tensors and its parameters.
        prefix: prefix of the training keys, such as `focal_`.
        supplied: names of arguments that the criterion supplies.

    Raises:
        ValueError: on an invalid declaration; it names the parameter.
    """
    built_in = formula.__module__.startswith("yolo_losses.")
    hints = _hints(inspect.unwrap(formula))
    for argument in list(inspect.signature(formula).parameters.values())[2:]:
        name, default = argument.name, argument.default
        if argument.kind is argument.KEYWORD_ONLY or (built_in and name in CONSTANTS):
            continue
        if name in supplied:
            if not built_in and (isinstance(default, float | int) or _limits(hints.get(name)) is not None):
                raise ValueError(
                    f"the parameter '{name}' of the loss '{prefix[:-1]}' has the name of an argument that the criterion"
                    " supplies: give it another name, or the default None to be supplied with it"
                )
            continue
        if default is argument.empty or argument.kind in (argument.VAR_KEYWORD, argument.VAR_POSITIONAL):
            raise ValueError(f"the parameter '{name}' of the loss '{prefix[:-1]}' needs a default")
        yield _parameter(prefix, name, hints.get(name, type(default)), default)


def attribute_parameters(module: type, prefix: str) -> Iterator[Parameter]:
    """Yield the parameters that a module class declares as attributes, annotated with `Param`."""
    for name, hint in _hints(module).items():
        if _limits(hint) is not None:
            yield _parameter(prefix, name, hint, getattr(module, name))


@functools.cache
def _hints(declared: Any) -> dict[str, Any]:
    """Return type hints, `X | None` as `X`: Python 3.10 adds `| None` where the default is None."""
    return {name: _without_none(hint) for name, hint in get_type_hints(declared, include_extras=True).items()}


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, UnionType):
        return hint
    return next(kind for kind in get_args(hint) if kind is not type(None))


def _limits(hint: Any) -> Param | None:
    if get_origin(hint) is not Annotated:
        return None
    return next((extra for extra in get_args(hint) if isinstance(extra, Param)), None)


def _parameter(prefix: str, name: str, hint: Any, default: Any) -> Parameter:
    limits = _limits(hint) or Param()
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    hint = _without_none(hint)
    if hint not in (float, int, bool) and not (hint is str and limits.words):
        raise ValueError(
            f"the parameter '{name}' of the loss '{prefix[:-1]}' must be a float, an int, a bool,"
            " or a str with Param(words=...)"
        )
    if default is None:
        default = limits.off
    parameter = Parameter(f"{prefix}{name.rstrip('_')}", name, hint, hint(default), limits)
    parameter.parse(default)
    return parameter
