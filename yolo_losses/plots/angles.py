"""Pictures of angle losses: loss and gradient over the error of the angle, for objects of several aspect ratios."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from yolo_losses.losses.angles._base import AngleLoss
from yolo_losses.plots.choice import Curve, Selection
from yolo_losses.plots.sheet import Row, Styled, heading, lay_out_column, lay_out_sheet

RATIOS = (1.0, 3.0, 20.0)
ANGLES = torch.linspace(-90, 90, 181).deg2rad()


def draw(selection: Selection, figure: Figure) -> None:
    """Draw angle losses, a row for each aspect ratio."""
    panels, curves = lay_out_sheet(
        figure,
        selection,
        [Row() for _ in RATIOS],
        "Boxes of the object's size and centre, turned by D; angle_lambda is 3. After a turn of 90° a square covers the"
        " same area again, other boxes do not.",
    )
    for (left, right), ratio in zip(panels, RATIOS, strict=True):
        heading(left, f"sides {ratio:g}:1" if ratio != 1 else "square")
        heading(right, "gradient")
        _plot(left, right, curves, ratio)


def column(selection: Selection, figure: Figure) -> None:
    """Draw loss and gradient for an object three times as long as wide."""
    (left, right), curves = lay_out_column(figure, selection)
    heading(left, f"sides {RATIOS[1]:g}:1")
    heading(right, "gradient")
    _plot(left, right, curves, RATIOS[1])


def _plot(left: Axes, right: Axes, curves: Styled, ratio: float) -> None:
    """Draw the loss on the left and its gradient on the right."""
    for curve, style in curves:
        for axes, values in zip((left, right), over_angle(curve, ratio), strict=True):
            axes.plot(ANGLES.rad2deg(), values, **style)
    for axes, label in ((left, "loss L"), (right, "dL/dD")):
        axes.set_xlim(-90, 90)
        axes.set_xticks([-90, -45, 0, 45, 90])
        axes.set_xlabel("D, degrees")
        axes.set_ylabel(label)


def over_angle(curve: Curve, ratio: float) -> tuple[Tensor, Tensor]:
    """Return loss and derivative at `ANGLES` of boxes that are turned about the centre of an object."""
    loss = curve.module
    assert isinstance(loss, AngleLoss)
    angle = ANGLES.clone().requires_grad_()
    target = torch.tensor([0.0, 0, ratio, 1, 0]).expand(len(angle), 5)
    value = loss.pairs(torch.cat((target[:, :4], angle.unsqueeze(1)), 1), target)
    (gradient,) = torch.autograd.grad(value.sum(), angle)
    return value.detach(), gradient
