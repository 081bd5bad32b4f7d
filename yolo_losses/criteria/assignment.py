"""What an assigner returned in one call of a criterion, and what follows from it."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from yolo_losses.boxes.ciou import ciou_loss
from yolo_losses.boxes.probiou import probiou_loss
from yolo_losses.reduction import upcast
from yolo_losses.step import Step

LARGE = 2**20  # class scores from which on the class term is worked through in pieces, on the CPU and on a GPU
LARGE_ON_GPU = 2**23


class Assignment:
    """What the assigner returned in this call, flat over batch and anchors; what follows from it is computed on demand.

    Attributes:
        scores: the target scores, shape `(b, anchors, C)`.
        anchors: the anchor points in pixels, shape `(anchors, 2)`.
        one_hot: whether each anchor has a score in one class only.
    """

    def __init__(
        self, pred_boxes: Tensor, anchors: Tensor, assigned: tuple[Tensor, ...], one_hot: bool, joined: bool
    ) -> None:
        self._labels, self._boxes, self.scores, self._foreground = assigned[:4]
        self._pred_boxes = pred_boxes
        self.anchors = anchors
        self.one_hot = one_hot
        self._joined = joined
        # On the CPU it pays to select the positives of a large batch; on a GPU selecting synchronises.
        self.large = self.scores.numel() >= (LARGE if self.scores.device.type == "cpu" else LARGE_ON_GPU)
        self.selects = self.large and self.scores.device.type == "cpu"

    def first(self, images: int) -> Assignment:
        """Return what was assigned to the first images of the batch."""
        if images >= len(self.scores):
            return self
        assigned = [tensor[:images] for tensor in (self._labels, self._boxes, self.scores, self._foreground)]
        return Assignment(self._pred_boxes[:images], self.anchors, tuple(assigned), self.one_hot, joined=False)

    @property
    def rotated(self) -> bool:
        """Whether boxes are `xywhr`."""
        return bool(self._boxes.shape[-1] == 5)

    @cached_property
    def mask(self) -> Tensor:
        """Which anchors are positives, shape `(b * anchors,)`."""
        return self._foreground.reshape(-1).bool()

    @property
    def any(self) -> bool:
        """Whether there are positives with a score; this synchronises."""
        return bool(self.scores.any())

    @cached_property
    def index(self) -> Tensor:
        """The positives' anchors, flat over the batch, shape `(N,)`; all anchors unless positives are selected."""
        if self.selects:
            return self.mask.nonzero().squeeze(1)
        return torch.arange(self.mask.numel(), device=self.mask.device)

    @property
    def valid(self) -> Tensor | None:
        """Which of `index` are positives; `None`: all."""
        return None if self.selects else self.mask

    @cached_property
    def label(self) -> Tensor:
        """The class of each, shape `(N,)`."""
        # Without objects the assigner labels every anchor with the number of classes, as a float.
        return self._labels.reshape(-1)[self.index].long().clamp_(0, max(self.scores.shape[-1] - 1, 0))

    @cached_property
    def element(self) -> Tensor:
        """Their positions in the flattened logits, shape `(N,)`."""
        return self.index * self.scores.shape[-1] + self.label

    @cached_property
    def score(self) -> Tensor:
        """The target score of each at its class, float32 or more, shape `(N,)`."""
        if not self.scores.shape[-1]:
            return self.scores.new_zeros(self.index.shape)
        (score,) = upcast(self.scores.reshape(-1)[self.element])
        return score

    @cached_property
    def boxes(self) -> tuple[Tensor, Tensor]:
        """The predicted boxes and their objects in pixels, detached, shape `(N, 4)` or `(N, 5)`."""
        pred, target = (b.detach().reshape(-1, b.shape[-1]) for b in (self._pred_boxes, self._boxes))
        return (pred[self.index], target[self.index]) if self.selects else (pred, target)

    @cached_property
    def iou(self) -> Tensor:
        """IoU of each one's predicted box with its object (probiou of rotated boxes), detached, in [0, 1]."""
        overlap = 1 - probiou_loss(*self.boxes) if self.rotated else plain_iou(*self.boxes)
        return overlap.clamp_(0, 1)

    @cached_property
    def ciou(self) -> Tensor:
        """CIoU of each one's predicted box with its object, detached, in [1e-6, 1], as tutorials' losses take it."""
        return (1 - ciou_loss(*self.boxes)).clamp_(1e-6, 1)

    @cached_property
    def assigned_elements(self) -> Tensor:
        """Which elements are the class of a positive, shape `(b, anchors, C)`."""
        classes = torch.arange(self.scores.shape[-1], device=self.scores.device, dtype=self._labels.dtype)
        return (self._labels.unsqueeze(-1) == classes).logical_and_(self._foreground.unsqueeze(-1))

    @property
    def positive_elements(self) -> Tensor:
        """The same, and those that have a score besides, where targets are soft in several classes."""
        return self.assigned_elements if self.one_hot else self.assigned_elements | (self.scores > 0)

    def dense(self, per_anchor: Tensor) -> Tensor:
        """Return a value of each anchor at its class, 0 elsewhere, shape `(b, anchors, C)`."""
        if self.selects:
            whole = per_anchor.new_zeros(self.scores.numel())
            return whole.index_copy_(0, self.element, per_anchor).view_as(self.scores)
        return torch.where(self.assigned_elements, per_anchor.view(*self.scores.shape[:-1], 1), 0)

    @cached_property
    def divisor(self) -> Tensor:
        """What the criterion divides its terms by: the sum of all target scores, at least 1."""
        scores = self.score if self.one_hot and self.selects else upcast(self.scores)[0]
        return scores.sum().clamp_min_(1)

    @cached_property
    def count(self) -> Tensor:
        """Number of positives, at least 1."""
        if self.valid is None:
            return self.divisor.new_full((), float(max(self.index.numel(), 1)))
        return self.valid.sum().clamp_min_(1)

    @cached_property
    def step(self) -> Step:
        """The step as the losses see it."""
        return Step(lambda: self.iou, self.valid, torch.is_grad_enabled(), self._joined)

    @cached_property
    def ciou_step(self) -> Step:
        """The same with CIoU in place of IoU."""
        return Step(lambda: self.ciou, self.valid, torch.is_grad_enabled(), self._joined)

    def strides(self, points: Tensor) -> Tensor:
        """Return the pixels per unit of each anchor, shape `(anchors, 1)`; `points` are the anchors in these units."""
        return (self.anchors / points).mean(-1, keepdim=True)

    def image_wh(self, strides: Tensor) -> Tensor:
        """Return width and height of the image in pixels, shape `(2,)`."""
        return (self.anchors + strides / 2).amax(0)


def plain_iou(pred: Tensor, target: Tensor) -> Tensor:
    """Return the IoU of boxes `xyxy` in pixels, in few operations; 0 where there is no union."""
    (a, b), (c, d) = pred.split(2, -1), target.split(2, -1)
    shared = (torch.minimum(b, d) - torch.maximum(a, c)).clamp_min_(0).prod(-1)
    union = (b - a).prod(-1).add_((d - c).prod(-1)).sub_(shared)
    return shared / union.clamp_min_(1e-7)
