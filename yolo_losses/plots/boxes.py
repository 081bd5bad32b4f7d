"""Pictures of axis-aligned box losses: over the IoU, over position and size of a box, and gradient descent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter
from torch import Tensor

from yolo_losses.losses.boxes._base import BoxLoss
from yolo_losses.losses.build import make_box_loss
from yolo_losses.plots.choice import Curve, Selection
from yolo_losses.plots.sheet import (
    BELOW,
    GAP,
    LEFT,
    Entry,
    Row,
    Styled,
    format_number,
    heading,
    lay_out_column,
    lay_out_sheet,
    legend_below,
    line,
    share_axis,
    step_axes,
)
from yolo_losses.plots.style import COLOURS, GREY

IMAGE = 640.0  # pixels
LARGE, SMALL = (60.0, 40.0), (9.0, 6.0)
MEAN_LOSS = 0.5
ALONG = torch.linspace(0.001, 0.999, 201)  # shift and scale, in units of the object's sides
GRID = 37
OFFSETS = 1.5
SCALE = 2.0  # as a power of two
SQUARE = 1.06  # inches
# Boxes that descend: offset of the centre and scale of the sides, in units of the object's sides.
STARTS = torch.tensor([[-1.0, -1.0, 0.7, 0.8], [1.1, 0.5, 0.6, 1.5], [0.1, 0.2, 1.9, 2.0], [-0.2, 0.15, 0.45, 0.5]])
START_LABELS = ("apart", "apart and too high", "too large", "too small")
START_DASHES = (0, (2, 1.2))
STEPS, RATE, EVERY = 240, 0.03, 4


def draw(selection: Selection, figure: Figure) -> None:
    """Draw box losses."""
    every, single = selection.all, len(selection.curves) == 1
    side = sides(selection)
    last = [Row(SQUARE), Row(SQUARE, below=BELOW + 0.26)] if single else [Row(SQUARE)]
    rows = [Row(below=0.1), Row(above=0.02), *last]
    panels, curves = lay_out_sheet(figure, selection, rows, _caption(selection, side))
    for column, (words, path) in enumerate(PATHS.items()):
        top, below = panels[0][column], panels[1][column]
        heading(top, words)
        for curve, style in curves:
            overlap, value, gradient = over_iou(curve, path(ALONG), side)
            top.plot(overlap, value, **style)
            below.plot(overlap, gradient, **style)
        for axes in (top, below):
            share_axis(axes)
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        top.tick_params(labelbottom=False)
        below.set_xlabel("IoU")
    panels[0][0].set_ylabel("loss")
    panels[1][0].set_ylabel("gradient norm")
    if single:
        _contours(figure, panels[2], selection.curves[0], side)
        _descent(panels[3], every, side)
        legend_below(figure, panels[3][0], _boxes_legend(every))
    else:
        _descents(panels[2], curves, side)


def column(selection: Selection, figure: Figure) -> None:
    """Draw loss and gradient of a shifted box over the IoU."""
    side = sides(selection)
    (left, right), curves = lay_out_column(figure, selection)
    for curve, style in curves:
        overlap, value, gradient = over_iou(curve, shifted(ALONG), side)
        left.plot(overlap, value, **style)
        right.plot(overlap, gradient, **style)
    for axes, words in ((left, "loss of a shifted box"), (right, "norm of its gradient")):
        heading(axes, words)
        share_axis(axes, "IoU")
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))


def sides(selection: Selection) -> tuple[float, float]:
    """Return width and height of the object: small where a loss depends on its size in pixels."""
    in_pixels = any("stride" in curve.module.wanted for curve in selection.curves if isinstance(curve.module, BoxLoss))
    return SMALL if in_pixels else LARGE


def shifted(by: Tensor) -> Tensor:
    """Return boxes of the object's size, shifted along its diagonal."""
    zero, one = torch.zeros_like(by), torch.ones_like(by)
    return torch.stack((by, by, one, one), -1) + zero[:, None]


def narrowed(by: Tensor) -> Tensor:
    """Return boxes with the object's centre and height, whose width is scaled down."""
    zero, one = torch.zeros_like(by), torch.ones_like(by)
    return torch.stack((zero, zero, 1 - by, one), -1)


