"""`yolo-losses doctor`: is the plugin active here, in the `yolo` command, and would it be in a worker?"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yolo_losses
from yolo_losses import hook, registry
from yolo_losses.autoload import yolo_losses_autoload as autoload

HELP = "tell whether the plugin is active in this interpreter, in the `yolo` command and in DDP workers"

# What the `yolo` command or a DDP worker does first: it imports Ultralytics, and nothing of this package. The current
# folder, which `-c` puts on the path, is taken off: the package may lie there.
PROBE = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import ultralytics.cfg, ultralytics.engine.trainer
hook = sys.modules.get("yolo_losses.hook")
print(sys.prefix, hook is not None and hook.is_active(), sep="\\n")
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""


def run(args: argparse.Namespace) -> int:
    """Print a line for each check; the exit code is 1 where one failed."""
    import torch
    import ultralytics
    import ultralytics.engine.trainer
    from ultralytics.cfg import get_cfg

    print(f"yolo_losses {yolo_losses.__version__} in {os.path.dirname(yolo_losses.__file__)}")
    print(f"ultralytics {ultralytics.__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    print(f"losses: {len(registry.specs('cls'))} for classes, {len(registry.specs('box'))} for boxes")
    disabled = os.environ.get("YOLO_LOSSES_DISABLE", "")
    checks = [
        (
            hook.is_active() and hasattr(get_cfg(), "cls_loss"),
            "active in this interpreter",
            f"not active in this interpreter (YOLO_LOSSES_DISABLE={disabled!r})",
        ),
        (
            importlib.util.find_spec("yolo_losses_autoload") is not None,
            "start-up file found",
            "no start-up file on the path: install with pip, not by PYTHONPATH or --target",
        ),
        check_worker(),
        check_yolo(),
        *((False, "", f"plugin left out: {problem}") for problem in registry.problems()),
    ]
    for good, yes, no in checks:
        print(f"  {'ok ' if good else 'NO '} {yes if good else no}")
    return int(not all(good for good, _, _ in checks))


def check_worker() -> tuple[bool, str, str]:
    """Return whether the plugin is active in a fresh process of this interpreter, and what to say of it."""
    _, active, answer = probe(sys.executable)
    remedy = "unset YOLO_LOSSES_DISABLE" if autoload.is_disabled() else "use `python -m yolo_losses train ...`"
    return (
        active,
        "active in a fresh interpreter, so in DDP workers",
        f"not active in a fresh interpreter: {remedy} ({answer})",
    )


def check_yolo() -> tuple[bool, str, str]:
    """Return whether the plugin is active in the `yolo` on the PATH, and what to say of it."""
    command = shutil.which("yolo")
    if command is None:
        return True, "no `yolo` on the PATH: activate this environment to use it", ""
    python = interpreter_of(command)
    if python is None:
        return False, "", f"`yolo` is {command}: no Python found that it would run"
    prefix, active, answer = probe(python)
    same = bool(prefix) and os.path.realpath(prefix) == os.path.realpath(sys.prefix)
    other = "" if same else f", of another environment ({prefix or python})"
    if autoload.is_disabled():
        remedy = "unset YOLO_LOSSES_DISABLE"
    elif other:
        remedy = f"activate {sys.prefix}, or run `{python} -m pip install yolo-losses`"
    else:
        remedy = "use `python -m yolo_losses train ...`"
    return (
        active,
        f"active in `yolo`, {command}{other}",
        f"not active in `yolo`, {command}{other}: {remedy} ({answer})",
    )


def interpreter_of(command: str) -> str | None:
    """Return the Python that a console script runs with: by its first lines, else the one installed beside it."""
    with open(command, "rb") as file:
        head = file.read(1024).decode(errors="replace")
    # `#!/path/python`, `#!/usr/bin/env python3`, or, where that is too long or has a space, `'''exec' "/path/python"`
    named = re.search(r"""^#!\s*(?:/usr/bin/env\s+)?(.*python[\d.]*)|'''exec' (?:"(/.+?)"|(/\S+))""", head)
    found = shutil.which(named[named.lastindex or 0]) if named else None
    folder = Path(command).resolve().parent
    # On Windows the command is a program in Scripts, whose Python lies beside it, or above it outside an environment.
    beside = [folder / "python", folder / "python.exe", folder.parent / "python.exe"]
    return found or next((str(path) for path in beside if path.is_file()), None)


@functools.cache
def probe(python: str) -> tuple[str, bool, str]:
    """Return a fresh interpreter's `sys.prefix`, whether the plugin is active in it, and the last line it printed."""
    done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and len(lines) >= 2:
        return lines[-2], lines[-1] == "True", "the plugin was not loaded"
    return "", False, ((done.stderr or done.stdout).strip().splitlines() or ["no answer"])[-1]
