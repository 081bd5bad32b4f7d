"""The plot of `loss_stats.csv`: statistics of the losses over the epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from yolo_losses.monitor.table import Row, branches_of, renamed_series, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN_CLASSES = 8
WHITE: Any = {"figure.facecolor": "white", "savefig.facecolor": "white"}


def figure(rows: Sequence[Row], title: str = "") -> Any:
    """Return the plot of a run: six panels for each branch of the head, eight if the head has an assigner.

    Args:
        rows: the rows of the run.
        title: the title above the panels.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from yolo_losses.plots.style import STYLE, installed_fonts

    branches = branches_of(rows)
    paints = [_terms, _relative_to_reference, _positives, _overlap, _scores, _classes]
    if any(series(rows, branch, "without_positive") for branch in branches):
        paints[2:2], paints[6:6] = [_without_positive], [_positives_per_object]
    text = "".join((title, *(name for row in rows for name in row)))
    with mpl.rc_context({**STYLE, **installed_fonts(text), **WHITE}):
        drawn = Figure(figsize=(13 / 3 * (len(paints) // 2), 6.6 * len(branches)), layout="constrained")
        if title:
            drawn.suptitle(title, x=0.01, ha="left", wrap=True)
        panels = drawn.subplots(2 * len(branches), len(paints) // 2, squeeze=False)
        for number, branch in enumerate(branches):
            own = panels[2 * number : 2 * number + 2].ravel()
            for panel, paint in zip(own, paints, strict=True):
                title = paint(panel, rows, branch)
                panel.set_title(f"{branch}: {title}" if branch else title, loc="left")
                panel.set_xlabel("epoch")
                panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
                panel.set_xlim(rows[0]["epoch"] - 0.5, rows[-1]["epoch"] + 0.5)
    return drawn


def _terms(axes: Axes, rows: Sequence[Row], branch: str) -> str:
    _stack(axes, rows, series(rows, branch, "share"))
    return "terms, share of the loss"


def _relative_to_reference(axes: Axes, rows: Sequence[Row], branch: str) -> str:
    reference = "BCE" if series(rows, branch, "cls_to_bce") else "the stock loss"
    found = series(rows, branch, "cls_to_bce") or series(rows, branch, "cls_to_stock")
    words = {
        "value": "value",
        "gradient": "gradient, all logits",
        "gradient_positives": "gradient, positives",
    }
    curves = {words[item]: values for item, values in found.items()}
    curves |= renamed_series(rows, branch, {"cls_scale": "cls_scale"})
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.axhline(1, color="0.55", lw=0.8)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    _lines(axes, rows, curves)
    shown = [value for values in curves.values() for value in values if math.isfinite(value) and value > 0]
    axes.set_ylim(min([*shown, 0.5]) / 1.5, max([*shown, 2.0]) * 1.5)
    return f"class term, times {reference}'s"


def _positives(axes: Axes, rows: Sequence[Row], branch: str) -> str:
    _lines(axes, rows, renamed_series(rows, branch, {"positives": "positives"}), legend=False)
    axes.set_ylim(0, 1.1 * max(axes.get_ylim()[1], 1))
    return "positives per image"


def _without_positive(axes: Axes, rows: Sequence[Row], branch: str) -> str:
    from matplotlib.ticker import PercentFormatter

    _by_size(axes, rows, branch, "without_positive")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(0, max(1.1 * axes.get_ylim()[1], 0.1))
    return "objects without a positive"


def _positives_per_object(axes: Axes, rows: Sequence[Row], branch: str) -> str:
    _by_size(axes, rows, branch, "positives_per_object")
    axes.set_ylim(0, 1.1 * max(axes.get_ylim()[1], 1))
    return "positives per object"


def _by_size(axes: Axes, rows: Sequence[Row], branch: str, group: str) -> None:
    """Draw a line for each size of objects that occurs."""
    found = {size: values for size, values in series(rows, branch, group).items() if any(map(math.isfinite, values))}
    _lines(axes, rows, {f"{size} px": values for size, values in found.items()})


def _overlap(axes: Axes, rows: Sequence[Row], branch: str) -> str:
    curves = renamed_series(rows, branch, {"mean_iou": "mean IoU", "threshold": "threshold"})
    _lines(axes, rows, curves, legend=len(curves) > 1)
    axes.set_ylim(0, 1)
    return "IoU of the positives"


def _scores(axes: Axes, rows: Sequence[Row], branch: str) -> str:
    import matplotlib as mpl

    shares = series(rows, branch, "by_score")
    shades = mpl.colormaps["viridis"]
    _stack(axes, rows, shares, [shades(i / max(len(shares) - 1, 1)) for i in range(len(shares))])
    return "class term by predicted score"


def _classes(axes: Axes, rows: Sequence[Row], branch: str) -> str:
    found = series(rows, branch, "by_class")
    largest = sorted(found, key=lambda name: -sum(value for value in found[name] if math.isfinite(value)))
    shown = {name: found[name] for name in largest[:DRAWN_CLASSES]}
    others = [found[name] for name in largest[DRAWN_CLASSES:]]
    if others:
        shown[f"{len(others)} others"] = [sum(values) for values in zip(*others, strict=True)]
    _stack(axes, rows, shown)
    return "class term by class"


def _lines(axes: Axes, rows: Sequence[Row], curves: Mapping[str, Sequence[float]], legend: bool = True) -> None:
    from yolo_losses.plots.style import COLOURS, DASHES

    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) == 1 else ""
    for (name, values), colour, dash in zip(curves.items(), COLOURS, DASHES, strict=False):
        axes.plot(epochs, values, marker=marker, lw=1.7, color=colour, ls=dash, label=name)
    axes.grid()
    if legend and curves:
        axes.legend(loc="best")


def _stack(
    axes: Axes, rows: Sequence[Row], shares: Mapping[str, Sequence[float]], colours: Sequence[Any] | None = None
) -> None:
    """Draw shares as stacked bars, the first at the bottom."""
    from yolo_losses.plots.style import COLOURS, GREY

    epochs = [row["epoch"] for row in rows]
    base = [0.0] * len(rows)
    palette = colours or [*COLOURS, "#004a75", "#8c3c00", GREY]
    for number, (name, values) in enumerate(shares.items()):
        heights = [value if math.isfinite(value) else 0.0 for value in values]
        axes.bar(epochs, heights, 1.0, base, color=palette[number % len(palette)], lw=0, label=name)
        base = [low + high for low, high in zip(base, heights, strict=True)]
    axes.set_ylim(0, 1)
    axes.margins(x=0)
    if shares:
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5))
