"""The parts that stand in a criterion with anchors: for the assigner, the class, the box and the distribution term.

A `v8DetectionLoss` calls its `assigner`, then its `bce`, then its `bbox_loss`. The assigner is only observed, and its
output never changed; `bce` is replaced by the class part; in `bbox_loss` the one function that computes the IoU is
replaced and its body kept, so that weights, divisor and the distribution term stay its own.
"""

from __future__ import annotations

import copy
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils.loss import RotatedBboxLoss

from yolo_losses.integration.criteria.assignment import Assignment
from yolo_losses.integration.criteria.parts import Branch, Part, bce_sum, full_precision
from yolo_losses.integration.criteria.scale import gradient_of, squared_norms
from yolo_losses.losses._module import formula_arguments
from yolo_losses.losses._reduction import upcast
from yolo_losses.losses._step import Step
from yolo_losses.losses.classification._base import ClassificationLoss
from yolo_losses.losses.distribution.dfl import distribution_focal_loss
from yolo_losses.monitor.gather import Statistics

IOU_FUNCTIONS = {False: "bbox_iou", True: "probiou"}  # what `bbox_loss` calls for its IoU: axis-aligned, rotated boxes
TOLERANCE = 0.01  # relative, of a half-precision log


@dataclass
class AnchorBranch(Branch):
    """The branch of a criterion with anchors.

    Attributes:
        one_hot: whether the assigner gives each anchor one class, so that the background is all zeros, and the
            criterion only sums what its class part returns.
        assignment: of the current call; each part takes it once.
        taken: the parts that took it.
        returned: what the class and the box part returned in the current call, to be compared with what is reported.
        running: the criterion that is running.
        repeats: whether it goes through the same batch again, of which the losses' state knows already. Other ranks do
            not repeat theirs, so that nothing may be joined.
        logged: under which name or number the criterion reports its class term.
        deviation: largest relative difference between the reported class term and the one that was returned.
    """

    one_hot: bool = True
    assignment: Assignment | None = None
    taken: tuple[str, ...] = ()
    returned: dict[str, Tensor] = field(default_factory=dict)
    running: Any = None
    repeats: bool = False
    logged: str | int = "cls_loss"
    deviation: Tensor | None = None

    def forget(self) -> None:
        """Drop what belongs to the call that has ended."""
        if self.assignment is not None:
            self.assignment.release()
        self.assignment = None
        self.returned = {}
        self.running = None
        self.repeats = False

    def take(self, part: str) -> Assignment:
        """Return the assignment of the current call, once for each part.

        Raises:
            RuntimeError: where the assigner was not called since the part last took an assignment.
        """
        if self.assignment is None or part in self.taken:
            raise RuntimeError(
                f"yolo_losses: the criterion asked for its {part} term without calling the assigner that was set up"
            )
        self.taken += (part,)
        return self.assignment

    def follow(self, result: Any, criterion: Any) -> None:
        """Compare the reported class term with the returned one on the device, for `check_deviation` to read."""
        items = result[-1]
        known = self.logged in items if isinstance(items, Mapping) else isinstance(self.logged, int)
        if self.assignment is None or not known:
            return
        term = self.returned["class"].detach().sum() * (class_gain(criterion) / self.assignment.divisor)
        difference = (items[self.logged] - term).abs_() / term.abs()
        self.deviation = difference if self.deviation is None else torch.fmax(self.deviation, difference)

    def check_deviation(self) -> None:
        """Raise where the criterion reported another class term than the one that was returned to it.

        Raises:
            RuntimeError: that says by how much.
        """
        deviation, self.deviation = self.deviation, None
        if deviation is not None and float(deviation) > TOLERANCE:
            raise RuntimeError(
                f"yolo_losses: the class term that the criterion reports differed by {float(deviation):.0%} from what"
                " its class part returned, in a batch of this epoch: something has begun to weight its elements"
            )

    @property
    def compares(self) -> bool:
        """Whether this call compares terms, which synchronises: the first one with positives in each epoch."""
        return self.check_due and torch.is_grad_enabled() and self.assignment is not None and self.assignment.any


