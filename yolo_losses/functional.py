"""Functional interface: the formulas of all registered losses, `distribution_focal_loss`, `class_balanced_weights`.

The formulas are found through the registry; none is listed by hand.
"""

from __future__ import annotations

from typing import Any

from yolo_losses import registry
from yolo_losses.config.class_weights import class_balanced_weights
from yolo_losses.losses.distribution.dfl import distribution_focal_loss


def _functions() -> dict[str, Any]:
    found: dict[str, Any] = {f.__name__: f for f in (distribution_focal_loss, class_balanced_weights)}
    for spec in registry.specs():
        # Modifiers and modules that override `elementwise`, `pairs` or `masks` may have no formula, and a lambda has no
        # usable name. Of two formulas with the same name the first, a built-in one, wins.
        name = getattr(spec.module.formula, "__name__", "")
        if name.isidentifier() and not name.startswith("_"):
            found.setdefault(name, spec.module.formula)
    return found


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    functions = _functions()
    if name not in functions:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}.{registry.did_you_mean(name, list(functions))}"
        )
    return functions[name]


def __dir__() -> list[str]:
    return sorted(_functions())
