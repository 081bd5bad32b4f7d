"""The result of an assigner in one call of a criterion, and quantities derived from it."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from yolo_losses.losses._reduction import upcast
from yolo_losses.losses._step import Step
from yolo_losses.losses.boxes.ciou import ciou_loss
from yolo_losses.losses.boxes.probiou import probiou_loss
from yolo_losses.losses.classification._batch import Batch, fits_one_chunk


class Assignment:
    """The result of the assigner in one call; derived quantities are computed on demand.

    Quantities per positive have shape `(N, 1)` if the positives are selected, else `(b, anchors, 1)`, of which the
    `valid` ones count.

    Args:
        pred_boxes: predicted boxes in pixels, shape `(b, anchors, 4 or 5)`.
        anchors: anchor points in pixels, shape `(anchors, 2)`.
        assigned: the output of the assigner: labels, boxes, scores, and the mask of the positives.
        training: whether this call updates the state of the losses.

    Attributes:
        scores: target scores, shape `(b, anchors, C)`.
        selects: whether the positives are selected. This saves time on the CPU if the class term takes more than one
            chunk; on a GPU, selecting synchronizes.
    """

    def __init__(
        self,
        pred_boxes: Tensor,
        anchors: Tensor,
        assigned: tuple[Tensor, ...],
        training: bool,
    ) -> None:
        self._labels, self._boxes, self.scores, self._foreground = assigned[:4]
        self._pred_boxes = pred_boxes
        self.anchors = anchors
        self._training = training
        self.selects = self.scores.device.type == "cpu" and not fits_one_chunk(self.scores)

    def first(self, images: int) -> Assignment:
        """Return the assignment of the first images of the batch."""
        if images >= len(self.scores):
            return self
        assigned = [tensor[:images] for tensor in (self._labels, self._boxes, self.scores, self._foreground)]
        return Assignment(self._pred_boxes[:images], self.anchors, tuple(assigned), False)

    @property
    def rotated(self) -> bool:
        """Whether boxes are `xywhr`."""
        return bool(self._boxes.shape[-1] == 5)

    @cached_property
    def mask(self) -> Tensor:
        """Mask of the positives, shape `(b, anchors, 1)`."""
        return self._foreground.unsqueeze(-1).bool()

    @property
    def any(self) -> bool:
        """Whether there are positives with a score above 0; this synchronizes."""
        return bool(self.scores.any())

    @cached_property
    def index(self) -> Tensor:
        """Indices over the batch of the anchors of the positives; of all anchors if positives are not selected."""
        if self.selects:
            return self.mask.view(-1).nonzero()
        return torch.arange(self.mask.numel(), device=self.mask.device).view_as(self.mask)

    @property
    def valid(self) -> Tensor | None:
        """Which of `index` are positives, `None` if all are."""
        return None if self.selects else self.mask

    @cached_property
    def label(self) -> Tensor:
        """The class of each."""
        labels = self._labels.reshape(-1)[self.index] if self.selects else self._labels.unsqueeze(-1)
        # Without objects, the assigner labels every anchor with the number of classes, as a float.
        return labels.long().clamp(0, max(self.scores.shape[-1] - 1, 0))

    @cached_property
    def element(self) -> Tensor:
        """The position of each in the flattened logits."""
        return self.index * self.scores.shape[-1] + self.label

    @cached_property
    def score(self) -> Tensor:
        """The target score of each at its class, in float32 or float64."""
        if not self.scores.shape[-1]:
            return self.scores.new_zeros(self.index.shape)
        (score,) = upcast(self.scores.reshape(-1)[self.element])
        return score

    @cached_property
    def boxes(self) -> tuple[Tensor, Tensor]:
        """Predicted boxes and boxes of their objects in pixels, shape `(N, 4 or 5)` or `(b, anchors, 4 or 5)`."""
        pred, target = self._pred_boxes, self._boxes
        if self.selects:
            index = self.index.squeeze(1)
            pred, target = (b.reshape(-1, b.shape[-1])[index] for b in (pred, target))
        return pred, target

    @cached_property
    @torch.no_grad()
    def iou(self) -> Tensor:
        """IoU (ProbIoU for rotated boxes) of each predicted box with its object, detached, in [0, 1]."""
        if self.rotated:
            return (1 - probiou_loss(*self.boxes)).clamp_(0, 1).unsqueeze(-1)
        return plain_iou(*self.boxes)

    @cached_property
    @torch.no_grad()
    def ciou(self) -> Tensor:
        """CIoU of each predicted box with its object, detached, clamped to [1e-6, 1] as in the tutorials' losses."""
        return (1 - ciou_loss(*self.boxes)).clamp_(1e-6, 1).unsqueeze(-1)

    def batch(self, logits: Tensor, scores: Tensor, target: str) -> Batch:
        """Return the input of a class loss.

        Args:
            logits: shape `(b, anchors, C)`.
            scores: the scores of the assigner as passed on by the criterion, same shape.
            target: the target of a positive: `tal` (its score), `iou`, `ciou` or `hard`.
        """
        if target != "tal":
            rows = self.index.squeeze(1) if self.selects else None
            assigned = self.assigned_elements if rows is None else self._assigned(rows)
            quality = 1.0 if target == "hard" else self.ciou if target == "ciou" else self.iou
            return Batch(logits, torch.where(assigned, quality, 0.0), assigned, rows)
        if not self.selects:
            return Batch(logits, scores, lambda: self.assigned_elements | (scores > 0))
        scores = scores.reshape(-1, scores.shape[-1])
        # Includes positives with score 0, and scores that a fork adds. A sum is several times faster than `any`.
        rows = (self.mask.view(-1) | (scores.sum(-1) != 0)).nonzero().squeeze(1)
        scores = scores[rows]
        return Batch(logits, scores, lambda: self._assigned(rows) | (scores > 0), rows)

    def _assigned(self, rows: Tensor) -> Tensor:
        """Return which elements of the given anchors, indexed over the batch, are the class of a positive."""
        classes = torch.arange(self.scores.shape[-1], device=self.scores.device, dtype=self._labels.dtype)
        labels, mask = self._labels.reshape(-1, 1)[rows], self.mask.view(-1, 1)[rows]
        return (labels == classes).logical_and_(mask)

    @cached_property
    def assigned_elements(self) -> Tensor:
        """Which elements are the class of a positive, shape `(b, anchors, C)`."""
        classes = torch.arange(self.scores.shape[-1], device=self.scores.device, dtype=self._labels.dtype)
        return (self._labels.unsqueeze(-1) == classes).logical_and_(self.mask)

    @cached_property
    def divisor(self) -> Tensor:
        """The divisor of the criterion: the sum of all target scores, at least 1."""
        return upcast(self.scores)[0].sum().clamp_min_(1)

    @cached_property
    def count(self) -> Tensor:
        """Number of positives, at least 1."""
        if self.valid is None:
            return self.divisor.new_full((), float(max(self.index.numel(), 1)))
        return self.valid.sum().clamp_min_(1)

    @cached_property
    def step(self) -> Step:
        """The input of the losses' `prepare` methods."""
        return Step(lambda: self.iou, self.valid, self._training)

    @cached_property
    def ciou_step(self) -> Step:
        """The same as `step`, with CIoU in place of IoU."""
        return Step(lambda: self.ciou, self.valid, self._training)

    def step_of(self, target: str) -> Step:
        """Return the step of a loss whose target is `target`."""
        return self.ciou_step if target == "ciou" else self.step

    def by_object(self, objects: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Return the number of positives of each object and the sum of their target scores, shape `(b, most)`.

        Args:
            objects: index of each anchor's object in its image, shape `(b, anchors)`.
            most: number of objects per image, including padding.
        """
        images = len(self.scores)
        found = self.score.new_zeros(2, images * most)
        if found.numel():
            first = torch.arange(images, device=objects.device).view(-1, 1) * most
            index = self.index.reshape(-1)
            counted = torch.ones_like(self.score) if self.valid is None else self.valid.to(self.score)
            each = torch.stack((counted, self.score)).view(2, -1)
            found.index_add_(1, (objects + first).reshape(-1)[index].long(), each)
        positives, targets = found.view(2, images, most)
        return positives, targets

    def release(self) -> None:
        """Drop the steps, which refer back to this object, so that its memory is freed without garbage collection."""
        for name in ("step", "ciou_step"):
            self.__dict__.pop(name, None)

    def strides(self, points: Tensor) -> Tensor:
        """Return the stride of each anchor in pixels, shape `(anchors, 1)`; `points` are the anchors in grid units."""
        return (self.anchors / points).mean(-1, keepdim=True)

    def image_wh(self, strides: Tensor) -> Tensor:
        """Return width and height of the image in pixels, shape `(2,)`."""
        return (self.anchors + strides / 2).amax(0)


def plain_iou(pred: Tensor, target: Tensor) -> Tensor:
    """Return the IoU of boxes `xyxy` in pixels, shape `(..., 1)`, in few operations; 0 for an empty union.

    An intersection is never larger than either box, even after rounding, and the intersection with an inverted box is
    0, so the IoU is in [0, 1] without a clamp.
    """
    top_left, bottom_right = torch.stack((pred, target)).split(2, -1)
    shared = (bottom_right.amin(0) - top_left.amax(0)).clamp_min_(0).prod(-1, keepdim=True)
    union = (bottom_right - top_left).prod(-1, keepdim=True).sum(0).sub_(shared)
    return shared / union.clamp_min_(1e-7)
