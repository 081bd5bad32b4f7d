"""Pictures of the losses of the keypoints' visibility: over the logit of a visible and of a hidden keypoint."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from yolo_losses.plots.choice import Curve, Selection
from yolo_losses.plots.sheet import REACH, Row, heading, lay_out_column, lay_out_sheet, logit_axis, logit_columns

LOGITS = torch.linspace(-REACH, REACH, 121)


def draw(selection: Selection, figure: Figure) -> None:
    """Draw losses of the visibility."""
    panels, curves = lay_out_sheet(
        figure,
        selection,
        [Row(above=0.36, below=0.1), Row()],
        "A keypoint whose visibility has the logit z.",
    )
    for curve, style in curves:
        for number, target in enumerate((1.0, 0.0)):
            value, gradient = over_logit(curve, target)
            panels[0][number].plot(LOGITS, value, **style)
            panels[1][number].plot(LOGITS, gradient, **style)
    for axes in panels[1]:
        axes.axhline(0, color="none")
    logit_columns(panels, ("visible keypoint", "hidden keypoint"))


def column(selection: Selection, figure: Figure) -> None:
    """Draw the loss over the logit of a visible and of a hidden keypoint."""
    (left, right), curves = lay_out_column(figure, selection)
    for axes, target, words in ((left, 1.0, "visible keypoint"), (right, 0.0, "hidden keypoint")):
        for curve, style in curves:
            axes.plot(LOGITS, over_logit(curve, target)[0], **style)
        heading(axes, words)
        axes.set_xlabel("logit z")
        logit_axis(axes)
    left.set_ylabel("loss L")


def over_logit(curve: Curve, target: float) -> tuple[Tensor, Tensor]:
    """Return loss and derivative at `LOGITS`, of a keypoint with that target."""
    z = LOGITS.clone().requires_grad_()
    value = curve.module(z, torch.full_like(LOGITS, target))
    (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient
