"""The record of a run: everything that a report needs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from yolo_losses._files import write_whole
from yolo_losses.monitor import table

RECORD_FILE = "record.json"
PLAN_FILE = "run.json"
METRICS: Mapping[str, str] = {  # the metrics that a verdict can be based on, with their names in a report
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "map75": "mAP75",
    "precision": "precision",
    "recall": "recall",
}
METRIC_COLUMNS: Mapping[str, str] = {  # our name -> what `results.csv` calls it
    "map50_95": "metrics/mAP50-95(B)",
    "map50": "metrics/mAP50(B)",
    "precision": "metrics/precision(B)",
    "recall": "metrics/recall(B)",
}
# Keys of `args.yaml` on where and how a run was carried out rather than what was trained.
BOOKKEEPING = frozenset(
    {"name", "project", "save_dir", "exist_ok", "resume", "mode", "device", "workers", "plots", "loss_stats", "verbose"}
    | {"save", "save_period", "cache", "val", "show", "seed", "data"}
)
# The epochs that a run is judged by.
EPOCHS: Mapping[str, str] = {
    "best": "the best epoch, chosen on the validation images",
    "last": "the last epoch",
    "mean": "the mean of the last tenth of the epochs, three at least",
}
Epochs = Literal["best", "last", "mean"]
NOT_IN_RECORD_FILE = ("folder", "curve", "arguments", "planned_epochs", "stopped_early")  # read from other files
Metrics = dict[str, Any]


@dataclass
class RunRecord:
    """The record of one run.

    Attributes:
        configuration: the values of the axes of the grid, except seed and data set.
        name: the configuration as text, such as `cls_loss=focal box_loss=ciou`.
        seed: the seed.
        data: the data set as given.
        data_hash: hash of the images' names and sizes and of the labels; empty for runs of `yolo train`.
        classes: names of the classes.
        status: `finished` or `failed`.
        error: the last lines of output of a failed run.
        versions: versions of ultralytics, torch, yolo_losses and python.
        device: the device of the training.
        weights_hash: hash of the weights before the first step.
        order_hash: hash of the augmented images of the first batches, in order.
        seconds_per_epoch: median over the epochs, without validation.
        peak_memory_mb: peak memory of the device; on the CPU, of the process.
        epochs: number of trained epochs.
        planned_epochs: the planned number of epochs, `None` if the training was limited by time.
        stopped_early: whether `patience` ended the training.
        best: metrics of `best.pt` on the validation split.
        last: metrics of `last.pt`, the averaged weights (EMA) at the end.
        folder: folder of the run.
        curve: the rows of `results.csv`, one per epoch.
        arguments: the content of `args.yaml`.
    """

    configuration: dict[str, Any]
    name: str
    seed: int
    data: str
    data_hash: str = ""
    classes: list[str] = field(default_factory=list)
    status: str = "finished"
    error: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""
    weights_hash: str = ""
    order_hash: str = ""
    seconds_per_epoch: float | None = None
    peak_memory_mb: float | None = None
    epochs: int = 0
    planned_epochs: int | None = None
    stopped_early: bool = False
    best: Metrics | None = None
    last: Metrics | None = None
    folder: Path = field(default=Path(), compare=False)
    curve: Sequence[Mapping[str, float]] = field(default=(), compare=False, repr=False)
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def metrics(self, epochs: Epochs) -> Metrics | None:
        """Return the metrics at the best epoch, at the last, or over the last epochs; `None` if they are unknown."""
        if epochs != "mean":
            return self.best if epochs == "best" else self.last
        if not self.curve:
            return None
        rows = self.curve[-max(3, math.ceil(len(self.curve) / 10)) :]
        known = {name: column for name, column in METRIC_COLUMNS.items() if all(column in row for row in rows)}
        return {name: math.fsum(row[column] for row in rows) / len(rows) for name, column in known.items()}

    def wrong_metric(self) -> str | None:
        """Return a description of a metric of a finished run that is missing or not a number, or `None`."""
        for which in ("best", "last"):
            metrics = getattr(self, which)
            for name in METRIC_COLUMNS:
                value = metrics.get(name) if isinstance(metrics, dict) else None
                if not isinstance(value, int | float) or not math.isfinite(value):
                    return f"'{name}' of '{which}' is {value}"
        return None

    def write(self, path: Path) -> None:
        """Write the record, except for data that is read from other files of the run."""
        write_json(path, {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NOT_IN_RECORD_FILE})


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file atomically."""
    write_whole(path, lambda part: part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8"))


def read_results(folder: Path) -> list[dict[str, float]]:
    """Return the rows of `results.csv` of a run; empty if there is none yet.

    If an epoch was trained several times, after a kill or by a second run in the folder, the last one counts.
    """
    try:
        found, _ = table.parse(folder / "results.csv")  # without a line that is being written
    except (OSError, ValueError):
        return []
    rows: list[dict[str, float]] = []
    for row in found:
        while rows and rows[-1]["epoch"] >= row["epoch"]:
            rows.pop()
        rows.append(row)
    return rows
