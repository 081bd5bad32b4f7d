"""The report of a comparison: `summary.csv`, `summary.json`, `report.md`, `report.html` and its figures."""

from __future__ import annotations

import json
import math
import statistics as descriptive
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolo_losses.comparison import folders
from yolo_losses.comparison.curves import curves_table
from yolo_losses.comparison.grid import find_baseline
from yolo_losses.comparison.reader import read_runs
from yolo_losses.comparison.record import RunRecord
from yolo_losses.comparison.report import figures
from yolo_losses.comparison.report.figures import Drawn
from yolo_losses.comparison.stats import analysis
from yolo_losses.comparison.stats.analysis import ALL_SETS, METRICS, PER_CLASS, WEIGHTS, Analysis, Comparison
from yolo_losses.comparison.stats.statistics import points
from yolo_losses.plots.style import svg_file

if TYPE_CHECKING:
    import polars

COLUMNS: dict[str, type] = {
    **dict.fromkeys(("data", "configuration", "weights", "metric"), str),
    **dict.fromkeys(("runs", "pairs", "images", "seeds_needed"), int),
    **dict.fromkeys(("mean", "sd", "difference", "low", "high"), float),
    **dict.fromkeys(("seeds_low", "seeds_high", "images_low", "images_high"), float),
    **dict.fromkeys(("p", "p_holm", "p_better", "p_within_rope", "correlation"), float),
    **dict.fromkeys(("verdict", "sentence"), str),
}
WORDS = ("better", "worse", "no difference that matters", "undecided")


def build_report(
    folder: Path, *, baseline: str | Mapping[str, Any] | None = None, rope: float = 0.005, metric: str = "map50_95"
) -> polars.DataFrame:
    """Write the report of a folder of runs into the folder.

    Args:
        folder: of a comparison, or of runs made by hand with `yolo train`.
        baseline: values of the configuration that all others are compared with; by default the comparison's own
            baseline, or the first configuration.
        rope: the largest difference of `metric` that does not matter, as a fraction.
        metric: `map50_95`, `map50`, `map75`, `precision` or `recall`: what the verdicts are on.

    Returns:
        The verdicts: a row for each configuration on each data set, at the best and at the last epoch.

    Raises:
        ValueError: if there are no runs, or on an invalid value; the message is one line naming key, value and allowed
            values.
    """
    folder = Path(folder)
    runs = read_runs(folder)
    notes = runs.problems
    try:
        plan = folders.read_plan(folder)
    except ValueError as error:
        plan = {}
        notes = [str(error), *notes]
    records = _in_order(runs.records, plan)
    if not records:
        raise ValueError("; ".join([f"there are no runs to report on in {folder}", *notes]))
    stored = plan.get("options", {}).get("baseline")
    baseline = find_baseline(stored if baseline is None else baseline, [r.configuration for r in records])
    result = analysis.analyse(records, baseline, rope, metric)
    result.notes[:0] = notes
    drawn = figures.draw(result)
    (folder / "figures").mkdir(exist_ok=True)
    for figure in drawn:
        (folder / "figures" / f"{figure.name}.svg").write_text(svg_file(figure.svg), encoding="utf-8")
    _runs_table(result).write_csv(folder / "summary.csv")
    curves_table(records).write_csv(folder / "curves.csv")
    (folder / "summary.json").write_text(json.dumps(_summary(result, plan), indent=1) + "\n", encoding="utf-8")
    context = _context(result, plan, drawn)
    for name in ("report.md", "report.html"):
        (folder / name).write_text(_render(f"{name}.jinja", context), encoding="utf-8")
    return verdicts(result)


def verdicts(result: Analysis) -> polars.DataFrame:
    """Return the verdicts on the chosen metric; differences and intervals are fractions, like the metric."""
    import polars

    rows = [_row(c, result.rope) for c in result.comparisons.values() if c.metric == result.metric]
    return polars.DataFrame(rows, schema=COLUMNS)


def _row(c: Comparison, rope: float) -> dict[str, Any]:
    """Return a comparison as plain values, `None` where there is none."""
    seeds, decisive = c.seeds.interval(), c.decisive.interval()
    values = {
        "data": c.data,
        "configuration": c.name,
        "weights": c.which,
        "metric": c.metric,
        "runs": len(c.values),
        "mean": c.mean,
        "sd": c.sd,
        "pairs": len(c.differences),
        "difference": c.decisive.mean,
        "seeds_low": seeds[0],
        "seeds_high": seeds[1],
        "images_low": c.image_interval[0],
        "images_high": c.image_interval[1],
        "low": decisive[0],
        "high": decisive[1],
        "p": c.p_value,
        "p_holm": c.p_holm,
        "p_better": c.decisive.p_better,
        "p_within_rope": c.decisive.p_within(rope),
        "correlation": c.correlation,
        "images": c.images or None,
        "verdict": c.verdict.word if c.verdict else None,
        "sentence": c.verdict.sentence if c.verdict else None,
        "seeds_needed": c.verdict.seeds_needed if c.verdict else None,
    }
    return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in values.items()}


