"""A picture of a data set's traits: classes, sizes and shapes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from yolo_losses.plots.style import COLOURS, GREY, STYLE
from yolo_losses.recommendation.traits import RARE, Traits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAMED_CLASSES = 20  # with more, the counts are drawn as a curve without names


def figure(data: str, traits: Traits) -> Any:
    """Return the picture of a data set: a panel for the classes and, if there are boxes, two for sizes and shares.

    Args:
        data: the data set.
        traits: its traits.
    """
    with mpl.rc_context({**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white"}):
        panels = [_classes, *([_sizes, _shares] if traits.size_shares is not None else [])]
        drawn = Figure(figsize=(4.6 * len(panels), 4.0), layout="constrained")
        for axes, paint in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            axes.set_title(paint(axes, traits), loc="left")
        drawn.suptitle(
            f"{'/'.join(Path(data).parts[-2:])}: {traits.images:,} training images at imgsz={traits.imgsz}",
            x=0.01,
            ha="left",
        )
    return drawn


def _classes(axes: Axes, traits: Traits) -> str:
    counts = sorted(traits.class_counts.items(), key=lambda item: -item[1])
    numbers = [count for _, count in counts]
    bound = RARE * max(numbers)
    if len(counts) <= MAX_NAMED_CLASSES:
        colours = [COLOURS[1] if count < bound else COLOURS[0] for count in numbers]
        names = [name if len(name) <= 18 else f"{name[:17]}…" for name, _ in counts]
        axes.barh(range(len(names)), numbers, color=colours)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.axvline(bound, color=GREY, ls="--", lw=1)
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("objects" if traits.size_shares is not None else "images")
    else:
        axes.plot(range(1, len(numbers) + 1), numbers, color=COLOURS[0])
        axes.axhline(bound, color=GREY, ls="--", lw=1)
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("class, by its size")
    axes.grid(axis="x" if len(counts) <= MAX_NAMED_CLASSES else "y")
    return "labels by class; dashed: a tenth of the largest"


def _sizes(axes: Axes, traits: Traits) -> str:
    shares = traits.size_shares or {}
    axes.bar(range(len(shares)), list(shares.values()), color=[*([COLOURS[1]] * 2), *([COLOURS[0]] * 3)])
    axes.set_xticks(range(len(shares)), [name.replace(" and above", "+") for name in shares])
    axes.set_xlabel("side in training pixels")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y")
    return "objects by size"


def _shares(axes: Axes, traits: Traits) -> str:
    shares = {
        "narrower than a stride": traits.below_stride,
        "narrower than two": traits.below_two_strides,
        "overlap another": traits.overlapping,
        "5 times as long as wide": traits.elongated,
        "touch the border": traits.at_border,
        "square": traits.squares,
        "keypoints hidden": traits.hidden,
        "mask of its box": traits.mask_of_box,
    }
    drawn = {name: share for name, share in shares.items() if share is not None}
    axes.barh(range(len(drawn)), list(drawn.values()), color=COLOURS[2])
    axes.set_yticks(range(len(drawn)), list(drawn))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="x")
    return "share of the objects"
