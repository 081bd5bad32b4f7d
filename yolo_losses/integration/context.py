"""The model whose loss is being computed, as far as this package follows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

# What the criterion of the task classify calls in place of its body: `hook` makes it an attribute of the class, which
# `criteria.classify` replaces in an instance.
CLASSIFY_CALL = "yolo_losses_call"


class Context(NamedTuple):
    """What is running.

    Attributes:
        model: whose loss is computed.
        equipment: the chosen losses of the model; `None`: stock, by its keys.
        role: `training` or `validation`.
    """

    model: Any
    equipment: Any
    role: str = "training"


_current: ContextVar[Context | None] = ContextVar("yolo_losses_context", default=None)
_in_part: ContextVar[bool] = ContextVar("yolo_losses_in_part", default=False)


def current() -> Context | None:
    """Return what is running, `None` if this package does not know."""
    return _current.get()


def enter(context: Context | None) -> None:
    """Set what is running, until it is set again."""
    _current.set(context)


@contextmanager
def running(context: Context | None) -> Iterator[None]:
    """Set what is running within a `with` block."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def within_part() -> Iterator[None]:
    """Mark what is called within a `with` block as called by a part of an equipped criterion."""
    token = _in_part.set(True)
    try:
        yield
    finally:
        _in_part.reset(token)


def is_within_part() -> bool:
    """Return whether a part of an equipped criterion is calling."""
    return _in_part.get()


def is_training_mode() -> bool:
    """Return whether the model whose loss is computed is in training mode; true where it is not known."""
    context = _current.get()
    return context is None or bool(getattr(context.model, "training", True))
