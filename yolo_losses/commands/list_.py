"""`yolo-losses list`: the registered losses and modifiers, their parameters and sources."""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
from typing import Any

from yolo_losses import registry
from yolo_losses.config import settings
from yolo_losses.config.class_weights import BETA
from yolo_losses.registry import KINDS, LossSpec, left_out, other_names

HELP = "list the losses, modifiers and keys; with names or -v also their parameters, aliases and sources"
EXAMPLES = """examples:
  yolo-losses list                     every loss, one line each
  yolo-losses list slide               one loss with its parameters, aliases and source
  yolo-losses list focaler_inner_ciou  a box loss and its modifiers
  yolo-losses list 'focal*' siou       names may contain wildcards
  yolo-losses list cls_scale           one key with its values
  yolo-losses list -v | less           everything
  yolo-losses list --json              the same for programs
"""

TITLES: dict[str, str] = {}
for _kind in KINDS.values():
    TITLES[_kind.group] = _kind.title
    if _kind.group == "box":
        TITLES["rotated"] = "box_loss: rotated boxes (task obb)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("names", nargs="*", metavar="NAME", help="names, aliases, keys or wildcards; default: all")
    parser.add_argument("-v", "--verbose", action="store_true", help="show parameters, aliases and sources")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the losses."""
    found, keys = select(args.names)
    if args.json:
        losses = [_record(spec) for spec in found]
        print(json.dumps({"losses": losses, "keys": keys, "problems": registry.problems()}, indent=2))
        return 0
    detailed = bool(args.names or args.verbose)
    width = max((len(_display_name(spec)) for spec in found), default=0)
    for title, specs in grouped(found).items():
        print(f"{TITLES[title]}\n" + "\n".join(line for spec in specs for line in _lines(spec, width, detailed)) + "\n")
    if keys:
        print("other keys", *(f"  {key:<16}  {values}" for key, values in keys.items()), sep="\n")
    if not detailed:
        print("\nParameters, aliases and sources: yolo-losses list NAME, or -v for all")
    for problem in registry.problems():
        print(f"plugin left out: {problem}")
    return 0


def grouped(specs: list[LossSpec]) -> dict[str, list[LossSpec]]:
    """Return the losses by group, sorted by name, without empty groups."""
    ordered = sorted(specs, key=lambda spec: spec.name)
    groups = {name: [spec for spec in ordered if spec.group == name] for name in TITLES}
    return {name: members for name, members in groups.items() if members}


def choices() -> dict[str, str]:
    """Return the keys that are not parameters of a loss, each with its allowed values and default."""
    found = {name: f"{key.allowed} (default {key.default})" for name, key in settings.KEYS.items()}
    found[BETA.key] = f"{BETA.allowed} (default {BETA.default}): {BETA.limits.help}"
    return found


def select(names: list[str]) -> tuple[list[LossSpec], dict[str, str]]:
    """Return the losses and the keys with one of the names; all without names.

    Args:
        names: names of losses, combinations of modifiers and a box loss, keys, or wildcards. The key of a parameter
            selects its loss.

    Returns:
        The losses in order of registration, and the keys as in `choices`.

    Raises:
        ValueError: if a name matches nothing.
    """
    specs, keys = registry.specs(), choices()
    if not names:
        return specs, keys
    wanted: set[int] = set()
    wanted_keys: set[str] = set()
    for name in names:
        pattern = registry.normalize_name(name)
        spellings = {id(s): (s.name, *s.aliases, *(p.key for p in s.parameters)) for s in specs}
        matches = {i for i, known in spellings.items() if any(fnmatch.fnmatchcase(word, pattern) for word in known)}
        matching_keys = {key for key in keys if fnmatch.fnmatchcase(key, pattern)}
        if not (matches or matching_keys):
            try:
                modifiers, base = registry.split_box_name(name)
            except ValueError:
                if (left := left_out.find(pattern)) is not None:
                    raise ValueError(f"no loss or key matches '{name}': {left.advice}") from None
                meant = [choice.partition("=")[2] for choice in other_names.choices(name)]
                near = other_names.hint(meant) or registry.did_you_mean(name, [*(s.name for s in specs), *keys])
                raise ValueError(f"no loss or key matches '{name}'.{near}") from None
            matches = {id(spec) for spec in (*modifiers, base)}
        wanted |= matches
        wanted_keys |= matching_keys
    return [s for s in specs if id(s) in wanted], {key: text for key, text in keys.items() if key in wanted_keys}


def _display_name(spec: LossSpec) -> str:
    return f"{spec.name}_" if spec.kind == "modifier" else spec.name


def _lines(spec: LossSpec, width: int, detailed: bool) -> list[str]:
    lines = [f"  {_display_name(spec):<{width}}  {spec.summary}"]
    if not detailed:
        return lines
    for p in spec.parameters:
        help_text = f": {p.limits.help}" if p.limits.help else ""
        lines.append(f"      {p.key:<20} {p.default!s:<6} {p.allowed}{help_text}")
    for what, text in (("source", spec.source), ("aliases", ", ".join(spec.aliases))):
        if text:
            lines.append(f"      {what}: {text}")
    return lines


def _record(spec: LossSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "group": spec.group,
        "summary": spec.summary,
        "source": spec.source,
        "aliases": list(spec.aliases),
        "built_in": spec.built_in,
        "parameters": [
            {
                "key": p.key,
                "type": p.type.__name__,
                "default": p.default,
                "help": p.limits.help,
                "allowed": p.allowed,
                "low": _finite(p.limits.low),
                "above": _finite(p.limits.above),
                "high": _finite(p.limits.high),
                "words": list(p.limits.words),
            }
            for p in spec.parameters
        ],
    }


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
