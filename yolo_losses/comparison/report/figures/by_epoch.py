"""Curves by epoch: the validation metric, and what `loss_stats` wrote of the class term."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from yolo_losses.comparison.language import Text, translate
from yolo_losses.comparison.record import METRIC_COLUMNS, METRICS, RunRecord
from yolo_losses.comparison.report.figures.shared import WIDTH, add_legend, handles, titled
from yolo_losses.comparison.stats.analysis import Analysis
from yolo_losses.monitor import table as loss_stats
from yolo_losses.plots.style import INK, curve_style

STATISTICS = {  # columns of `loss_stats.csv`, the branch aside, and what they are
    "share/cls": "share of the class term",
    "cls_to_bce/value": "class term, times BCE's",
    "cls_to_bce/gradient": "its gradient, times BCE's",
    "cls_to_stock/value": "class term, times the stock loss's",
    "cls_to_stock/gradient": "its gradient, times the stock loss's",
    "cls_scale": "factor, cls_scale=auto",
    "without_positive/0-16": "objects below 16 px without a positive",
    "positives_per_object/0-16": "positives per object below 16 px",
    "mean_target/0-16": "their mean target",
}


def draw_metric(result: Analysis, data: str, language: str = "en") -> Figure | None:
    """Return the validation metric: the mean over seeds, and the range of these."""
    metric = result.metric if result.metric in METRIC_COLUMNS else "map50_95"
    figure = Figure(figsize=(WIDTH, 3.4))
    axes = figure.add_subplot()
    drawn = [
        _band(
            axes,
            _columns(result.finished(data, name), METRIC_COLUMNS[metric]),
            curve_style(i),
            result.labels[name],
            100,
        )
        for i, name in enumerate(result.names)
    ]
    if not any(drawn):
        return None
    axes.grid()
    axes.set_xlabel(translate("epoch", language))
    axes.set_ylabel(translate(Text("{metric}, points", metric=Text(METRICS[metric])), language))
    axes.set_title(titled("Validation by epoch", data, result, language), loc="left")
    add_legend(figure, handles(axes))
    return figure


def branches(result: Analysis, data: str) -> list[str]:
    """Return the branches that the runs have statistics of, `""` for a head that has one."""
    rows = [row for name in result.names for r in result.finished(data, name) for row in loss_stats.read(r.folder)[:1]]
    return loss_stats.branches_of(rows)


def draw_loss_stats(result: Analysis, data: str, branch: str, language: str = "en") -> Figure:
    """Return what `loss_stats` wrote on the class term, a panel for each column that some run has."""
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for name in result.names:
        found = [loss_stats.read(record.folder) for record in result.finished(data, name)]
        for column in STATISTICS:
            key = f"{branch}/{column}" if branch else column
            runs = [[row[key] for row in rows] for rows in found if rows and key in rows[0]]
            if column.endswith("/0-16") and not any(math.isfinite(value) for values in runs for value in values):
                continue  # a data set without objects of this size
            if runs:
                curves.setdefault(column, {})[name] = runs
    columns = [column for column in STATISTICS if column in curves]
    rows = math.ceil(len(columns) / 2)
    figure = Figure(figsize=(WIDTH, 1.9 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False, sharex=True).ravel()
    for axes, column in zip(grid, columns, strict=False):
        for name, runs in curves[column].items():
            _band(axes, runs, curve_style(result.names.index(name)), result.labels[name], 1)
        if column.startswith("share"):
            axes.set_ylim(0, 1)
        elif column.endswith("/0-16"):
            axes.set_ylim(0, max(axes.get_ylim()[1], 0.1))
        else:
            axes.axhline(1, color=INK, lw=0.8)
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            if high < 10 * low:  # a decade has three labels at least
                middle = math.sqrt(low * high)
                axes.set_ylim(middle / math.sqrt(10), middle * math.sqrt(10))
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(translate(STATISTICS[column], language), loc="left", fontsize=9)
        axes.grid()
    for axes in grid[len(columns) :]:
        axes.remove()
    for axes in grid[max(0, len(columns) - 2) : len(columns)]:
        axes.set_xlabel(translate("epoch", language))
        axes.tick_params(labelbottom=True)
    lines: dict[str, Any] = {}
    for axes in grid[: len(columns)]:
        lines |= handles(axes)
    add_legend(figure, {label: lines[label] for label in result.labels.values() if label in lines})
    title = Text.joined(", ", [Text("What the class term did"), *([branch] if branch else [])])
    figure.suptitle(
        titled(title, data, result, language),
        x=0.02,
        ha="left",
        fontsize=10,
    )
    return figure


def _columns(records: Sequence[RunRecord], column: str) -> list[list[float]]:
    """Return a column of each run's `results.csv`, where it is there."""
    found = [[row[column] for row in r.curve if column in row] for r in records]
    return [values for values in found if values]


def _band(axes: Axes, runs: list[list[float]], style: Mapping[str, Any], label: str | None, scale: float) -> bool:
    """Draw the mean of runs of unequal length, and their range; return whether there was any."""
    if not runs:
        return False
    values: NDArray[Any] = np.full((len(runs), max(map(len, runs))), np.nan)
    for row, run in zip(values, runs, strict=True):
        row[: len(run)] = run
    values = values * scale
    epochs = np.arange(1, values.shape[1] + 1)
    own = {k: v for k, v in style.items() if k != "marker"}
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.plot(epochs, np.nanmean(values, 0), label=label, lw=1.7, **own)
    if len(runs) > 1:
        axes.fill_between(epochs, np.nanmin(values, 0), np.nanmax(values, 0), color=style["color"], alpha=0.15, lw=0)
    return True
