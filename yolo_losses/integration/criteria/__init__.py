"""Chosen losses in Ultralytics' criteria, one file for each kind of head.

Every module of this package that has a function `matches` is a kind. It defines

- `matches(criterion)`: whether a criterion is of this kind;
- `equip(criterion, settings, branches, image_size)`: restores the stock parts, and unless `settings.is_default` puts a
  part in place for each chosen term. Returns a `Branch` for each criterion, taken from `branches` or built
  (`Branch.build`), whose `expected` are the terms with a part; a chosen term that is not among them is refused here.
  Keys of a term that its part does not implement, such as `cls_target` or `cls_scale=auto`, are refused by `equip`
  with a `ValueError`. Parts are pickled as stock parts (`parts`);
- `first_parts(criterion)`: yields, for each criterion in it, its path, the criterion, and the name of the attribute
  that it calls first. In an equipped criterion, this attribute is a part that refers to the branch.

In a call of the criterion, the part that is called first calls `Branch.begin`, each part returns
`self.record(term, output)`, and what runs last calls `Branch.end`. A part that does not run, or whose result is not
used, is an error before the optimizer's step (`ledger`). The class part multiplies the loss by `cls_factor` and by the
class weights (`Branch.weighted`), supplies what `prepare` of the loss returns, and sets `Branch.ratios` when
`Branch.compares`: without them, the log never says that the loss ran. `tests/integration/criteria/test_kinds.py` tries
every key on every kind.

Optional are

- `logged_branch(criterion)`: which of several losses the log shows;
- `TASK`: the task of the head, if it has no boxes: `classify`, `semantic`;
- `LAST = True`: the kind is tried after all others, because it also matches criteria that contain one of its kind.

Most criteria call parts that can be replaced. Those of the tasks classify and semantic compute their loss themselves:
the part of `classify` runs the criterion with another function in place of `F.cross_entropy`, and the parts of
`semantic` replace methods of the criterion.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from yolo_losses.config.keys import BOX_TASKS
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.criteria.parts import Part, missing_term

_modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
KINDS: list[ModuleType] = sorted(
    (module for module in _modules if hasattr(module, "matches")), key=lambda module: getattr(module, "LAST", False)
)


def kind_of(criterion: Any) -> ModuleType | None:
    """Return the module for the kind of a criterion, `None` if it is unknown."""
    return next((kind for kind in KINDS if kind.matches(criterion)), None)


def equip(
    criterion: Any,
    settings: LossSettings | Mapping[str, Any],
    branches: Mapping[str, Branch] | None = None,
    image_size: float | None = None,
) -> dict[str, Branch]:
    """Put the chosen losses into an existing criterion, in place.

    Args:
        criterion: a `v8DetectionLoss`, a criterion that consists of several (`E2ELoss`, `E2EDetectLoss`,
            `TVPDetectLoss`), an `RTDETRDetectionLoss`, a `v8ClassificationLoss`, or a `SemanticSegmentationLoss`.
        settings: the parsed keys, or a mapping of keys.
        branches: the branches of a criterion that was equipped before, whose losses and state are shared.
        image_size: side of the training images in pixels, which only RT-DETR's criterion needs to be told.

    Returns:
        The equipped branches by path, which is `""` for a single branch. Empty if every term is stock.

    Raises:
        ValueError: if the head cannot use a chosen loss, or a key is unknown.
        RuntimeError: if this Ultralytics lacks an attribute that is to be replaced; the message names it.
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
    if hasattr(kind, "TASK"):
        settings.check_task(kind.TASK)
    else:
        settings.check_keys(BOX_TASKS)
    equipped: dict[str, Branch] = kind.equip(criterion, settings, branches or {}, image_size)
    for branch in equipped.values():
        left = set(branch.settings.parts) - set(branch.expected)
        if left:
            kind.equip(criterion, LossSettings(), {}, image_size)  # restores the stock parts
            raise missing_term(type(criterion).__name__, settings, min(left))
    return equipped


def branches_of(criterion: Any) -> dict[str, Branch]:
    """Return the branches of an equipped criterion by path; empty for a stock criterion."""
    kind = kind_of(criterion)
    first = kind.first_parts(criterion) if kind is not None else ()
    parts = {path: vars(owner).get(name) for path, owner, name in first}
    return {
        path: part.branch for path, part in parts.items() if isinstance(part, Part) and isinstance(part.branch, Branch)
    }


def logged_branch(criterion: Any) -> str:
    """Return which of several losses of a criterion the log shows, "" if there is only one."""
    return str(getattr(kind_of(criterion), "logged_branch", lambda criterion: "")(criterion))
