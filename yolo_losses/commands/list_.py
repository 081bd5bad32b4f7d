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
from yolo_losses.registry import KINDS, LossSpec

HELP = "list the losses and modifiers; with names or -v also their parameters, aliases and sources"
EXAMPLES = """examples:
  yolo-losses list                     every loss, one line each
  yolo-losses list slide               one loss with its parameters, aliases and source
  yolo-losses list focaler_inner_ciou  a box loss and its modifiers
  yolo-losses list 'focal*' siou       names may contain wildcards
  yolo-losses list -v | less           everything
  yolo-losses list --json              the same for programs
"""

ROTATED = "rotated"  # the group of those box losses that are for rotated boxes
TITLES: dict[str, str] = {}
for _kind in KINDS.values():
    TITLES[_kind.group] = _kind.title
    if _kind.group == "box":
        TITLES[ROTATED] = "box_loss: rotated boxes (task obb)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("names", nargs="*", metavar="NAME", help="names, aliases or wildcards; all losses by default")
    parser.add_argument("-v", "--verbose", action="store_true", help="show parameters, aliases and sources")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the losses."""
    found = select(args.names)
    if args.json:
        print(json.dumps({"losses": [_record(s) for s in found], "problems": registry.problems()}, indent=2))
        return 0
    detailed = bool(args.names or args.verbose)
    width = max(len(_shown(spec)) for spec in found)
    for title, specs in grouped(found).items():
        print(f"{TITLES[title]}\n" + "\n".join(line for spec in specs for line in _lines(spec, width, detailed)) + "\n")
    if not args.names:
        print("other keys")
        other = {name: f"{key.allowed} (default {key.default})" for name, key in settings.KEYS.items()}
        other[BETA.key] = f"{BETA.allowed} (default {BETA.default}): {BETA.limits.help}"
        print("\n".join(f"  {key:<{max(map(len, other))}}  {values}" for key, values in other.items()))
    if not detailed:
        print("\nParameters, aliases and sources: yolo-losses list NAME, or -v for all")
    for problem in registry.problems():
        print(f"plugin left out: {problem}")
    return 0


def group(spec: LossSpec) -> str:
    """Return the group of a loss in listings."""
    return ROTATED if spec.rotated else KINDS[spec.kind].group


def grouped(specs: list[LossSpec]) -> dict[str, list[LossSpec]]:
    """Return the losses by group, sorted by name, without empty groups."""
    ordered = sorted(specs, key=lambda spec: spec.name)
    groups = {name: [spec for spec in ordered if group(spec) == name] for name in TITLES}
    return {name: members for name, members in groups.items() if members}


def select(names: list[str]) -> list[LossSpec]:
    """Return the losses with one of the names, in order of registration; all without names.

    Raises:
        ValueError: on a name that matches nothing.
    """
    every = registry.specs()
    wanted: set[int] = set()
    for name in names:
        pattern = registry.normalize_name(name)
        matches = [s for s in every if any(fnmatch.fnmatchcase(known, pattern) for known in (s.name, *s.aliases))]
        if not matches:
            try:
                modifiers, base = registry.split_box_name(name)
            except ValueError:
                hint = registry.did_you_mean(name, [spec.name for spec in every])
                raise ValueError(f"no loss matches '{name}'.{hint}") from None
            matches = [*modifiers, base]
        wanted.update(map(id, matches))
    return [spec for spec in every if not names or id(spec) in wanted]


def _shown(spec: LossSpec) -> str:
    return f"{spec.name}_" if spec.kind == "modifier" else spec.name


def _lines(spec: LossSpec, width: int, detailed: bool) -> list[str]:
    lines = [f"  {_shown(spec):<{width}}  {spec.summary}"]
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
        "group": group(spec),
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
