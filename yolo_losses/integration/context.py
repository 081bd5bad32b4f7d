"""The model whose loss is currently being computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

# The name under which `hook` stores the call of the criterion of the task classify in its class; `criteria.classify`
# replaces it in an instance.
CLASSIFY_CALL = "yolo_losses_call"


class Context(NamedTuple):
    """The loss computation that is currently running.

    Attributes:
        model: the model whose loss is computed.
        equipment: the chosen losses of the model, `None` if it is stock.
        role: `training` or `validation`.
    """

    model: Any
    equipment: Any
    role: str = "training"


_current: ContextVar[Context | None] = ContextVar("yolo_losses_context", default=None)
_in_part: ContextVar[bool] = ContextVar("yolo_losses_in_part", default=False)


def current() -> Context | None:
    """Return the current context, `None` if it is unknown."""
    return _current.get()


def enter(context: Context | None) -> None:
    """Set the current context."""
    _current.set(context)


@contextmanager
def running(context: Context | None) -> Iterator[None]:
    """Set the current context within a `with` block."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def within_part() -> Iterator[None]:
    """Mark calls within a `with` block as made by a part of an equipped criterion."""
    token = _in_part.set(True)
    try:
        yield
    finally:
        _in_part.reset(token)


def is_within_part() -> bool:
    """Return whether the current call is made by a part of an equipped criterion."""
    return _in_part.get()


def is_training_mode() -> bool:
    """Return whether the model whose loss is computed is in training mode; true if it is unknown."""
    context = _current.get()
    return context is None or bool(getattr(context.model, "training", True))
