"""Class weights: the key `cls_weights`, and weights by the effective number of labels."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from yolo_losses.registry.parameters import (
    InvalidValueError,
    Param,
    Parameter,
    format_value,
    normalize_name,
    parse_value,
    to_float32,
)

if TYPE_CHECKING:
    from torch import Tensor

NONE = "none"
BALANCED = "balanced"
Weights = str | tuple[float, ...] | Mapping[str, float]

DEFAULT_BETA = 0.999
BETA = Parameter(
    "cls_weights_beta",
    "beta",
    float,
    DEFAULT_BETA,
    Param("beta of cls_weights=balanced; 0: equal weights, 1: inverse frequency", low=0, high=1),
)
MAX_LISTED_CLASSES = 8  # with more classes, a log line only names the smallest and the largest weight


def class_balanced_weights(counts: Tensor | Sequence[float], beta: float = DEFAULT_BETA) -> Tensor:
    """Return weights of classes by the effective number of their samples: `(1 - beta) / (1 - beta^n)`, their mean 1.

    Args:
        counts: n, number of samples of each class, shape `(C,)`.
        beta: in [0, 1]. 0 gives every class the same weight; towards 1 the weight is the inverse of n, which is what 1
            gives.

    Returns:
        Shape `(C,)`, float32, or float64 for such counts. A class without samples, whose weight would be infinite,
        gets 1, the mean of the others; without any samples all are 1.

    Raises:
        ValueError: if `counts` is not one-dimensional or has a negative or infinite number, or beta is out of range.

    Source:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, arXiv 1901.05555, whose weights are
        normalised to the same sum, the number of classes. It leaves a class without samples open.

    Example:
        >>> from yolo_losses.functional import class_balanced_weights
        >>> class_balanced_weights([1000, 100, 10])
        tensor([0.0422, 0.2800, 2.6778])
        >>> class_balanced_weights([1000, 100, 10], beta=0)
        tensor([1., 1., 1.])
    """
    import torch  # not needed to parse keys

    BETA.check(beta)
    n = torch.as_tensor(counts)
    dtype = n.dtype if n.dtype == torch.float64 else torch.float32
    n = n.to(torch.float64)
    if n.ndim != 1 or not bool(((n >= 0) & n.isfinite()).all()):
        given = format_value(counts)
        raise ValueError(f"'counts={given}' is not valid: allowed are numbers of samples >= 0, one per class")
    # 1 - beta^n without cancellation; 1 and 0 are the limits.
    effective = n if beta == 1 else -torch.expm1(n * (math.log(beta) if beta else -math.inf)) / (1 - beta)
    seen = n > 0
    weights = torch.where(seen, 1 / effective, 0)
    mean = weights.sum() / seen.sum().clamp_min(1)
    return torch.where(seen, weights / mean, 1).to(dtype)


def parse(value: Any) -> Weights:
    """Return the value of the key `cls_weights`: `none`, `balanced`, numbers in order, or numbers by class name.

    Raises:
        ValueError: if a value is invalid; the message has the key, its value and what is allowed.
    """
    given = value.tolist() if hasattr(value, "tolist") else value  # a tensor, or an array of NumPy
    if isinstance(given, str) and given.strip().startswith(("[", "{")):
        given = read_text(given)
    word = normalize_name(given) if isinstance(given, str) else ""
    if given is None or word == NONE:
        return NONE
    if word == BALANCED:
        return BALANCED
    if isinstance(given, Mapping):
        for name in given:
            # YAML reads `yes` as True, `1.5` as a number and `2024-01-01` as a date: the original text is lost.
            if not isinstance(name, str) and (isinstance(name, bool) or not isinstance(name, int) or name < 0):
                reason = f"is not valid: the class name {format_value(name)} must be quoted to be read as text"
                raise InvalidValueError("cls_weights", value, reason)
        names, numbers = [str(name) for name in given], [_number(number) for number in given.values()]
        if names and None not in numbers:
            return dict(zip(names, (float(number or 0) for number in numbers), strict=True))
    elif isinstance(given, list | tuple):
        numbers = [_number(number) for number in given]
        if numbers and None not in numbers:
            return tuple(float(number or 0) for number in numbers)
    hint = " Did you mean 'balanced'?" if difflib.get_close_matches(word, [BALANCED]) else ""
    raise InvalidValueError(
        "cls_weights",
        value,
        "is not valid: allowed are a list of numbers > 0, one per class, such as [1,2,5]; a mapping of class names to"
        f" numbers > 0; balanced; none.{hint}",
    )


def read_text(text: str) -> Any:
    """Return the list or mapping in a text such as `{car: 2}`, with names and numbers as strings.

    Raises:
        InvalidValueError: if a class is named twice.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return text
    if isinstance(node, yaml.SequenceNode):
        return [number.value for number in node.value]
    if not isinstance(node, yaml.MappingNode):
        return text
    found: dict[str, Any] = {}
    for name, number in node.value:
        if str(name.value) in found:
            reason = f"is not valid: the class '{format_value(str(name.value))}' is named twice"
            raise InvalidValueError("cls_weights", text, reason)
        found[str(name.value)] = number.value
    return found


