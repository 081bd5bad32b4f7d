"""Pictures of keypoint losses: over the error of a keypoint of a large and of a small object."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from yolo_losses.losses.keypoints._base import KeypointLoss
from yolo_losses.plots.choice import Curve, Selection
from yolo_losses.plots.sheet import Row, heading, lay_out_column, lay_out_sheet

LARGE, SMALL = 128.0, 32.0  # sides of the objects, in pixels
SIGMA = 0.089  # COCO's for a knee or an ankle
ERRORS = torch.linspace(0, 32, 129)  # in x, in pixels


def draw(selection: Selection, figure: Figure) -> None:
    """Draw keypoint losses."""
    panels, curves = lay_out_sheet(
        figure,
        selection,
        [Row(above=0.36, below=0.1), Row()],
        f"A keypoint that is off in x, of an object of {LARGE:g} x {LARGE:g} px (right {SMALL:g} x {SMALL:g} px); sigma"
        f" of OKS {SIGMA:g}. Each loss is divided by its value at {ERRORS[-1]:g} px and {LARGE:g} px: the losses have"
        " different units.",
    )
    for column_, side in enumerate((LARGE, SMALL)):
        for curve, style in curves:
            value, gradient = over_error(curve, side)
            panels[0][column_].plot(ERRORS, value, **style)
            panels[1][column_].plot(ERRORS, gradient, **style)
        heading(panels[0][column_], f"object of {side:g} px")
        panels[1][column_].set_xlabel("error in px")
    for axes in panels[1]:
        axes.axhline(0, color="none")
    panels[0][0].set_ylabel("loss L, scaled")
    panels[1][0].set_ylabel("gradient dL/dx, scaled")


def column(selection: Selection, figure: Figure) -> None:
    """Draw the loss and its gradient over the error of a keypoint of a large object."""
    (left, right), curves = lay_out_column(figure, selection)
    for curve, style in curves:
        value, gradient = over_error(curve, LARGE)
        left.plot(ERRORS, value, **style)
        right.plot(ERRORS, gradient, **style)
    for axes, words in ((left, "loss L, scaled"), (right, "gradient dL/dx, scaled")):
        axes.set_xlabel("error in px")
        axes.set_ylabel(words)


def over_error(curve: Curve, side: float) -> tuple[Tensor, Tensor]:
    """Return loss and derivative at `ERRORS` for that side of the object, divided by a large object's largest loss."""
    scale = _loss(curve, ERRORS, LARGE)[-1]
    x = ERRORS.clone().requires_grad_()
    value = _loss(curve, x, side) / scale
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def _loss(curve: Curve, errors: Tensor, side: float) -> Tensor:
    assert isinstance(curve.module, KeypointLoss)
    points = torch.stack((errors, torch.zeros_like(errors)), -1).unsqueeze(1)
    area, sigmas = torch.full((len(errors), 1), side**2), torch.tensor([SIGMA])
    return curve.module.keypoints(points, torch.zeros_like(points), area=area, sigmas=sigmas).squeeze(1)