PATHS = {"shifted along its diagonal": shifted, "width scaled down": narrowed}


def loss_of(curve: Curve, relative: Tensor, side: tuple[float, float]) -> Tensor:
    """Return the loss of boxes against the object in the middle of the image.

    Args:
        curve: the loss.
        relative: offset of the centre and scale of the sides, in units of the object's sides, shape `(..., 4)`.
        side: width and height of the object in pixels.
    """
    return _call(curve.module, relative, side)


def iou_of(relative: Tensor, side: tuple[float, float]) -> Tensor:
    """Return the IoU of boxes, given as in `loss_of`."""
    with torch.no_grad():
        return 1 - _call(make_box_loss("iou"), relative, side)


def _call(module: Callable[..., Tensor], relative: Tensor, side: tuple[float, float]) -> Tensor:
    unit = torch.tensor(side)
    centre = IMAGE / 2 + relative[..., :2] * unit
    half = relative[..., 2:] * unit / 2
    boxes = torch.cat((centre - half, centre + half), -1)
    target = torch.cat((IMAGE / 2 - unit / 2, IMAGE / 2 + unit / 2)).expand_as(boxes)
    image = torch.tensor((IMAGE, IMAGE))
    return module(boxes, target, image_wh=image, stride=torch.ones(1), mean_loss=torch.tensor(MEAN_LOSS))


def over_iou(curve: Curve, path: Tensor, side: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """Return IoU, loss and norm of the gradient by centre and sides, in units of the object's sides, along a path."""
    relative = path.clone().requires_grad_()
    loss = loss_of(curve, relative, side)
    (gradient,) = torch.autograd.grad(loss.sum(), relative)
    return iou_of(path, side), loss.detach(), gradient.norm(dim=-1)


def descend(curve: Curve, side: tuple[float, float]) -> Tensor:
    """Return the boxes of a gradient descent from `STARTS`, shape `(STEPS + 1, starts, 4)`."""
    relative = STARTS.clone()
    path = [relative]
    for step in range(STEPS):
        leaf = relative.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(curve, leaf, side).sum(), leaf)
        relative = leaf.detach() - RATE * (1 - step / STEPS) * gradient
        relative[:, 2:].clamp_min_(0.05)
        path.append(relative)
    return torch.stack(path)


