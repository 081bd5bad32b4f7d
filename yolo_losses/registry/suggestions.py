"""Errors for unknown names, with the allowed names, the most similar one, and advice on losses left out on purpose."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from yolo_losses.registry import left_out, other_names
from yolo_losses.registry.parameters import InvalidValueError, did_you_mean, normalize_name
from yolo_losses.registry.specification import KINDS, TERM_KEYS, Kind, LossSpec
from yolo_losses.registry.table import find, specs


def unknown_name(
    key: str, name: Any, names: Sequence[str], near: Sequence[str] = (), more: str = ""
) -> InvalidValueError:
    """Return the error for an unknown value, with the allowed values and the most similar one."""
    hint = did_you_mean(name, near or names) if isinstance(name, str) else ""
    return _not_valid(key, name, f"allowed are {', '.join(names)}{more}.{hint}")


def unknown_loss(kind: Kind, name: Any, words: Sequence[str] = ()) -> InvalidValueError:
    """Return the error for a name that is not a loss of this kind, with a hint.

    Args:
        kind: the kind of loss.
        name: the given name.
        words: values that the key allows besides `stock` and the losses, such as `off`.
    """
    key = KINDS[kind].key
    names = ["stock", *(s.name for s in specs(kind)), *words]
    if not isinstance(name, str):
        return unknown_name(key, name, names)
    allowed = f"allowed are {', '.join(names)}."
    left = left_out.find(normalize_name(name))
    if left is not None:
        return _not_valid(key, name, f"{left.advice}; {allowed}")
    if meant := other_names.choices(name):
        return _not_valid(key, name, f"{allowed}{other_names.hint(meant)}")
    for other, other_key in TERM_KEYS.items():
        spec = find(other, name) if other != kind else None
        if spec is not None:
            choice = f"{other_key}={spec.name}" if other_key != key else f"not a {KINDS[kind].noun}"
            return _not_valid(key, name, f"'{spec.name}' is a {KINDS[other].noun}, {choice}; {allowed}")
    # For a spelling similar to an alias, the hint is the registered name.
    spellings = {word: s.name for s in specs(kind) for word in (*s.aliases, s.name)}
    near = difflib.get_close_matches(normalize_name(name)[:100], [*spellings, "stock", *words], n=1)
    hint = f" Did you mean '{spellings.get(near[0], near[0])}'?" if near else ""
    return _not_valid(key, name, f"{allowed}{hint}")


def unknown_box_loss(name: Any) -> InvalidValueError:
    """Return the error for the name of a box loss with an unknown part."""
    words = normalize_name(name)
    if left_out.find(words) is not None:
        return unknown_loss("box", name)
    prefixes = [s.name for s in specs("modifier")]
    more = f", with any of {', '.join(p + '_' for p in prefixes)} in front"
    modifier = find("modifier", words)
    if modifier is not None:
        also = f" (the class loss is cls_loss={words})" if find("cls", words) else ""
        return _not_valid(
            "box_loss",
            name,
            f"'{modifier.name}_' is a modifier, a prefix of box losses,"
            f" such as {modifier.name}_{example_base(modifier)}{also}",
        )
    version = re.fullmatch(r"(.+?)_?v(\d)", words)
    if version:
        spec = find("box", version[1])
        numbered = find("box", version[1] + version[2])
        key = f"{spec.name}_version" if spec else ""
        if numbered:
            return unknown_name("box_loss", name, _box_names(), [numbered.name], more)
        if spec and any(p.key == key for p in spec.parameters):
            return _not_valid("box_loss", name, f"the version is a parameter, box_loss={spec.name} {key}={version[2]}")
    if other_names.choices(name) or any(find(kind, words) for kind in TERM_KEYS if kind != "box"):
        return unknown_loss("box", name)
    if reordered := _reorder_modifiers(words):
        return _not_valid("box_loss", name, f"allowed are {', '.join(_box_names())}{more}. Did you mean '{reordered}'?")
    near = difflib.get_close_matches(words[:100], [*_box_names(), *_combined()], n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return _not_valid("box_loss", name, f"allowed are {', '.join(_box_names())}{more}.{hint}")


def _not_valid(key: str, name: Any, reason: str) -> InvalidValueError:
    return InvalidValueError(key, name, f"is not valid: {reason}")


def _reorder_modifiers(words: str) -> str | None:
    """Return `inner_siou` for `siou_inner`; `None` if the name does not end with a modifier."""
    base, _, last = words.rpartition("_")
    modifiers = ""
    while base and (modifier := find("modifier", last)) is not None:
        modifiers = f"{modifier.name}_{modifiers}"
        if (spec := find("box", base)) is not None:
            return f"{modifiers}{spec.name}"
        base, _, last = base.rpartition("_")
    return None


def _box_names() -> list[str]:
    return ["stock", *(s.name for s in specs("box"))]


def _combined() -> list[str]:
    return [f"{m.name}_{s.name}" for m in specs("modifier") for s in specs("box") if m.module.fits(s.name, s.rotated)]


def example_base(modifier: LossSpec) -> str:
    """Return the name of a box loss that a modifier applies to, for examples."""
    names = [s.name for s in specs("box") if modifier.module.fits(s.name, s.rotated)]
    return "ciou" if "ciou" in names else names[0]
