"""Pictures of losses of box distances: loss and gradient over the error of a side, from afar and near 0."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from yolo_losses.losses.distances._base import DistanceLoss
from yolo_losses.plots.choice import Curve, Selection
from yolo_losses.plots.sheet import Row, heading, lay_out_column, lay_out_sheet

WIDE, NEAR = 0.1, 0.02  # errors, as shares of the image's side


def draw(selection: Selection, figure: Figure) -> None:
    """Draw losses of box distances."""
    panels, curves = lay_out_sheet(
        figure,
        selection,
        [Row(), Row()],
        "d is the error of the distance from an anchor to a side of the box, as a share of the image's side: in an"
        " image of 640 px, 0.01 is 6.4 px.",
    )
    for column, (reach, words) in enumerate(((WIDE, "error of a side"), (NEAR, "near 0"))):
        for curve, style in curves:
            error, value, gradient = over_error(curve, reach)
            panels[0][column].plot(error, value, **style)
            panels[1][column].plot(error, gradient, **style)
        heading(panels[0][column], words)
        panels[1][column].set_xlabel("d")
    panels[0][0].set_ylabel("loss L")
    panels[1][0].set_ylabel("gradient dL/dd")


def column(selection: Selection, figure: Figure) -> None:
    """Draw loss and gradient near 0."""
    (left, right), curves = lay_out_column(figure, selection)
    for curve, style in curves:
        error, value, gradient = over_error(curve, NEAR)
        left.plot(error, value, **style)
        right.plot(error, gradient, **style)
    for axes, words, label in ((left, "error of a side", "loss L"), (right, "gradient", "dL/dd")):
        heading(axes, words)
        axes.set_xlabel("d")
        axes.set_ylabel(label)


def over_error(curve: Curve, reach: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return errors from -reach to reach, the loss of one side, and its derivative."""
    loss = curve.module
    assert isinstance(loss, DistanceLoss)
    error = torch.linspace(-reach, reach, 201).requires_grad_()
    value = loss.sides(error.unsqueeze(-1), torch.zeros(len(error), 1)).squeeze(-1)
    (gradient,) = torch.autograd.grad(value.sum(), error)
    return error.detach(), value.detach(), gradient
