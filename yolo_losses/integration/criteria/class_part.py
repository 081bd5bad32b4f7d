"""The part that replaces `bce`, the class term of a criterion with anchors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from yolo_losses.integration.criteria.against import ratios_to_stock
from yolo_losses.integration.criteria.anchor_branch import AnchorBranch
from yolo_losses.integration.criteria.assignment import Assignment
from yolo_losses.integration.criteria.parts import Part, bce_sum, full_precision
from yolo_losses.integration.criteria.scale import squared_norms


class ClassPart(Part):
    """Replaces `bce`, the class term."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the class term of a batch per element.

        Args:
            logits: shape `(b, anchors, C)`.
            targets: the scores of the assigner in the precision of the logits, same shape.

        Returns:
            A new tensor of the same shape, in float32 or float64. Ultralytics multiplies it by class weights in place,
            sums it, and divides by the sum of the scores or 1, whichever is larger.
        """
        branch: AnchorBranch = self.branch
        loss, statistics = branch.cls, branch.statistics
        if loss is None:
            return self._stock_term(logits, targets)
        at = branch.consume_assignment("class")
        target = branch.settings.target
        trains = torch.is_grad_enabled() and logits.requires_grad
        compares = branch.compares
        measuring = statistics is not None and statistics.measuring
        with full_precision(logits):
            term, gradient = loss.per_element(at.batch(logits, targets, target), at.step_of(target))
            if gradient is None and trains and (branch.scale is not None or measuring or compares):
                (gradient,) = torch.autograd.grad(term.sum(), logits, retain_graph=True)
            # Cancels Ultralytics' divisor if the loss has another one.
            factor: Tensor | float = 1.0
            if loss.own_divisor:
                factor = at.divisor / max(logits.numel(), 1)
            elif target != "tal":
                factor = at.divisor / at.count
            if branch.scale is not None and branch.training and gradient is not None:
                norms = squared_norms(gradient, logits, at.scores)
                norms[0] *= factor**2
                factor = factor * branch.scale.advance(norms / at.divisor**2, at.scores.any())
            elif branch.settings.cls_scale != 1:
                factor = factor * branch.cls_factor
            if measuring:
                _measure(branch, term, gradient, logits, at, factor)
            if compares and not branch.ratios:
                branch.ratios = _against_bce(term, gradient, logits, targets, at, factor)
            if isinstance(factor, Tensor) or factor != 1:
                term = _Scaled.apply(term, factor)
            term = branch.weighted(term)
            if statistics is not None and measuring:
                statistics.term = term
        return self.record("class", term)

    def _stock_term(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the output of the stock part, multiplied by the factor and the class weights."""
        branch: AnchorBranch = self.branch
        term: Tensor = self.stock(logits, targets)
        statistics, at = branch.statistics, branch.assignment
        swapped = "class" in branch.expected
        if swapped:
            at = branch.consume_assignment("class")
        measures = statistics is not None and statistics.measuring and at is not None and term.shape == logits.shape
        if at is not None and measures:
            gradient = None
            if logits.requires_grad and term.requires_grad:
                (gradient,) = torch.autograd.grad(term.sum(), logits, retain_graph=True)
            with full_precision(logits):
                _measure(branch, term, gradient, logits, at, branch.cls_factor)
        if swapped:
            term = branch.weighted(term * branch.cls_factor)
        if statistics is not None and measures:
            statistics.term = term
        return self.record("class", term)


class _Scaled(torch.autograd.Function):
    """Multiplication by a scalar, in place. The gradient of a sum, a scalar seen in every element, stays one."""

    @staticmethod
    def forward(ctx: Any, term: Tensor, factor: Tensor | float) -> Tensor:
        ctx.mark_dirty(term)
        ctx.factor = factor
        return term.mul_(factor)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        if grad_output.numel() and not any(grad_output.stride()):
            return (grad_output.as_strided((1,) * grad_output.dim(), grad_output.stride()) * ctx.factor).expand_as(
                grad_output
            ), None
        return grad_output * ctx.factor, None


def is_plain_bce(part: Any) -> bool:
    """Return whether a class part is the stock one: BCE per element, without weights."""
    return (
        type(part) is nn.BCEWithLogitsLoss
        and part.reduction == "none"
        and part.weight is None
        and part.pos_weight is None
    )


@torch.no_grad()
def _measure(
    branch: AnchorBranch,
    term: Tensor,
    gradient: Tensor | None,
    logits: Tensor,
    at: Assignment,
    factor: Tensor | float,
) -> None:
    """Add the class term of a call to the statistics of `loss_stats`.

    Args:
        branch: the branch of the call.
        term: the loss per element, without factors, shape `(b, anchors, C)`.
        gradient: gradient of its sum at the logits, same shape, or `None`.
        logits: same shape.
        at: the assignment of the call.
        factor: the factor on the loss.
    """
    statistics, step = branch.statistics, at.step_of(branch.settings.target)
    assert statistics is not None
    some = statistics.sample(logits)
    sample, z = at.first(some), logits.detach()[:some].float()
    statistics.add_class_term(
        z,
        term.detach()[:some],
        None if gradient is None else gradient[:some],
        nn.functional.binary_cross_entropy_with_logits(z, sample.scores.float(), reduction="sum"),
        z.sigmoid() - sample.scores,
        sample.assigned_elements,
        factor,
    )
    more = {} if branch.cls is None else branch.cls.step_statistics(step)
    statistics.add_positives(len(logits), at.mask.sum(), at.step.mean_iou, more)


def _against_bce(
    term: Tensor, gradient: Tensor | None, logits: Tensor, targets: Tensor, at: Assignment, factor: Tensor | float
) -> dict[str, float]:
    """Return the class term over BCE on the same predictions, in value and in gradient norm on the positives.

    The result is empty if the batch overflowed.
    """
    pairs = {"value": (float(term.detach().sum() * factor), float(bce_sum(logits, targets)))}
    if gradient is not None:  # the head is not frozen
        own = gradient.reshape(-1)[at.element].float()
        stock = logits.detach().reshape(-1)[at.element].float().sigmoid() - at.score.float()
        if at.valid is not None:
            own, stock = (torch.where(at.valid, each, 0) for each in (own, stock))
        pairs["gradient"] = (float(own.norm() * factor), float(stock.norm()))
    return ratios_to_stock(pairs)
