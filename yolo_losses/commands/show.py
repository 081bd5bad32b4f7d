"""`yolo-losses show`: pictures of losses."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "draw losses and their gradients: a window, a PNG, SVG or PDF"
EPILOG = """examples:
  yolo-losses show slide                           against BCE, in a window
  yolo-losses show bce focal vfl --out loss.png    several of one kind in one picture
  yolo-losses show focal focal_gamma=1.5,3         a curve for each value
  yolo-losses show inner_siou --out inner.pdf      a box loss with modifiers, against its base
  yolo-losses show seg_dice seg_tversky            mask losses have seg_ in front
  yolo-losses show focal --column --out a.pdf      two panels and a legend, for a column of a paper
  yolo-losses show --all docs/losses               every loss, as SVG for light and dark pages
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument(
        "words", nargs="*", metavar="LOSS | KEY=VALUE", help="names of losses, and values of their keys"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write FILE.png, FILE.svg or FILE.pdf; no window")
    parser.add_argument("--column", action="store_true", help="two panels and a legend alone, for a column of a paper")
    parser.add_argument("--all", type=Path, metavar="DIR", help="write a picture of every loss to a folder")


def run(args: argparse.Namespace) -> int:
    """Draw the picture, or all."""
    from yolo_losses import plots as pictures

    if args.all:
        if args.words or args.out or args.column:
            raise ValueError("'--all' draws every loss: leave names, keys and other options out")
        print(f"{len(pictures.gallery(args.all))} pictures in {args.all}")
        return 0
    names = [word for word in args.words if "=" not in word]
    if not names:
        raise ValueError("no loss is named: try yolo-losses show slide. `yolo-losses list` prints all losses")
    keys = {key: text.split(",") for key, _, text in (word.partition("=") for word in args.words if "=" in word)}
    if args.out:
        pictures.save(pictures.draw(names, keys, column=args.column), args.out, " ".join(args.words))
        print(args.out)
    else:
        pictures.window(names, keys, column=args.column)
    return 0
