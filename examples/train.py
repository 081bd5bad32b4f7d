"""Train from Python with `cls_loss=slide`, read the proof that it ran, interrupt the training and resume it.

    python examples/train.py

About 10 seconds on one core. Writes to `runs/examples/train`.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from make_dataset import make_dataset
from ultralytics import YOLO
from ultralytics.utils import LOGGER

FOLDER = Path("runs/examples/train").resolve()


class Collector(logging.Handler):
    """Keeps the lines that yolo_losses logs, for a program that has to check them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message if it is one of yolo_losses."""
        message = record.getMessage().strip()
        if message.startswith("yolo_losses: "):
            self.lines.append(message)


def interrupt(trainer: Any) -> None:
    """Stop the training after its first epoch, as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> None:
    """Train, resume, and print what shows that the loss ran."""
    data = make_dataset(FOLDER / "data", train=32, val=8, imgsz=96)
    log = Collector()
    LOGGER.addHandler(log)

    model = YOLO("yolov8n.yaml")
    model.add_callback("on_model_save", interrupt)
    with suppress(KeyboardInterrupt):
        model.train(
            data=str(data), epochs=2, imgsz=96, batch=8, device="cpu", workers=0, plots=False,
            project=str(FOLDER), name="run", exist_ok=True,
            cls_loss="slide", slide_delta=0.15,
        )  # fmt: skip
    run = FOLDER / "run"
    last = run / "weights" / "last.pt"

    # Resuming takes the loss from the checkpoint, and refuses another one.
    refused = ""
    try:
        YOLO(last).train(resume=True, cls_loss="focal")
    except ValueError as error:
        refused = str(error)
    YOLO(last).train(resume=True)

    print("\nThe log, of both trainings:", *log.lines, sep="\n  ")
    recorded = {
        "args.yaml": yaml.safe_load((run / "args.yaml").read_text(encoding="utf-8")),
        "best.pt": YOLO(run / "weights" / "best.pt").ckpt["train_args"],
    }
    for where, arguments in recorded.items():
        print(f"{where}: cls_loss={arguments['cls_loss']} slide_delta={arguments['slide_delta']}")
    print("Resuming with cls_loss=focal:", refused)


if __name__ == "__main__":
    main()