def _number(value: Any) -> float | None:
    """Return a number if it is finite and above 0 in float32, else `None`."""
    number = None if value is None or value == NONE else parse_value(value, float)
    return float(number) if number is not None and to_float32(number) > 0 else None


def plain(weights: Weights) -> Any:
    """Return the value of the key for YAML files and checkpoints."""
    if isinstance(weights, str):
        return weights
    return dict(weights) if isinstance(weights, Mapping) else list(weights)


def format_option(weights: Weights) -> str:
    """Return key and value as text for a message."""
    return f"'cls_weights={format_value(plain(weights))}'"


def class_names_by_index(names: Mapping[int, Any]) -> list[str]:
    """Return the names of the classes of a model or a data set by index."""
    return [str(name) for _, name in sorted(names.items())]


def check_one_class(weights: Weights, classes: int) -> None:
    """Raise a `ValueError` if class weights are set for semantic segmentation with a single class."""
    if weights != NONE and classes == 1:
        reason = "cannot be used in the task 'semantic' with one class: allowed is none"
        raise InvalidValueError("cls_weights", plain(weights), reason)


def by_class(weights: Weights, names: Sequence[str], single_cls: bool = False) -> Weights:
    """Convert weights by class name to weights by class index; classes that are not named get 1.

    Args:
        weights: the value of the key `cls_weights`.
        names: names of the classes by index; if empty, a list is not checked.
        single_cls: whether Ultralytics' key `single_cls` merges all classes.

    Raises:
        ValueError: if the number of weights is wrong, or a name is unknown; the message has the nearest one.
    """
    if isinstance(weights, str):
        return weights
    reason = " (single_cls=True makes one class of all)" if single_cls else ""
    if not isinstance(weights, Mapping):
        if names and len(weights) != len(names):
            raise InvalidValueError(
                "cls_weights",
                plain(weights),
                f"is not valid: allowed are as many numbers as there are classes, {len(names)}{reason}",
            )
        return weights
    for name in weights:
        if name not in names:
            lower = {known.lower(): known for known in names}
            near = difflib.get_close_matches(name.lower(), lower, n=1)
            hint = f" Did you mean '{lower[near[0]]}'?" if near else ""
            raise InvalidValueError(
                "cls_weights",
                plain(weights),
                f"is not valid: '{format_value(name)}' is not a class of the data set,"
                f" whose classes are {format_value(', '.join(names))}{reason}.{hint}",
            )
    return tuple(weights.get(name, 1.0) for name in names)


def balanced(counts: Sequence[int], beta: float) -> tuple[float, ...]:
    """Return the weights of `cls_weights=balanced`, rounded so that a YAML file stores them exactly."""
    return tuple(float(f"{weight:.6g}") for weight in class_balanced_weights(counts, beta).tolist())


def summary(weights: Sequence[float], names: Sequence[str]) -> str:
    """Return the weights by class name for a log line; for many classes, only the smallest and the largest."""
    pairs = [(weight, format_value(name)) for weight, name in zip(weights, names, strict=True)]
    if len(pairs) > MAX_LISTED_CLASSES:
        (low, first), (high, last) = min(pairs), max(pairs)
        return f"{first} {low:.3g} to {last} {high:.3g} ({len(pairs)} classes)"
    return ", ".join(f"{name} {weight:.3g}" for weight, name in pairs)
