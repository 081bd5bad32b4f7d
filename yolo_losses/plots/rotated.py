"""Pictures of rotated box losses: over the angle, over the IoU, where a step moves a box, and gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Polygon
from torch import Tensor

from yolo_losses.losses.build import make_box_loss
from yolo_losses.plots.choice import Curve, Selection
from yolo_losses.plots.sheet import BELOW, Entry, Row, heading, lay_out, legend_below, line, share_axis, step_axes
from yolo_losses.plots.style import COLOURS, GREY

SIDE = 32.0  # square root of the object's area, in pixels
RATIOS = (1.2, 3.0, 8.0)
RATIO = 3.0
ANGLES = torch.linspace(-90, 90, 181).deg2rad()
ALONG = torch.linspace(0.001, 0.999, 150)
TURN = 30.0  # degrees, of the boxes in the field of arrows
ARROWS, REACH = 9, 1.0
# Boxes that descend: offset of the centre and scale of the sides, in units of the object's sides, and radians.
STARTS = torch.tensor([[-0.8, -1.6, 0.7, 1.3, 1.0], [0.7, 1.3, 0.8, 1.0, -0.8], [0.1, 0.2, 1.2, 1.2, 1.2]])
START_LABELS = ("apart", "apart, turned back", "overlapping")
STEPS, RATE = 160, 0.15


def draw(selection: Selection, figure: Figure) -> None:
    """Draw rotated box losses."""
    every, single = selection.all, len(selection.curves) == 1
    first = 0 if selection.reference else 1
    drawn = [(curve, RATIO, line(first + i)) for i, curve in enumerate(every)]
    if single:
        drawn[-1:] = [(every[-1], ratio, line(1 + i)) for i, ratio in enumerate(RATIOS)]
    panels = lay_out(
        figure,
        selection.title,
        selection.parameters,
        [Entry(f"{curve.label}, {ratio:g}:1" if single else curve.label, style) for curve, ratio, style in drawn],
        [Row(), Row(), Row(1.1, below=BELOW + 0.26) if single else Row()],
        _caption(single),
    )
    _angle_axes(panels[0])
    for curve, ratio, style in drawn:
        value, gradient = over_angle(curve, ratio)
        panels[0][0].plot(ANGLES.rad2deg(), value, **style)
        panels[0][1].plot(ANGLES.rad2deg(), gradient, **style)
        if ratio == RATIO:
            overlap, value, norm = over_iou(curve)
            panels[1][0].plot(overlap, value, **style)
            panels[1][1].plot(overlap, norm, **style)
    for axes, words in zip(panels[1], ("shifted along its diagonal", "norm of the gradient"), strict=True):
        heading(axes, words)
        share_axis(axes, "IoU")
    panels[1][0].set_ylabel("loss")
    if single:
        _field(panels[2][0], every[-1])
        _descent(panels[2][1], every[-1])
        dashes = {"at the start": (0, (2, 1.2)), "at the end": "-"}
        starts = [Entry(words, {"color": COLOURS[i], "lw": 1}) for i, words in enumerate(START_LABELS)]
        ends = [Entry(words, {"color": GREY, "ls": dash, "lw": 0.9}) for words, dash in dashes.items()]
        legend_below(figure, panels[2][0], [*starts, *ends])
        return
    for curve, _, style in drawn:
        overlap = iou_of(descend(curve))
        apart = overlap[0] < 0.01
        for axes, chosen in zip(panels[2], (apart, ~apart), strict=True):
            axes.plot(overlap[:, chosen].mean(1), **style)
    for axes, words in zip(panels[2], ("descent of boxes apart", "of one that overlaps"), strict=True):
        heading(axes, words)
        step_axes(axes, STEPS)
    panels[2][0].set_ylabel("mean IoU")


def column(selection: Selection, figure: Figure) -> None:
    """Draw loss and gradient of a turned box over the angle."""
    every = selection.all
    styles = [line(i if selection.reference else i + 1) for i in range(len(every))]
    legend = [Entry(f"{curve.label}, {RATIO:g}:1", style) for curve, style in zip(every, styles, strict=True)]
    (pair,) = lay_out(figure, "", "", legend, [Row()], "")
    _angle_axes(pair)
    for curve, style in zip(every, styles, strict=True):
        for axes, values in zip(pair, over_angle(curve, RATIO), strict=True):
            axes.plot(ANGLES.rad2deg(), values, **style)


def _angle_axes(pair: tuple[Axes, Axes]) -> None:
    for axes, words, label in zip(pair, ("turned", "gradient by the angle"), ("loss", "∂L/∂θ"), strict=True):
        heading(axes, words)
        axes.set_ylabel(label)
        axes.set_xlabel("angle θ, degrees")
        axes.set_xlim(-90, 90)
        axes.set_xticks([-90, -45, 0, 45, 90])


def loss_of(curve: Curve, relative: Tensor, ratio: float = RATIO) -> Tensor:
    """Return the loss of boxes against an upright object.

    Args:
        curve: the loss.
        relative: offset of the centre and scale of the sides, in units of the object's sides, and the angle in radians,
            shape `(..., 5)`.
        ratio: width over height of the object.
    """
    return _call(curve.module, relative, ratio)


def iou_of(relative: Tensor, ratio: float = RATIO) -> Tensor:
    """Return the IoU of boxes, given as in `loss_of`."""
    with torch.no_grad():
        return 1 - _call(make_box_loss("rotated_iou"), relative, ratio)


def _sides(ratio: float) -> Tensor:
    return SIDE * torch.tensor((ratio**0.5, ratio**-0.5))


def _call(module: Callable[..., Tensor], relative: Tensor, ratio: float) -> Tensor:
    unit = _sides(ratio)
    pred = torch.cat((relative[..., :2] * unit, relative[..., 2:4] * unit, relative[..., 4:]), -1)
    target = torch.cat((torch.zeros(2), unit, torch.zeros(1))).expand_as(pred)
    return module(pred, target, stride=torch.ones(1))


def over_angle(curve: Curve, ratio: float) -> tuple[Tensor, Tensor]:
    """Return loss and derivative at `ANGLES` of boxes that are turned about the object's centre."""
    angle = ANGLES.clone().requires_grad_()
    rest = torch.tensor((0.0, 0.0, 1.0, 1.0)).expand(len(angle), 4)
    loss = loss_of(curve, torch.cat((rest, angle[:, None]), -1), ratio)
    (gradient,) = torch.autograd.grad(loss.sum(), angle)
    return loss.detach(), gradient


