"""Count the positives by size of object for several settings of the assigner, in one pass without training.

    python examples/evidence/positives.py WEIGHTS DATA ... [--imgsz 160 320] [--csv FILE]

Each DATA is a `data.yaml` of the task detect. The model has the weights of WEIGHTS, all but the class layer where the
number of classes differs: what is counted is the first epoch of a fine-tuning, without augmentation. Every setting sees
the same predictions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_dataloader, build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import DetectionModel

import yolo_losses
from yolo_losses.monitor import gather

SETTINGS: dict[str, dict[str, Any]] = {
    "stock": {},
    "tal_topk=13": {"tal_topk": 13},
    "tal_topk=20": {"tal_topk": 20},
    "tal_overlap=nwd": {"tal_overlap": "nwd"},
    "tal_min_side=24": {"tal_min_side": 24},
    "tal_min_side=32": {"tal_min_side": 32},
}


def batches(data: dict[str, Any], imgsz: int, batch: int = 16) -> Iterator[dict[str, Any]]:
    """Yield the training images of a data set, each as a whole."""
    arguments = get_cfg(overrides={"imgsz": imgsz, "task": "detect", "cache": False})
    dataset = build_yolo_dataset(arguments, data["train"], batch, data, mode="val", rect=False)
    for loaded in build_dataloader(dataset, batch, 0, shuffle=False):
        yield {**loaded, "img": loaded["img"].float() / 255}


def count(weights: str, data: dict[str, Any], imgsz: int) -> dict[str, dict[str, float]]:
    """Return the columns of `loss_stats` by setting."""
    gather.EVERY = 1  # every batch is measured
    torch.manual_seed(0)
    trained: Any = YOLO(weights).model
    model = DetectionModel(trained.yaml, nc=data["nc"], verbose=False)
    model.load(trained)
    model.args = get_cfg()
    model.eval()
    criteria = {name: model.init_criterion() for name in SETTINGS}
    branches = {
        name: yolo_losses.equip(criterion, {**SETTINGS[name], "loss_stats": True})
        for name, criterion in criteria.items()
    }
    for batch in batches(data, imgsz):
        with torch.no_grad():
            predictions = model(batch["img"])
        for criterion in criteria.values():
            criterion(predictions, batch)
    return {name: gather.read(found) for name, found in branches.items()}


def table(weights: str, paths: Sequence[str], sizes: Sequence[int]) -> pl.DataFrame:
    """Return a row for each data set, image size, size of object and setting."""
    rows = []
    for path in paths:
        data = check_det_dataset(path)
        for imgsz in sizes:
            for setting, columns in count(weights, data, imgsz).items():
                for size in gather.SIZES:
                    row = {"data": Path(path).parent.name, "imgsz": imgsz, "size": size, "setting": setting}
                    for group in ("objects", "without_positive", "positives_per_object", "mean_target"):
                        row[group] = columns[f"{group}/{size}"]
                    rows.append(row)
    return pl.DataFrame(rows).filter(pl.col("objects") > 0)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("data", nargs="+")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[160, 320])
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    found = table(given.weights, given.data, given.imgsz)
    if given.csv:
        found.write_csv(given.csv, float_precision=6)
    print("| data | pixels | size | setting | objects | without a positive | positives per object | mean target |")
    print("|---|--:|---|---|--:|--:|--:|--:|")
    for row in found.iter_rows(named=True):
        print(
            f"| {row['data']} | {row['imgsz']} | {row['size']} | `{row['setting']}` | {row['objects']:.0f}"
            f" | {row['without_positive']:.1%} | {row['positives_per_object']:.1f} | {row['mean_target']:.3f} |"
        )


if __name__ == "__main__":
    main()
