"""Output for programs: the verdicts, `summary.csv` with a row for each run, and `summary.json` with everything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolo_losses.comparison.record import METRICS, RunRecord
from yolo_losses.comparison.report.notes import training_keys
from yolo_losses.comparison.stats.analysis import PER_CLASS, Analysis, Comparison

if TYPE_CHECKING:
    import polars

VERSIONS = ("ultralytics", "torch", "yolo_losses", "python")
COLUMNS: dict[str, type] = {
    **dict.fromkeys(("data", "configuration", "weights", "metric"), str),
    **dict.fromkeys(("runs", "seeds", "images", "seeds_needed"), int),
    **dict.fromkeys(("mean", "sd", "difference", "low", "high", "own_low", "own_high"), float),
    **dict.fromkeys(("level", "standard_error", "df", "p_adjusted"), float),
    **dict.fromkeys(("verdict", "sentence"), str),
}


def verdicts(result: Analysis) -> polars.DataFrame:
    """Return the verdicts on the chosen metric; differences and intervals are fractions, like the metric.

    `low` and `high` are the ends of the simultaneous interval, `own_low` and `own_high` of the configuration's own.
    """
    import polars

    rows = [_row(c) for c in result.comparisons.values() if c.metric == result.metric]
    return polars.DataFrame(rows, schema=COLUMNS)


def _row(c: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values, `None` if there is none."""
    values: dict[str, Any] = dict.fromkeys(COLUMNS)
    values |= {"data": c.data, "configuration": c.name, "weights": c.which, "metric": c.metric}
    values |= {"runs": len(c.values), "mean": c.mean, "sd": c.sd, "seeds": len(c.differences)}
    if c.estimate is not None:
        e = c.estimate
        values |= {"difference": e.mean, "standard_error": e.se, "df": e.df, "p_adjusted": e.p_adjusted}
        values |= {"own_low": e.own_interval[0], "own_high": e.own_interval[1], "images": e.images or None}
        if c.verdict is not None:
            values |= {"low": e.interval[0], "high": e.interval[1], "level": e.level}
    if c.verdict is not None:
        values |= {"verdict": c.verdict.word, "sentence": str(c.verdict.sentence)}
        values |= {"seeds_needed": c.verdict.seeds_needed}
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}


def runs_table(result: Analysis) -> polars.DataFrame:
    """Return a row for each run, failed ones too."""
    import polars

    rows = []
    chosen = dict.fromkeys(key for r in result.records for key in r.configuration)  # some have more keys than others
    for r in result.records:
        row: dict[str, Any] = {"data": r.data, "name": r.name}
        row |= {key: None if (value := r.configuration.get(key)) is None else str(value) for key in chosen}
        row |= {"seed": r.seed, "status": r.status, "epochs": r.epochs}
        for which, metrics in (("best", r.best or {}), ("last", r.last or {})):
            row |= {f"{which}_{name}": metrics.get(name) for name in METRICS}
            for label, own in metrics.get("per_class", {}).items():
                row |= {f"{which}_{name}_{label}": own.get(name) for name in PER_CLASS}
        row |= {"seconds_per_epoch": r.seconds_per_epoch, "peak_memory_mb": r.peak_memory_mb, "device": r.device}
        row |= {"data_hash": r.data_hash, "weights_hash": r.weights_hash, "order_hash": r.order_hash, **r.versions}
        row |= {"error": " ".join(r.error.split()) if r.error else None}
        rows.append(row)
    columns = dict.fromkeys(key for row in rows for key in row)
    return polars.DataFrame({key: [row.get(key) for row in rows] for key in columns}, strict=False)


def read_summary(path: Path) -> list[RunRecord]:
    """Return the records of a `summary.csv`: their metrics, without detections and curves.

    Raises:
        ValueError: if the file is not the summary of a comparison.
    """
    import polars

    records = []
    found = polars.read_csv(path, infer_schema_length=None)
    if missing := [
        name for name in ("name", "data", "seed", "status", "epochs", "best_map50_95") if name not in found.columns
    ]:
        raise ValueError(f"{path} is not the summary of a comparison: it lacks the column '{missing[0]}'")
    for row in found.iter_rows(named=True):
        keys = list(row)[2 : list(row).index("seed")]
        values: dict[str, Any] = {key: row[key] for key in ("name", "seed", "data", "status", "epochs")}
        values |= {key: row.get(key) or "" for key in ("device", "data_hash", "weights_hash", "order_hash")}
        values |= {key: row.get(key) for key in ("error", "seconds_per_epoch", "peak_memory_mb")}
        values |= {which: _metrics_of(row, which) for which in ("best", "last")}
        values["configuration"] = {key: row[key] for key in keys if row[key] is not None}
        values["versions"] = {key: row[key] for key in VERSIONS if row.get(key)}
        records.append(RunRecord(**values))
    return records


def _metrics_of(row: Mapping[str, Any], which: str) -> dict[str, Any] | None:
    own = {k.removeprefix(f"{which}_"): v for k, v in row.items() if k.startswith(f"{which}_") and v is not None}
    classes: dict[str, dict[str, float]] = {}
    for name in PER_CLASS:
        for key, value in own.items():
            label = key.removeprefix(f"{name}_")
            if key not in METRICS and label != key and not (name == "map50" and label.startswith("95_")):
                classes.setdefault(label, {})[name] = value
    return {name: own[name] for name in METRICS if name in own} | {"per_class": classes} if own else None


def summary(result: Analysis, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything in the report as JSON values."""
    comparisons = []
    for c in result.comparisons.values():
        row = _row(c)
        row["values"] = {str(k): v for k, v in c.values.items()}
        row["differences"] = {str(k): v for k, v in c.differences.items()}
        comparisons.append(row)
    spreads = {
        data: {
            "standard_deviation": s.pooled,
            "df": s.df,
            "prior_df": s.prior_df if math.isfinite(s.prior_df) else None,
            "judged_alone": s.apart,
            "outliers": [[name, str(seed)] for name, seed in s.outliers],
        }
        for data, s in result.spreads.items()
    }
    return {
        "command": plan.get("command") or None,
        "metric": result.metric,
        "epochs": result.epochs,
        "rope": result.rope,
        "baseline": result.baseline,
        "configurations": {r.name: r.configuration for r in result.records},
        "data": {data: hashes(result, data) for data in result.sets},
        "notes": result.notes,
        "spreads": spreads,
        "rounds": {data: {name: vars(d) for name, d in own.items()} for data, own in result.decisions.items()},
        "keys_that_differ": training_keys(result),
        "comparisons": comparisons,
    }


def hashes(result: Analysis, data: str) -> list[str]:
    """Return the hashes of a data set, one if it did not change."""
    return sorted({r.data_hash for r in result.records if r.data == data and r.data_hash})
