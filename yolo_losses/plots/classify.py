"""Pictures of the losses of a softmax, per image or pixel: over the probability of the label, and over its logit."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from yolo_losses.losses.semantic._base import PixelLoss
from yolo_losses.plots.choice import Curve, Selection
from yolo_losses.plots.sheet import REACH, Row, heading, lay_out_column, lay_out_sheet, share_axis

CLASSES = 10
LOGITS = torch.linspace(-REACH, REACH, 241)  # of the label; those of the other classes are 0


def draw(selection: Selection, figure: Figure) -> None:
    """Draw losses of the task classify, or losses per pixel of the task semantic."""
    item = "A pixel" if isinstance(selection.curves[0].module, PixelLoss) else "An image"
    panels, curves = lay_out_sheet(
        figure,
        selection,
        [Row(above=0.36, below=0.1), Row()],
        f"{item} of one of {CLASSES} classes; the logits of the other classes are 0, that of its label is z.",
    )
    for curve, style in curves:
        p, value, gradient = over_logit(curve)
        panels[0][0].plot(p, value, **style)
        panels[0][1].plot(LOGITS, value, **style)
        panels[1][0].plot(p, gradient, **style)
        panels[1][1].plot(LOGITS, gradient, **style)
    heading(panels[0][0], "over the label's probability")
    heading(panels[0][1], "over the label's logit")
    for axes in panels[1]:
        axes.axhline(0, color="none")
    share_axis(panels[1][0], "p, probability of the label")
    panels[1][1].set_xlabel("z, logit of the label")
    panels[0][0].set_ylabel("loss L")
    panels[1][0].set_ylabel("gradient dL/dz")


def column(selection: Selection, figure: Figure) -> None:
    """Draw the loss and its gradient over the probability of the label."""
    (left, right), curves = lay_out_column(figure, selection)
    for curve, style in curves:
        p, value, gradient = over_logit(curve)
        left.plot(p, value, **style)
        right.plot(p, gradient, **style)
    _label(left, "loss L")
    _label(right, "gradient dL/dz")


def _label(axes: Axes, words: str) -> None:
    share_axis(axes, "p, probability of the label")
    axes.set_ylabel(words)


def over_logit(curve: Curve) -> tuple[Tensor, Tensor, Tensor]:
    """Return the label's probability, the loss, and its derivative by the label's logit, at `LOGITS`."""
    z = LOGITS.clone().requires_grad_()
    logits = torch.cat((z.unsqueeze(1), torch.zeros(len(z), CLASSES - 1)), 1)
    value = curve.module(logits, torch.zeros(len(z), dtype=torch.long))
    (gradient,) = torch.autograd.grad(value.sum(), z)
    return logits.detach().softmax(1)[:, 0], value.detach(), gradient
