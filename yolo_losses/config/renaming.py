"""Renames keys to `yl_` + name among a trainer's arguments if Ultralytics has another key of that name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from yolo_losses.registry import InvalidValueError

RENAMED_PREFIX = "yl_"
_renamed: set[str] = set()


def rename(keys: set[str]) -> None:
    """Set the keys that are called `yl_` + name among a trainer's arguments."""
    _renamed.clear()
    _renamed.update(keys)


def renamed() -> list[str]:
    """Return the keys that are called `yl_` + name among a trainer's arguments."""
    return sorted(_renamed)


def argument(key: str) -> str:
    """Return the name of a key among a trainer's arguments."""
    return f"{RENAMED_PREFIX}{key}" if key in _renamed else key


@contextlib.contextmanager
def named_as_arguments() -> Iterator[None]:
    """Let an `InvalidValueError` name the key as it is called among a trainer's arguments."""
    try:
        yield
    except InvalidValueError as error:
        if error.key not in _renamed:
            raise
        raise error.with_key(argument(error.key)) from None
