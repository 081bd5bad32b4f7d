"""The record of one run, and the records of a folder: everything that a report needs, checkpoints aside."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

RECORD_FILE = "record.json"
PLAN_FILE = "run.json"
METRIC_COLUMNS: Mapping[str, str] = {  # our name -> what `results.csv` calls it
    "map50_95": "metrics/mAP50-95(B)",
    "map50": "metrics/mAP50(B)",
    "precision": "metrics/precision(B)",
    "recall": "metrics/recall(B)",
}
# Keys of `args.yaml` that say where and how a run was carried out, not what was trained.
BOOKKEEPING = frozenset(
    {
        "name",
        "project",
        "save_dir",
        "exist_ok",
        "resume",
        "mode",
        "device",
        "workers",
        "plots",
        "loss_stats",
        "verbose",
        "save",
        "save_period",
        "cache",
        "val",
        "show",
        "seed",
        "data",
    }
)

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
        best: metrics of `best.pt` on the validation split.
        last: metrics of `last.pt`.
        folder: of the run; not written.
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
    best: Metrics | None = None
    last: Metrics | None = None
    folder: Path = field(default=Path(), compare=False)

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Return the record in a `record.json`; keys of a later version are left alone."""
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in fields(cls)} - {"folder"}
        return cls(**{k: v for k, v in found.items() if k in known}, folder=path.parent)

    def write(self, path: Path) -> None:
        """Write the record in one go, so that a reader never meets half of it."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "folder"}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)


def read_records(folder: Path) -> list[RunRecord]:
    """Return the records below a folder, in order of path.

    Runs made by hand with `yolo train` have none: theirs is put together from `args.yaml` and `results.csv`, and their
    configuration is what differs between their `args.yaml`. So are runs of several comparisons told apart.
    """
    records = [RunRecord.read(path) for path in sorted(folder.rglob(RECORD_FILE))]
    by_hand = [
        path.parent
        for path in sorted(folder.rglob("results.csv"))
        if not (path.parent / RECORD_FILE).is_file()
        and not (path.parent / PLAN_FILE).is_file()  # a run of a comparison that is not done yet
    ]
    arguments = {path: _arguments(path) for path in (*(r.folder for r in records), *by_hand)}
    made = [_record_by_hand(path, arguments[path]) for path in by_hand if arguments[path]]
    records += [record for record in made if record is not None]
    while axes := _further_axes(records, arguments):
        for record in records:
            if args := arguments[record.folder]:
                record.configuration = {**record.configuration, **{key: _value(args, key) for key in axes}}
                record.name = " ".join(f"{key}={value}" for key, value in record.configuration.items())
    return records


def _further_axes(records: list[RunRecord], arguments: Mapping[Path, dict[str, Any]]) -> list[str]:
    """Return the keys in which runs differ that have the same configuration, data set and seed, or are made by hand."""
    twins: dict[tuple[Any, ...], list[Path]] = {}
    for record in records:
        configuration = json.dumps(record.configuration, sort_keys=True, default=str)
        key = (configuration, record.data, record.seed) if record.configuration else ()
        twins.setdefault(key, []).append(record.folder)
    return sorted({key for twin in twins.values() for key in _differing([arguments[folder] for folder in twin])})


def read_results(folder: Path) -> list[dict[str, float]]:
    """Return the rows of a run's `results.csv`, none where there is none yet."""
    try:
        lines = (folder / "results.csv").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    if not lines:
        return []
    header = [name.strip() for name in lines[0].split(",")]
    rows = []
    for line in lines[1:]:
        cells = line.split(",")
        try:
            rows.append({name: float(cell) for name, cell in zip(header, cells, strict=True)})
        except ValueError:  # the line that is being written
            continue
    return rows


def _arguments(folder: Path) -> dict[str, Any]:
    """Return what a run's `args.yaml` holds; nothing where there is none."""
    path = folder / "args.yaml"
    found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found if isinstance(found, dict) else {}


def _differing(arguments: list[dict[str, Any]]) -> set[str]:
    """Return the keys in which some runs' arguments differ."""
    found = [args for args in arguments if args]
    keys = {key for args in found for key in args} - BOOKKEEPING
    return {key for key in keys if len({json.dumps(_value(args, key), default=str) for args in found}) > 1}


def _value(args: Mapping[str, Any], key: str) -> Any:
    """Return an argument, which is not in the `args.yaml` of a run that leaves it alone."""
    from yolo_losses.config.settings import default_keys

    return args.get(key, default_keys().get(key))


def _record_by_hand(folder: Path, args: Mapping[str, Any]) -> RunRecord | None:
    """Return the record of a run that was made by `yolo train`; `None` where it has no finished epoch."""
    rows = read_results(folder)
    if not rows:
        return None
    return RunRecord(
        configuration={},
        name=folder.name,
        seed=int(args.get("seed") or 0),
        data=str(args.get("data")),
        device=str(args.get("device") or ""),
        epochs=len(rows),
        seconds_per_epoch=rows[-1]["time"] / len(rows) if "time" in rows[-1] else None,
        best=_metrics(max(rows, key=lambda row: row.get(METRIC_COLUMNS["map50_95"], 0.0))),
        last=_metrics(rows[-1]),
        folder=folder,
    )


def _metrics(row: Mapping[str, float]) -> Metrics:
    values: Metrics = {name: row.get(column) for name, column in METRIC_COLUMNS.items()}
    return {**values, "map75": None, "per_class": {}, "pr": None}
