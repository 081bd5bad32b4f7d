"""The command `yolo-losses`, one file per subcommand.

Each has `HELP`, `configure(parser)` and `run(args) -> exit code`; a new file in this folder is a new subcommand.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

from yolo_losses import __version__
from yolo_losses.registry import did_you_mean

EXAMPLES = """examples:
  yolo train model=yolov8n.yaml data=my.yaml cls_loss=slide   train with a loss, by the stock command
  yolo-losses list                                            which losses there are
  yolo-losses list slide                                      its parameters, ranges and source
  yolo-losses show slide --out slide.png                      its curves, as a picture
  yolo-losses doctor                                          is the plugin active here and in workers?
  yolo-losses COMMAND --help                                  the options of a command
"""


def _files() -> dict[str, str]:
    """Return the module name of each subcommand, by the name of the subcommand."""
    return {name.rstrip("_"): name for name in sorted(found.name for found in pkgutil.iter_modules(__path__))}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with every subcommand."""
    root = argparse.ArgumentParser(
        prog="yolo-losses",
        description="Train Ultralytics YOLO models with a loss chosen by name.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"yolo-losses {__version__}")
    subcommands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, file in _files().items():
        module = importlib.import_module(f"{__name__}.{file}")
        sub = subcommands.add_parser(
            name, help=module.HELP, description=module.HELP, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.configure(sub)
        sub.set_defaults(run=module.run)
    return root


def main(argv: list[str] | None = None) -> int:
    """Run the command; an error in its arguments is reported in one line, with exit code 1."""
    root = parser()
    words = sys.argv[1:] if argv is None else argv
    command = next((word for word in words if not word.startswith("-")), None)
    if command is not None and command not in (names := list(_files())):
        root.error(f"there is no command '{command}': there are {', '.join(names)}.{did_you_mean(command, names)}")
    args = root.parse_args(argv)
    try:
        return int(args.run(args))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # `yolo-losses list | head`
        sys.stderr.close()
        return 0