# --- summaries -------------------------------------------------------------------------------------------------------


def _in_order(records: list[RunRecord], plan: Mapping[str, Any]) -> list[RunRecord]:
    """Return the records in the order of the grid's cells; others keep theirs, after them."""
    cells = [(cell["name"], cell["data"]) for cell in plan.get("cells", [])]

    def place(record: RunRecord) -> tuple[int, int]:
        cell = (record.name, record.data)
        return (cells.index(cell) if cell in cells else len(cells), record.seed)

    return sorted(records, key=place)


def _runs_table(result: Analysis) -> polars.DataFrame:
    """Return a row for each run, failed ones too."""
    import polars

    rows = []
    for r in result.records:
        row: dict[str, Any] = {"data": r.data, "name": r.name}
        row |= {key: None if value is None else str(value) for key, value in r.configuration.items()}
        row |= {"seed": r.seed, "status": r.status, "epochs": r.epochs}
        for which in WEIGHTS:
            metrics = getattr(r, which) or {}
            row |= {f"{which}_{name}": metrics.get(name) for name in METRICS}
            for label, own in metrics.get("per_class", {}).items():
                row |= {f"{which}_{name}_{label}": own.get(name) for name in PER_CLASS}
        row |= {"seconds_per_epoch": r.seconds_per_epoch, "peak_memory_mb": r.peak_memory_mb, "device": r.device}
        row |= {"data_hash": r.data_hash, "weights_hash": r.weights_hash, "order_hash": r.order_hash, **r.versions}
        row |= {"error": " ".join(r.error.split()) if r.error else None}
        rows.append(row)
    columns = dict.fromkeys(key for row in rows for key in row)
    return polars.DataFrame({key: [row.get(key) for row in rows] for key in columns}, strict=False)


def _summary(result: Analysis, plan: Mapping[str, Any]) -> dict[str, Any]:
    comparisons = []
    for c in result.comparisons.values():
        row = _row(c, result.rope)
        row["values"] = {str(k): v for k, v in c.values.items()}
        row["differences"] = {str(k): v for k, v in c.differences.items()}
        comparisons.append(row)
    return {
        "command": plan.get("command") or None,
        "metric": result.metric,
        "rope": result.rope,
        "baseline": result.baseline,
        "configurations": {r.name: r.configuration for r in result.records},
        "data": {data: _hashes(result, data, "data_hash") for data in result.sets},
        "notes": result.notes,
        "expected_best_by_luck": [
            {"data": data, "weights": which, "difference": None if math.isnan(luck) else luck}
            for (data, which), luck in result.luck.items()
        ],
        "pairs": {data: analysis.pairs(result, data) for data in result.sets},
        "keys_that_differ": analysis.training_keys(result),
        "comparisons": comparisons,
    }


def _hashes(result: Analysis, data: str, name: str) -> list[str]:
    return sorted({getattr(r, name) for r in result.records if r.data == data and getattr(r, name)})


# --- pages -----------------------------------------------------------------------------------------------------------


def _context(result: Analysis, plan: Mapping[str, Any], drawn: Sequence[Drawn]) -> dict[str, Any]:
    """Return what both templates show."""
    versions: dict[str, list[str]] = {}
    for r in result.records:
        for key, value in r.versions.items():
            versions.setdefault(key, [])
            if value not in versions[key]:
                versions[key].append(value)
    keys = analysis.training_keys(result)
    axes = {key for r in result.records for key in r.configuration}
    return {
        "result": result,
        "labels": result.labels,
        "titles": result.titles,
        "metrics": METRICS,
        "weights": WEIGHTS,
        "all_sets": ALL_SETS,
        "headline": METRICS[result.metric],
        "scopes": [_scope(result, scope, drawn) for scope in result.scopes],
        "keys": keys,
        "axes": axes,
        "failed": [r for r in result.records if r.status != "finished"],
        "versions": versions,
        "devices": sorted({r.device for r in result.records if r.device}),
        "data_hashes": {data: _hashes(result, data, "data_hash") for data in result.sets},
        "pairs": {data: analysis.pairs(result, data) for data in result.sets},
        "command": plan.get("command") or None,
        "by_hand": not any(r.versions for r in result.records),
        "method": _method(result),
        "nan": math.nan,
        "seeds": sorted({r.seed for r in result.records}),
        "finished": sum(r.status == "finished" for r in result.records),
    }


