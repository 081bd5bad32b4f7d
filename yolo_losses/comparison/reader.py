"""From a folder of runs to records: each run's folder yields one, or the reason why it cannot be used."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from yolo_losses.comparison.language import Text
from yolo_losses.comparison.record import (
    BOOKKEEPING,
    METRIC_COLUMNS,
    NOT_IN_RECORD_FILE,
    PLAN_FILE,
    RECORD_FILE,
    Metrics,
    RunRecord,
    read_results,
)
from yolo_losses.comparison.words import default_cfg
from yolo_losses.config.renaming import argument
from yolo_losses.config.settings import default_keys

VALIDATION_FILE = "validation.npz"
# Keys of `args.yaml`. Ultralytics writes `save_dir` last: a file without it is truncated.
NEEDED_ARGUMENTS = ("data", "epochs", "seed", "save_dir")


class UnusableRunError(ValueError):
    """A run's folder without a result that can be compared; the message is one line that names file and reason."""


@dataclass(frozen=True)
class Runs:
    """The runs below a folder.

    Attributes:
        records: records of the runs that can be used and of those that failed, sorted by path.
        problems: a line for each run that is left out, and remarks on the others.
    """

    records: list[RunRecord]
    problems: list[str]


def read_runs(folder: Path) -> Runs:
    """Return the runs below a folder: those of a comparison, and those made by hand with `yolo train`.

    The configuration of runs made by hand consists of the keys in which their `args.yaml` differ; runs of several
    comparisons are distinguished in the same way. A run whose results equal those of another seed is a copy and is left
    out.
    """
    records: list[RunRecord] = []
    problems: list[str] = []
    unfinished = 0
    found = {path.parent for name in (RECORD_FILE, PLAN_FILE, "results.csv") for path in folder.rglob(name)}
    for path in sorted(found):
        if (path / PLAN_FILE).is_file() and not (path / RECORD_FILE).is_file():
            unfinished += 1
            continue
        try:
            records.append(read_run(path))
        except UnusableRunError as error:
            problems.append(f"{path.relative_to(folder).as_posix()}: {error}")
    if unfinished:
        problems.append(Text("{n} runs of this comparison are not finished yet.", n=unfinished))
    _share_arguments(records)
    originals = _without_copies(records, folder, problems)
    _name_by_differences(originals)
    problems += _remarks(originals, folder)
    return Runs(originals, problems)


def read_run(folder: Path) -> RunRecord:
    """Return the record of one run, checked, with its arguments and its curve.

    Raises:
        UnusableRunError: if there is none that can be compared.
    """
    recorded = (folder / RECORD_FILE).is_file()
    record = read_record(folder / RECORD_FILE) if recorded else None
    if record is not None and record.status != "finished":
        return record
    arguments = _read_arguments(folder / "args.yaml")
    rows = read_results(folder)
    if not rows:
        raise _unreadable("results.csv", "it has no epoch")
    for number, row in enumerate(rows, 1):
        if row.get("epoch") != number:
            raise _unreadable("results.csv", f"epoch {number} is missing")
        for column in METRIC_COLUMNS.values():
            if column not in row or not math.isfinite(row[column]):
                raise _unreadable("results.csv", f"'{column}' of epoch {number} is {row.get(column, 'missing')}")
    if record is None:
        record = RunRecord(
            configuration={},
            name=folder.name,
            seed=int(arguments["seed"] or 0),
            data=str(arguments["data"]),
            device=str(arguments.get("device") or ""),
            seconds_per_epoch=rows[-1]["time"] / len(rows) if "time" in rows[-1] else None,
            best=_metrics(max(rows, key=lambda row: row[METRIC_COLUMNS["map50_95"]])),
            last=_metrics(rows[-1]),
            folder=folder,
        )
    arguments |= _weights_as_given(folder / PLAN_FILE)
    record.epochs, record.curve, record.arguments = len(rows), rows, arguments
    record.planned_epochs = None if arguments.get("time") else int(arguments["epochs"])
    _check_length(record)
    if (folder / VALIDATION_FILE).is_file():
        _check_validation(folder / VALIDATION_FILE)
    return record


