"""Other libraries' losses, as their documentation describes them, made of ours: a few lines each.

Annotations are evaluated here, not kept as text: TorchScript reads them.
"""

import torch
from torch import Tensor

import yolo_losses
from yolo_losses import functional


@torch.jit.ignore
def _focal(inputs: Tensor, targets: Tensor, alpha: float, gamma: float, reduction: str) -> Tensor:
    loss: Tensor = functional.focal_loss(inputs, targets, gamma, alpha, reduction=reduction)
    return loss


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


# mmdet.models.losses: modules that are ours but for the names of their options


class FocalLoss(yolo_losses.FocalLoss):  # type: ignore[misc]
    def __init__(self, use_sigmoid: bool = True, gamma: float = 2.0, alpha: float = 0.25, **rest: object) -> None:
        assert use_sigmoid
        super().__init__(gamma=gamma, alpha=alpha, **rest)


class VarifocalLoss(yolo_losses.VarifocalLoss):  # type: ignore[misc]
    def __init__(self, use_sigmoid: bool = True, **rest: object) -> None:
        assert use_sigmoid
        super().__init__(**rest)


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
