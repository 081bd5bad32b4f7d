"""The log of a run: its start line, the proof line after the first batch with objects, and `cls_scale=auto`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from yolo_losses._log import log
from yolo_losses.config import class_weights
from yolo_losses.config.keys import LossKey
from yolo_losses.config.settings import KEYS, format_number
from yolo_losses.integration import criteria
from yolo_losses.integration.criteria import schedule
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.equipment import ROLES, Equipment

EQUAL = 0.005  # deviation of a ratio that the log shows as 1
GAIN_RATIO_WARNING = 3  # ratio of the class terms from which on the gains may not fit


def log_start(equipment: Equipment, roles: Iterable[str] = ROLES) -> None:
    """Log each term with its module and parameters, and which criteria were equipped."""
    branch = max(equipment.branches.values(), key=lambda branch: len(branch.expected))
    terms = [
        _format_term(equipment, branch, name, key)
        for name, key in KEYS.items()
        if isinstance(key, LossKey)
        and (key.term in branch.expected or key.term in branch.always_logged)
        and set(key.tasks).intersection(type(branch).tasks)
    ]
    terms += [note for note in [schedule.describe(_criterion(equipment), equipment.settings)] if note]
    terms += assigner_notes(equipment)
    names = ", ".join(name for name, own in equipment.branches.items() if name and own.expected == branch.expected)
    log(f"{'; '.join(terms)}; equipped for {' and '.join(roles)}{f' ({names})' if names else ''}")
    for module in branch.modules.values():
        warning = getattr(type(module), "one2one_warning", "")
        if warning and "one2one" in equipment.branches and equipment.branches["one2one"].expected:
            log(warning, warn=True)
        warning = getattr(type(module), "tal_warning", "")
        if warning and branch.settings.target == "tal":
            log(warning, warn=True)


def _format_term(equipment: Equipment, branch: Branch, name: str, key: LossKey) -> str:
    """Return a term for the start line: its key, its module, and other keys that change it."""
    settings, module = equipment.settings, branch.losses.get(key.term)
    words = f"{name}={getattr(settings, name)}"
    if module is not None:
        words += f" {_one_line(module)}"
    notes = branch.describe_term(key.term)
    for option, declared in KEYS.items():
        value = getattr(settings, option)
        if declared.term != key.term or option == name or value == declared.default or option == "cls_target":
            continue
        if option == "cls_weights":
            notes.append(_class_weights(equipment))
        elif option.endswith("_scale"):
            notes.append(f"times {format_number(value)}")
        else:
            notes.append(f"{option.partition('_')[2]} {format_number(declared.to_config(value))}")
    return ", ".join((words, *notes))


def _criterion(equipment: Equipment) -> Any:
    """Return one of the equipped criteria, which are all alike; `None` if there is none."""
    return next(iter(equipment.criteria.values()), None)


def log_proof(equipment: Equipment, criterion: Any) -> None:
    """Log which parts ran in batches with objects, and how the class term compares with the stock one.

    Args:
        equipment: the equipment of the model.
        criterion: the criterion of the model.
    """
    ran, ratios, unusual = [], [], ""
    for path, branch in equipment.branches.items():
        if not branch.expected:
            continue
        where = f"{path} " if path else ""
        untrained = branch.ledger.untrained
        parts = [f"{term} (not trained here)" if term in untrained else term for term in branch.expected]
        ran.append(f"{where}{', '.join(parts)}" if branch.proven else f"{where}not verified yet")
        if branch.ratios:
            value, gradient = branch.ratios["value"], branch.ratios.get("gradient")
            also = "" if gradient is None else f", {gradient:.3g} times in gradient{type(branch).where_compared}"
            reason = getattr(type(branch.cls), "equals_bce_note", "")
            if reason and all(abs(ratio - 1) < EQUAL for ratio in branch.ratios.values()):
                also += f" ({reason})"
            strength = f"class term {value:.3g} times {branch.reference}'s on the same predictions{also}"
            if math.isnan(value):
                strength = f"{branch.reference} is 0 on the same predictions, and the class term has no ratio to it"
            ratios.append(f"{where}{strength}")
            usual = all(1 / GAIN_RATIO_WARNING <= ratio <= GAIN_RATIO_WARNING for ratio in branch.ratios.values())
            if branch.can_scale and not usual:
                unusual = branch.reference
    if equipment.names:
        ratios.append(_class_weights(equipment))
    ratios += assigner_notes(equipment)
    notes = ran + ratios
    if weights := schedule.describe_epoch(criterion, equipment.settings):
        notes.append(weights)
    if equipment.settings.cls_scale == "auto":
        notes.append(f"cls_scale=auto is {format_factors(equipment.branches)}")
    elif equipment.settings.cls_scale == 1 and unusual:
        notes.append(
            f"the gains were tuned for {unusual}: cls_scale=auto keeps the class term as strong as {unusual}'s"
        )
    if logged := criteria.logged_branch(criterion):
        notes.append(f"the log shows {logged}")
    log(f"ran in the first batch with objects: {'; '.join(notes)}", over_bar=True)
    if any(branch.ratios.get("value") == 0 for branch in equipment.branches.values()):
        log("the class term is 0: the classes learn nothing from it", warn=True)


def assigner_notes(equipment: Equipment) -> list[str]:
    """Return the values of each branch's assigner that differ from stock, and the positives per object if known."""
    found = {path: branch for path, branch in equipment.branches.items() if branch.assigner}
    notes = []
    for path, branch in found.items():
        seen = branch.positives_per_object
        positives = "" if seen is None else f", {seen:.3g} positives per object"
        notes.append(f"{path} assigner: {branch.assigner}{positives}".lstrip())
    return notes


def format_factors(branches: Mapping[str, Branch]) -> str:
    """Return the running factors on the class terms of the branches as text; this synchronizes."""
    factors = {path: branch.scale for path, branch in branches.items() if branch.scale is not None}
    return ", ".join(
        f"{path} {float(scale.factor):.3g}".strip() + (" (its bound)" if scale.bounded else "")
        for path, scale in factors.items()
    )


def log_final_factor(branches: Mapping[str, Branch]) -> None:
    """Log the final value of the running factor on the class term, and the key that sets it to this value."""
    scales = [branch.scale for branch in branches.values() if branch.scale is not None]
    settled = len(scales) == 1 and float(scales[0].seen) > 0 and not scales[0].bounded
    fixed = f"; cls_scale={float(scales[0].factor):.3g} fixes it there" if settled else ""
    log(f"cls_scale=auto ended at {format_factors(branches)}{fixed}")


def _class_weights(equipment: Equipment) -> str:
    weights = equipment.equipped.cls_weights
    assert isinstance(weights, tuple)
    return f"class weights: {class_weights.summary(weights, equipment.names)}"


def _one_line(module: Any) -> str:
    return f"{type(module).__name__}({module.extra_repr()})"