def _unreadable(file: str, reason: object) -> UnusableRunError:
    return UnusableRunError(f"unreadable: {file}, {' '.join(str(reason).split())}")


def read_record(path: Path) -> RunRecord:
    """Return the record in a `record.json`; keys of later versions are ignored.

    Raises:
        UnusableRunError: if it cannot be read.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path.name, error) from error
    known = {f.name: f for f in fields(RunRecord) if f.name not in NOT_IN_RECORD_FILE}
    needed = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in needed if name not in values] if isinstance(values, dict) else needed
    if missing:
        raise _unreadable(path.name, f"it lacks {', '.join(missing)}")
    record = RunRecord(**{k: v for k, v in values.items() if k in known}, folder=path.parent)
    if record.status == "finished" and (wrong := record.wrong_metric()):
        raise _unreadable(path.name, wrong)
    return record


def _read_arguments(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _unreadable(path.name, "it is missing") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _unreadable(path.name, error) from error
    missing = [key for key in NEEDED_ARGUMENTS if not isinstance(found, dict) or key not in found]
    if missing:
        raise _unreadable(
            path.name, f"it lacks {', '.join(missing)}: it is truncated, or was not written by `yolo train`"
        )
    return dict(found)


def _weights_as_given(path: Path) -> dict[str, Any]:
    """Return the key `cls_weights` of the plan of a run; `args.yaml` has numbers in place of `balanced`."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError):
        return {}
    key = argument("cls_weights")
    return {key: settings[key]} if key in settings else {}


def _check_length(record: RunRecord) -> None:
    """Check that a run has all planned epochs, or note that `patience` stopped it."""
    planned, done = record.planned_epochs, record.epochs
    if planned is None or done == planned:
        return
    if done > planned:
        raise UnusableRunError(f"results.csv has {done} epochs, and args.yaml asks for {planned}")
    patience = record.arguments.get("patience") or math.inf
    record.stopped_early = any(done - best >= patience for best in _best_epochs(record.curve))
    if not record.stopped_early:
        raise UnusableRunError(f"not finished: {done} of {planned} epochs")


def _best_epochs(rows: Sequence[Mapping[str, float]]) -> Iterator[int]:
    """Yield the best epoch as each Ultralytics release defines it: with or without a tenth of mAP50."""
    for share in (0.0, 0.1):
        weights = {"mAP50-95": 1 - share, "mAP50": share}
        fitness = [
            sum(row[c] * weights.get(c[8:].partition("(")[0], 0) for c in row if c[:8] == "metrics/") for row in rows
        ]
        yield 1 + int(np.argmax(fitness))


def _check_validation(path: Path) -> None:
    """Check that `validation.npz` has what a bootstrap over images needs."""
    try:
        with np.load(path) as data:
            images = int(data["images"])
            counts = [(len(data["target_cls"]), data["target_image"])]
            for which in ("best", "last"):
                counts += [(len(data[f"{which}_{name}"]), data[f"{which}_image"]) for name in ("tp", "conf", "cls")]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path.name, error) from error
    except KeyError as error:
        raise _unreadable(path.name, str(error.args[0])) from error
    for count, image in counts:
        if count != len(image) or (image >= images).any():
            raise _unreadable(path.name, "its arrays are of different lengths")


def _metrics(row: Mapping[str, float]) -> Metrics:
    values: Metrics = {name: row[column] for name, column in METRIC_COLUMNS.items()}
    return {**values, "map75": None, "per_class": {}, "pr": None}


# --- several runs ----------------------------------------------------------------------------------------------------


