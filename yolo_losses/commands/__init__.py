"""The command `yolo-losses`, one file a subcommand.

Each has `HELP`, `configure(parser)` and `run(args) -> exit code`; a new file here is a new subcommand.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys


def main(argv: list[str] | None = None) -> int:
    """Run the command; what is wrong with its arguments is said in one line, with exit code 1."""
    parser = argparse.ArgumentParser(prog="yolo-losses", description="Pick the loss of an Ultralytics YOLO by name.")
    subcommands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        name = found.name.rstrip("_")
        module = importlib.import_module(f"{__name__}.{found.name}")
        sub = subcommands.add_parser(name, help=module.HELP, description=module.HELP)
        module.configure(sub)
        sub.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # `yolo-losses list | head`
        sys.stderr.close()
        return 0
