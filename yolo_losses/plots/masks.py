"""Pictures of losses of masks and of the classes' regions.

Loss and gradient are drawn over the logit of the pixels, and over the IoU of a shifted mask.
"""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from yolo_losses.losses.masks._base import MaskLoss
from yolo_losses.losses.semantic._base import RegionLoss
from yolo_losses.plots.choice import Curve, Selection
from yolo_losses.plots.sheet import (
    REACH,
    Row,
    heading,
    lay_out_column,
    lay_out_sheet,
    logit_axis,
    logit_columns,
    share_axis,
)

GRID = 32  # pixels a side
LARGE, SMALL = 18, 5  # diameters of the objects, in pixels
CERTAIN = 4.0  # logit of the pixels that are not moved
LOGITS = torch.linspace(-REACH, REACH, 121)


def draw(selection: Selection, figure: Figure) -> None:
    """Draw mask losses, or losses of the classes' overlaps of the task semantic."""
    panels, curves = lay_out_sheet(
        figure,
        selection,
        [Row(above=0.36, below=0.1), Row(above=0.02), Row()],
        f"Object: a disc of {LARGE} px across in a grid of {GRID} x {GRID} (below right {SMALL} px). Above: all pixels"
        f" of the object, or of the background, have the logit z, the others are right with ±{CERTAIN:g}. Below: the"
        f" mask is the disc, shifted, with logits ±{CERTAIN:g}.",
    )
    for curve, style in curves:
        for column, foreground in enumerate((True, False)):
            value, gradient = over_logit(curve, foreground)
            panels[0][column].plot(LOGITS, value, **style)
            panels[1][column].plot(LOGITS, gradient, **style)
        for axes, across in zip(panels[2], (LARGE, SMALL), strict=True):
            axes.plot(*over_iou(curve, across), **style)
    logit_columns(panels, ("object's pixels", "background's pixels"))
    for axes, words in zip(panels[2], ("large object, mask shifted", "small object, mask shifted"), strict=True):
        heading(axes, words)
        share_axis(axes, "IoU of the mask")
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    panels[2][0].set_ylabel("loss L")


def column(selection: Selection, figure: Figure) -> None:
    """Draw the loss over the logit of the object's pixels, and over the IoU of a shifted mask."""
    (left, right), curves = lay_out_column(figure, selection)
    for curve, style in curves:
        left.plot(LOGITS, over_logit(curve, True)[0], **style)
        right.plot(*over_iou(curve, LARGE), **style)
    heading(left, "object's pixels")
    left.set_xlabel("logit z")
    left.set_ylabel("loss L")
    logit_axis(left)
    heading(right, "mask shifted")
    share_axis(right, "IoU of the mask")


def disc(across: int, shift: float = 0) -> Tensor:
    """Return a disc in the middle of the grid, or shifted in x, shape `(GRID, GRID)`."""
    x = torch.arange(GRID) + 0.5 - GRID / 2
    return ((x - shift).square() + x[:, None].square() <= (across / 2) ** 2).float()


def over_logit(curve: Curve, foreground: bool) -> tuple[Tensor, Tensor]:
    """Return loss and derivative at `LOGITS`, the logit of all pixels of the object, or of all others."""
    z = LOGITS.clone().requires_grad_()
    target = disc(LARGE).expand(len(z), -1, -1)
    own, other = z[:, None, None], torch.tensor(-CERTAIN if foreground else CERTAIN)
    loss = _loss(curve, torch.where(target == float(foreground), own, other), target)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), gradient


def over_iou(curve: Curve, across: int) -> tuple[Tensor, Tensor]:
    """Return IoU and loss of a mask that is shifted, pixel by pixel, until it leaves the object."""
    shifts = [float(shift) for shift in range(min(across, GRID // 2 + across // 2) + 1)]
    target = disc(across).expand(len(shifts), -1, -1)
    masks = torch.stack([disc(across, shift) for shift in shifts])
    both = (masks * target).sum((1, 2))
    overlap = both / (masks.sum((1, 2)) + target.sum((1, 2)) - both)
    with torch.no_grad():
        return overlap, _loss(curve, (2 * masks - 1) * CERTAIN, target)


def _loss(curve: Curve, logits: Tensor, targets: Tensor) -> Tensor:
    if isinstance(curve.module, RegionLoss):  # of two classes, the background's logit being 0: the object's
        rows = torch.stack((torch.zeros_like(logits), logits), -1).flatten(1, 2)
        return torch.stack([curve.module(row, mask.flatten())[1] for row, mask in zip(rows, targets, strict=True)])
    assert isinstance(curve.module, MaskLoss)
    loss: Tensor = curve.module(logits, targets)
    return loss
