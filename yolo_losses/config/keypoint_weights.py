"""Keypoint weights: the key `pose_weights`."""

from __future__ import annotations

from typing import Any

from yolo_losses.config.class_weights import NONE, read_text
from yolo_losses.registry.parameters import InvalidValueError, parse_value


def parse(value: Any) -> str | tuple[float, ...]:
    """Return the value of the key `pose_weights`: `none`, or one number per keypoint.

    Raises:
        ValueError: if a value is invalid; the message has the key, its value and what is allowed.
    """
    given = value.tolist() if hasattr(value, "tolist") else value  # a tensor or a NumPy array
    if isinstance(given, str) and given.strip().startswith("["):
        given = read_text(given)
    if given is None or (isinstance(given, str) and given.strip().lower() == NONE):
        return NONE
    if isinstance(given, list | tuple):
        numbers = [parse_value(number, float) for number in given]
        weights = tuple(float(number) for number in numbers if number is not None and number >= 0)
        if len(weights) == len(numbers) and any(weights):
            return weights
    raise InvalidValueError(
        "pose_weights",
        value,
        "is not valid: allowed are a list of numbers >= 0, one per keypoint and not all of them 0, such as [1,1,0.5];"
        " none",
    )
