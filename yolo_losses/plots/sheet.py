"""The sheet of a picture: title, legend, rows of two panels and a caption, as wide as a column of a paper."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from yolo_losses.plots.choice import Curve, Selection
from yolo_losses.plots.style import INK, STYLE, curve_style

Styled = list[tuple[Curve, dict[str, Any]]]  # curves, each with its style

WIDTH = 3.4  # inches, all lengths here
LEFT, GAP, RIGHT = 0.43, 0.44, 0.1
BELOW = 0.3  # from a panel to the next element below its ticks and label
SIZE = 6.5
REACH = 6.0  # panels over the logit go from -REACH to REACH
SHEET_STYLE: Any = {
    **STYLE,
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "axes.labelsize": SIZE,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": SIZE,
    "lines.linewidth": 1.2,
    "lines.solid_capstyle": "butt",
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    "axes.labelpad": 2,
    "axes.titlepad": 3,
    "grid.linewidth": 0.5,
    "path.simplify_threshold": 0.2,
    "figure.dpi": 200,
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class Row:
    """A row of panels.

    Attributes:
        height: height of the panels.
        above: space for the headings.
        below: space for ticks and labels.
    """

    height: float = 0.95
    above: float = 0.16
    below: float = BELOW


@dataclass(frozen=True)
class Entry:
    """An entry of the legend."""

    label: str
    style: dict[str, Any]


def lay_out(
    figure: Figure, title: str, detail: str, legend: Sequence[Entry], rows: Sequence[Row], caption: str
) -> list[tuple[Axes, Axes]]:
    """Set a figure's size, write title, legend and caption, and return the panels of each row.

    Args:
        figure: an empty figure.
        title: the title; if it is empty, as for a column of a paper, the legend comes first.
        detail: the parameters, a line for each loss.
        legend: an entry for each curve.
        rows: rows of two panels each.
        caption: the conditions that the panels are drawn for.
    """
    details = [part for text in detail.splitlines() for part in textwrap.wrap(text, 68, break_long_words=False)]
    notes = textwrap.wrap(caption, 72)
    longest = max((len(entry.label) for entry in legend), default=0)
    columns = 3 if longest <= 13 else 2 if longest <= 26 else 1
    lines = -(-len(legend) // columns)
    head = (0.2 if title else 0.02) + 0.11 * len(details) + 0.13 * lines + 0.04
    height = head + sum(row.above + row.height + row.below for row in rows) + 0.1 * len(notes) + 0.04
    figure.set_size_inches(WIDTH, height)

    def y(inches: float) -> float:
        return 1 - inches / height

    if title:
        figure.text(0.06 / WIDTH, y(0.15), title, weight="bold", size=8, va="baseline")
    for i, text in enumerate(details):
        figure.text(0.06 / WIDTH, y(0.27 + 0.11 * i), text, va="baseline")
    if legend:
        figure.legend(
            [Line2D([], [], **entry.style) for entry in legend],
            [entry.label for entry in legend],
            loc="upper left",
            bbox_to_anchor=(0.06 / WIDTH, y((0.22 if title else 0.04) + 0.11 * len(details))),
            ncols=columns,
            borderpad=0,
            borderaxespad=0,
            labelspacing=0.35,
            handlelength=2.2,
            handletextpad=0.5,
            columnspacing=1.2,
        )
    width = (WIDTH - LEFT - GAP - RIGHT) / 2
    panels = []
    top = head
    for row in rows:
        top += row.above + row.height
        left, right = (
            figure.add_axes((x / WIDTH, y(top), width / WIDTH, row.height / height)) for x in (LEFT, LEFT + width + GAP)
        )
        panels.append((left, right))
        top += row.below
    for i, text in enumerate(notes):
        figure.text(0.06 / WIDTH, y(top + 0.08 + 0.1 * i), text, size=6, va="baseline", alpha=0.85)
    for axes in (axes for pair in panels for axes in pair):
        axes.grid()
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(format_number)
        axes.yaxis.set_major_formatter(format_number)
    return panels


def lay_out_sheet(
    figure: Figure, selection: Selection, rows: Sequence[Row], caption: str, curves: Sequence[Curve] | None = None
) -> tuple[list[tuple[Axes, Axes]], Styled]:
    """Lay out the sheet of some losses.

    Args:
        figure: an empty figure.
        selection: the losses.
        rows: rows of two panels each.
        caption: the conditions that the panels are drawn for.
        curves: curves to draw in place of those of the selection, beside its reference.

    Returns:
        The panels of each row; and the reference, if there is one, and the curves, each with its style.
    """
    styled = _styled(selection, curves)
    legend = [Entry(curve.label, style) for curve, style in styled]
    return lay_out(figure, selection.title, selection.parameters, legend, rows, caption), styled


def lay_out_column(
    figure: Figure, selection: Selection, curves: Sequence[Curve] | None = None
) -> tuple[tuple[Axes, Axes], Styled]:
    """Lay out two panels and a legend, for a column of a paper; see `lay_out_sheet`."""
    styled = _styled(selection, curves)
    (pair,) = lay_out(figure, "", "", [Entry(curve.label, style) for curve, style in styled], [Row()], "")
    return pair, styled


def _styled(selection: Selection, curves: Sequence[Curve] | None) -> Styled:
    reference = [selection.reference] if selection.reference else []
    every = [*reference, *(selection.curves if curves is None else curves)]
    return [(curve, line(i if reference else i + 1)) for i, curve in enumerate(every)]


def legend_below(figure: Figure, axes: Axes, entries: Sequence[Entry]) -> None:
    """Write a legend over the width of the sheet, below a row whose left panel is `axes`."""
    height = figure.get_size_inches()[1]
    figure.legend(
        [Line2D([], [], **entry.style) for entry in entries],
        [entry.label for entry in entries],
        loc="upper left",
        bbox_to_anchor=(0.06 / WIDTH, axes.get_position(original=True).y0 - BELOW / height),
        ncols=3,
        borderpad=0,
        borderaxespad=0,
        labelspacing=0.35,
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.2,
    )


def format_number(value: float, _: float = 0) -> str:
    """Return a number in its shortest form, with a minus sign rather than a hyphen."""
    return f"{round(value, 9):g}".replace("-", "\N{MINUS SIGN}")


def line(index: int) -> dict[str, Any]:
    """Return the style of a curve; the first is the reference, wide enough to be seen below a curve that equals it."""
    style = {key: value for key, value in curve_style(index).items() if key != "marker"}
    return {**style, "lw": 2.6, "alpha": 0.6, "zorder": 1.9} if index == 0 else style


def heading(axes: Axes, text: str, above: float = 0) -> None:
    """Write the heading of a panel, `above` points over its place."""
    axes.set_title(text, loc="left", color=INK, pad=3 + above)


def share_axis(axes: Axes, label: str = "") -> None:
    """Set a panel's x axis from 0 to 1."""
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    axes.set_xlabel(label)


