"""The parts that stand in a criterion with anchors: for the assigner, the box and the distribution term.

A `v8DetectionLoss` calls its `assigner`, then its `bce`, then its `bbox_loss`. The assigner is only observed, and its
output never changed; `bce` is replaced by the class part; in `bbox_loss` the one function that computes the IoU is
replaced and its body kept, so that weights, divisor and the distribution term stay its own.
"""

from __future__ import annotations

import copy
import types
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils.loss import RotatedBboxLoss

from yolo_losses.integration.criteria.assignment import Assignment
from yolo_losses.integration.criteria.parts import Branch, Part, full_precision
from yolo_losses.losses.distribution.dfl import distribution_focal_loss

IOU_FUNCTIONS = {False: "bbox_iou", True: "probiou"}  # what `bbox_loss` calls for its IoU: axis-aligned, rotated boxes
TOLERANCE = 0.01  # relative, of a half-precision log


@dataclass
class AnchorBranch(Branch):
    """The branch of a criterion with anchors.

    Attributes:
        assignment: of the current call; each part takes it once.
        taken: the parts that took it.
        returned: what the class and the box part returned in the current call, to be compared with what is reported.
        running: the criterion that is running.
    """

    assignment: Assignment | None = None
    taken: tuple[str, ...] = ()
    returned: dict[str, Tensor] = field(default_factory=dict)
    running: Any = None

    def forget(self) -> None:
        """Drop what belongs to the call that has ended."""
        if self.assignment is not None:
            self.assignment.release()
        self.assignment = None
        self.returned = {}
        self.running = None

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
        branch.assignment = Assignment(boxes, anchors, assigned, branch.joined)
        branch.taken = ()
        if branch.box is not None and branch.joined and any(True for _ in branch.box.buffers()):
            # A rank without positives may skip its box term; what ranks share is shared here, on every one of them.
            _ = branch.assignment.step.joint_positives
        return assigned


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
