"""The part in place of `bbox_loss`: its own body, in which the function that computes the IoU is replaced.

So weights, divisor and the distribution term stay the criterion's own.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils.loss import RotatedBboxLoss

from yolo_losses.integration.criteria.anchor_branch import AnchorBranch
from yolo_losses.integration.criteria.parts import Part, full_precision

IOU_FUNCTIONS = {False: "bbox_iou", True: "probiou"}  # what `bbox_loss` calls for its IoU: axis-aligned, rotated boxes


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
