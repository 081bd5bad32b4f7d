"""`yolo-losses compare`: a grid of losses over seeds, and a report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolo_losses.comparison.words import Request

HELP = "train several losses over several seeds, and report which is better, and how sure that is"
METRIC = (
    "map50_95 (default), map50, map75, precision or recall, of the best epoch; with @last of the last one, with @mean"
    " over the last tenth of the epochs"
)
SOME_FAILED = 3  # the exit code
EXAMPLES = """\
The arguments are those of `yolo train`. A value with commas is an axis of the grid; `seed` is averaged over. The
command continues a comparison that was interrupted.

examples:
  yolo-losses compare model=yolov8n.yaml data=my.yaml epochs=50 seed=0-2 cls_loss=bce,focal,slide
  yolo-losses compare model=yolov8n.yaml data=my.yaml seed=0-2 box_loss=ciou,siou,eiou --devices 0,1
  yolo-losses compare model=yolov8n.yaml data=my.yaml seed=0-2 cls_loss=bce,focal --also "cls_loss=focal cls_scale=auto"
  yolo-losses compare model=yolov8n.yaml data=my.yaml seed=0-2 cls_loss=bce,slide --dry-run    print the grid
  yolo-losses compare --report-only --out runs/compare                                           rebuild the report

exit codes: 0 every run finished; 1 a value is invalid or no run finished; 3 the report is written, but some runs
failed; 130 stopped. With --report-only: 0 the report is written.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="as for `yolo train`; cfg=FILE may hold `grid:`")
    parser.add_argument(
        "--also", action="append", default=[], metavar="KEYS", help="a configuration beside the grid; may be repeated"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--baseline", metavar="KEY=VALUE", help="default: the first configuration, or stock")
    parser.add_argument("--metric", default="map50_95", help=METRIC)
    parser.add_argument(
        "--rope",
        type=_parse_fraction,
        default=0.005,
        metavar="X",
        help="difference that does not matter (default: %(default)s)",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time; they share the cores (default: 1)")
    parser.add_argument("--devices", default="", metavar="0,1", help="GPUs, one run on each at a time")
    parser.add_argument("--engine", default="local", help="local (default) or ray")
    parser.add_argument(
        "--address", help="address of a Ray cluster; default: RAY_ADDRESS, or a new cluster on this machine"
    )
    parser.add_argument(
        "--until-decided",
        action="store_true",
        help="add seeds in rounds, until each configuration is decided or unlikely to be",
    )
    parser.add_argument(
        "--max-seeds", type=int, default=12, metavar="N", help="maximum with --until-decided (default: 12)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the grid, the number of runs, time and disk")
    parser.add_argument("--report-only", action="store_true", help="rebuild the report of --out, and train nothing")
    parser.add_argument("--paper", type=Path, metavar="DIR", help="write table, figure, methods and references there")
    parser.add_argument("--language", default="en", help="language of the report: en (default) or zh")
    parser.add_argument("--json", action="store_true", help="print the results as JSON; all else goes to stderr")

    parse: Callable[..., tuple[argparse.Namespace, list[str]]] = parser.parse_known_args

    def parse_known_args(*args: Any, **kwargs: Any) -> tuple[argparse.Namespace, list[str]]:
        """Accept words after an option too, which argparse reports as unknown."""
        found, rest = parse(*args, **kwargs)
        found.words = [*found.words, *(word for word in rest if not word.startswith("-"))]
        return found, [word for word in rest if word.startswith("-")]

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign, assignment]


def _parse_fraction(text: str) -> float:
    """Parse a fraction, which may be written in percent: `0.5%` is 0.005."""
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def _request(args: argparse.Namespace) -> Request:
    from yolo_losses.comparison.words import read_configuration, read_words

    request = read_words(args.words)
    request.also += map(read_configuration, args.also)
    return request


def run(args: argparse.Namespace) -> int:
    """Train the missing runs of the comparison, and print the verdicts."""
    from yolo_losses.comparison import driver
    from yolo_losses.comparison.options import Options

    names = ("baseline", "metric", "rope", "jobs", "devices", "engine", "address", "out", "paper", "until_decided")
    options = Options(**{name: getattr(args, name) for name in (*names, "max_seeds", "language")})
    failed = []
    if args.report_only:
        if args.words or args.also:
            raise ValueError(f"'{[*args.words, *args.also][0]}': --report-only trains nothing, leave the keys out")
        table = driver.write_report(options)
    elif args.dry_run:
        print(driver.dry_run(_request(args), options))
        return 0
    else:
        try:
            command = shlex.join(["yolo-losses", *sys.argv[1:]])
            failed = driver.train(_request(args), options, command, quiet_output=args.json)
            table = driver.write_report(options)
        except KeyboardInterrupt:
            print("\nstopped; run the same command again to continue", file=sys.stderr)
            return 130
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
    code = SOME_FAILED if failed else 0
    if args.json:
        print((args.out / "summary.json").read_text(encoding="utf-8"))
        return code
    several = table["data"].n_unique() > 1
    for row in table.filter(weights=options.epochs).iter_rows(named=True):
        where = f" on {row['data']}" if several else ""
        if row["sentence"]:  # the baseline has none
            sentence = row["sentence"].replace("\u2212", "-")  # the minus sign is not in every terminal's encoding
            print(f"{row['configuration']}{where}: {sentence}")
    print(f"report: {args.out / 'report.html'}")
    if failed:
        print(f"{len(failed)} of the runs failed; the same command trains them again", file=sys.stderr)
    return code
