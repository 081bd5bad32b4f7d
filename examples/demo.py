"""Train YOLOv8n with `cls_loss=slide` on a made-up data set, through the stock `yolo` command: what `make demo` runs.

    python examples/demo.py [KEY=VALUE ...]

From scratch, on the CPU, in about three minutes on two cores. What is given as KEY=VALUE goes to `yolo` as it stands
and wins over what stands below: `python examples/demo.py cls_loss=stock` trains the same with Ultralytics' own loss.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from make_dataset import CLASSES, make_dataset

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "runs" / "demo"
SETTINGS = {
    "model": "yolov8n.yaml",
    "epochs": 7,
    "imgsz": 128,
    "batch": 8,
    "nbs": 8,  # no accumulation of gradients: 350 steps are few enough
    "optimizer": "AdamW",
    "lr0": 0.003,
    "lrf": 0.05,
    "warmup_epochs": 1,
    "warmup_bias_lr": 0,  # the default, 0.1, is meant for SGD
    "mosaic": 0,
    "scale": 0.25,
    "seed": 0,
    "device": "cpu",
    "workers": 0,
    "amp": False,  # its self-check would download a model
    "plots": False,
}
COLOURS = ((60, 90, 255), (255, 160, 40), (60, 220, 60))  # BGR, one a class


def train(data_yaml: Path, arguments: list[str]) -> Path:
    """Run `yolo train` and return the path of the best weights.

    Raises:
        SystemExit: with the command's own exit code, if it failed.
    """
    yolo = shutil.which("yolo", path=str(Path(sys.executable).parent)) or "yolo"
    settings = {**SETTINGS, "data": data_yaml, "project": FOLDER, "name": "train", "exist_ok": True}
    # `cfg=` comes first: in older Ultralytics it replaces whatever stands before it.
    command = [yolo, "train", f"cfg={ROOT / 'configs' / 'slide.yaml'}"]
    command += [f"{key}={value}" for key, value in settings.items()] + arguments
    print("$", " ".join(command), flush=True)
    result = subprocess.run(command, env={**os.environ, "YOLO_OFFLINE": "true"}, cwd=ROOT)
    if result.returncode:
        sys.exit(result.returncode)
    return FOLDER / "train" / "weights" / "best.pt"


def evaluate(weights: Path, data_yaml: Path) -> str:
    """Return a table of the average precision of each class and of their mean."""
    from ultralytics import YOLO

    metrics = YOLO(weights).val(
        data=str(data_yaml), imgsz=SETTINGS["imgsz"], device="cpu", workers=0, plots=False, verbose=False,
        project=str(FOLDER), name="val", exist_ok=True,
    )  # fmt: skip
    labels = "".join(path.read_text() for path in (data_yaml.parent / "labels" / "train").glob("*.txt")).splitlines()
    rows = [("class", "trained on", "mAP50", "mAP50-95")]
    rows.append(("all", str(len(labels)), f"{metrics.box.map50:.3f}", f"{metrics.box.map:.3f}"))
    for index, number in enumerate(metrics.box.ap_class_index):
        count = sum(line.startswith(f"{number} ") for line in labels)
        _, _, ap50, ap = metrics.box.class_result(index)
        rows.append((metrics.names[number], str(count), f"{ap50:.3f}", f"{ap:.3f}"))
    return "\n".join(f"{row[0]:<8}{row[1]:>12}{row[2]:>9}{row[3]:>10}" for row in rows)


def draw_predictions(weights: Path, images: list[Path], picture: Path, columns: int = 6, zoom: int = 2) -> None:
    """Write a grid of images with the boxes that the model predicts."""
    from ultralytics import YOLO

    tiles = []
    for result in YOLO(weights).predict(
        [str(path) for path in images], imgsz=SETTINGS["imgsz"], conf=0.35, device="cpu", verbose=False
    ):
        tile: npt.NDArray[np.uint8] = cv2.resize(result.orig_img, None, fx=zoom, fy=zoom)
        for x1, y1, x2, y2, confidence, number in result.boxes.data.tolist():
            colour = COLOURS[int(number)]
            left, top = int(x1 * zoom), int(y1 * zoom)
            cv2.rectangle(tile, (left, top), (int(x2 * zoom), int(y2 * zoom)), colour, 2)
            text, font = f"{list(CLASSES)[int(number)]} {confidence:.2f}", cv2.FONT_HERSHEY_SIMPLEX
            (width, height), _ = cv2.getTextSize(text, font, 0.4, 1)
            top = max(top, height + 4)
            cv2.rectangle(tile, (left, top - height - 4), (left + width, top), colour, cv2.FILLED)
            cv2.putText(tile, text, (left, top - 3), font, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(cv2.copyMakeBorder(tile, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(255, 255, 255)))
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    cv2.imwrite(str(picture), np.vstack(rows))


def main() -> None:
    """Make the data, train, and show what came of it."""
    start = time.perf_counter()
    data_yaml = make_dataset(FOLDER / "data")
    weights = train(data_yaml, sys.argv[1:])
    table = evaluate(weights, data_yaml)
    picture = FOLDER / "predictions.png"
    draw_predictions(weights, sorted((data_yaml.parent / "images" / "val").glob("*.jpg"))[:24], picture)
    print(f"\n{table}\n")
    print(f"weights      {weights}\npredictions  {picture}")
    print(f"{time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
