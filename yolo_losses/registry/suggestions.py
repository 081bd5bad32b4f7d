"""Errors for names that are not known: what is allowed, what is meant, and what was left out on purpose."""

from __future__ import annotations

import difflib
import re
from typing import Any

from yolo_losses.registry import left_out
from yolo_losses.registry.parameters import shown
from yolo_losses.registry.specification import TERM_KEYS, Kind, LossSpec, normal
from yolo_losses.registry.table import find, specs


def did_you_mean(name: str, names: list[str]) -> str:
    """Return ` Did you mean 'x'?`, or an empty string if no name is similar."""
    near = difflib.get_close_matches(normal(name)[:100], names, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def unknown_name(key: str, name: Any, names: list[str], near: list[str] | None = None, more: str = "") -> ValueError:
    """Return the error for an unknown value: the value, the allowed ones, and the most similar one."""
    hint = did_you_mean(name, near or names) if isinstance(name, str) else ""
    return ValueError(f"'{key}={shown(name)}' is not valid: allowed are {', '.join(names)}{more}.{hint}")


def unknown_loss(kind: Kind, name: Any) -> ValueError:
    """Return the error for a name that is not a loss of this kind, with a hint that fits the name."""
    key = TERM_KEYS[kind]
    names = ["stock", *(s.name for s in specs(kind))]
    if not isinstance(name, str):
        return unknown_name(key, name, names)
    left = left_out.find(normal(name))
    if left is not None:
        return ValueError(f"'{key}={shown(name)}' is not valid: {left.advice}; allowed are {', '.join(names)}.")
    for other, other_key in TERM_KEYS.items():
        spec = find(other, name) if other != kind else None
        if spec is not None:
            what = {"cls": "class", "box": "box", "seg": "mask"}[other]
            return ValueError(
                f"'{key}={shown(name)}' is not valid: '{spec.name}' is a {what} loss, {other_key}={spec.name};"
                f" allowed are {', '.join(names)}."
            )
    # For a spelling similar to an alias the hint is the registered name.
    spellings = {word: s.name for s in specs(kind) for word in (*s.aliases, s.name)}
    near = difflib.get_close_matches(normal(name)[:100], [*spellings, "stock"], n=1)
    hint = f" Did you mean '{spellings.get(near[0], near[0])}'?" if near else ""
    return ValueError(f"'{key}={shown(name)}' is not valid: allowed are {', '.join(names)}.{hint}")


def unknown_box_loss(name: Any) -> ValueError:
    """Return the error for a box loss name with an unknown part."""
    words = normal(name)
    if left_out.find(words) is not None:
        return unknown_loss("box", name)
    prefixes = [s.name for s in specs("modifier")]
    more = f", with any of {', '.join(p + '_' for p in prefixes)} in front"
    modifier = find("modifier", words)
    if modifier is not None:
        also = f" (the class loss is cls_loss={words})" if find("cls", words) else ""
        return ValueError(
            f"'box_loss={shown(name)}' is not valid: '{modifier.name}_' is a modifier, a prefix of box losses,"
            f" such as {modifier.name}_{example_base(modifier)}{also}"
        )
    version = re.fullmatch(r"(.+?)_?v(\d)", words)
    if version:
        spec = find("box", version[1])
        numbered = find("box", version[1] + version[2])
        key = f"{spec.name}_version" if spec else ""
        if numbered:
            return unknown_name("box_loss", name, _box_names(), [numbered.name], more)
        if spec and any(p.key == key for p in spec.parameters):
            return ValueError(
                f"'box_loss={shown(name)}' is not valid: the version is a parameter,"
                f" box_loss={spec.name} {key}={version[2]}"
            )
    if find("cls", words) or find("seg", words):
        return unknown_loss("box", name)
    near = difflib.get_close_matches(words[:100], [*_box_names(), *_combined()], n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return ValueError(f"'box_loss={shown(name)}' is not valid: allowed are {', '.join(_box_names())}{more}.{hint}")


def _box_names() -> list[str]:
    return ["stock", *(s.name for s in specs("box"))]


def _combined() -> list[str]:
    return [f"{m.name}_{s.name}" for m in specs("modifier") for s in specs("box") if m.module.fits(s.name, s.rotated)]


def example_base(modifier: LossSpec) -> str:
    """Return the name of a box loss that a modifier applies to, for examples."""
    names = [s.name for s in specs("box") if modifier.module.fits(s.name, s.rotated)]
    return "ciou" if "ciou" in names else names[0]
