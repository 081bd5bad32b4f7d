"""Pictures of classification losses: loss and gradient over the logit, and the effect of the target score."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator
from torch import Tensor
from torch.nn.functional import softplus

from yolo_losses.losses._function import formula_arguments
from yolo_losses.losses.classification._base import ClassificationLoss
from yolo_losses.plots.choice import Curve, Selection
from yolo_losses.plots.sheet import (
    REACH,
    Row,
    Styled,
    format_number,
    heading,
    lay_out_column,
    lay_out_sheet,
    line,
    logit_axis,
    logit_columns,
    probability_panel,
    share_axis,
)
from yolo_losses.plots.style import GREY, INK

LOGITS = torch.linspace(-REACH, REACH, 241)
SCORES = torch.linspace(0.005, 1, 200)
LEVELS = (0.3, 0.6, 0.9)  # target scores
PROBABILITIES = (0.1, 0.5, 0.9)
LEVEL_DASHES = (":", "--", "-")
MEAN_IOU = 0.5
RATIOS = (1.0, 0.5, 0.0)
# Mean, standard deviation and number of logits in the batch for losses that depend on one; 1 % are positive.
NEGATIVES, POSITIVES = (-4.0, 1.5, 9900), (0.0, 1.5, 100)
STEPS = 100


def draw(selection: Selection, figure: Figure) -> None:
    """Draw classification losses."""
    curves = [part for curve in selection.curves for part in _expand(curve)]
    single = len(curves) == 1
    rows = [Row(above=0.36, below=0.1), Row(above=0.02), Row(above=0.18), Row(above=0.18)]
    panels, every = lay_out_sheet(figure, selection, rows, _caption(curves, single), curves)
    for curve, style in every:
        for column, target in enumerate((1.0, 0.0)):
            value, gradient = over_logit(curve, target)
            panels[0][column].plot(LOGITS, value, **style)
            panels[1][column].plot(LOGITS, gradient, **style)
    logit_columns(panels, ("positive, t = 1", "negative, t = 0"))
    _set_limits(panels, curves)
    for axes, words, target in zip(panels[2], ("positive, by p", "negative, by p"), (1.0, 0.0), strict=True):
        _by_probability(axes, every, target)
        probability_panel(axes, words)
    panels[2][0].set_ylabel("loss L")
    _by_level(panels[3][0], every, single)
    _by_score(panels[3][1], every[-len(curves) :], single)
    for axes, label in ((panels[3][0], "logit z"), (panels[3][1], "target score t")):
        axes.set_xlabel(label)


def column(selection: Selection, figure: Figure) -> None:
    """Draw the loss of a positive over its probability, and its gradient, or its weight where at t = 1 it is BCE."""
    curves = [part for curve in selection.curves for part in _expand(curve)]
    (left, right), every = lay_out_column(figure, selection, curves)
    _by_probability(left, every, 1.0)
    probability_panel(left, "loss of a positive")
    bce = softplus(-LOGITS)
    if selection.reference and all(torch.allclose(over_logit(curve, 1.0)[0], bce, atol=1e-5) for curve in curves):
        _by_score(right, every[1:], single=False)
        right.set_xlabel("target score t")
        return
    for curve, style in every:
        right.plot(LOGITS.sigmoid(), over_logit(curve, 1.0)[1].abs(), **style)
    probability_panel(right, "its gradient, |∂L/∂z|")


def _by_probability(axes: Axes, every: Styled, target: float) -> None:
    """Draw the loss over the probability, up to the value of BCE at 0.02."""
    for curve, style in every:
        axes.plot(LOGITS.sigmoid(), over_logit(curve, target)[0], **style)
    axes.set_ylim(-0.12, 4)


def over_logit(curve: Curve, target: float) -> tuple[Tensor, Tensor]:
    """Return loss and gradient at `LOGITS` of elements with one target; a target of 0 is a negative."""
    z = LOGITS[:, None].clone().requires_grad_()
    t = torch.full_like(z, target)
    loss = _loss(curve, z, t)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach()[:, 0], gradient[:, 0]


def weight_over_score(curve: Curve, probability: float) -> Tensor:
    """Return the loss of positives over BCE at `SCORES`, at one predicted probability."""
    t = SCORES[:, None]
    z = torch.full_like(t, probability).logit()
    with torch.no_grad():
        bce = torch.nn.functional.binary_cross_entropy_with_logits(z, t, reduction="none")
        return (_loss(curve, z, t) / bce)[:, 0]


def _loss(curve: Curve, z: Tensor, t: Tensor) -> Tensor:
    supplied = {"mean_iou": torch.tensor(MEAN_IOU), "positive_mask": t > 0, **curve.supplied}
    loss: Tensor = curve.module(z, t, **supplied)
    return loss


def _expand(curve: Curve) -> Iterator[Curve]:
    """Yield the curves to draw for a loss: one for each ratio if it depends on `pos_neg_ratio`, else one."""
    loss = curve.module
    assert isinstance(loss, ClassificationLoss)
    if "pos_neg_ratio" in formula_arguments(type(loss).formula):
        for ratio in RATIOS:
            yield dataclasses.replace(
                curve, label=f"{curve.label}, q = {ratio:g}", supplied={"pos_neg_ratio": torch.tensor([ratio])}
            )
        return
    if list(loss.buffers()):
        logits, targets = batch()
        loss.train()
        with torch.no_grad():
            for _ in range(STEPS):
                loss(logits, targets, mean_iou=torch.tensor(MEAN_IOU), positive_mask=targets > 0)
        loss.eval()
    yield curve


def batch() -> tuple[Tensor, Tensor]:
    """Return logits and targets of a fixed batch, shape `(n, 1)`, for losses that depend on the batch."""
    logits = [
        mean + spread * torch.special.ndtri((torch.arange(size) + 0.5) / size)
        for mean, spread, size in (NEGATIVES, POSITIVES)
    ]
    targets = [torch.full_like(z, float(i)) for i, z in enumerate(logits)]
    return torch.cat(logits)[:, None], torch.cat(targets)[:, None]


def _set_limits(panels: list[tuple[Axes, Axes]], curves: list[Curve]) -> None:
    """Give positives and negatives the same scale, in which BCE stays visible."""
    value, gradient = (np.stack([over_logit(curve, t)[i] for curve in curves for t in (1.0, 0.0)]) for i in (0, 1))
    most, largest = max(float(value.max()), REACH), max(float(abs(gradient).max()), 1.0)
    for axes in panels[0]:
        axes.set_ylim(min(-0.03 * most, float(value.min())), 1.04 * most)
    margin = 0.05 * largest
    for axes, of in zip(panels[1], (gradient[0::2], gradient[1::2]), strict=True):
        low, high = (-largest, max(float(of.max()), 0)) if axes is panels[1][0] else (min(float(of.min()), 0), largest)
        axes.set_ylim(low - margin, high + margin)
    for axes in (*panels[0], *panels[1]):
        _logarithmic_if(most > 8 * REACH or largest > 20, axes)


def _logarithmic_if(large: bool, axes: Axes) -> None:
    if large:
        low, high = axes.get_ylim()
        axes.set_yscale("symlog", linthresh=1, linscale=0.5)
        axes.set_ylim(low if low < -1 and high < -low else -0.2, high)
        axes.yaxis.set_major_locator(FixedLocator([-1000, -100, -10, -1, 0, 1, 10, 100, 1000]))
        axes.yaxis.set_major_formatter(format_number)


def _by_level(axes: Axes, every: Styled, single: bool) -> None:
    """Draw the loss of positives with a soft target."""
    levels = LEVELS if single else LEVELS[1:2]
    most = 0.0
    for curve, style in every:
        for level, dash in zip(levels, LEVEL_DASHES if single else (style["ls"],), strict=True):
            value, _ = over_logit(curve, level)
            axes.plot(LOGITS, value, **{**style, "ls": dash})
            if style["color"] != GREY or len(every) == 1:
                most = max(most, float(value.max()))
    axes.set_ylim(-0.04 * most, 1.04 * most)
    _logarithmic_if(most > 8 * REACH, axes)
    logit_axis(axes)
    axes.set_ylabel("loss L")
    _level_heading(axes, "t", levels)


def _by_score(axes: Axes, curves: Styled, single: bool) -> None:
    """Draw the loss of positives, relative to BCE, over the target's score."""
    probabilities = PROBABILITIES if single else PROBABILITIES[1:2]
    axes.axhline(1, **line(0))
    most = 1.1
    for curve, style in curves:
        for p, dash in zip(probabilities, LEVEL_DASHES if single else (style["ls"],), strict=True):
            weight = weight_over_score(curve, p)
            most = max(most, 1.05 * float(weight.max()))
            axes.plot(SCORES, weight, **{**style, "ls": dash})
    if any("mean_iou" in formula_arguments(type(curve.module).formula) for curve, _ in curves):
        axes.axvline(MEAN_IOU, color=INK, lw=0.6)
    share_axis(axes)
    axes.set_ylim(0, most)
    _logarithmic_if(most > 10, axes)
    axes.set_ylabel("L / BCE")
    _level_heading(axes, "p", probabilities)


