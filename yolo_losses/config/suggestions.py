"""Hints for unknown training keys: keys of other code bases, parameters without the name of the loss, misspellings."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any

from yolo_losses import registry
from yolo_losses.config.renaming import argument
from yolo_losses.registry import LossSpec, normalize_name, other_names, retired
from yolo_losses.registry.parameters import parse_value

# Keys that select a loss in other code bases.
LOSS_KEYS = frozenset(
    {
        *("loss", "losses", "loss_type", "loss_name", "loss_fn", "loss_function", "criterion"),
        *("iou_type", "iou_loss", "iou_mode", "bbox_loss", "loss_bbox", "reg_loss", "loss_box", "box_loss_type"),
        *("cls_loss_type", "loss_cls", "class_loss", "obj_loss", "mask_loss", "loss_mask"),
    }
)
# Keys for class weights in other code bases.
WEIGHTS = frozenset({"pos_weight", "pos_weights", "cls_pos_weight", "class_weight", "class_weights"})
# Parameters of losses under other names.
PARAMETERS = {"fl_gamma": "focal_gamma", "fl_alpha": "focal_alpha", "nwd_c": "nwd_constant"}


def unknown_key(
    key: str, value: Any, chosen: Iterable[LossSpec], own_keys: Collection[str], known: Collection[str]
) -> str:
    """Return a hint for an unknown key, such as ` Did you mean 'cls_loss=focal'?`.

    Args:
        key: the unknown key.
        value: its value.
        chosen: the losses that other keys select.
        own_keys: this package's keys.
        known: the names of Ultralytics' keys.

    Returns:
        The hint, or an empty string if the key does not look like one of this package's.
    """
    word = normalize_name(key)
    if word in retired.RETIRED:
        return retired.hint(word)
    if word in LOSS_KEYS:
        meant = _choice(str(value))
        return other_names.hint(meant) if meant else " The loss is chosen by cls_loss, box_loss or seg_loss."
    if word in WEIGHTS:
        return other_names.hint((argument("cls_weights"),))
    if word in PARAMETERS:
        return other_names.hint((f"{_owner(PARAMETERS[word])} {argument(PARAMETERS[word])}={value}",))
    for spec in chosen:
        for parameter in spec.parameters:
            if word == parameter.name.rstrip("_"):
                return other_names.hint((f"{argument(parameter.key)}={value}",))
    keys = [argument(p.key) for s in registry.specs() for p in s.parameters if word == p.name.rstrip("_")]
    if keys:
        return f" The key of a parameter includes the name of its loss: {', '.join(dict.fromkeys(keys))}."
    if value in ("", None) or parse_value(value, bool) is True:  # `slide`, `--SIoU`, `focal=True`
        meant = _choice(word)
        if meant:
            return other_names.hint(meant)
    own_keys = [argument(name) for name in own_keys]
    near = difflib.get_close_matches(word[:100], {*known, *own_keys}, n=1)
    if near and near[0] in own_keys:
        return other_names.hint((near[0],))
    prefixes = {registry.key_prefix(s.kind, s.name): s for s in registry.specs() if s.parameters}
    loss = next((s for prefix, s in prefixes.items() if word.startswith(prefix)), None)
    if loss is None:
        return ""
    return f" The parameters of '{loss.name}' are {', '.join(argument(p.key) for p in loss.parameters)}."


def _choice(name: str) -> tuple[str, ...]:
    """Return the training keys that select a loss by its name here or in other code bases."""
    modifiers, _, base = normalize_name(name).rpartition("_")
    for kind, key in sorted(registry.TERM_KEYS.items(), key=lambda item: item[0] != "box"):
        spec = registry.find(kind, name)
        if spec is not None:
            return (f"{argument(key)}={spec.name}",)
    if modifiers and registry.find("box", base):
        try:
            return (f"{argument('box_loss')}={registry.box_name(*registry.split_box_name(name))}",)
        except ValueError:
            return ()
    return other_names.choices(name)


def _owner(key: str) -> str:
    """Return the key that selects the loss of a parameter."""
    spec = next(s for s in registry.specs() for p in s.parameters if p.key == key)
    return f"{argument(registry.TERM_KEYS[spec.kind])}={spec.name}"
