"""Pictures of the losses of the keypoints' visibility: over the logit of a visible and of a hidden keypoint."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from yolo_losses.plots.choice import Curve, Selection
from yolo_losses.plots.sheet import REACH, Entry, Row, heading, lay_out, line, logit_axis, logit_columns

LOGITS = torch.linspace(-REACH, REACH, 121)


def draw(selection: Selection, figure: Figure) -> None:
    """Draw losses of the visibility."""
    every = selection.all
    styles = [line(i if selection.reference else i + 1) for i in range(len(every))]
    panels = lay_out(
        figure,
        selection.title,
        selection.parameters,
        [Entry(curve.label, style) for curve, style in zip(every, styles, strict=True)],
        [Row(above=0.36, below=0.1), Row()],
        "A keypoint whose visibility has the logit z.",
    )
    for curve, style in zip(every, styles, strict=True):
        for number, target in enumerate((1.0, 0.0)):
            value, gradient = over_logit(curve, target)
            panels[0][number].plot(LOGITS, value, **style)
            panels[1][number].plot(LOGITS, gradient, **style)
    for axes in panels[1]:
        axes.axhline(0, color="none")
    logit_columns(panels, ("visible keypoint", "hidden keypoint"))


def column(selection: Selection, figure: Figure) -> None:
    """Draw the loss over the logit of a visible and of a hidden keypoint."""
    every = selection.all
    styles = [line(i if selection.reference else i + 1) for i in range(len(every))]
    legend = [Entry(curve.label, style) for curve, style in zip(every, styles, strict=True)]
    ((left, right),) = lay_out(figure, "", "", legend, [Row()], "")
    for axes, target, words in ((left, 1.0, "visible keypoint"), (right, 0.0, "hidden keypoint")):
        for curve, style in zip(every, styles, strict=True):
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
