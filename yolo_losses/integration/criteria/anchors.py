"""Heads with anchors (v8, v10, 11, 26; detect, segment, pose, obb): `v8DetectionLoss` and similar criteria.

Finds the criteria that a criterion consists of, and replaces their parts.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any

from torch import Tensor
from ultralytics.utils.loss import BboxLoss, RotatedBboxLoss, v8OBBLoss

from yolo_losses._log import log
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria import (
    angle_part,
    assigner,
    keypoint_part,
    masks,
    parts,
    schedule,
    semantic_mask_part,
)
from yolo_losses.integration.criteria.anchor_branch import AnchorBranch, AssignerPart
from yolo_losses.integration.criteria.box_part import BoxPart, calls_l1, has_l1_term
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.criteria.class_part import ClassPart, is_plain_bce
from yolo_losses.integration.criteria.distribution_part import DistributionPart, distribution_name
from yolo_losses.integration.criteria.parts import Part

PARTS = ("assigner", "bce", "bbox_loss")
GAINS = {
    "class": "cls",
    "box": "box",
    "distribution": "dfl",
    "mask": "box",
    "sem": "box",
    "pose": "pose",
    "kobj": "kobj",
    "l1": "dfl",
    "angle": "angle",
}
TASK_PARTS = (masks, semantic_mask_part, keypoint_part, angle_part)  # the parts of terms of a single task
SKIPPED = ("hyp", "assigner", "bbox_loss", "bce", "_modules")  # attributes that contain no criterion
NO_L1_TERM = "this Ultralytics computes no L1 term here, allowed is stock"
LAST = True  # `matches` also looks into a criterion: kinds that match the criterion itself come first


def matches(criterion: Any) -> bool:
    """Return whether a criterion, or one that it contains, is of this kind."""
    return any(True for _ in leaves(criterion))


def leaves(criterion: Any, path: str = "", depth: int = 12, seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield the criteria that a criterion consists of, including auxiliary ones, with their path."""
    seen = set() if seen is None else seen
    if depth == 0 or id(criterion) in seen or isinstance(criterion, Part | Tensor | str | bytes | type):
        return
    if isinstance(criterion, FunctionType):  # `functools.wraps` copies the attributes of the wrapped function
        yield from leaves(getattr(criterion, "__wrapped__", None), path, depth - 1, seen)
        return
    seen.add(id(criterion))  # a criterion may refer to its model, and the model to its criterion
    if isinstance(criterion, Mapping):
        inner = {str(name): value for name, value in criterion.items()}
    elif isinstance(criterion, list | tuple):
        inner = {str(number): value for number, value in enumerate(criterion)}
    else:
        if sum(hasattr(criterion, name) for name in PARTS) >= 2:
            yield path, criterion
        attributes = getattr(criterion, "__dict__", {})
        inner = {k: v for k, v in {**attributes, **attributes.get("_modules", {})}.items() if k not in SKIPPED}
    for name, value in inner.items():
        yield from leaves(value, f"{path}.{name}".lstrip("."), depth - 1, seen)


def equip(
    criterion: Any, settings: LossSettings, branches: Mapping[str, Branch], image_size: float | None = None
) -> dict[str, Branch]:
    """Put the chosen losses into a criterion with anchors, in place; see `criteria.equip`."""
    found = dict(leaves(criterion))
    schedule.restore(criterion)
    if settings.is_default:
        for leaf in found.values():
            restore(leaf)
        return {}
    if schedule.TERM in settings.terms:
        schedule.check(criterion, settings)
    chosen = [path for path in found if settings.loss_branches in ("both", path.split(".")[0])]
    if not chosen:
        raise ValueError(
            f"'loss_branches={settings.loss_branches}' is not valid: this head has one branch, allowed is both"
        )
    others = settings.without_losses()
    equipped: dict[str, AnchorBranch] = {}
    for path, leaf in found.items():
        own = settings if path in chosen else others
        if own.is_default:
            restore(leaf)
            continue
        branch = _equip_one(leaf, own, branches.get(path), path)
        branch.ledger.gain = _gains(_weak(criterion), _weak(leaf), path)
        equipped[path] = branch
    if schedule.TERM in settings.terms:
        schedule.put(criterion, next(b for b in equipped.values() if schedule.TERM in b.settings.terms))
    return {**equipped}