class AssignerPart(Part):
    """The stock assigner, observed: its output is never changed, since the box term weights with it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the stock assigner returns."""
        branch: AnchorBranch = self.branch
        assigned = self.stock(*args, **kwargs)
        boxes = kwargs["pd_bboxes"] if "pd_bboxes" in kwargs else args[1]
        anchors = kwargs["anc_points"] if "anc_points" in kwargs else args[2]
        branch.assignment = Assignment(boxes, anchors, assigned, branch.one_hot, branch.joined, branch.repeats)
        branch.taken = ()
        if branch.box is not None and branch.joined and any(True for _ in branch.box.buffers()):
            # A rank without positives may skip its box term; what ranks share is shared here, on every one of them.
            _ = branch.assignment.step.joint_positives
        return assigned


class ClassPart(Part):
    """The class term in place of `bce`."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the class term of a batch.

        Args:
            logits: shape `(b, anchors, C)`.
            targets: the assigner's scores in the logits' precision, of the same shape.

        Returns:
            A fresh float32 tensor that upstream multiplies by the class weights, sums, and divides by the sum of the
            scores where that is above 1: per-class sums `(1, 1, C)`, or per element where the targets are not known to
            be one-hot or the criterion weights elements.
        """
        branch: AnchorBranch = self.branch
        loss, statistics = branch.cls, branch.statistics
        if loss is None:
            return self._observed(logits, targets)
        at = branch.take("class")
        branch.called.add("class")
        compares = branch.compares
        if compares and branch.one_hot and int((at.scores > 0).sum()) != int((at.score > 0).sum()):
            branch.one_hot = at.one_hot = False
        kind = branch.settings.target
        with full_precision(logits):
            # Before a batch has shown that the criterion does not weight elements, it gets one value for each.
            known = compares or bool(branch.ratios) or not torch.is_grad_enabled()
            summed = branch.one_hot and ((at.large and known) or loss.sums_a_batch())
            factor = _factor(loss, kind, at, summed=summed)
            if summed:
                term = loss.class_sums(logits, at.positives(_quality(kind, at)), _step(kind, at))
            else:
                term = _per_element(loss, logits, targets, kind, at, _step(kind, at))
            if branch.scale is not None and torch.is_grad_enabled() and logits.requires_grad and not branch.repeats:
                norms = squared_norms(gradient_of(term, logits), logits, at.scores)
                if factor is not None:
                    norms[0] *= factor**2
                branch.scale.update(norms, at.scores.any(), branch.joined)
            if statistics is not None and statistics.measuring:
                _measure(branch, statistics, term, logits, at, factor)
            if factor is not None:
                term = term * factor
            if branch.settings.cls_scale != 1:
                term = term * branch.cls_factor
            if compares and not branch.ratios:
                branch.ratios = _against_bce(term, logits, targets, at)
            term = branch.weighted(term)
            if compares or (summed and at.large and torch.is_grad_enabled()):
                branch.returned["class"] = term
            if statistics is not None and statistics.measuring:
                statistics.term = term
        return term

    def _observed(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the stock class term, which `loss_stats` looks at."""
        branch: AnchorBranch = self.branch
        term: Tensor = self.stock(logits, targets)
        statistics, at = branch.statistics, branch.assignment
        if statistics is not None and statistics.measuring and at is not None and term.shape == logits.shape:
            with full_precision(logits):
                _measure(branch, statistics, term, logits, at, None)
            statistics.term = term
        return term


def _measure(
    branch: AnchorBranch, statistics: Statistics, term: Tensor, logits: Tensor, at: Assignment, factor: Tensor | None
) -> None:
    """Measure the class term of a call.

    Args:
        branch: of the call.
        statistics: of the branch.
        term: what the loss returned for the logits, as yet without factors.
        logits: shape `(b, anchors, C)`.
        at: what was assigned.
        factor: what cancels upstream's divisor.
    """
    loss, kind, step = branch.cls, branch.settings.target, _step(branch.settings.target, at)
    mean_iou = at.step.mean_iou
    gradient = gradient_of(term, logits) if loss is not None and logits.requires_grad else None
    with torch.no_grad():
        some = statistics.sample(logits)
        sample, z = at.first(some), logits.detach()[:some].float()
        stock = z.sigmoid() - sample.scores
        if term.shape == logits.shape:
            values = term.detach()[:some]
        else:  # summed by class: once more for these images
            assert loss is not None
            values = _per_element(loss, z, sample.scores, kind, sample, step.read_only())
            if loss.own_divisor:
                values = values / logits.numel()
        statistics.take_class_term(
            z,
            values,
            stock if loss is None else gradient if gradient is None else gradient[:some],
            nn.functional.binary_cross_entropy_with_logits(z, sample.scores.float(), reduction="sum"),
            stock,
            sample.assigned_elements,
            branch.cls_factor if factor is None else branch.cls_factor * factor,
        )
        statistics.take_positives(len(logits), at.mask.sum(), mean_iou, loss.shown(step) if loss is not None else {})


def _step(kind: str, at: Assignment) -> Step:
    return at.ciou_step if kind == "ciou" else at.step


def _quality(kind: str, at: Assignment) -> Tensor:
    """Return the target of each positive."""
    if kind == "tal":
        return at.score
    if kind == "hard":
        return torch.ones_like(at.score)
    return at.ciou if kind == "ciou" else at.iou


def _factor(loss: ClassificationLoss, kind: str, at: Assignment, *, summed: bool) -> Tensor | None:
    """Return what cancels upstream's divisor where the loss has another one; `None`: nothing."""
    if loss.own_divisor:  # the loss is a mean: its sums by class are divided already
        return at.divisor if summed else at.divisor / max(at.scores.numel(), 1)
    return None if kind == "tal" else at.divisor / at.count


def _per_element(
    loss: ClassificationLoss, logits: Tensor, targets: Tensor, kind: str, at: Assignment, step: Step
) -> Tensor:
    """Return the class term per element: of small batches, or where targets may be soft in several classes."""
    logits, targets = upcast(logits, targets if kind == "tal" else at.dense(_quality(kind, at)))
    supplied = loss.prepare(step)
    if "positive_mask" in formula_arguments(type(loss).formula) or loss.sums_a_batch():
        supplied["positive_mask"] = at.positive_elements if kind == "tal" else at.assigned_elements
    return loss.per_element(logits, targets, **supplied)


def _against_bce(term: Tensor, logits: Tensor, targets: Tensor, at: Assignment) -> dict[str, float]:
    """Return the class term over BCE's on the same predictions, in value and in gradient norm on the positives.

    A batch that overflowed says nothing: then the result is empty.
    """
    ratios = {"value": float(term.detach().sum() / bce_sum(logits, targets).clamp_min(1e-12))}
    if logits.requires_grad:  # not where the head is frozen
        slope = torch.autograd.grad(term.sum(), logits, retain_graph=True)[0].reshape(-1)[at.element].float()
        stock = logits.detach().reshape(-1)[at.element].float().sigmoid() - at.score.float()
        if at.valid is not None:
            slope, stock = (torch.where(at.valid, each, 0) for each in (slope, stock))
        ratios["pull"] = float(slope.norm() / stock.norm().clamp_min(1e-12))
    return ratios if all(map(math.isfinite, ratios.values())) else {}


class BoxPart(Part):
    """The box term in place of `bbox_loss`: its own body, in which the function for the IoU is replaced."""

    def __init__(self, stock: nn.Module, branch: AnchorBranch) -> None:
        super().__init__(stock, branch)
        name = IOU_FUNCTIONS[isinstance(stock, RotatedBboxLoss)]
        self.__dict__["_forward"] = rebound(stock, name, self._overlap)

    def __call__(
        self, pred_dist: Tensor, pred_bboxes: Tensor, anchor_points: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the box term and the distribution's term, weighted and divided as upstream does."""
        branch: AnchorBranch = self.branch
        assert branch.box is not None
        at = branch.take("box")
        if branch.box.wanted & {"stride", "image_wh"}:
            # Further columns of the boxes: upstream selects the positives' rows, and a second selection synchronises.
            strides = at.strides(anchor_points)
            columns = torch.cat((strides, at.image_wh(strides).expand(len(strides), 2)), -1)
            pred_bboxes = torch.cat((pred_bboxes.float(), columns.expand(len(pred_bboxes), -1, -1)), -1)
        self.__dict__["_at"] = at
        try:
            result: tuple[Tensor, Tensor] = self._forward(
                self.stock, pred_dist, pred_bboxes, anchor_points, *args, **kwargs
            )
        finally:
            self.__dict__["_at"] = None
        return result

    def _overlap(self, pred: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return `1 - loss` per pair, where upstream's body expects an overlap.

        Args:
            pred: boxes of the positives in units of their stride, shape `(N, 4)` or `(N, 5)`, and further columns.
            target: their objects, shape `(N, 4)` or `(N, 5)`.
            *args: which overlap upstream would compute.
            **kwargs: the same.
        """
        branch: AnchorBranch = self.branch
        loss = branch.box
        assert loss is not None
        branch.called.add("box")
        sides = target.shape[-1]
        supplied: dict[str, Any] = {"floor": getattr(self.stock, "floor", 0.0)}
        boxes = pred
        if pred.shape[-1] > sides:
            boxes = pred[:, :sides]
            stride = pred[:, sides : sides + 1].detach()
            supplied.update(stride=stride, image_wh=pred[:, sides + 1 :].detach() / stride)
        with full_precision(pred):
            supplied.update(loss.prepare(self._at.step))
            overlap = 1 - loss.pairs(boxes.float(), target.float(), **supplied).unsqueeze(-1)
        if branch.check_due and torch.is_grad_enabled():
            branch.returned["box"] = overlap
        return overlap


def rebound(stock: nn.Module, name: str, function: Any) -> Any:
    """Return the `forward` of a stock part in which one global function is replaced; the part itself is left alone.

    Raises:
        RuntimeError: where it calls no such function.
    """
    kind = type(stock)
    forward: Any = kind.forward
    code = getattr(forward, "__code__", None)
    changed = (
        "forward" in vars(stock) or hasattr(forward, "__wrapped__") or stock._forward_hooks or stock._forward_pre_hooks
    )
    if code is None or name not in code.co_names or changed:
        raise RuntimeError(
            f"yolo_losses does not know the box part {kind.__module__}.{kind.__qualname__}: it does not compute its IoU"
            f" by '{name}' in its own forward, so that a box_loss cannot take that place. Leave box_loss at stock"
        )
    body = types.FunctionType(
        code, {**forward.__globals__, name: function}, forward.__name__, forward.__defaults__, forward.__closure__
    )
    body.__kwdefaults__ = forward.__kwdefaults__
    return body


class DistributionPart(nn.Module):
    """This project's distribution focal loss in place of `bbox_loss.dfl_loss`, or none at all: a zero in the graph."""

    def __init__(self, stock: nn.Module, branch: AnchorBranch) -> None:
        super().__init__()
        self.stock = stock
        self.branch = branch

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("stock"), name)

    def forward(self, pred_dist: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the four sides of every positive, shape `(N, 1)`.

        Args:
            pred_dist: logits, shape `(4 N, bins)`.
            target: distances in bins, shape `(N, 4)`.
        """
        self.branch.called.add("distribution")
        if self.branch.settings.dfl_loss == "off":
            return (pred_dist * 0).sum(-1).view(target.shape).mean(-1, keepdim=True)
        target = target.clamp(0, pred_dist.shape[-1] - 1 - 0.01)
        return distribution_focal_loss(pred_dist, target.reshape(-1)).view(target.shape).mean(-1, keepdim=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (self.stock,)

    def __copy__(self) -> DistributionPart:
        return DistributionPart(self.stock, self.branch)

    def __deepcopy__(self, memo: dict[int, Any]) -> DistributionPart:
        return DistributionPart(copy.deepcopy(self.stock, memo), self.branch)


def distribution_name(bbox_loss: Any) -> str:
    """Return what a box part calls its distribution's term, "" where the head predicts no distribution."""
    if getattr(bbox_loss, "dfl_loss", None) is not None:
        return "dfl_loss"
    return "_df_loss" if getattr(bbox_loss, "use_dfl", False) else ""  # a static method, before Ultralytics 8.2.48


def class_gain(criterion: Any) -> float:
    """Return the gain `cls` that a criterion multiplies its class term by."""
    hyp = criterion.hyp
    return float(hyp.get("cls", 1.0) if isinstance(hyp, Mapping) else getattr(hyp, "cls", 1.0))