def _without_copies(records: Sequence[RunRecord], folder: Path, problems: list[str]) -> list[RunRecord]:
    """Return the records except copies, whose curve equals that of another seed; add a line to `problems` for each."""
    kept: list[RunRecord] = []
    seen: dict[str, RunRecord] = {}
    for record in records:
        rows = [{key: value for key, value in row.items() if key != "time"} for row in record.curve]
        learned = any(row[column] for row in rows for column in METRIC_COLUMNS.values())
        first = seen.setdefault(json.dumps([record.data, rows]), record) if learned else record
        path, other = (r.folder.relative_to(folder).as_posix() for r in (record, first))
        if first.seed != record.seed:
            text = "{path} (seed {seed}) is a copy: its results equal those of {other} (seed {first}) in every epoch."
            problems.append(Text(text, path=path, seed=record.seed, other=other, first=first.seed))
            continue
        kept.append(record)
        if first is not record:
            text = "{path} has the same results as {other}: it is a copy, or the keys that differ have no effect."
            problems.append(Text(text, path=path, other=other))
    return kept


def _remarks(records: Sequence[RunRecord], folder: Path) -> Iterator[str]:
    """Yield remarks on runs that are used."""
    early = [r for r in records if r.stopped_early]
    if early:
        text = "{name} seed {seed} at {at} of {planned}"
        which = [Text(text, name=r.name, seed=r.seed, at=r.epochs, planned=r.planned_epochs) for r in early]
        text = "{n} of {total} runs were stopped early by patience: {which}."
        yield Text(text, n=len(early), total=len(records), which=which)
    for record in records:
        written = Path(str(record.arguments.get("save_dir", record.folder))).name
        if written != record.folder.name:
            text = (
                "{path} was renamed or copied: its args.yaml was written for the folder '{written}'. Check that it"
                " belongs to these results."
            )
            yield Text(text, path=record.folder.relative_to(folder).as_posix(), written=written)


def _share_arguments(records: Sequence[RunRecord]) -> None:
    """Copy the arguments of a finished run to failed runs of its configuration, which are named by them."""
    finished = {record.folder.parent: record.arguments for record in records if record.arguments}
    for record in records:
        if not record.arguments and record.folder.parent in finished:
            shared = finished[record.folder.parent]
            record.arguments = {key: value for key, value in shared.items() if key != "save_dir"}


def _name_by_differences(records: list[RunRecord]) -> None:
    """Add keys to the configurations until runs with different arguments have different configurations."""
    while axes := _further_axes(records):
        for record in records:
            if record.arguments:
                values = {key: _value(record.arguments, key) for key in axes}
                record.configuration = {**record.configuration, **values}
                record.name = _name_of(record.configuration)
    _name_single_configurations(records)


def _name_of(configuration: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in configuration.items())


def _name_single_configurations(records: Sequence[RunRecord]) -> None:
    """Name runs of a comparison that had a single configuration, by the keys that are not at their default."""
    axes = list(dict.fromkeys(key for record in records for key in record.configuration))
    differing = sorted(_differing([record.arguments for record in records if record.arguments]))
    defaults = default_cfg() | default_keys()
    for record in records:
        if axes and record.arguments and not record.configuration:
            values = {key: _value(record.arguments, key) for key in [*axes, *differing]}
            changed = {key: value for key, value in values.items() if value != defaults.get(key)}
            record.configuration = changed or {key: values[key] for key in axes}
            record.name = _name_of(record.configuration)


def _further_axes(records: list[RunRecord]) -> list[str]:
    """Return the keys that differ among runs of equal configuration, data set and seed, or among runs made by hand."""
    twins: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        configuration = json.dumps(record.configuration, sort_keys=True, default=str)
        key = (configuration, record.data, record.seed) if record.configuration else ()
        twins.setdefault(key, []).append(record.arguments)
    return sorted({key for twin in twins.values() for key in _differing([args for args in twin if args])})


def _differing(arguments: list[Mapping[str, Any]]) -> set[str]:
    """Return the keys in which some runs' arguments differ."""
    keys = {key for args in arguments for key in args} - BOOKKEEPING
    return {key for key in keys if len({json.dumps(_value(args, key), default=str) for args in arguments}) > 1}


def _value(args: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key; this package's keys are missing in `args.yaml` if they are at their default."""
    return args.get(key, default_keys().get(key))
