"""The figures of a comparison, as SVG elements."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from yolo_losses.comparison.record import METRIC_COLUMNS, RunRecord, read_results
from yolo_losses.comparison.stats.analysis import ALL_SETS, METRICS, WEIGHTS, Analysis, Comparison
from yolo_losses.monitor import table as loss_stats
from yolo_losses.plots.style import GREY, INK, STYLE, curve_style, scaled_to_page, svg_element

VERDICT_COLOURS = {"better": "#2f7fd0", "worse": "#d9622b", "no difference that matters": GREY, "undecided": GREY}
WIDTH = 5.2  # inches: a figure fills a phone's width, and two stand side by side on a wide page
KINDS = ("forest", "per-class", "curves", "precision-recall", "loss", "statistics")
MOST_CLASSES = 30
STATISTICS = {  # columns of `loss_stats.csv`, the branch aside, and what they are
    "share/cls": "share of the class term",
    "cls_to_bce/value": "class term, times BCE's",
    "cls_to_bce/gradient": "its gradient, times BCE's",
    "cls_to_stock/value": "class term, times the stock loss's",
    "cls_to_stock/gradient": "its gradient, times the stock loss's",
    "cls_scale": "factor, cls_scale=auto",
}


@dataclass(frozen=True)
class Drawn:
    """One figure.

    Attributes:
        kind: one of `KINDS`.
        scope: the data set, or `ALL_SETS`.
        name: of its file.
        svg: the SVG element.
        text: what it shows, for those who do not see it.
    """

    kind: str
    scope: str
    name: str
    svg: str
    text: str


def draw(result: Analysis) -> list[Drawn]:
    """Return the figures of a comparison."""
    with mpl.rc_context(STYLE):
        return list(_draw(result))


def _draw(result: Analysis) -> Iterator[Drawn]:
    several = len(result.scopes) > 1
    for number, scope in enumerate(result.scopes):
        found = [
            ("forest", f"-{which}", _forest(result, scope, which), f"Differences in {METRICS[result.metric]}, {words}")
            for which, words in WEIGHTS.items()
        ]
        if scope != ALL_SETS:
            found += [
                ("per-class", "", _per_class(result, scope), "AP50-95 by class"),
                ("curves", "", _curves(result, scope), "Validation metric by epoch"),
                ("precision-recall", "", _precision_recall(result, scope), "Precision-recall curves"),
                *(
                    ("loss", f"-{term}", _losses(result, scope, term), f"The {term} term by epoch")
                    for term in _terms(result, scope)
                ),
                *(
                    ("statistics", f"-{branch}" if branch else "", _statistics(result, scope, branch), text)
                    for branch in _branches(result, scope)
                    for text in [f"What the class term did, by epoch{f', {branch}' if branch else ''}"]
                ),
            ]
        for kind, suffix, figure, text in found:
            if figure is not None:
                name = f"{kind}{suffix}" + (f"-{number}" if several else "")
                yield Drawn(
                    kind, scope, name, _svg(figure, name), text + (f", {result.titles[scope]}" if several else "")
                )


def _svg(figure: Figure, name: str) -> str:
    return scaled_to_page(svg_element(figure, name, bbox_inches="tight", pad_inches=0.05))


# --- forest plot -----------------------------------------------------------------------------------------------------


def _forest(result: Analysis, scope: str, which: str) -> Figure | None:
    found = [result.get(scope, name, which) for name in result.candidates]
    rows = [c for c in found if c is not None and c.differences]
    if not rows:
        return None
    figure = Figure(figsize=(WIDTH, 0.62 * len(rows) + 0.95))
    axes = figure.add_subplot()
    rope = result.rope * 100
    bounds = [100 * d for c in rows for d in c.differences.values()] + [-rope, rope]
    reach = 2.5 * max(map(abs, bounds))  # two seeds have intervals that would squeeze all else to a dot
    ends = [100 * end for c in rows for e in (c.seeds, c.decisive) for end in e.interval() if not math.isnan(end)]
    low = max(min(bounds + ends), -reach)
    high = min(max(bounds + ends), reach)
    margin = 0.04 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(len(rows) - 0.35, -0.65)
    axes.axvspan(-rope, rope, color=GREY, alpha=0.18, lw=0)
    axes.axvline(0, color=INK, lw=0.8)
    for y, c in enumerate(rows):
        _forest_row(axes, y, c, result, (low, high))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    baseline = result.labels[result.baseline]
    axes.set_xlabel(f"difference in {METRICS[result.metric]} from {baseline}, points")
    axes.set_title(
        f"{WEIGHTS[which].capitalize()}{'' if len(result.scopes) == 1 else f', {result.titles[scope]}'}", loc="left"
    )
    return figure


def _forest_row(axes: Axes, y: float, c: Comparison, result: Analysis, limits: tuple[float, float]) -> None:
    word = c.verdict.word if c.verdict else "undecided"
    colour = VERDICT_COLOURS[word]
    axes.text(0, y - 0.2, f"{result.labels[c.name]}: {word}", transform=axes.get_yaxis_transform(), va="bottom")
    thick, thin = (c.decisive, c.seeds) if c.data != ALL_SETS else (c.decisive, c.decisive)
    for estimate, width, alpha in ((thick, 1.6, 1.0), (thin, 5.5, 0.45)):
        ends = [100 * end for end in estimate.interval()]
        if math.isnan(ends[0]):
            continue
        axes.plot(np.clip(ends, *limits), [y, y], color=colour, lw=width, alpha=alpha, solid_capstyle="butt")
        for end, limit, marker in zip(ends, limits, "<>", strict=True):
            if abs(end) > abs(limit) and end * limit > 0:
                axes.plot([limit], [y], marker=marker, color=colour, ms=6, clip_on=False)
    x = [100 * d for d in c.differences.values()]
    axes.plot(x, [y + 0.22] * len(x), "o", color=INK, ms=4, alpha=0.55, mew=0)
    axes.plot([100 * c.decisive.mean], [y], "D", color=colour, ms=6, mec=INK, mew=0.6)


# --- by class --------------------------------------------------------------------------------------------------------


def _per_class(result: Analysis, data: str) -> Figure | None:
    classes = result.classes[data]
    table = {c: {n: result.get(data, n, "best", f"{c}:map50_95") for n in result.names} for c in classes}
    if not classes:
        return None

    def spread(label: str) -> float:
        means = [c.mean for c in table[label].values() if c is not None and c.values]
        return max(means) - min(means) if means else 0.0

    shown = sorted(classes, key=spread, reverse=True)[:MOST_CLASSES]
    shown = [c for c in classes if c in shown]
    step = 0.8 / len(result.names)
    figure = Figure(figsize=(WIDTH, len(shown) * (0.2 + 0.13 * len(result.names)) + 1))
    axes = figure.add_subplot()
    for index, name in enumerate(result.names):
        style = curve_style(index)
        for row, label in enumerate(shown):
            c = table[label][name]
            if c is None or not c.values:
                continue
            y = row - 0.4 + step * (index + 0.5)
            values = [100 * v for v in c.values.values()]
            axes.plot([min(values), max(values)], [y, y], color=style["color"], lw=1.2)
            axes.plot(values, [y] * len(values), "o", color=style["color"], ms=2.5, alpha=0.7)
            axes.plot(
                [100 * c.mean],
                [y],
                style["marker"],
                color=style["color"],
                ms=6,
                mec=INK,
                mew=0.5,
                label=result.labels[name] if row == 0 else None,
            )
    for row in range(1, len(shown)):
        axes.axhline(row - 0.5, color=INK, lw=0.5, alpha=0.15)
    axes.set_yticks(range(len(shown)), shown)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_xlabel("AP50-95, points")
    several = "" if len(shown) == len(classes) else f"the {len(shown)} of {len(classes)} classes that differ most"
    axes.set_title(_titled(several or "AP by class, best epoch", data, result), loc="left")
    _legend(figure, _handles(axes))
    return figure


# --- by epoch --------------------------------------------------------------------------------------------------------


def _curves(result: Analysis, data: str) -> Figure | None:
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
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{METRICS[metric]}, points")
    axes.set_title(_titled("Validation by epoch", data, result), loc="left")
    _legend(figure, _handles(axes))
    return figure


def _terms(result: Analysis, data: str) -> list[str]:
    """Return the terms of the loss that the runs logged, such as `box`, `cls` and `dfl`."""
    for record in (r for name in result.names for r in result.finished(data, name)):
        if rows := read_results(record.folder):
            return [m[1] for column in rows[0] if (m := re.fullmatch(r"train/(\w+?)(?:_loss)?", column))]
    return []


def loss_of_term(args: Mapping[str, Any], term: str) -> tuple[str, tuple[Any, ...]]:
    """Return the name of the loss behind a term, and all that its value depends on: only equal ones are comparable."""
    name = str(args.get(f"{term}_loss") or "stock")
    prefixes = (f"{term}_", *(f"{part}_" for part in name.split("_")), f"{name}_")
    own = {k: str(v) for k, v in args.items() if k == term or k.startswith(prefixes)}
    return name, tuple(sorted(own.items()))


def _losses(result: Analysis, data: str, term: str) -> Figure | None:
    """Return a term's training and validation values, a panel for each loss: those of two losses are not comparable."""
    import yaml

    panels: dict[tuple[str, tuple[Any, ...]], list[str]] = {}
    for name in result.names:
        records = result.finished(data, name)
        path = records[0].folder / "args.yaml" if records else None
        if path is not None and path.is_file():
            args = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            panels.setdefault(loss_of_term(args, term), []).append(name)
    if not panels:
        return None
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(WIDTH, 1.9 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes, ((loss, _), names) in zip(grid, panels.items(), strict=False):
        for name in names:
            style = curve_style(result.names.index(name))
            records = result.finished(data, name)
            for split, dash in (("train", "-"), ("val", ":")):
                found = _columns(records, f"{split}/{term}_loss") or _columns(records, f"{split}/{term}")
                _band(axes, found, {**style, "ls": dash}, result.labels[name] if split == "train" else None, 1)
        axes.set_title(loss if len(names) > 1 else result.labels[names[0]], loc="left", fontsize=9)
        axes.grid()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    handles: dict[str, Any] = {}
    for axes, names in zip(grid, panels.values(), strict=False):
        if len(names) > 1:
            handles |= _handles(axes)
    if handles:
        _legend(figure, {label: handles[label] for label in result.labels.values() if label in handles})
    figure.suptitle(
        _titled(f"{term} term: training solid, validation dotted", data, result), x=0.02, ha="left", fontsize=10
    )
    return figure


def _branches(result: Analysis, data: str) -> list[str]:
    """Return the branches that the runs have statistics of, `""` for a head that has one."""
    rows = [row for name in result.names for r in result.finished(data, name) for row in loss_stats.read(r.folder)[:1]]
    return loss_stats.branches_of(rows)


def _statistics(result: Analysis, data: str, branch: str) -> Figure:
    """Return what `loss_stats` wrote on the class term, a panel for each column that some run has."""
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for name in result.names:
        found = [loss_stats.read(record.folder) for record in result.finished(data, name)]
        for column in STATISTICS:
            key = f"{branch}/{column}" if branch else column
            runs = [[row[key] for row in rows] for rows in found if rows and key in rows[0]]
            if runs:
                curves.setdefault(column, {})[name] = runs
    shown = [column for column in STATISTICS if column in curves]
    rows = math.ceil(len(shown) / 2)
    figure = Figure(figsize=(WIDTH, 1.9 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False, sharex=True).ravel()
    for axes, column in zip(grid, shown, strict=False):
        for name, runs in curves[column].items():
            _band(axes, runs, curve_style(result.names.index(name)), result.labels[name], 1)
        if column.startswith("share"):
            axes.set_ylim(0, 1)
        else:
            axes.axhline(1, color=INK, lw=0.8)
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(STATISTICS[column], loc="left", fontsize=9)
        axes.grid()
    for axes in grid[len(shown) :]:
        axes.remove()
    for axes in grid[max(0, len(shown) - 2) : len(shown)]:
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    handles: dict[str, Any] = {}
    for axes in grid[: len(shown)]:
        handles |= _handles(axes)
    _legend(figure, {label: handles[label] for label in result.labels.values() if label in handles})
    figure.suptitle(
        _titled("What the class term did" + (f", {branch}" if branch else ""), data, result),
        x=0.02,
        ha="left",
        fontsize=10,
    )
    return figure


def _columns(records: Sequence[RunRecord], column: str) -> list[list[float]]:
    """Return a column of each run's `results.csv`, where it is there."""
    found = [[row[column] for row in read_results(r.folder) if column in row] for r in records]
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


# --- precision and recall --------------------------------------------------------------------------------------------


def _precision_recall(result: Analysis, data: str) -> Figure | None:
    figure = Figure(figsize=(WIDTH, 3.4))
    axes = figure.add_subplot()
    drawn = False
    for index, name in enumerate(result.names):
        curves = [r.best["pr"] for r in result.finished(data, name) if r.best and r.best.get("pr")]
        if not curves:
            continue
        drawn = True
        recall, precision = curves[0]["recall"], np.array([c["precision"] for c in curves], float)
        style = {k: v for k, v in curve_style(index).items() if k != "marker"}
        axes.plot(recall, precision.mean(0), label=result.labels[name], lw=1.7, **style)
        if len(curves) > 1:
            axes.fill_between(recall, precision.min(0), precision.max(0), color=style["color"], alpha=0.15, lw=0)
    if not drawn:
        return None
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.grid()
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_title(_titled("At IoU 0.5, mean over classes, best epoch", data, result), loc="left")
    _legend(figure, _handles(axes))
    return figure


# --- shared ----------------------------------------------------------------------------------------------------------


def _handles(axes: Axes) -> dict[str, Any]:
    handles, labels = axes.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def _legend(figure: Figure, handles: Mapping[str, Any]) -> None:
    """Add the legend below the figure."""
    longest = max(map(len, handles))
    below = max(0.0, 0.5 / figure.get_figheight() - 0.11)  # half an inch below the axes, for their ticks and label
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="upper left",
        bbox_to_anchor=(0.1, -below),
        ncols=1 if longest > 34 else 2 if longest > 16 else 3,
        numpoints=1,
    )


def _titled(title: str, data: str, result: Analysis) -> str:
    return title if len(result.sets) == 1 else f"{title}, {result.titles[data]}"