def _equip_one(criterion: Any, settings: LossSettings, branch: Branch | None, path: str) -> AnchorBranch:
    parts.check_attributes(criterion, PARTS)
    restore(criterion)
    settings.check_boxes(isinstance(criterion.bbox_loss, RotatedBboxLoss))
    parts.check_class_weights(criterion, settings)
    plain = is_plain_bce(criterion.bce)
    _check_class_part(criterion, settings, plain)
    distribution = distribution_name(criterion.bbox_loss)
    has_l1 = has_l1_term(criterion.bbox_loss)
    swaps_distribution = settings.dfl_loss != "stock"
    _check_distances(criterion, settings)
    for each in TASK_PARTS:
        each.check(criterion, settings)
    assigner.check(criterion.assigner, settings)
    if not isinstance(branch, AnchorBranch):
        branch = AnchorBranch.build(
            settings,
            criterion,
            plain_bce=plain,
            expected=settings.parts,
            # A rank whose batch has text prompts does not reach this criterion, so ranks must not synchronize in it.
            joined="vp_criterion" not in path.split("."),
            assigner=assigner.describe(criterion.assigner, settings),
            always_logged=("class", "box", *(["distribution"] if distribution else ["l1"] if has_l1 else [])),
        )
        if branch.cls is not None and hasattr(criterion, "nc"):
            branch.cls.set_classes(criterion.nc)
        for module in branch.modules.values():
            if getattr(criterion, "device", None) is not None:
                module.to(criterion.device)
    if swaps_distribution:
        stock = getattr(criterion.bbox_loss, distribution)
        parts.put(criterion.bbox_loss, distribution, DistributionPart(stock, branch))
    if settings.swaps_box or "l1" in settings.terms:
        parts.put(criterion, "bbox_loss", BoxPart(criterion.bbox_loss, branch))
    if settings.swaps_cls or settings.loss_stats:
        parts.put(criterion, "bce", ClassPart(criterion.bce, branch))
    for each in TASK_PARTS:
        each.put(criterion, branch)
    parts.put(criterion, "assigner", AssignerPart(criterion.assigner, branch))
    return branch


def check_release(settings: LossSettings) -> None:
    """Raise a `ValueError` if no head of the installed Ultralytics has a chosen term."""
    angle_part.check(v8OBBLoss, settings)
    if settings.l1_loss != "stock" and not calls_l1(BboxLoss):
        raise ValueError(f"'l1_loss={settings.l1_loss}' is not valid: {NO_L1_TERM}")


def _check_distances(criterion: Any, settings: LossSettings) -> None:
    """Raise a `ValueError` if the head lacks a chosen term: it has either a distribution term or an L1 term."""
    predicts_distribution = bool(distribution_name(criterion.bbox_loss))
    if settings.dfl_loss != "stock" and not predicts_distribution:
        other = "; its term is l1_loss" if has_l1_term(criterion.bbox_loss) else ""
        raise ValueError(
            f"'dfl_loss={settings.dfl_loss}' is not valid: this head predicts no distribution, allowed is stock{other}"
        )
    if settings.l1_loss != "stock" and not has_l1_term(criterion.bbox_loss):
        why = "this head predicts a distribution, allowed is stock; its term is dfl_loss"
        if not predicts_distribution:
            why = NO_L1_TERM
        raise ValueError(f"'l1_loss={settings.l1_loss}' is not valid: {why}")


def _check_class_part(criterion: Any, settings: LossSettings, plain: bool) -> None:
    """Raise a `ValueError` on keys that need plain BCE if the class part is another one; log that it is replaced."""
    if plain or not settings.swaps_cls:
        return
    part = type(criterion.bce).__name__
    if settings.cls_loss != "stock":
        log(f"cls_loss={settings.cls_loss} replaces the criterion's own class loss, a {part} that is not plain BCE")
    elif settings.cls_scale == "auto" or settings.cls_target != "auto":
        key = "cls_scale" if settings.cls_scale == "auto" else "cls_target"
        default = "a number > 0" if key == "cls_scale" else "auto"
        raise ValueError(
            f"'{key}={getattr(settings, key)}' cannot be used with the criterion's own class loss, a {part} that is not"
            f" plain BCE: allowed is {default}, or choose a cls_loss"
        )


def _weak(thing: Any) -> Callable[[], Any]:
    """Return a weak reference, or a function that returns `None` for an object without weak references."""
    try:
        return weakref.ref(thing)
    except TypeError:  # a list or a tuple of criteria
        return lambda: None


def _gains(root: Callable[[], Any], leaf: Callable[[], Any], path: str) -> Callable[[str], float]:
    """Return a function of a term that returns its gain: that of the criterion times the weight of the branch."""

    def gain(term: str) -> float:
        hyp = getattr(leaf(), "hyp", None)
        if "vp_criterion" in path.split(".") and term != "class":
            return 0.0  # for visual prompts, Ultralytics only trains the class term
        name = GAINS[term]
        own = hyp.get(name, 1.0) if isinstance(hyp, Mapping) else getattr(hyp, name, 1.0)
        weight = {"one2many": "o2m", "one2one": "o2o"}.get(path.partition(".")[0], "")
        return float(own) * float(getattr(root(), weight, 1.0))

    return gain


def logged_branch(criterion: Any) -> str:
    """Return which branch's loss the log shows, "" if there is one branch."""
    if not hasattr(criterion, "one2one"):
        return ""
    return "one2one" if hasattr(criterion, "o2o") else "the sum of one2many and one2one"


def first_parts(criterion: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield the path of each criterion, the criterion, and the name of the part that it calls first."""
    yield from ((path, leaf, "assigner") for path, leaf in leaves(criterion))


def restore(criterion: Any) -> None:
    """Restore the stock parts of a criterion."""
    for name in PARTS:
        parts.put_back(criterion, name)
    box = getattr(criterion, "bbox_loss", None)
    if box is not None:
        parts.put_back(box, distribution_name(box))
    for each in TASK_PARTS:
        each.restore(criterion)
