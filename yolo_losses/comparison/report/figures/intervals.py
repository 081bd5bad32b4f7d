"""The differences from the baseline with their intervals and words: the interval drawn is the one that decides."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from yolo_losses.comparison.language import Text, translate
from yolo_losses.comparison.record import METRICS
from yolo_losses.comparison.report.figures.shared import WIDTH, titled
from yolo_losses.comparison.stats.analysis import Analysis, Comparison
from yolo_losses.comparison.stats.differences import Estimate
from yolo_losses.comparison.stats.verdict import Outcome
from yolo_losses.plots.style import GREY, INK

COLOURS: dict[Outcome, str] = {"better": "#2f7fd0", "worse": "#d9622b"}


def draw(
    result: Analysis,
    scope: str,
    width: float = WIDTH,
    labels: Mapping[str, str] | None = None,
    language: str = "en",
) -> Figure | None:
    """Return a row for each configuration of a data set: the simultaneous interval, and as a thick bar its own.

    Args:
        result: of the comparison.
        scope: the data set, or the mean over them.
        width: of the figure, in inches.
        labels: of the configurations that are drawn, the baseline among them; `None`: of all.
        language: of its texts.
    """
    labels = result.labels if labels is None else labels
    found = [result.get(scope, name) for name in result.candidates if name in labels]
    judged = [(c, c.estimate, c.verdict.word) for c in found if c and c.estimate and c.verdict and c.differences]
    rows = [row for row in judged if row[2] != "no result"]
    if not rows:
        return None
    figure = Figure(figsize=(width, 0.62 * len(rows) + 0.95))
    axes = figure.add_subplot()
    rope = 100 * result.rope
    near = [100 * d for c, *_ in rows for d in c.differences.values()] + [-rope, rope]
    reach = 2.5 * max(map(abs, near))  # two seeds have intervals that would squeeze all else to a dot
    ends = [100 * end for _, estimate, _ in rows for end in estimate.interval if not math.isnan(end)]
    limits = max(min(near + ends), -reach), min(max(near + ends), reach)
    margin = 0.04 * (limits[1] - limits[0])
    axes.set_xlim(limits[0] - margin, limits[1] + margin)
    axes.set_ylim(len(rows) - 0.35, -0.65)
    axes.axvspan(-rope, rope, color=GREY, alpha=0.18, lw=0)
    axes.axvline(0, color=INK, lw=0.8)
    for y, (c, estimate, word) in enumerate(rows):
        said = Text("{name}: {what}", name=labels[c.name], what=Text(word))
        axes.text(0, y - 0.2, translate(said, language), transform=axes.get_yaxis_transform(), va="bottom")
        _row(axes, y, c, estimate, COLOURS.get(word, GREY), limits)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    text = "difference in {metric} from {baseline}, points"
    label = Text(text, metric=Text(METRICS[result.metric]), baseline=labels[result.baseline])
    axes.set_xlabel(translate(label, language))
    if len(result.sets) > 1:
        axes.set_title(titled("Differences", scope, result, language), loc="left")
    return figure


def _row(axes: Axes, y: float, c: Comparison, estimate: Estimate, colour: str, limits: tuple[float, float]) -> None:
    for interval, width, alpha in ((estimate.interval, 1.6, 1.0), (estimate.own_interval, 5.5, 0.45)):
        ends = [100 * end for end in interval]
        if math.isnan(ends[0]):
            continue
        axes.plot(np.clip(ends, *limits), [y, y], color=colour, lw=width, alpha=alpha, solid_capstyle="butt")
        for end, limit, marker in zip(ends, limits, "<>", strict=True):
            if abs(end) > abs(limit) and end * limit > 0:
                axes.plot([limit], [y], marker=marker, color=colour, ms=6, clip_on=False)
    x = [100 * d for d in c.differences.values()]
    axes.plot(x, [y + 0.22] * len(x), "o", color=INK, ms=4, alpha=0.55, mew=0)
    axes.plot([100 * estimate.mean], [y], "D", color=colour, ms=6, mec=INK, mew=0.6)
