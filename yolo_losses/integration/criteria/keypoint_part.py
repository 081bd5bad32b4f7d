"""The terms of pose heads: parts that replace `keypoint_loss`, and `bce_pose` for the visibility.

Ultralytics' keypoint term is the mean over the positives of

    K / (visible keypoints) * sum over the visible keypoints of the loss of each, over K keypoints,

which is the mean over the visible keypoints of an object. `pose_weights` multiplies the losses of the keypoints, and
the weights in the RLE term of YOLO26. A keypoint with weight 0 counts as not visible.
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
    """Raise a `ValueError` if a keypoint term is chosen that does not fit the head."""
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
    """Put the parts of the chosen terms in place.

    Raises:
        RuntimeError: if this Ultralytics lacks a method that a part needs.
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
    """Restore the stock parts."""
    for name in (*TERMS.values(), METHOD):
        put_back(criterion, name)


class KeypointPart(Part):
    """Replaces `keypoint_loss`, the keypoint term."""

    @property
    def loss(self) -> KeypointLoss | None:
        """The chosen loss, `None` if the stock part is kept."""
        return cast("KeypointLoss | None", self.branch.losses.get("pose"))

    @property
    def counts_in_pixels(self) -> bool:
        """Whether the loss counts in pixels, which requires the stride of each positive."""
        return self.loss is not None and self.loss.in_pixels

    def __call__(self, pred_kpts: Tensor, gt_kpts: Tensor, kpt_mask: Tensor, area: Tensor) -> Tensor:
        """Return the term, a scalar.

        Args:
            pred_kpts: predicted keypoints of the positives in units of their stride, shape `(N, K, 2)` or wider.
            gt_kpts: keypoints of their objects in the same unit, shape `(N, K, 2)` or wider.
            kpt_mask: which keypoints are visible, shape `(N, K)`.
            area: area of the objects' boxes in the square of that unit, shape `(N, 1)`.
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
    """Wraps `calculate_keypoints_loss`: stores the strides of the positives and applies `pose_weights` to the RLE."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output of the stock method."""
        branch: AnchorBranch = self.branch
        criterion, weights = self.stock.__self__, branch.keypoint_weights
        given = inspect.signature(self.stock).bind(*args, **kwargs).arguments
        mask, strides = given["masks"], given["stride_tensor"]
        # In the order of the rows of `keypoint_loss`, which Ultralytics selects by the same mask.
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
    """Replaces `bce_pose`, the visibility term."""

    def __call__(self, logits: Tensor, visible: Tensor) -> Tensor:
        """Return the mean over all keypoints of the positives, a scalar.

        Args:
            logits: shape `(N, K)`.
            visible: 1 where the keypoint of the object is visible, else 0, same shape.
        """
        with full_precision(logits):
            term: Tensor = self.branch.losses["kobj"](logits, visible)
        return self.record("kobj", term)
