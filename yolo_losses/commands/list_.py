"""`yolo-losses list`: every loss, its parameters, its source."""

from __future__ import annotations

import argparse

from yolo_losses import registry, settings
from yolo_losses.registry import LossSpec

HELP = "list every loss with its parameters, their defaults and ranges, and its source"

TITLES = {
    "cls": "cls_loss: classification",
    "box": "box_loss: boxes",
    "modifier": "in front of an axis-aligned box loss, such as inner_siou or focaler_inner_ciou",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("pattern", nargs="?", default="", help="only the losses whose name contains this")


def run(args: argparse.Namespace) -> int:
    """Print the losses."""
    wanted = registry.normal(args.pattern)
    found = [s for s in registry.specs() if wanted in s.name or any(wanted in alias for alias in s.aliases)]
    if not found:
        names = [s.name for s in registry.specs()]
        raise ValueError(f"no loss is called like '{args.pattern}'.{registry.did_you_mean(args.pattern, names)}")
    for kind, title in TITLES.items():
        rows = [line for spec in found if spec.kind == kind for line in _rows(spec)]
        if rows:
            print(f"{title}\n" + "\n".join(rows) + "\n")
    if not wanted:
        print("other keys")
        other = {
            "cls_loss, box_loss": "stock, or a name from above",
            "dfl_loss": ", ".join(settings.DFL_VALUES),
            "cls_target": ", ".join(settings.TARGETS),
            "cls_scale": "a number > 0 (default 1)",
            "loss_branches": ", ".join(settings.BRANCHES),
        }
        print("\n".join(f"  {key:<22} {values}" for key, values in other.items()))
    for problem in registry.problems():
        print(f"plugin left out: {problem}")
    return 0


def _rows(spec: LossSpec) -> list[str]:
    name = f"{spec.name}_" if spec.kind == "modifier" else spec.name
    rows = [f"  {name:<12} {spec.summary}" + (f"  [{spec.source}]" if spec.source else "")]
    for p in spec.parameters:
        help_text = f": {p.limits.help}" if p.limits.help else ""
        rows.append(f"    {p.key:<20} {p.default!s:<6} {p.allowed}{help_text}")
    return rows
