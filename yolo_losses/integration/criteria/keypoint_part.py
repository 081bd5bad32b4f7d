"""The keypoint terms of pose heads: a loss in place of `keypoint_loss`, and of the visibility in place of `bce_pose`.

Upstream's keypoint term is, over the positives, the mean of

    K / (visible keypoints) * sum over the visible keypoints of the loss of each, over K keypoints,

which is the mean over an object's visible keypoints. `pose_weights` multiplies the losses of the keypoints, and the
weights that YOLO26 has in its RLE term; a keypoint of weight 0 counts as one that is not visible.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor

from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria.anchor_branch import AnchorBranch
from yolo_losses.integration.criteria.parts import (
    Part,
    check_term,
    full_precision,
    put_back,
    unknown_release,
)
from yolo_losses.losses.keypoints._base import KeypointLoss
from yolo_losses.registry import InvalidValueError

TERMS = {"pose": "keypoint_loss", "kobj": "bce_pose"}  # the attribute of a criterion that computes the term
METHOD = "calculate_keypoints_loss"
RLE_WEIGHTS = "target_weights"


def check(criterion: Any, settings: LossSettings) -> None:
    """Raise a `ValueError` if a keypoint term is chosen and the head has none, or another number of keypoints."""
    for term, name in TERMS.items():
        check_term(criterion, settings, term, name)
    if not set(TERMS).intersection(settings.terms):
        return
    keypoints, numbers = criterion.kpt_shape
    weights = settings.pose_weights
    if isinstance(weights, tuple) and len(weights) != keypoints:
        reason = f"is not valid: allowed are as many numbers as the head has keypoints, {keypoints}"
        raise InvalidValueError("pose_weights", list(weights), reason)
    if settings.kobj_loss != "stock" and numbers != 3:
        reason = "cannot be used with a head that predicts no visibility (kpt_shape has 2): allowed is stock"
        raise InvalidValueError("kobj_loss", settings.kobj_loss, reason)


def put(criterion: Any, branch: AnchorBranch) -> None:
    """Put the parts of a branch in place, of the terms that are swapped.

    Raises:
        RuntimeError: if this Ultralytics has no method that a part needs.
    """
    if "pose" in branch.expected:
        criterion.keypoint_loss = part = KeypointPart(criterion.keypoint_loss, branch)
        weights = branch.settings.pose_weights
        if isinstance(weights, tuple):
            branch.keypoint_weights = torch.tensor(weights, device=criterion.device)
        if part.counts_in_pixels or (branch.keypoint_weights is not None and hasattr(criterion, RLE_WEIGHTS)):
            if not hasattr(criterion, METHOD):
                raise unknown_release(criterion, METHOD)
            setattr(criterion, METHOD, PositivesPart(getattr(criterion, METHOD), branch))
    if "kobj" in branch.expected:
        criterion.bce_pose = VisibilityPart(criterion.bce_pose, branch)


def restore(criterion: Any) -> None:
    """Put the stock parts back."""
    for name in (*TERMS.values(), METHOD):
        put_back(criterion, name)


class KeypointPart(Part):
    """The keypoint term in place of `keypoint_loss`."""

    @property
    def loss(self) -> KeypointLoss | None:
        """The chosen loss; `None`: what the part in place returns."""
        return cast("KeypointLoss | None", self.branch.losses.get("pose"))

    @property
    def counts_in_pixels(self) -> bool:
        """Whether the loss counts in pixels, for which the stride of each positive is needed."""
        return self.loss is not None and self.loss.in_pixels

    def __call__(self, pred_kpts: Tensor, gt_kpts: Tensor, kpt_mask: Tensor, area: Tensor) -> Tensor:
        """Return the term, a scalar.

        Args:
            pred_kpts: the predicted keypoints of the positives in units of their stride, shape `(N, K, 2)` or wider.
            gt_kpts: the keypoints of their objects, in the same unit, shape `(N, K, 2)` or wider.
            kpt_mask: which of these are visible, shape `(N, K)`.
            area: of the objects' boxes, in the square of that unit, shape `(N, 1)`.
        """
        loss, weights = self.loss, self.branch.keypoint_weights
        if weights is not None:
            kpt_mask = kpt_mask * weights.to(kpt_mask.device)
        if loss is None:
            stock: Tensor = self.stock(pred_kpts, gt_kpts, kpt_mask, area)
            return self.record("pose", stock)
        stride = self.branch.strides if loss.in_pixels else 1.0
        with full_precision(pred_kpts):
            pred, target = (points[..., :2] * stride for points in (pred_kpts, gt_kpts))
            each = loss.keypoints(pred, target, area=area, sigmas=self.stock.sigmas) * kpt_mask
            visible = (kpt_mask != 0).sum(1, keepdim=True).clamp_min(1)
            return self.record("pose", (each / visible).sum() / max(len(each), 1))


class PositivesPart(Part):
    """Stands around `calculate_keypoints_loss`: notes the strides of the positives, weighs the keypoints of the RLE."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the stock method returns."""
        branch: AnchorBranch = self.branch
        criterion, weights = self.stock.__self__, branch.keypoint_weights
        given = inspect.signature(self.stock).bind(*args, **kwargs).arguments
        mask, strides = given["masks"], given["stride_tensor"]
        # In the order of the keypoint part's rows, which upstream selects by the same mask.
        branch.strides = strides.view(1, -1).expand_as(mask)[mask.bool()].view(-1, 1, 1)
        own = getattr(criterion, RLE_WEIGHTS, None)
        if own is None or weights is None:
            return self.stock(*args, **kwargs)
        setattr(criterion, RLE_WEIGHTS, own * weights.to(own))
        try:
            return self.stock(*args, **kwargs)
        finally:
            setattr(criterion, RLE_WEIGHTS, own)


class VisibilityPart(Part):
    """The visibility term in place of `bce_pose`."""

    def __call__(self, logits: Tensor, visible: Tensor) -> Tensor:
        """Return the mean over all keypoints of the positives, a scalar.

        Args:
            logits: shape `(N, K)`.
            visible: 1 where the object's keypoint is visible, else 0, of the same shape.
        """
        with full_precision(logits):
            term: Tensor = self.branch.losses["kobj"](logits, visible)
        return self.record("kobj", term)
