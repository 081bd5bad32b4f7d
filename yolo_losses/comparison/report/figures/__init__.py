"""The figures of a comparison, as SVG elements: one file for each kind."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib as mpl

from yolo_losses.comparison.language import Text, catalogue
from yolo_losses.comparison.record import METRICS
from yolo_losses.comparison.report.figures import by_class, by_epoch, intervals
from yolo_losses.comparison.stats.analysis import ALL_SETS, Analysis
from yolo_losses.plots.style import STYLE, installed_fonts, scaled_to_page, svg_element

KINDS = ("intervals", "by-class", "by-epoch", "loss-stats")


@dataclass(frozen=True)
class Drawn:
    """One figure.

    Attributes:
        kind: one of `KINDS`.
        scope: the data set, or `ALL_SETS`.
        name: of its file.
        svg: the SVG element.
        text: the alternative text.
    """

    kind: str
    scope: str
    name: str
    svg: str
    text: str


def draw(result: Analysis, language: str = "en") -> list[Drawn]:
    """Return the figures of a comparison, their texts in a language."""
    fonts = {} if language == "en" else installed_fonts("".join(catalogue(language).values()))
    with mpl.rc_context({**STYLE, **fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # it is the reader's font that draws an SVG's letters
        return list(_draw(result, language))


def _draw(result: Analysis, language: str) -> Iterator[Drawn]:
    several = len(result.sets) > 1
    for number, scope in enumerate(result.scopes):
        metric = Text(METRICS[result.metric])
        drawn = intervals.draw(result, scope, language=language)
        found = [("intervals", "", drawn, Text("Differences in {metric}", metric=metric))]
        if scope != ALL_SETS:
            found.append(("by-class", "", by_class.draw(result, scope, language), Text("AP50-95 by class")))
            text = Text("Validation metric by epoch")
            found.append(("by-epoch", "", by_epoch.draw_metric(result, scope, language), text))
            for branch in by_epoch.branches(result, scope):
                text = Text.joined(", ", [Text("What the class term did, by epoch"), *([branch] if branch else [])])
                name = f"-{branch}" if branch else ""
                found.append(("loss-stats", name, by_epoch.draw_loss_stats(result, scope, branch, language), text))
        for kind, suffix, figure, text in found:
            if figure is not None:
                name = f"{kind}{suffix}" + (f"-{number}" if several else "")
                svg = scaled_to_page(svg_element(figure, name, bbox_inches="tight", pad_inches=0.05))
                text = Text.joined(", ", [text, result.titles[scope]]) if several else text
                yield Drawn(kind, scope, name, svg, text)
