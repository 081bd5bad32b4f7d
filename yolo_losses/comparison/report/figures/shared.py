"""What the figures of a comparison share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from yolo_losses.comparison.language import Text, translate
from yolo_losses.comparison.stats.analysis import Analysis

WIDTH = 5.2  # inches: a figure fills a phone's width, and two stand side by side on a wide page


def handles(axes: Axes) -> dict[str, Any]:
    """Return the labelled lines of axes."""
    found, labels = axes.get_legend_handles_labels()
    return dict(zip(labels, found, strict=True))


def add_legend(figure: Figure, lines: Mapping[str, Any]) -> None:
    """Add the legend below the figure."""
    longest = max(map(len, lines))
    below = max(0.0, 0.5 / figure.get_figheight() - 0.11)  # half an inch below the axes, for their ticks and label
    figure.legend(
        lines.values(),
        lines.keys(),
        loc="upper left",
        bbox_to_anchor=(0.1, -below),
        ncols=1 if longest > 34 else 2 if longest > 16 else 3,
        numpoints=1,
    )


def titled(title: str, data: str, result: Analysis, language: str) -> str:
    """Return a title in a language, with the data set where there are several."""
    several = len(result.sets) > 1
    whole = Text.joined(", ", [title, *([result.titles[data]] if several else [])])
    return str(translate(whole, language))