def step_axes(axes: Axes, steps: int) -> None:
    """Set a panel's axes to steps and IoU."""
    axes.set_xlim(0, steps)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("gradient step")


def logit_axis(axes: Axes) -> None:
    """Set a panel's x axis to logits."""
    axes.set_xlim(-REACH, REACH)
    axes.set_xticks([-6, -3, 0, 3, 6])


def logit_columns(panels: Sequence[Sequence[Axes]], headings: Sequence[str]) -> None:
    """Set the first two rows of panels to loss and gradient over the logit, a column for each heading."""
    for column, words in enumerate(headings):
        top, below = panels[0][column], panels[1][column]
        heading(top, words, above=11)
        probability_axis(top)
        top.tick_params(labelbottom=False)
        below.set_xlabel("logit z")
        for axes in (top, below):
            logit_axis(axes)
    panels[0][0].set_ylabel("loss L")
    panels[1][0].set_ylabel("gradient ∂L/∂z")


def probability_panel(axes: Axes, words: str, label: str = "") -> None:
    """Set a panel to the probability."""
    heading(axes, words)
    share_axis(axes, "probability p")
    axes.set_ylabel(label)


def probability_axis(axes: Axes) -> None:
    """Mark the probabilities above a panel over the logit."""
    marks = (0.01, 0.1, 0.5, 0.9, 0.99)
    above = axes.secondary_xaxis("top")
    above.set_xticks([math.log(p / (1 - p)) for p in marks], [f"{p:g}".lstrip("0") for p in marks])
    above.spines["top"].set_visible(True)
    axes.text(-0.02, 1.03, "p", transform=axes.transAxes, ha="right", va="bottom", size=6)
