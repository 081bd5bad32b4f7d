"""Compare focal loss with BCE over two seeds, and read the report.

    python examples/compare.py [WORD ...]

About two minutes on two cores, long enough for the models to learn something. Writes to `runs/examples/compare`.
The words are handed to `yolo-losses compare` and win over what stands below: `seed=0,1,2,3` adds two seeds to what is
there already, `cls_loss=bce,focal,slide` a loss. Two seeds show how it goes; a decision takes more.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from make_dataset import make_dataset

FOLDER = Path("runs/examples/compare").resolve()
SETTINGS = {
    "cls_loss": "bce,focal",
    "seed": "0,1",
    "model": "yolov8n.yaml",
    "epochs": 5,
    "imgsz": 128,
    "batch": 8,
    "nbs": 8,  # no accumulation of gradients: there are few steps
    "optimizer": "AdamW",
    "lr0": 0.003,
    "lrf": 0.05,
    "warmup_epochs": 1,
    "warmup_bias_lr": 0,  # the default, 0.1, is meant for SGD
    "mosaic": 0,
    "scale": 0.25,
    "device": "cpu",
    "workers": 0,
    "amp": False,  # its self-check would download a model
    "plots": False,
}


def main() -> int:
    """Make the data, and compare."""
    data = make_dataset(FOLDER / "data", train=240, val=80)
    given = {word.partition("=")[0] for word in sys.argv[1:]}
    words = [f"{key}={value}" for key, value in {**SETTINGS, "data": data}.items() if key not in given]
    command = [sys.executable, "-m", "yolo_losses", "compare", *words, *sys.argv[1:], "--jobs", "2"]
    command += ["--out", str(FOLDER / "out")]
    print("$", shlex.join(["yolo-losses", *command[3:]]), flush=True)
    return subprocess.run(command, env={**os.environ, "YOLO_OFFLINE": "true"}).returncode


if __name__ == "__main__":
    sys.exit(main())
