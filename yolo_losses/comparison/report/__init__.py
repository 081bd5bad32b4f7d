"""The report of a comparison: `report.md`, from which `report.html` is made, figures, and summaries for programs."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolo_losses.comparison import folders
from yolo_losses.comparison.curves import curves_table
from yolo_losses.comparison.grid import find_baseline
from yolo_losses.comparison.language import Text, translate
from yolo_losses.comparison.reader import read_runs
from yolo_losses.comparison.record import METRICS, RunRecord
from yolo_losses.comparison.report import figures, notes, opening, tables
from yolo_losses.comparison.report.figures import Drawn
from yolo_losses.comparison.report.method import describe_method
from yolo_losses.comparison.report.page import to_html
from yolo_losses.comparison.report.paper import write_paper
from yolo_losses.comparison.stats import analysis
from yolo_losses.comparison.stats.analysis import ALL_SETS, Analysis, Comparison
from yolo_losses.comparison.stats.verdict import format_interval, format_points
from yolo_losses.plots.style import svg_file

if TYPE_CHECKING:
    import polars


def build_report(
    folder: Path,
    *,
    baseline: str | Mapping[str, Any] | None = None,
    rope: float = 0.005,
    metric: str = "map50_95",
    epochs: str = "best",
    paper: Path | None = None,
    language: str = "en",
) -> polars.DataFrame:
    """Write the report of a folder of runs into the folder.

    Args:
        folder: a folder of a comparison, or of runs made by hand with `yolo train`, or of a `summary.csv` alone.
        baseline: values of the configuration that all others are compared with; by default the comparison's own
            baseline, or the first configuration.
        rope: the largest difference of `metric` that does not matter, as a fraction.
        metric: `map50_95`, `map50`, `map75`, `precision` or `recall`: the metric of the verdicts.
        epochs: `best`, `last` or `mean`: the epochs that are compared.
        paper: a folder for the table, figure and text of a paper.
        language: language of `report.md`, `report.html` and the figures: `en` or `zh`.

    Returns:
        The verdicts: a row for each configuration on each data set, at the best and at the last epoch.

    Raises:
        ValueError: if there are no runs, or a value is invalid; the message names the key, its value and the allowed
            values.
    """
    folder = Path(folder)
    runs = read_runs(folder)
    problems = runs.problems
    try:
        plan = folders.read_comparison(folder)
    except ValueError as error:
        plan = {}
        problems = [str(error), *problems]
    records = _sort_records(runs.records, plan)
    summary = folder / "summary.csv"
    from_summary = not records and summary.is_file()  # a comparison whose runs were not kept
    if from_summary:
        records = tables.read_summary(summary)
    if not records:
        raise ValueError("; ".join([f"there are no runs to report on in {folder}", *problems]))
    options = plan.get("options", {})
    wanted = options.get("baseline") if baseline is None else baseline
    first = find_baseline(wanted, [r.configuration for r in records])
    name = next(r.name for r in records if r.configuration == first)
    result = analysis.analyse(records, name, rope, metric, epochs, options.get("seeds_planned") or ())
    result.notes += [*problems, *notes.notes(result)]
    write(folder, result, plan, language)
    if not from_summary:
        tables.runs_table(result).write_csv(summary)
        curves_table(result.records).write_csv(folder / "curves.csv")
    if paper is not None:
        write_paper(paper, result)
    return tables.verdicts(result)


def write(folder: Path, result: Analysis, plan: Mapping[str, Any], language: str = "en") -> None:
    """Write the files of a report that follow from its results."""
    drawn = figures.draw(result, language)
    (folder / "figures").mkdir(exist_ok=True)
    for figure in drawn:
        (folder / "figures" / f"{figure.name}.svg").write_text(svg_file(figure.svg), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(tables.summary(result, plan), indent=1) + "\n", encoding="utf-8")
    markdown = _render(_context(result, plan, drawn), language)
    (folder / "report.md").write_text(markdown, encoding="utf-8")
    page = to_html(markdown, {f"figures/{figure.name}.svg": figure.svg for figure in drawn}, language)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _sort_records(records: list[RunRecord], plan: Mapping[str, Any]) -> list[RunRecord]:
    """Return the records in the order of the grid's cells; others follow in their original order."""
    cells = [(cell["name"], cell["data"]) for cell in plan.get("cells", [])]

    def place(record: RunRecord) -> tuple[int, int]:
        cell = (record.name, record.data)
        return (cells.index(cell) if cell in cells else len(cells), record.seed)

    return sorted(records, key=place)


