"""`python -m yolo_losses train ...`: the `yolo` command where start-up files do not run; its own commands too."""

from __future__ import annotations

import importlib
import pkgutil
import sys

from yolo_losses import commands


def main() -> int:
    """Hand a command line that begins with a command or an option of `yolo-losses` to that, any other to `yolo`."""
    own = {module.name.rstrip("_") for module in pkgutil.iter_modules(commands.__path__)}
    if len(sys.argv) < 2 or sys.argv[1] in {"-h", "--help", "--version", *own}:
        return commands.main(sys.argv[1:])
    sys.argv[0] = "yolo"
    # Ultralytics keeps the command line as it is first imported, and begins its trainings from there.
    cfg = importlib.import_module("ultralytics.cfg")
    cfg.entrypoint()
    return 0


if __name__ == "__main__":
    sys.exit(main())