def _level_heading(axes: Axes, symbol: str, levels: tuple[float, ...]) -> None:
    """Write the levels over a panel, each with its dash where there are several."""
    if len(levels) == 1:
        heading(axes, f"positive, {symbol} = {levels[0]:g}")
        return
    heading(axes, f"{symbol} =")
    axes.legend(
        [Line2D([], [], color=INK, ls=dash, lw=1) for dash in LEVEL_DASHES],
        [f"{level:g}" for level in levels],
        loc="lower left",
        bbox_to_anchor=(0.17, 1.0),
        ncols=3,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.6,
        handletextpad=0.3,
        columnspacing=0.5,
    )


def _caption(curves: list[Curve], single: bool) -> str:
    notes = ["p: predicted probability."]
    if single:
        notes.append("Below: positives with soft targets, and their loss over BCE's.")
    taken = {name for curve in curves for name in formula_arguments(type(curve.module).formula)}
    if "mean_iou" in taken:
        notes.append(f"Mean IoU {MEAN_IOU:g} (vertical line).")
    if "pos_neg_ratio" in taken:
        notes.append("q: accumulated gradients of a class's positives over those of its negatives.")
    for curve in curves:
        module = curve.module
        of_a_batch = (
            isinstance(module, ClassificationLoss) and type(module).per_element is not ClassificationLoss.per_element
        )
        if not of_a_batch or curve.supplied or not list(module.buffers()):
            continue
        notes.append(
            f"Its weights are those of one batch: {NEGATIVES[2]} negatives with logits {_format_normal(NEGATIVES)} and"
            f" {POSITIVES[2]} positives with {_format_normal(POSITIVES)}; in another batch they differ."
        )
        break
    return " ".join(notes)


def _format_normal(distribution: tuple[float, float, int]) -> str:
    return f"N({distribution[0]:g}, {distribution[1]:g}²)"