def _context(result: Analysis, plan: Mapping[str, Any], drawn: Sequence[Drawn]) -> dict[str, Any]:
    """Return the variables of the template."""
    versions: dict[str, list[str]] = {}
    for r in result.records:
        for key, value in r.versions.items():
            versions.setdefault(key, [])
            if value not in versions[key]:
                versions[key].append(value)
    next_step, next_command = opening.next_step(result, plan)
    first = result.labels[result.baseline]
    title = Text("{baseline}: no other configuration", baseline=first)
    if result.candidates:
        several = opening.count_noun(len(result.candidates), "configuration")
        title = Text("{several} compared with {baseline}", several=several, baseline=first)
    other = "last" if result.epochs == "best" else "best"
    return {
        "result": result,
        "labels": result.labels,
        "titles": result.titles,
        "metrics": METRICS,
        "title": title,
        "compared": opening.describe_runs(result),
        "next_step": next_step,
        "next_command": next_command,
        "rope": f"{result.rope * 100:g}",
        "other_which": other,
        "other_epochs": opening.EPOCH_WORDS[other],
        "scopes": [_scope(result, scope, drawn) for scope in result.scopes],
        "keys": notes.training_keys(result),
        "axes": {key for r in result.records for key in r.configuration},
        "failed": [r for r in result.records if r.status != "finished"],
        "pairing": notes.pairing(result),
        "versions": versions,
        "devices": sorted({r.device for r in result.records if r.device}),
        "data_hashes": {data: tables.hashes(result, data) for data in result.sets},
        "command": opening.all_commands(plan),
        "method": describe_method(result),
    }


def _scope(result: Analysis, scope: str, drawn: Sequence[Drawn]) -> dict[str, Any]:
    """Return the variables of the section on one data set, or on the mean over data sets."""
    metric_tables = [] if scope == ALL_SETS else [("At the best epoch", "best"), ("At the last epoch", "last")]
    return {
        "name": scope,
        "title": Text("Mean over data sets") if scope == ALL_SETS else Text("On {data}", data=result.titles[scope]),
        "unit": "set" if scope == ALL_SETS else "seed",
        "judged": [c for name in result.candidates if (c := result.get(scope, name)) and c.verdict],
        "verdicts": opening.group_by_verdict(result, scope),
        "certainty": opening.describe_certainty(result, scope),
        "rounds": result.decisions.get(scope, {}),
        "metric_tables": metric_tables,
        "figures": {kind: [f for f in drawn if (f.kind, f.scope) == (kind, scope)] for kind in figures.KINDS},
        "classes": result.classes.get(scope, []),
        "cost": [] if scope == ALL_SETS else _cost(result, scope),
    }


def _cost(result: Analysis, data: str) -> list[dict[str, Any]]:
    """Return time and peak memory per epoch by configuration, and against the baseline on the seeds that both have."""
    rows: list[dict[str, Any]] = []
    for name in result.names:
        row: dict[str, Any] = {"name": name}
        for key in ("seconds_per_epoch", "peak_memory_mb"):
            own, base = (
                {r.seed: v for r in result.finished(data, each) if (v := getattr(r, key)) is not None}
                for each in (name, result.baseline)
            )
            row[key] = statistics.fmean(own.values()) if own else None
            row[f"{key}_sd"] = statistics.stdev(own.values()) if len(own) > 1 else None
            reference = sum(base[seed] for seed in own if seed in base)
            row[f"{key}_ratio"] = sum(own[seed] for seed in own if seed in base) / reference if reference else None
        if result.finished(data, name):
            rows.append(row)
    return rows


def _render(context: Mapping[str, Any], language: str) -> str:
    import jinja2

    def translated(template: str, **values: Any) -> str:
        return str(translate(Text(template, **values), language))

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    filters: dict[str, Callable[..., Any]] = {
        "points": format_points,
        "probability": _probability,
        "interval": lambda interval: translate(_interval(interval), language),
        "level": lambda value: "–" if math.isnan(value) else format_points(value, sign=False),  # noqa: RUF001
        "difference": lambda c: translate(_difference(c), language),
        "tr": lambda text: translate(text, language),
        "seeds": opening.format_seeds,
        "md": _escape,
    }
    environment.filters.update(filters)
    environment.globals["_"] = translated
    return environment.get_template("report.md.jinja").render(context)


def _escape(text: str) -> str:
    """Escape Markdown; an underscore within a word needs no escape."""
    return "".join(f"\\{c}" if c in "\\`*<>[]|" else c for c in text)


def _interval(interval: tuple[float, float]) -> str:
    return "–" if math.isnan(interval[0]) else format_interval(interval)  # noqa: RUF001


def _difference(c: Comparison) -> str:
    if c.estimate is None or not c.differences:
        return ""
    inside = [] if math.isnan(c.estimate.se) else [" (", format_interval(c.estimate.own_interval), ")"]
    return Text.joined("", ["; ", format_points(c.estimate.mean), *inside])


def _probability(value: float) -> str:
    if math.isnan(value):
        return "–"  # noqa: RUF001
    return "<0.001" if value < 0.001 else f"{value:.3f}"
