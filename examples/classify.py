"""Find a rare class: an image classifier trained plainly, with `cls_weights=balanced` and with focal loss.

    python examples/classify.py [CSV]

Of the painted images for training one in fifteen has a star, ten in fifteen a disc; for validation there are as many of
each. Each choice is trained three times, with other seeds, and the table shows how many of the images, and of each
class's images, come out right after the last epoch. About five minutes on one core. Writes to `runs/examples/classify`,
and a row a training to CSV, by default `runs/examples/classify/classify.csv`.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

from make_dataset import CLASSES, make_dataset

FOLDER = Path("runs/examples/classify").resolve()
CHOICES: dict[str, dict[str, Any]] = {
    "cls_loss=stock": {},
    "cls_weights=balanced": {"cls_weights": "balanced"},
    "cls_loss=focal": {"cls_loss": "focal"},
}
SEEDS = (0, 1, 2)
SETTINGS: dict[str, Any] = {
    "epochs": 12,
    "imgsz": 64,
    "batch": 16,
    "nbs": 16,  # no accumulation of gradients: there are few steps
    "optimizer": "AdamW",
    "lr0": 0.001,
    "warmup_epochs": 1,
    "warmup_bias_lr": 0,  # the default, 0.1, is meant for SGD
    "val": False,  # but after the last epoch
    "scale": 0.2,  # of the image's area at most is cut off: an object may lie at the edge
    "erasing": 0,
    "device": "cpu",
    "workers": 0,
    "amp": False,  # its self-check would download a model
    "plots": False,
    "exist_ok": True,
}


def train(data: Path, seed: int, keys: dict[str, Any]) -> Path:
    """Train a classifier from scratch and return the path of its weights after the last epoch."""
    from ultralytics import YOLO

    name = "-".join([*(str(value) for value in keys.values()), str(seed)])
    YOLO("yolov8n-cls.yaml").train(data=str(data), project=str(FOLDER), name=name, seed=seed, **SETTINGS, **keys)
    return FOLDER / name / "weights" / "last.pt"


def recalls(weights: Path, data: Path) -> dict[str, float]:
    """Return the share of each class's images for validation that a classifier names rightly."""
    from ultralytics import YOLO

    model, found = YOLO(weights), {}
    for name in CLASSES:
        images = [str(path) for path in sorted((data / "val" / name).glob("*.jpg"))]
        results = model.predict(images, imgsz=SETTINGS["imgsz"], device="cpu", verbose=False)
        found[name] = sum(r.names[r.probs.top1] == name for r in results) / len(images)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return the mean over the seeds of each choice, and between what they lie."""
    columns = ("top-1", *CLASSES)
    lines = [f"{'':<22}" + "".join(f"{column:>22}" for column in columns)]
    for keys in CHOICES:
        cells = []
        for column in columns:
            values = [100 * float(row[column]) for row in rows if row["keys"] == keys]
            cells.append(f"{sum(values) / len(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        lines.append(f"{keys:<22}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    """Make the data, train, and show what came of it."""
    file = Path(sys.argv[1] if len(sys.argv) > 1 else FOLDER / "classify.csv")
    data = make_dataset(FOLDER / "data", train=600, val=300, imgsz=SETTINGS["imgsz"], task="classify")
    rows: list[dict[str, Any]] = []
    for seed in SEEDS:
        for words, keys in CHOICES.items():
            found = recalls(train(data, seed, keys), data)
            # As many images of each class: the share of all that are right is the mean.
            rows.append({"keys": words, "seed": seed, "top-1": sum(found.values()) / len(found), **found})
    with file.open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **{k: f"{row[k]:.4f}" for k in ("top-1", *CLASSES)}} for row in rows)
    counts = {name: len(list((data / "train" / name).glob("*.jpg"))) for name in CLASSES}
    print(f"\nImages for training: {', '.join(f'{count} {name}' for name, count in counts.items())}")
    print(f"Right, in percent (mean of {len(SEEDS)} seeds, and their range):\n\n{table(rows)}\n\nruns  {file}")


if __name__ == "__main__":
    main()
