"""The figures of a comparison, as SVG elements: one file for each kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib as mpl

from yolo_losses.comparison.record import METRICS
from yolo_losses.comparison.report.figures import by_class, by_epoch, intervals
from yolo_losses.comparison.stats.analysis import ALL_SETS, Analysis
from yolo_losses.plots.style import STYLE, scaled_to_page, svg_element

KINDS = ("intervals", "by-class", "by-epoch", "loss-stats")


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
    several = len(result.sets) > 1
    for number, scope in enumerate(result.scopes):
        found = [("intervals", "", intervals.draw(result, scope), f"Differences in {METRICS[result.metric]}")]
        if scope != ALL_SETS:
            found.append(("by-class", "", by_class.draw(result, scope), "AP50-95 by class"))
            found.append(("by-epoch", "", by_epoch.draw_metric(result, scope), "Validation metric by epoch"))
            for branch in by_epoch.branches(result, scope):
                text = f"What the class term did, by epoch{f', {branch}' if branch else ''}"
                name = f"-{branch}" if branch else ""
                found.append(("loss-stats", name, by_epoch.draw_loss_stats(result, scope, branch), text))
        for kind, suffix, figure, text in found:
            if figure is not None:
                name = f"{kind}{suffix}" + (f"-{number}" if several else "")
                svg = scaled_to_page(svg_element(figure, name, bbox_inches="tight", pad_inches=0.05))
                yield Drawn(kind, scope, name, svg, text + (f", {result.titles[scope]}" if several else ""))
