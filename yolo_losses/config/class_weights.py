"""Weights of the classes in the class term: the key `cls_weights`, and weights by the effective number of labels."""

from __future__ import annotations

import contextlib
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
AT_MOST = 8  # classes that are listed by name in a line of the log


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
        ValueError: where `counts` is not one-dimensional, or has a negative or infinite number; on a beta out of range.

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
        ValueError: on an invalid value; one line with the key, its value and what is allowed.
    """
    given = value.tolist() if hasattr(value, "tolist") else value  # a tensor, or an array of NumPy
    if isinstance(given, str) and given.strip().startswith(("[", "{")):
        with contextlib.suppress(yaml.YAMLError, ValueError):  # a date that is none
            given = yaml.safe_load(given)
    word = normalize_name(given) if isinstance(given, str) else ""
    if given is None or word == NONE:
        return NONE
    if word == BALANCED:
        return BALANCED
    if isinstance(given, Mapping):
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


def _number(value: Any) -> float | None:
    """Return a number that is finite and above 0 in float32, or `None`."""
    number = None if value is None or value == NONE else parse_value(value, float)
    return float(number) if number is not None and to_float32(number) > 0 else None


def plain(weights: Weights) -> Any:
    """Return the value of the key as YAML and checkpoints have it."""
    if isinstance(weights, str):
        return weights
    return dict(weights) if isinstance(weights, Mapping) else list(weights)


def written(weights: Weights) -> str:
    """Return key and value as a message names them."""
    return f"'cls_weights={format_value(plain(weights))}'"


def in_order(names: Mapping[int, Any]) -> list[str]:
    """Return the names of a model's or a data set's classes in the order of their numbers."""
    return [str(name) for _, name in sorted(names.items())]


def by_class(weights: Weights, names: Sequence[str]) -> Weights:
    """Return weights that are given by class name in the order of the classes; a class that is not named has 1.

    Raises:
        ValueError: on an unknown name, in one line with the nearest.
    """
    if not isinstance(weights, Mapping):
        return weights
    for name in weights:
        if name not in names:
            lower = {known.lower(): known for known in names}
            near = difflib.get_close_matches(name.lower(), lower, n=1)
            hint = f" Did you mean '{lower[near[0]]}'?" if near else ""
            raise ValueError(
                f"{written(weights)} is not valid: '{format_value(name)}' is not a class of the data set,"
                f" whose classes are {format_value(', '.join(names))}.{hint}"
            )
    return tuple(weights.get(name, 1.0) for name in names)


def balanced(counts: Sequence[int], beta: float) -> tuple[float, ...]:
    """Return the weights of `cls_weights=balanced` as numbers that a YAML file holds without loss."""
    return tuple(float(f"{weight:.6g}") for weight in class_balanced_weights(counts, beta).tolist())


def summary(weights: Sequence[float], names: Sequence[str]) -> str:
    """Return the weights for a line of the log: by class name, of many classes the smallest and the largest."""
    pairs = list(zip(weights, names, strict=True))
    if len(pairs) > AT_MOST:
        (low, first), (high, last) = min(pairs), max(pairs)
        return f"{first} {low:.3g} to {last} {high:.3g} ({len(pairs)} classes)"
    return ", ".join(f"{name} {weight:.3g}" for weight, name in pairs)
