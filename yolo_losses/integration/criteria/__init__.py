"""The chosen losses inside Ultralytics' criteria, one file for each kind of head.

A file of a kind is found by being there, and has

- `matches(criterion)`: whether the criterion is of this kind;
- `equip(criterion, settings, branches, image_size)`: puts in a part for every term of `settings.terms` or raises;
  returns a `Branch` for each criterion, whose `expected` are these terms. The part that is called first calls
  `Branch.begin`, and each part returns `self.record(term, output)`: so a part that does not run, or whose result
  is not used, is an error before the optimizer's step (`ledger`). Parts are pickled as the stock ones (`parts`);
- `branches_of(criterion)`: the branches of the parts that are in place, by path;
- `first_parts(criterion)`: yields where the part is that a criterion calls first: its owner, and its name;
- `logged_branch(criterion)`: which of several losses the log shows;
- `TASK`, where the keys have values of their own in the head's task.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from yolo_losses.config.keys import BOX_TASKS
from yolo_losses.config.settings import KEYS, LossSettings
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.registry import format_value

_modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
KINDS: list[ModuleType] = sorted(
    (module for module in _modules if hasattr(module, "matches")), key=lambda module: getattr(module, "LAST", False)
)


def kind_of(criterion: Any) -> ModuleType | None:
    """Return the module for a criterion's kind of head, `None` where none of them knows it."""
    return next((kind for kind in KINDS if kind.matches(criterion)), None)


def equip(
    criterion: Any,
    settings: LossSettings | Mapping[str, Any],
    branches: Mapping[str, Branch] | None = None,
    image_size: float | None = None,
) -> dict[str, Branch]:
    """Swap the chosen losses into a criterion that exists already, in place.

    Args:
        criterion: a `v8DetectionLoss` or one made of several (`E2ELoss`, `E2EDetectLoss`, `TVPDetectLoss`); or an
            `RTDETRDetectionLoss`.
        settings: the parsed keys, or a mapping of keys.
        branches: those of a criterion equipped before, to share losses and state with.
        image_size: side of the training images in pixels; only RT-DETR's criterion does not see it for itself.

    Returns:
        The equipped branches by their path, `""` for a criterion that has none. Empty where every term is stock.

    Raises:
        ValueError: where the head cannot use a chosen loss, or on a key that is not this package's.
        RuntimeError: where this Ultralytics lacks a part, which is named.
    """
    kind = kind_of(criterion)
    if not isinstance(settings, LossSettings):
        settings = LossSettings.from_mapping(settings, getattr(kind, "TASK", ""))
    if kind is None:
        if settings.is_default:
            return {}
        key, value = next(iter(settings.non_default().items()))
        raise ValueError(
            f"'{key}={value}' cannot be used with {type(criterion).__name__}: no kind of criterion that is known here"
        )
    _check_keys(criterion, settings, (kind.TASK,) if hasattr(kind, "TASK") else BOX_TASKS)
    equipped: dict[str, Branch] = kind.equip(criterion, settings, branches or {}, image_size)
    for branch in equipped.values():
        left = set(branch.settings.parts) - set(branch.expected)
        if left:
            raise RuntimeError(
                f"yolo_losses: {kind.__name__} left the {min(left)} term of {type(criterion).__name__} stock"
            )
    return equipped


def _check_keys(criterion: Any, settings: LossSettings, tasks: tuple[str, ...]) -> None:
    """Raise a `ValueError` where a key that is not at its default has no meaning in any task of a kind of head."""
    for name, key in KEYS.items():
        value = getattr(settings, name)
        if value != key.default and not set(tasks) & set(key.tasks):
            value = format_value(key.to_config(value))
            raise ValueError(
                f"'{name}={value}' cannot be used in the task '{tasks[0]}', of {type(criterion).__name__}: allowed"
                f" {'is' if len(key.tasks) == 1 else 'are'} {', '.join(key.tasks)}"
            )


def branches_of(criterion: Any) -> dict[str, Branch]:
    """Return the branches of a criterion that is equipped, by path; empty for a stock one."""
    kind = kind_of(criterion)
    found: dict[str, Branch] = kind.branches_of(criterion) if kind is not None else {}
    return found
