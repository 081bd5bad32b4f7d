"""Declared parameters of a loss: type, range, default and help, and the parsing of their training keys."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import numbers
import re
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

Value = float | int | bool | str

# Arguments of the built-in formulas that are constants, not training keys.
CONSTANTS = frozenset({"eps", "pos_weight"})

BOOL_STRINGS = {
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
        below: exclusive upper bound.
        off: value of the training key that means `None`, if `None` is allowed.
        words: allowed values of a parameter of type `str`; for other types, words that are allowed besides numbers.
        used: whether the loss depends on it; setting a parameter that is accepted but not used gives a warning.
    """

    help: str = ""
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf
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
        default: default value.
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
        words = ", ".join(self.limits.words)
        if self.type is str:
            return words
        limits = self.limits
        signs = {">": limits.above, ">=": limits.low, "<": limits.below, "<=": limits.high}
        bounds = " and ".join(f"{sign} {bound:g}" for sign, bound in signs.items() if math.isfinite(bound))
        number = " ".join(["an integer" if self.type is int else "a number", bounds]).strip()
        return f"{number}, or {words}" if words else number

    def parse(self, value: Any) -> Value:
        """Return a value of the training key in the declared type.

        Numbers and booleans may be strings (YAML reads `1e-1` as a string), and integers may be integral floats (as
        from the tuner). `None` and `none` mean the default, unless `none` is one of the words.

        Raises:
            InvalidValueError: if the value is invalid; the message has key, value, range and default.
        """
        words = self.limits.words
        word = normalize_name(value) if isinstance(value, str) else "none" if value is None else ""
        if value is False and "off" in words:  # YAML reads a bare `off` as False
            word = "off"
        if word in words:
            return word
        if word == "none":
            return self.default
        number = None if self.type is str else parse_value(value, self.type)
        if number is None or not self.in_range(number):
            raise self._error(value)
        return number

    def check(self, value: Any) -> None:
        """Check an argument of a function like a value of the training key.

        Raises:
            ValueError: if the value is invalid; the message has argument, value and range.
        """
        try:
            self.parse(value)
        except ValueError:
            raise ValueError(f"'{self.name}={format_value(value)}' is not valid: allowed is {self.allowed}") from None

    def is_valid(self, value: Any) -> bool:
        """Return whether a value has the declared type and is allowed, so that it need not be parsed."""
        if isinstance(value, str):
            return value in self.limits.words
        if not isinstance(value, float | int) or type(value) is not self.type:
            return False
        return math.isfinite(value) and self.in_range(value)

    def in_range(self, number: Any) -> bool:
        """Return whether a number is within the bounds, also when rounded to float32."""
        limits = self.limits
        values = (number, to_float32(number)) if self.type is float else (number,)
        return all(limits.low <= n <= limits.high and limits.above < n < limits.below for n in values)

    def _error(self, value: Any) -> InvalidValueError:
        hint = did_you_mean(value, self.limits.words) if isinstance(value, str) else ""
        return InvalidValueError(
            self.key,
            value,
            f"is not valid: allowed {'are' if self.type is str else 'is'} {self.allowed} (default {self.default})"
            + (f".{hint}" if hint else ""),
        )


class InvalidValueError(ValueError):
    """An invalid value of a training key; the message is one line such as `'cls_loss=slid' is not valid: ...`.

    Args:
        key: the training key.
        value: the invalid value.
        reason: the rest of the message.
    """

    def __init__(self, key: str, value: Any, reason: str) -> None:
        super().__init__(key, format_value(value), reason)

    def __str__(self) -> str:
        key, value, reason = self.args
        return f"'{key}={value}' {reason}"

    @property
    def key(self) -> str:
        """The training key."""
        return str(self.args[0])

    def with_key(self, key: str) -> InvalidValueError:
        """Return the same error with another name of the key."""
        return InvalidValueError(key, *self.args[1:])


def normalize_name(name: Any) -> str:
    """Return a name in lower case, with `_` in place of `-` and white space."""
    return re.sub(r"[-\s]+", "_", str(name).strip().lower())


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Return ` Did you mean 'x'?`, or an empty string if no name is similar."""
    near = difflib.get_close_matches(normalize_name(name)[:100], names, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def format_value(value: Any) -> str:
    """Return `value` as text for a message: one line, printable, at most 60 characters."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # an error in a third-party __repr__ must not replace the message
        text = f"<{type(value).__name__}>"
    text = text[:200].encode("unicode_escape", "replace").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= 60 else text[:57] + "..."


def to_float32(number: float) -> float:
    """Return a number rounded to float32; infinite if it is out of range."""
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return math.copysign(math.inf, number)


def parse_value(value: Any, kind: type) -> float | int | bool | None:
    """Return `value` converted to `kind`, or `None` if it is not a number that is finite in float32.

    NumPy scalars and zero-dimensional tensors are accepted.
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str):
        value = value.strip()
    if kind is bool:
        if isinstance(value, str):
            return BOOL_STRINGS.get(value.lower())
        return bool(value) if isinstance(value, numbers.Real) and value in (0, 1) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if len(value) > 40 or not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", value, re.ASCII):
            return None
        value = float(value)
    if not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(to_float32(number)) or (kind is int and number != int(number)):
        return None
    return int(number) if kind is int else number


def annotated_parameters(formula: Callable[..., Any]) -> dict[str, Parameter]:
    """Return the parameters of a formula that are annotated with `Param`, by name."""
    hints = _hints(inspect.unwrap(formula))
    return {
        name: _parameter(f"{formula.__name__}_", name, hints[name], argument.default)
        for name, argument in inspect.signature(formula).parameters.items()
        if _limits(hints.get(name)) is not None
    }


def formula_parameters(formula: Callable[..., Any], prefix: str, supplied: Collection[str]) -> Iterator[Parameter]:
    """Yield the parameters of a formula: its positional arguments after the two tensors, except supplied ones.

    Args:
        formula: a function of two tensors and parameters.
        prefix: prefix of the training keys, such as `focal_`.
        supplied: names of arguments that the criterion supplies.

    Raises:
        ValueError: if the declaration is invalid; the message names the parameter.
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
    """Yield the parameters that a module class declares as attributes annotated with `Param`."""
    for name, hint in _hints(module).items():
        if _limits(hint) is not None:
            yield _parameter(prefix, name, hint, getattr(module, name))


@functools.cache
def _hints(declared: Any) -> dict[str, Any]:
    """Return type hints, with `X | None` as `X`: Python 3.10 adds `| None` if the default is None."""
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
