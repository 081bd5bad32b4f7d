"""The part that replaces `bbox_loss`: it runs the same body with other functions for the IoU and the L1 term.

Weights, divisors and the distribution term remain those of the criterion.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from ultralytics.utils.loss import RotatedBboxLoss

from yolo_losses.integration.criteria.anchor_branch import AnchorBranch
from yolo_losses.integration.criteria.distribution_part import distribution_name
from yolo_losses.integration.criteria.parts import Part, full_precision, functional_with, with_globals
from yolo_losses.losses.distances._base import DistanceLoss

IOU_FUNCTIONS = {False: "bbox_iou", True: "probiou"}  # what `bbox_loss` calls for axis-aligned and for rotated boxes
L1_FUNCTION = "l1_loss"  # the function of `torch.nn.functional` that it calls if the head predicts no distribution


class BoxPart(Part):
    """Replaces `bbox_loss`: its box term, its L1 term, or both."""

    def __init__(self, stock: nn.Module, branch: AnchorBranch) -> None:
        super().__init__(stock, branch)
        replaced: dict[str, Any] = {}
        if "box" in branch.expected:
            name = IOU_FUNCTIONS[isinstance(stock, RotatedBboxLoss)]
            _check_calls(stock, name, "IoU", "box_loss")
            replaced[name] = self._overlap
        if "l1" in branch.expected:
            _check_calls(stock, L1_FUNCTION, "L1 term", "l1_loss")
            replaced["F"] = functional_with(l1_loss=self._distance)
        self.__dict__["_forward"] = with_globals(type(stock).forward, replaced)

    def __call__(
        self, pred_dist: Tensor, pred_bboxes: Tensor, anchor_points: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the box term and the distribution or L1 term, weighted and divided as by Ultralytics."""
        branch: AnchorBranch = self.branch
        if branch.box is not None:
            at = self.__dict__["_at"] = branch.consume_assignment("box")
            if branch.box.wanted & {"stride", "image_wh"}:
                # Appended as columns of the boxes: Ultralytics selects the rows of the positives, and a second
                # selection would synchronize.
                strides = at.strides(anchor_points)
                columns = torch.cat((strides, at.image_wh(strides).expand(len(strides), 2)), -1)
                pred_bboxes = torch.cat((pred_bboxes.float(), columns.expand(len(pred_bboxes), -1, -1)), -1)
        try:
            result: tuple[Tensor, Tensor] = self._forward(
                self.stock, pred_dist, pred_bboxes, anchor_points, *args, **kwargs
            )
        finally:
            self.__dict__["_at"] = None
        return result

    def _overlap(self, pred: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return `1 - loss` per pair in place of the overlap.

        Args:
            pred: boxes of the positives in units of their stride, shape `(N, 4)` or `(N, 5)`, and appended columns.
            target: boxes of their objects, shape `(N, 4)` or `(N, 5)`.
            *args: options of the overlap, which are ignored.
            **kwargs: options of the overlap, which are ignored.
        """
        branch: AnchorBranch = self.branch
        loss = branch.box
        assert loss is not None
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
        return self.record("box", overlap)

    def _distance(self, pred: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss per side in place of the absolute difference.

        Args:
            pred: distances to the sides of the positives' boxes as fractions of the image size, shape `(N, 4)`.
            target: distances to the sides of their objects, shape `(N, 4)`.
            *args: the reduction, which is ignored.
            **kwargs: the reduction, which is ignored.
        """
        loss = cast("DistanceLoss | None", self.branch.losses.get("l1"))
        with full_precision(pred):
            sides = zeros_like(pred) if loss is None else loss.sides(pred, target)
        return self.record("l1", sides)


def zeros_like(pred: Tensor) -> Tensor:
    """Return zeros of a prediction's shape that stay in its graph, with gradient 0."""
    return pred[..., :0].sum(-1, keepdim=True).expand_as(pred)


def has_l1_term(bbox_loss: Any) -> bool:
    """Return whether a box part has an L1 term: the head predicts no distribution, and the release has the term."""
    return not distribution_name(bbox_loss) and calls_l1(type(bbox_loss))


def calls_l1(kind: type) -> bool:
    """Return whether a class of box parts computes an L1 term."""
    return L1_FUNCTION in _names(getattr(kind, "forward", None))


def _names(function: Any) -> tuple[str, ...]:
    """Return the names that a function refers to."""
    return getattr(getattr(function, "__code__", None), "co_names", ())


def _check_calls(stock: nn.Module, name: str, what: str, key: str) -> None:
    """Raise a `RuntimeError` if the forward method of a box part does not call the function of this name."""
    kind = type(stock)
    forward = kind.forward
    changed = (
        "forward" in vars(stock) or hasattr(forward, "__wrapped__") or stock._forward_hooks or stock._forward_pre_hooks
    )
    if name not in _names(forward) or changed:
        article = "an" if key.startswith("l") else "a"
        raise RuntimeError(
            f"yolo_losses does not know the box part {kind.__module__}.{kind.__qualname__}: it does not compute its"
            f" {what} by '{name}' in its own forward, so that {article} {key} cannot take that place. Leave {key} at"
            " stock"
        )
