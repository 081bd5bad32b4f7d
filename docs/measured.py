"""What the pages know of measurements: this project's comparisons, published ones, and what a loss costs."""

from __future__ import annotations

import csv
import functools
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from yolo_losses import registry
from yolo_losses.comparison.stats.verdict import format_points
from yolo_losses.plots import stem
from yolo_losses.registry import TERM_KEYS, LossSpec

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "examples" / "bench"
VERDICTS = ROOT / "examples" / "evidence" / "verdicts.csv"
PASTED = " as typed"
CLASSES = ("top-1", "disc", "tile", "star")  # of the demonstration's images, the last of which is rare
CLASSIFIERS = ROOT / "examples" / "evidence" / "classify.csv"
FINE_TUNED = {
    "neu_det": "480 photographs of steel, classes balanced",
    "neu_det_longtail": "313, a long tail of classes",
}
SIZES = {"16 x 640 x 80": "16 x 640 px, 80 classes", "16 x 640 x 3": "16 x 640 px, 3 classes"}


@functools.cache
def verdicts() -> list[dict[str, str]]:
    """Return what `compare` said of each configuration that this project has trained, against its baseline."""
    if not VERDICTS.is_file():
        return []
    with VERDICTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def verdicts_of(spec: LossSpec) -> list[dict[str, str]]:
    """Return the verdicts on configurations that have a loss."""
    return [row for row in verdicts() if uses(row["config"], spec)]


def uses(config: str, spec: LossSpec) -> bool:
    """Return whether a configuration, `cls_loss=focal cls_scale=auto`, has a loss."""
    keys = dict(word.partition("=")[::2] for word in config.split())
    if spec.kind not in ("modifier", "classify") and keys.get(TERM_KEYS[spec.kind]) == spec.name:
        return True
    name = keys.get("box_loss", "stock")
    if spec.kind not in ("box", "modifier") or name == "stock":
        return False
    modifiers, base = registry.split_box_name(name)
    return spec in (*modifiers, base)


def fine_tuned_rows() -> tuple[list[str], list[list[str]]]:
    """Return the differences of class losses from BCE in the fine-tunings on steel: a table's head, and its rows."""
    found = {(row["config"], row["set"]): row for row in verdicts() if row["set"] in FINE_TUNED}
    differences: dict[str, list[float]] = {}
    for (config, _), row in found.items():
        differences.setdefault(config, []).append(float(row["difference"]))
    rows = [
        [f"`{config}`", *(_difference(found.get((config, name))) for name in FINE_TUNED)]
        for config in sorted(differences, key=lambda config: statistics.fmean(differences[config]))
    ]
    return ["against `cls_loss=bce`", *FINE_TUNED.values()], rows


def _difference(row: Mapping[str, str] | None) -> str:
    if row is None:
        return ""
    difference, low, high = (format_points(float(row[key]) / 100) for key in ("difference", "low", "high"))
    return f"{difference} ({low} to {high}) {row['word']}"


@functools.cache
def published() -> list[dict[str, Any]]:
    """Return the published comparisons, each with its results on one line."""
    found: list[dict[str, Any]] = yaml.safe_load((ROOT / "docs" / "published.yaml").read_text(encoding="utf-8"))
    return [{**entry, "line": _line(entry)} for entry in found]


def _line(entry: Mapping[str, Any]) -> str:
    digits = max(len(str(value).partition(".")[2]) for value in entry["results"].values())
    return f"{entry['metric']}: " + ", ".join(f"{name} {value:.{digits}f}" for name, value in entry["results"].items())


def published_of(*specs: LossSpec) -> list[dict[str, Any]]:
    """Return the published comparisons that have one of the losses."""
    names = {stem(spec) for spec in specs}
    return [e for e in published() if names.intersection(part for key in e["results"] for part in key.split(" + "))]


@functools.cache
def bench() -> dict[str, Any]:
    """Return the committed benchmark."""
    found: dict[str, Any] = json.loads((BENCH / "bench.json").read_text(encoding="utf-8"))
    return found


def cost(spec: LossSpec) -> dict[str, float]:
    """Return the time of the whole criterion against stock's by size, as far as it was measured."""
    if spec.kind not in ("cls", "box"):
        return {}
    sizes = {words: bench()["criterion"][size].get(spec.name) for size, words in SIZES.items()}
    return {words: row["time"] for words, row in sizes.items() if row}


def title_of(what: str) -> str:
    """Return the title of the table of a workload, which ends with its size."""
    (title,) = (title for title in bench()["tables"] if title.startswith(what))
    return str(title)


def cost_rows() -> tuple[list[str], list[list[str]]]:
    """Return operations, time and memory of every loss against stock: the head of a table, and its rows."""
    operations = json.loads((BENCH / "operations.json").read_text(encoding="utf-8"))["v8"]
    tables, sizes = bench()["tables"], bench()["criterion"]
    step, whole = title_of("training step"), title_of("whole criterion")
    rows = []
    for name, criterion in tables[whole].items():
        if name not in operations:
            continue  # a pasted form
        trained = tables[step].get(name)
        cells = [f"{operations[name] / operations['stock']:.2f}"]
        cells += [f"{size[name]['time']:.2f}" for size in sizes.values()]
        cells += [f"{criterion['memory']:.2f}", f"{trained['time']:.2f}" if trained else ""]
        rows.append([f"`{name}`", *cells])
    return ["loss", "operations", *sizes, "memory", step], rows


def pasted_rows() -> tuple[list[str], list[list[str]]]:
    """Return time and memory of losses as tutorials have them beside this package's: a table's head, and its rows."""
    tables = {what: bench()["tables"][title_of(what)] for what in ("class term alone", "whole criterion")}
    columns = [(what, unit) for what in tables for unit in ("time", "memory")]
    names = [name for name in tables["whole criterion"] if f"{name}{PASTED}" in tables["whole criterion"]]
    rows = [
        [
            f"`{name}`",
            *(f"{tables[what][name][unit]:.2f}, {tables[what][name + PASTED][unit]:.2f}" for what, unit in columns),
        ]
        for name in names
    ]
    return ["loss: here, pasted", *(f"{what}: {unit}" for what, unit in columns)], rows


def classifiers(spec: LossSpec) -> list[list[str]]:
    """Return the rows of what `examples/classify.py` measured, on the pages of the losses that it trains."""
    with CLASSIFIERS.open(encoding="utf-8", newline="") as file:
        runs = list(csv.DictReader(file))
    choices = dict.fromkeys(run["keys"] for run in runs)
    if spec.kind != "classify" or not (spec.name == "ce" or f"cls_loss={spec.name}" in choices):
        return []
    return [
        [f"`{keys}`", *(_mean([run[c] for run in runs if run["keys"] == keys]) for c in CLASSES)] for keys in choices
    ]


def _mean(shares: list[str]) -> str:
    values = [100 * float(share) for share in shares]
    return f"{sum(values) / len(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def by_group(name: str) -> list[dict[str, Any]]:
    """Return the published comparisons of a group of losses."""
    return published_of(*(spec for spec in registry.specs() if spec.group == name))
