"""Other libraries' losses, as their documentation describes them, made of ours: a few lines each.

Annotations are evaluated here, not kept as text: TorchScript reads them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import yolo_losses
from yolo_losses import functional
from yolo_losses.losses.boxes._base import BoxLoss


@torch.jit.ignore
def _focal(inputs: Tensor, targets: Tensor, alpha: float, gamma: float, reduction: str) -> Tensor:
    loss: Tensor = functional.focal_loss(inputs, targets, gamma, alpha, reduction=reduction)
    return loss.to(inputs.dtype)  # as theirs; ours is float32 or more


# torchvision.ops


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2, reduction: str = "none"
) -> Tensor:
    """Scriptable, as torchvision's is."""
    return _focal(inputs, targets, alpha, gamma, reduction)


def generalized_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    loss: Tensor = functional.giou_loss(boxes1, boxes2, eps, reduction=reduction)
    return loss


def distance_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    loss: Tensor = functional.diou_loss(boxes1, boxes2, eps, reduction=reduction)
    return loss


def complete_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    loss: Tensor = functional.ciou_loss(boxes1, boxes2, eps, reduction=reduction)
    return loss


# fvcore.nn, and detectron2.layers: `giou_loss`, `diou_loss` and `ciou_loss` are those of torchvision


def fvcore_sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = -1, gamma: float = 2, reduction: str = "none"
) -> Tensor:
    """As torchvision's, but with alpha off by default."""
    return _focal(inputs, targets, alpha, gamma, reduction)


# mmdet.models.losses: modules that are ours but for the names of their options. `DistributionFocalLoss` is ours as it
# is. `CIoULoss` (which drops the aspect ratio's term up to an IoU of 0.5), `SIoULoss` (which turns the angle's sign
# unless told not to) and `EIoULoss` (another loss of that name) are called as ours, but have other values.


class FocalLoss(yolo_losses.FocalLoss):  # type: ignore[misc]
    def __init__(self, use_sigmoid: bool = True, gamma: float = 2.0, alpha: float = 0.25, **rest: object) -> None:
        assert use_sigmoid
        super().__init__(gamma=gamma, alpha=alpha, **rest)


class VarifocalLoss(yolo_losses.VarifocalLoss):  # type: ignore[misc]
    """Asserts where ours raises a `ValueError`, and takes no labels."""

    def __init__(self, use_sigmoid: bool = True, alpha: float = 0.75, **rest: object) -> None:
        assert use_sigmoid
        assert alpha >= 0
        super().__init__(alpha=alpha, **rest)

    def forward(self, pred: Tensor, target: Tensor, *args: object, **rest: object) -> Tensor:
        assert not isinstance(target, Tensor) or target.shape == pred.shape
        loss: Tensor = super().forward(pred, target, *args, **rest)
        return loss


class QualityFocalLoss(yolo_losses.QualityFocalLoss):  # type: ignore[misc]
    """One value a row, the sum over the classes."""

    def __init__(self, use_sigmoid: bool = True, **rest: object) -> None:
        assert use_sigmoid
        super().__init__(**rest)

    def elementwise(self, logits: Tensor, targets: Tensor, **supplied: object) -> Tensor:
        rows: Tensor = super().elementwise(logits, targets, **supplied).sum(-1)
        return rows


class GHMC(yolo_losses.GHMLoss):  # type: ignore[misc]
    def __init__(self, bins: int = 10, momentum: float = 0, use_sigmoid: bool = True, **rest: object) -> None:
        assert use_sigmoid
        super().__init__(bins=bins, momentum=momentum, **rest)

    def forward(self, *args: object, avg_factor: float | None = None, **rest: object) -> Tensor:
        """The mean is over the elements that count, whatever `avg_factor` says."""
        loss: Tensor = super().forward(*args, **rest)
        return loss


class IoULoss(yolo_losses.IoULoss):  # type: ignore[misc]
    """The loss of a pair is a function of its IoU, by `mode`; `eps` is the least IoU."""

    def __init__(self, linear: bool = False, eps: float = 1e-6, mode: str = "log", **rest: object) -> None:
        super().__init__(**rest)
        self.eps = eps
        self.mode = "linear" if linear else mode

    def pairs(self, pred: Tensor, target: Tensor, **supplied: object) -> Tensor:
        iou = (1 - super().pairs(pred, target, **supplied)).clamp_min(self.eps)
        return {"linear": 1 - iou, "square": 1 - iou.square(), "log": -iou.log()}[self.mode]


class _WithEps(BoxLoss):
    def __init__(self, eps: float = 1e-6, **rest: Any) -> None:
        super().__init__(**rest)
        self.eps = eps

    def arguments(self, supplied: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().arguments(supplied), "eps": self.eps}


class GIoULoss(_WithEps, yolo_losses.GIoULoss):  # type: ignore[misc]
    pass


class DIoULoss(_WithEps, yolo_losses.DIoULoss):  # type: ignore[misc]
    pass