def over_iou(curve: Curve) -> tuple[Tensor, Tensor, Tensor]:
    """Return IoU, loss and norm of the gradient by centre, sides and angle of boxes shifted along the diagonal."""
    ones = torch.ones_like(ALONG)
    relative = torch.stack((ALONG, ALONG, ones, ones, 0 * ones), -1).requires_grad_()
    loss = loss_of(curve, relative)
    (gradient,) = torch.autograd.grad(loss.sum(), relative)
    return iou_of(relative), loss.detach(), gradient.norm(dim=-1)


def descend(curve: Curve) -> Tensor:
    """Return the boxes of a gradient descent from `STARTS`, shape `(STEPS + 1, starts, 5)`."""
    path = [STARTS.clone()]
    for step in range(STEPS):
        leaf = path[-1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(curve, leaf).sum(), leaf)
        relative = leaf.detach() - RATE * (1 - step / STEPS) * gradient
        relative[:, 2:4].clamp_min_(0.05)
        path.append(relative)
    return torch.stack(path)


def _outline(relative: Tensor, **style: Any) -> Polygon:
    """Return the outline of a box in units of the object's width."""
    unit = (_sides(RATIO) / _sides(RATIO)[0]).numpy()
    x, y, w, h, angle = relative.tolist()
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (w, h) * unit / 2
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    return Polygon(corners @ turn + np.array((x, y)) * unit, fc="none", **style)


def _object(axes: Axes) -> None:
    unit = (_sides(RATIO) / _sides(RATIO)[0]).tolist()
    axes.add_patch(_outline(torch.tensor((0.0, 0, 1, 1, 0)), ec=GREY, lw=0.8))
    axes.add_patch(Ellipse((0, 0), *unit, fc=GREY, alpha=0.35, lw=0))
    axes.set_aspect("equal", anchor="N")
    axes.axis("off")


def _field(axes: Axes, curve: Curve) -> None:
    """Draw where a gradient step moves the centre of a turned box of the object's size, from many places."""
    unit = (_sides(RATIO) / _sides(RATIO)[0]).numpy()
    across = torch.linspace(-REACH, REACH, ARROWS)
    x, y = torch.meshgrid(across, across * RATIO / 1.2, indexing="xy")
    relative = torch.stack((x, y, *torch.ones(2, *x.shape), torch.full_like(x, np.deg2rad(TURN))), -1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(curve, relative).sum(), relative)
    step = -gradient[..., :2].numpy() / unit
    at = relative.detach()[..., :2].numpy() * unit
    _object(axes)
    axes.quiver(
        *at.T,
        *step.T,
        color=COLOURS[0],
        angles="xy",
        pivot="tail",
        width=0.008,
        headwidth=4,
        headlength=4,
        headaxislength=4,
    )
    axes.add_patch(_outline(relative.detach()[ARROWS // 2, ARROWS // 2], ec=COLOURS[1], lw=0.9, ls=(0, (2, 1.2))))
    axes.autoscale_view()
    heading(axes, "where a step moves a box")


def _descent(axes: Axes, curve: Curve) -> None:
    """Draw the boxes of a descent."""
    path = descend(curve)
    _object(axes)
    unit = (_sides(RATIO) / _sides(RATIO)[0]).numpy()
    for start, colour in enumerate(COLOURS[: len(STARTS)]):
        own = path[:, start]
        for step, style in (
            (0, {"ls": (0, (2, 1.2)), "lw": 0.9}),
            (STEPS // 4, {"lw": 0.5, "alpha": 0.7}),
            (STEPS, {"lw": 1}),
        ):
            axes.add_patch(_outline(own[step], ec=colour, **style))
        axes.plot(*(own[:, :2].numpy() * unit).T, color=colour, lw=0.7)
    axes.autoscale_view()
    heading(axes, "descent of three boxes")


def _caption(single: bool) -> str:
    notes = [f"Objects of {SIDE:g} x {SIDE:g} px in area. Gradients in units of the object's sides and radians."]
    if single:
        notes.append(
            f"Below {RATIO:g}:1: the object with its ellipse. Arrows: steps of the centre of a box of its size, turned"
            f" by {TURN:g}° (dashed)."
        )
    notes.append(f"Descent: {STEPS} steps of {RATE:g} times the gradient, falling to 0.")
    if single:
        notes.append(f"Boxes dashed at the start, thin after {STEPS // 4} steps.")
    return " ".join(notes)
