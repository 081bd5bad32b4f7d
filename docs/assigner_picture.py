"""Draw `assigner.svg`: two objects, their anchors, and what each key of the assigner makes of them.

    python docs/assigner_picture.py

The positives and targets are those of Ultralytics' assigner for made-up predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from ultralytics.utils.tal import TaskAlignedAssigner

from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria import assigner
from yolo_losses.plots.style import COLOURS, INK, STYLE, svg_element, svg_file

PICTURE = Path(__file__).with_name("assigner.svg")
SIZE, STRIDES = 96, (8, 16, 32)
CENTRE = (45.0, 50.0)
OBJECTS = {"an object of 12 pixels": 12.0, "an object of 40 pixels": 40.0}
KEYS: dict[str, dict[str, Any]] = {
    "stock": {},
    "tal_topk=20": {"tal_topk": 20},
    "tal_min_side=32": {"tal_min_side": 32},
    "tal_overlap=nwd": {"tal_overlap": "nwd"},
}


@dataclass(frozen=True)
class Assigned:
    """What became of an object.

    Attributes:
        anchors: in pixels, shape `(N, 2)`.
        strides: of the anchors, shape `(N,)`.
        candidates: which of them are, shape `(N,)`.
        targets: the target of each, 0 where it is no positive, shape `(N,)`.
        positives: which of them are, shape `(N,)`.
        floor: the side to which smaller objects are enlarged.
    """

    anchors: Tensor
    strides: Tensor
    candidates: Tensor
    targets: Tensor
    positives: Tensor
    floor: float

    @property
    def words(self) -> str:
        """The numbers of candidates and positives, and the mean target."""
        count = int(self.positives.sum())
        target = float(self.targets.sum()) / max(count, 1)
        return f"{int(self.candidates.sum())} candidates, {count} positives, mean target {target:.2f}"


def assign(side: float, keys: dict[str, Any]) -> Assigned:
    """Return what Ultralytics' assigner makes of a square object under some keys.

    Each anchor predicts a square of twice its stride, half way between its own place and the object.
    """
    grids = [(torch.arange(SIZE // s) + 0.5) * s for s in STRIDES]
    points = [torch.cartesian_prod(grid, grid) for grid in grids]
    strides = torch.cat([torch.full((len(p),), float(s)) for p, s in zip(points, STRIDES, strict=True)])
    anchors, centre = torch.cat(points), torch.tensor(CENTRE)
    middle = (anchors + centre) / 2
    predicted = torch.cat((middle - strides[:, None], middle + strides[:, None]), 1)
    box = torch.cat((centre - side / 2, centre + side / 2)).view(1, 1, 4)
    stock = TaskAlignedAssigner(topk=10, num_classes=1, alpha=0.5, beta=6.0, stride=list(STRIDES))
    changed = assigner.values(stock, LossSettings.from_mapping(keys))
    one = torch.ones(1, 1, 1)
    scores = torch.full((1, len(anchors), 1), 0.3)
    with assigner.applied(stock, changed, len(anchors)):
        _, _, targets, positives, _ = stock(scores, predicted[None], anchors, one * 0, box, one)
        candidates = stock.select_candidates_in_gts(anchors, box, one)
        floor = float(stock.stride_val)
    return Assigned(anchors, strides, candidates[0, 0], targets[0, :, 0], positives[0], floor)


def figure() -> Figure:
    """Return the picture: a row for each object, a column for each key."""
    drawn = Figure(figsize=(11, 7.4), layout="constrained")
    panels = drawn.subplots(len(OBJECTS), len(KEYS), squeeze=False)
    for number, (row, (name, side)) in enumerate(zip(panels, OBJECTS.items(), strict=True)):
        for axes, (label, keys) in zip(row, KEYS.items(), strict=True):
            found = assign(side, keys)
            draw(axes, side, found)
            if number == 0:
                axes.set_title(label, loc="left")
            axes.set_xlabel(found.words.replace(", mean", "\nmean"), fontsize=9)
        row[0].set_ylabel(name)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawn.legend(handles[:3], labels[:3], loc="outside lower center", ncols=3)
    return drawn


def draw(axes: Any, side: float, found: Assigned) -> None:
    """Draw an object and its anchors; a positive is the fuller the larger its target."""
    x, y = CENTRE
    for size, style in ((max(side, found.floor), "--"), (side, "-")):
        corner = (x - size / 2, y - size / 2)
        axes.add_patch(Rectangle(corner, size, size, fill=False, edgecolor=INK, lw=1.4, ls=style))
    kinds = {
        "no candidate": (~found.candidates, "#c4c8ce"),
        "candidate": (found.candidates & ~found.positives, COLOURS[0]),
        "positive, filled by its target": (found.positives, COLOURS[1]),
    }
    for stride in STRIDES:
        marker = {"marker": "o", "ls": "", "ms": 2.6 + 0.11 * stride, "mew": 1.1}
        at = found.strides == stride
        for label, (which, colour) in kinds.items():
            axes.plot(*found.anchors[which & at].T, mfc="none", mec=colour, label=label, **marker)
        for point, target in zip(found.anchors[found.positives & at], found.targets[found.positives & at], strict=True):
            axes.plot(*point, mfc=COLOURS[1], mec="none", alpha=min(1.0, float(target) / 0.5), **marker)
    axes.set(xlim=(9, 83), ylim=(87, 13), aspect="equal", xticks=[], yticks=[])


if __name__ == "__main__":
    with mpl.rc_context(STYLE):
        PICTURE.write_text(svg_file(svg_element(figure(), "assigner")), encoding="utf-8")
    for label, keys in KEYS.items():
        print(label, *(assign(side, keys).words for side in OBJECTS.values()), sep="; ")
