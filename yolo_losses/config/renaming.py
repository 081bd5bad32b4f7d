"""Keys under another name among a trainer's arguments: `yl_` + name, where Ultralytics has a key of that name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from yolo_losses.registry import InvalidValueError

RENAMED_PREFIX = "yl_"
_renamed: set[str] = set()


def rename(keys: set[str]) -> None:
    """Reach these keys, and no others, as `yl_` + name among a trainer's arguments."""
    _renamed.clear()
    _renamed.update(keys)


def renamed() -> list[str]:
    """Return the keys that are reached as `yl_` + name among a trainer's arguments."""
    return sorted(_renamed)


def argument(key: str) -> str:
    """Return what a key is called among a trainer's arguments."""
    return f"{RENAMED_PREFIX}{key}" if key in _renamed else key


@contextlib.contextmanager
def named_as_arguments() -> Iterator[None]:
    """Have refusals name their key as it is called among a trainer's arguments."""
    try:
        yield
    except InvalidValueError as error:
        if error.key not in _renamed:
            raise
        raise error.with_key(argument(error.key)) from None
