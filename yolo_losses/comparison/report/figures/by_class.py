"""Average precision by class, of every configuration and seed."""

from __future__ import annotations

from matplotlib.figure import Figure

from yolo_losses.comparison.language import Text, translate
from yolo_losses.comparison.report.figures.shared import WIDTH, add_legend, handles, titled
from yolo_losses.comparison.stats.analysis import Analysis
from yolo_losses.plots.style import INK, curve_style

MOST_CLASSES = 30


def draw(result: Analysis, data: str, language: str = "en") -> Figure | None:
    """Return AP50-95 at the best epoch, at most of the classes that differ most."""
    classes = result.classes[data]
    table = {c: {n: result.get(data, n, "best", f"{c}:map50_95") for n in result.names} for c in classes}
    if not classes:
        return None

    def spread(label: str) -> float:
        means = [c.mean for c in table[label].values() if c is not None and c.values]
        return max(means) - min(means) if means else 0.0

    drawn = sorted(classes, key=spread, reverse=True)[:MOST_CLASSES]
    drawn = [c for c in classes if c in drawn]
    step = 0.8 / len(result.names)
    figure = Figure(figsize=(WIDTH, len(drawn) * (0.2 + 0.13 * len(result.names)) + 1))
    axes = figure.add_subplot()
    for index, name in enumerate(result.names):
        style = curve_style(index)
        for row, label in enumerate(drawn):
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
    for row in range(1, len(drawn)):
        axes.axhline(row - 0.5, color=INK, lw=0.5, alpha=0.15)
    axes.set_yticks(range(len(drawn)), drawn)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_xlabel(translate("AP50-95, points", language))
    title = "AP by class, best epoch"
    if len(drawn) < len(classes):
        title = Text("the {n} of {total} classes that differ most", n=len(drawn), total=len(classes))
    axes.set_title(titled(title, data, result, language), loc="left")
    if lines := handles(axes):
        add_legend(figure, lines)
    return figure
