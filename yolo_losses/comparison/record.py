"""The record of one run: everything that a report needs, checkpoints aside."""

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
METRICS: Mapping[str, str] = {  # what a verdict may be about, and what a report calls it
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
# Keys of `args.yaml` that say where and how a run was carried out, not what was trained.
BOOKKEEPING = frozenset(
    {"name", "project", "save_dir", "exist_ok", "resume", "mode", "device", "workers", "plots", "loss_stats", "verbose"}
    | {"save", "save_period", "cache", "val", "show", "seed", "data"}
)
# Which epochs a run is judged by.
EPOCHS: Mapping[str, str] = {
    "best": "the best epoch, chosen on the validation images",
    "last": "the last epoch",
    "mean": "the mean of the last tenth of the epochs, three at least",
}
Epochs = Literal["best", "last", "mean"]
READ_BESIDE = ("folder", "curve", "arguments", "planned_epochs", "stopped_early")  # by `reader`, not in `record.json`
Metrics = dict[str, Any]


@dataclass
class RunRecord:
    """What came of one run.

    Attributes:
        configuration: the values of the grid's axes, seed and data set aside.
        name: the configuration in words, such as `cls_loss=focal box_loss=ciou`.
        seed: the run's seed.
        data: the data set as it was given.
        data_hash: of the images' names and sizes and of the labels; empty for runs made by hand.
        classes: the names of the classes.
        status: `finished` or `failed`.
        error: the last lines of a failed run.
        versions: of ultralytics, torch, yolo_losses and python.
        device: where it was trained.
        weights_hash: of the weights before the first step.
        order_hash: of the first batches' images, in order and as augmented.
        seconds_per_epoch: median over the epochs, validation aside.
        peak_memory_mb: of the device; on the CPU, of the process.
        epochs: how many were trained.
        planned_epochs: how many were asked for; `None` if a time was.
        stopped_early: whether `patience` ended it.
        best: metrics of `best.pt` on the validation split.
        last: metrics of `last.pt`, that is of the averaged weights (EMA) at the end.
        folder: of the run.
        curve: the rows of `results.csv`, one for each epoch.
        arguments: what `args.yaml` holds.
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
        """Return the metrics at the best, at the last or over the last epochs; `None` if they are not known."""
        if epochs != "mean":
            return self.best if epochs == "best" else self.last
        if not self.curve:
            return None
        rows = self.curve[-max(3, math.ceil(len(self.curve) / 10)) :]
        known = {name: column for name, column in METRIC_COLUMNS.items() if all(column in row for row in rows)}
        return {name: math.fsum(row[column] for row in rows) / len(rows) for name, column in known.items()}

    def wrong_metric(self) -> str | None:
        """Return what is wrong with the metrics of a finished run: one is missing, or is no number."""
        for which in ("best", "last"):
            metrics = getattr(self, which)
            for name in METRIC_COLUMNS:
                value = metrics.get(name) if isinstance(metrics, dict) else None
                if not isinstance(value, int | float) or not math.isfinite(value):
                    return f"'{name}' of '{which}' is {value}"
        return None

    def write(self, path: Path) -> None:
        """Write the record, but for what is read from the files beside it."""
        write_json(path, {f.name: getattr(self, f.name) for f in fields(self) if f.name not in READ_BESIDE})


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file in one go, so that a reader never meets half of it."""
    write_whole(path, lambda part: part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8"))


def read_results(folder: Path) -> list[dict[str, float]]:
    """Return the rows of a run's `results.csv`, none if there is none yet.

    An epoch that was trained again, after a kill or by a second run in the folder, counts as it was trained last.
    """
    try:
        found, _ = table.parse(folder / "results.csv")  # but for the line that is being written
    except (OSError, ValueError):
        return []
    rows: list[dict[str, float]] = []
    for row in found:
        while rows and rows[-1]["epoch"] >= row["epoch"]:
            rows.pop()
        rows.append(row)
    return rows
