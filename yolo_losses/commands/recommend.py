"""`yolo-losses recommend`: which losses are worth trying on a data set."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

HELP = "read a data set's labels, and say which losses are worth a comparison on it, and why"
EXAMPLES = """\
The arguments are those of `yolo train`. Nothing is trained: only the labels are read, through Ultralytics' cache of
them. The output ends with the `yolo-losses compare` command that would decide.

examples:
  yolo-losses recommend data=my.yaml                                      with the model that `yolo train` takes
  yolo-losses recommend data=my.yaml model=yolov8n.pt imgsz=1280
  yolo-losses recommend data=my.yaml epochs=50 --write grid.yaml          then: yolo-losses compare cfg=grid.yaml
  yolo-losses recommend data=my.yaml --picture traits.png
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "words", nargs="*", metavar="KEY=VALUE", help="data=my.yaml, and model, imgsz, task, epochs, ..."
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the comparison as a grid for `compare cfg=FILE`"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the traits to FILE.png, .svg or .pdf")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the recommendation."""
    from yolo_losses.recommendation import recommend

    with contextlib.redirect_stdout(sys.stderr):  # Ultralytics prints at its first import
        found = recommend(**_keys(args.words))
    if args.write:
        found.write(args.write)
    if args.picture:
        found.draw(args.picture)
    if args.json:
        print(json.dumps(found.as_dict(), indent=1, ensure_ascii=False))
        return 0
    print(found)
    if args.write:
        print(f"written: {args.write}")
    return 0


def _keys(words: list[str]) -> dict[str, Any]:
    """Parse the words of a command line to keys."""
    from ultralytics.cfg import parse_key_value_pair

    keys: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key or not text:
            raise ValueError(f"'{word}' is not KEY=VALUE, such as data=my.yaml")
        keys[key] = text if key in ("data", "model") else parse_key_value_pair(word)[1]
    if "data" not in keys:
        raise ValueError("'data' is missing: yolo-losses recommend data=my.yaml")
    return keys