def _contours(figure: Figure, pair: tuple[Axes, Axes], curve: Curve, side: tuple[float, float]) -> None:
    """Draw the loss over the offset of the centre, and over the scale of the sides."""
    offset = torch.linspace(-OFFSETS, OFFSETS, GRID)
    scale = torch.logspace(-SCALE, SCALE, GRID, base=2)
    moved = torch.stack((*torch.meshgrid(offset, offset, indexing="xy"), *torch.ones(2, GRID, GRID)), -1)
    sized = torch.stack((*torch.zeros(2, GRID, GRID), *torch.meshgrid(scale, scale, indexing="xy")), -1)
    with torch.no_grad():
        values = [loss_of(curve, grid, side).numpy() for grid in (moved, sized)]
    levels = MaxNLocator(10).tick_values(min(0, *(v.min() for v in values)), max(v.max() for v in values))
    width, height = figure.get_size_inches()
    for axes, x in zip(pair, (LEFT, LEFT + SQUARE + GAP), strict=True):
        axes.set_position((x / width, axes.get_position().y0, SQUARE / width, SQUARE / height))
    for axes, along, value in zip(pair, (offset, scale), values, strict=True):
        axes.contourf(along, along, value, levels, cmap="cividis", zorder=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
    moves, scales = pair
    heading(moves, "moved: loss by its centre")
    heading(scales, "scaled: loss by its sides")
    moves.set_xlabel("dx / w")
    moves.set_ylabel("dy / h")
    scales.set_xscale("log", base=2)
    scales.set_yscale("log", base=2)
    for axis in (scales.xaxis, scales.yaxis):
        axis.set_major_locator(FixedLocator([0.25, 0.5, 1, 2, 4]))
        axis.set_major_formatter(lambda value, _: {0.25: "¼", 0.5: "½"}.get(value, f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    scales.set_xlabel("width / w")
    scales.set_ylabel("height / h")
    for axes, at in ((moves, 0.0), (scales, 1.0)):
        axes.plot([at], [at], "+", color="white", ms=5, mew=1)
    box = scales.get_position()
    bar = figure.add_axes((box.x1 + 0.02, box.y0, 0.02, box.height))
    colours = figure.colorbar(
        ScalarMappable(BoundaryNorm(levels, 256, extend="neither"), "cividis"), cax=bar, ticks=levels[::2]
    )
    colours.outline.set_visible(False)
    bar.yaxis.set_major_formatter(format_number)


def _descent(pair: tuple[Axes, Axes], every: list[Curve], side: tuple[float, float]) -> None:
    """Draw the boxes of a descent, and their IoU by step beside that of the reference."""
    boxes, overlaps = pair
    *others, path = [descend(curve, side)[::EVERY] for curve in every]
    steps = range(0, STEPS + 1, EVERY)
    unit = np.array(side) / side[0]
    boxes.add_patch(Rectangle((-0.5, -unit[1] / 2), 1, unit[1], fc=GREY, alpha=0.35, lw=0))
    for other in others:
        overlaps.plot(steps, iou_of(other, side), color=GREY, lw=1.6, alpha=0.6)
    for start, colour in enumerate(COLOURS[: len(STARTS)]):
        centres, sizes = (path[:, start, columns].numpy() * unit for columns in (slice(0, 2), slice(2, 4)))
        for at, dash in ((0, START_DASHES), (-1, "-")):
            x, y = centres[at] - sizes[at] / 2
            boxes.add_patch(Rectangle((x, y), *sizes[at], fc="none", ec=colour, ls=dash, lw=0.9))
        boxes.plot(*centres.T, color=colour, lw=0.9)
        boxes.plot(*centres[0], "o", color=colour, ms=2)
        overlaps.plot(steps, iou_of(path[:, start], side), color=colour, lw=1)
    boxes.set_aspect("equal", anchor="N")
    boxes.autoscale_view()
    boxes.axis("off")
    heading(boxes, "descent of four boxes")
    heading(overlaps, "their IoU by step")
    step_axes(overlaps, STEPS)


def _boxes_legend(every: list[Curve]) -> list[Entry]:
    """Return what the colours and dashes of a descent mean."""
    ends = [Entry("at the start", {"color": GREY, "ls": START_DASHES, "lw": 0.9})]
    ends.append(Entry("object" + (f", and {every[0].label}'s IoU" if len(every) > 1 else ""), line(0)))
    return [
        *(Entry(words, {"color": COLOURS[i], "lw": 1}) for i, words in enumerate(START_LABELS)),
        *ends,
    ]


def _descents(pair: tuple[Axes, Axes], curves: Styled, side: tuple[float, float]) -> None:
    """Draw the IoU of descending boxes step by step: of the one apart, and the mean of those that overlap."""
    for curve, style in curves:
        overlap = iou_of(descend(curve, side)[::EVERY], side)
        apart = overlap[0] == 0
        for axes, chosen in zip(pair, (apart, ~apart), strict=True):
            axes.plot(range(0, STEPS + 1, EVERY), overlap[:, chosen].mean(1), **style)
    for axes, words in zip(pair, ("descent of boxes apart", "of boxes that overlap"), strict=True):
        heading(axes, words)
        step_axes(axes, STEPS)
    pair[0].set_ylabel("mean IoU")


def _caption(selection: Selection, side: tuple[float, float]) -> str:
    notes = [f"Object of {side[0]:g} x {side[1]:g} px in an image of {IMAGE:g} x {IMAGE:g}."]
    notes.append("Gradients by centre and sides in units of the object's.")
    if any(hasattr(part, "mean_loss") for curve in selection.curves for part in curve.module.modules()):
        notes.append(f"Running mean of 1 - IoU {MEAN_LOSS:g}.")
    notes.append(f"Descent: {STEPS} steps of {RATE:g} times the gradient, falling to 0.")
    return " ".join(notes)
