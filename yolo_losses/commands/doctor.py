"""`yolo-losses doctor`: is the plugin active here, and would it be in a worker?"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys

import yolo_losses
from yolo_losses import hook, registry
from yolo_losses.autoload.yolo_losses_autoload import is_disabled

HELP = "tell whether the plugin is active in this interpreter and in those that Ultralytics starts"

# What a DDP worker or a tuner's subprocess does first: it imports Ultralytics, and nothing of this package.
PROBE = """
import sys
from ultralytics.cfg import DEFAULT_CFG_DICT
import ultralytics.engine.trainer as trainer
print("cls_loss" in DEFAULT_CFG_DICT, hasattr(trainer.BaseTrainer.__init__, "yolo_losses_original"))
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""


def run(args: argparse.Namespace) -> int:
    """Print a line a check; the exit code is the number of checks that failed."""
    import torch
    import ultralytics
    import ultralytics.engine.trainer
    from ultralytics.cfg import get_cfg

    fresh = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    answer = (fresh.stdout.strip() or fresh.stderr.strip() or "no answer").splitlines()[-1]
    worker = answer == "True True"
    here = hook.is_active() and hasattr(get_cfg(), "cls_loss")
    start_up = importlib.util.find_spec("yolo_losses_autoload") is not None
    disabled = os.environ.get("YOLO_LOSSES_DISABLE", "")
    remedy = "unset YOLO_LOSSES_DISABLE" if is_disabled() else "use `python -m yolo_losses train ...`"
    print(f"yolo_losses {yolo_losses.__version__} in {os.path.dirname(yolo_losses.__file__)}")
    print(f"ultralytics {ultralytics.__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    print(f"losses: {len(registry.specs('cls'))} for classes, {len(registry.specs('box'))} for boxes")
    checks = [
        (here, "active in this interpreter", f"not active in this interpreter (YOLO_LOSSES_DISABLE={disabled!r})"),
        (
            start_up,
            "start-up file found",
            "no start-up file on the path: install with pip, not by PYTHONPATH or --target",
        ),
        (
            worker,
            "active in a fresh interpreter, so in the `yolo` command and in DDP workers",
            f"not active in a fresh interpreter: {remedy} ({answer})",
        ),
    ]
    checks += [(False, "", f"plugin left out: {problem}") for problem in registry.problems()]
    for good, yes, no in checks:
        print(f"  {'ok ' if good else 'NO '} {yes if good else no}")
    return sum(not good for good, _, _ in checks)
