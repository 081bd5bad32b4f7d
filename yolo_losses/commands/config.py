"""`yolo-losses config`: where the shipped configs are."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolo_losses import registry

HELP = "print the path of a shipped config, for `yolo train cfg=PATH model=... data=...`"
EXAMPLES = """\
examples:
  yolo-losses config                                                            the names
  yolo train cfg=$(yolo-losses config slide) model=yolov8n.yaml data=my.yaml    `cfg=` comes first
  cp $(yolo-losses config slide) my_losses.yaml                                 a copy to edit
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("name", nargs="?", help="such as slide; without it, all are listed")


def folder() -> Path:
    """Return the folder of the configs: in the package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def run(args: argparse.Namespace) -> int:
    """Print a path, or every name."""
    configs = {path.stem: path for path in sorted(folder().glob("*.yaml"))}
    if args.name is None:
        print("\n".join(configs))
        return 0
    name = registry.normalize_name(args.name.removesuffix(".yaml"))
    if name not in configs:
        hint = registry.did_you_mean(name, list(configs))
        raise ValueError(f"there is no config '{args.name}'.{hint} There are {', '.join(configs)}.")
    print(configs[name])
    return 0
