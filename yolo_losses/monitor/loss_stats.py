"""What `loss_stats=True` leaves of a training: `loss_stats.csv` beside `results.csv`, and its picture.

`criteria/statistics.py` gathers the columns; here they are written, read and drawn.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolo_losses._log import say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE = "loss_stats.csv"
PICTURE = "loss_stats.png"
LOGGED_AS = "loss_stats/"
LOGGED_CLASSES = 100  # a logger gets no more curves by class; the file has them all
GROUPS = (
    *("batches", "share", "cls_to_bce", "cls_to_stock", "cls_scale"),
    *("positives", "mean_iou", "threshold", "by_score", "by_class"),
)
DRAWN_CLASSES = 8

Row = dict[str, float]


class LossStats:
    """The rows of a run, one for each epoch, in a file that is replaced as a whole at the end of each.

    Args:
        folder: of the run.
        epochs: how many a resumed run has done: rows of later ones are dropped; 0 for a new run.
    """

    def __init__(self, folder: Path, epochs: int) -> None:
        self.path = folder / FILE
        self.rows = [row for row in read(folder) if row["epoch"] <= epochs] if epochs else []
        self.problem = False

    def add(self, epoch: int, columns: Mapping[str, float]) -> None:
        """Write an epoch's row; one of the same epoch, which was done again, is replaced.

        A full disk or an unwritable folder is told once and borne.
        """
        self.rows = [row for row in self.rows if row["epoch"] < epoch]
        self.rows.append({"epoch": epoch, **columns})
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [",".join(names), *(",".join(f"{row.get(n, math.nan):.6g}" for n in names) for row in self.rows)]
        part = self.path.with_suffix(".part")
        try:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")
            os.replace(part, self.path)
        except OSError as error:
            if not self.problem:
                say(f"{self.path} could not be written ({error}); training goes on", warn=True)
            self.problem = True

    def logged(self) -> Row:
        """Return the last row as loggers are to have it."""
        row = self.rows[-1] if self.rows else {}
        groups = {name: split(name) for name in row if name != "epoch"}
        classes = sum(group == "by_class" for _, group, _ in groups.values())
        left_out = ("by_class",) if classes > LOGGED_CLASSES else ()
        return {
            f"{LOGGED_AS}{name}": row[name]
            for name, (_, group, _) in groups.items()
            if group not in left_out and math.isfinite(row[name])
        }

    def draw(self) -> Path | None:
        """Draw the rows beside their file; return the picture, `None` where there is nothing to draw."""
        if not self.rows:
            return None
        path = self.path.with_name(PICTURE)
        try:
            figure(self.rows).savefig(path, dpi=150)
        except Exception as error:  # the training is done: loggers and others have yet to hear of its end
            say(f"{path} could not be drawn ({error})", warn=True)
            return None
        return path


def plain_names(names: Iterable[Any]) -> list[str]:
    """Return names of classes that are unique, and that every logger takes in the name of a curve."""
    plain: list[str] = []
    for name in names:
        word = re.sub(r"[^\w. -]", "_", str(name)).strip(" .")[:60] or "_"
        numbered = (f"{word} {number}" for number in itertools.count(len(plain)))
        plain.append(next(name for name in itertools.chain([word], numbered) if name not in plain))
    return plain


def split(column: str) -> tuple[str, str, str]:
    """Return the branch, the group and the item of a column; branch and item are empty where there is none."""
    parts = column.split("/")
    at = next((i for i, part in enumerate(parts) if part in GROUPS), 0)
    return "/".join(parts[:at]), parts[at], "/".join(parts[at + 1 :])


def read(folder: Path) -> list[Row]:
    """Return the rows of a run's `loss_stats.csv`, none where there is none or it is another program's."""
    try:
        header, *lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
        names = header.split(",")
        return [dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines if names[0] == "epoch"]
    except (OSError, ValueError):
        return []


def branches_of(rows: Sequence[Row]) -> list[str]:
    """Return the branches that rows are of, `""` for a head that has one."""
    return list(dict.fromkeys(split(name)[0] for row in rows for name in row if name != "epoch"))


def series(rows: Sequence[Row], branch: str, group: str) -> dict[str, list[float]]:
    """Return the columns of a group by item, NaN where an epoch has none."""
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: split(name) for name in names if name != "epoch"}
    return {
        item: [row.get(name, math.nan) for row in rows]
        for name, (of, own, item) in found.items()
        if (of, own) == (branch, group)
    }


def named(rows: Sequence[Row], branch: str, groups: Mapping[str, str]) -> dict[str, list[float]]:
    """Return those of some groups of one column each that there are, by another name for each."""
    found = {name: series(rows, branch, group).get("") for group, name in groups.items()}
    return {name: values for name, values in found.items() if values is not None}


def figure(rows: Sequence[Row]) -> Any:
    """Return the picture of a run: six panels for each branch of its head."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from yolo_losses.plots.style import STYLE

    branches = branches_of(rows)
    with mpl.rc_context({**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white"}):
        drawn = Figure(figsize=(13, 6.6 * len(branches)), layout="constrained")
        panels = drawn.subplots(2 * len(branches), 3, squeeze=False)
        for number, branch in enumerate(branches):
            own = panels[2 * number : 2 * number + 2].ravel()
            for panel, paint in zip(own, (_terms, _against, _positives, _overlap, _scores, _classes), strict=True):
                title = paint(panel, rows, branch)
                panel.set_title(f"{branch}: {title}" if branch else title, loc="left")
                panel.set_xlabel("epoch")
                panel.xaxis.set_major_locator(MaxNLocator(integer=True))
                panel.set_xlim(rows[0]["epoch"] - 0.5, rows[-1]["epoch"] + 0.5)
    return drawn


def _terms(axes: Axes, rows: Sequence[Row], branch: str) -> str:
    _stack(axes, rows, series(rows, branch, "share"))
    return "terms, share of the loss"


def _against(axes: Axes, rows: Sequence[Row], branch: str) -> str:
    reference = "BCE" if series(rows, branch, "cls_to_bce") else "the stock loss"
    found = series(rows, branch, "cls_to_bce") or series(rows, branch, "cls_to_stock")
    words = {
        "value": "value",
        "gradient": "gradient, all logits",
        "gradient_positives": "gradient, positives",
    }
    curves = {words[item]: values for item, values in found.items()}
    curves |= named(rows, branch, {"cls_scale": "cls_scale"})
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
    _lines(axes, rows, named(rows, branch, {"positives": "positives"}), legend=False)
    axes.set_ylim(0, 1.1 * max(axes.get_ylim()[1], 1))
    return "positives per image"


def _overlap(axes: Axes, rows: Sequence[Row], branch: str) -> str:
    curves = named(rows, branch, {"mean_iou": "mean IoU", "threshold": "threshold"})
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
    """Draw shares as bars, one on the other, the first at the bottom."""
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