def _method(result: Analysis) -> list[str]:
    """Return how the numbers were made, for a reader who has to judge them."""
    images = any(c.images for c in result.comparisons.values())
    lines = [
        "A pair is two runs of the same seed. Difference: configuration minus baseline, averaged over pairs. Mean and "
        "standard deviation are over all finished seeds of a configuration.",
        "Interval over seeds: t interval of the paired differences. It speaks of new seeds on these validation images.",
    ]
    if images:
        lines += [
            f"Interval over images: {analysis.RESAMPLES} bootstrap resamples of the validation images, the same for "
            "all runs, models fixed; 2.5 and 97.5 % percentiles. It speaks of these very models on new images.",
            "Interval over seeds and images: t interval with the sum of both variances, the interaction counted once, "
            "and Satterthwaite's degrees of freedom; never narrower than that over seeds, and p never smaller. It "
            "decides where it is known.",
        ]
    lines += [
        f"P(better) and P(within ±{result.rope * 100:g}) are posterior probabilities of the mean difference, from the "
        "t distribution of the interval that decides (reference prior).",
        f"Better or worse: p ≤ 0.05 after Holm's correction for {len(result.candidates)} configuration"
        f"{'s' if len(result.candidates) != 1 else ''}. No difference that matters: the 95 % interval lies within "
        f"±{result.rope * 100:g} points. Otherwise undecided; the number of seeds that would decide assumes that the "
        "mean and spread seen so far are the true ones, and a power of 80 %. Intervals are not corrected.",
        "Best of k by luck: expected maximum of k differences from a shared baseline, all of them null, with the "
        "standard errors seen.",
        "The best epoch is chosen on the validation split itself, which flatters every configuration, noisy ones "
        "most; the last epoch is free of that choice.",
    ]
    if len(result.sets) > 1:
        lines.append(
            "Mean over data sets: every set weighs the same. The interval for new sets is a t interval on the sets' "
            "mean differences, which holds the variance between sets and that within them; the one for these sets "
            "holds the variance within sets alone."
        )
    return lines


def _scope(result: Analysis, scope: str, drawn: Sequence[Drawn]) -> dict[str, Any]:
    """Return what is shown of one data set, or of their mean."""
    judged = [c for name in result.candidates if (c := result.get(scope, name)) and c.verdict]
    words = [c.verdict.word for c in judged if c.verdict]
    return {
        "name": scope,
        "judged": judged,
        "tally": ", ".join(f"{words.count(word)} {word}" for word in WORDS if word in words),
        "luck": {which: result.luck.get((scope, which), math.nan) for which in WEIGHTS},
        "figures": {kind: [f for f in drawn if (f.kind, f.scope) == (kind, scope)] for kind in figures.KINDS},
        "classes": result.classes.get(scope, []),
        "cost": [] if scope == ALL_SETS else _cost(result, scope),
    }


def _cost(result: Analysis, data: str) -> list[dict[str, Any]]:
    """Return time and peak memory of an epoch by configuration, and against the baseline."""
    rows: list[dict[str, Any]] = []
    for name in result.names:
        own = result.finished(data, name)
        row: dict[str, Any] = {"name": name}
        for key in ("seconds_per_epoch", "peak_memory_mb"):
            values = [v for r in own if (v := getattr(r, key)) is not None]
            row[key] = descriptive.fmean(values) if values else None
            row[f"{key}_sd"] = descriptive.stdev(values) if len(values) > 1 else None
            base = rows[0][key] if rows else row[key]
            row[f"{key}_ratio"] = row[key] / base if row[key] and base else None
        if own:
            rows.append(row)
    return rows


def _render(template: str, context: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.jinja"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"points": points, "probability": _probability, "interval": _interval, "level": _level}
    return environment.get_template(template).render(context)


def _level(value: float) -> str:
    """Return a metric in points without a sign, or a dash."""
    return "–" if math.isnan(value) else f"{value * 100:.1f}"  # noqa: RUF001


def _interval(interval: tuple[float, float]) -> str:
    return "–" if math.isnan(interval[0]) else f"{points(interval[0])} to {points(interval[1])}"  # noqa: RUF001


def _probability(value: float) -> str:
    if math.isnan(value):
        return "–"  # noqa: RUF001
    return "<0.001" if value < 0.001 else ">0.999" if value > 0.999 else f"{value:.3f}"
