"""The part that replaces the distribution term of `bbox_loss`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from yolo_losses.integration.criteria.parts import Part
from yolo_losses.losses.distribution.dfl import distribution_focal_loss


class DistributionPart(Part):
    """Replaces `bbox_loss.dfl_loss` by this package's distribution focal loss, or by zeros in the graph for `off`."""

    def __call__(self, pred_dist: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the four sides of each positive, shape `(N, 1)`.

        Args:
            pred_dist: logits, shape `(4 N, bins)`.
            target: distances in bins, shape `(N, 4)`.
        """
        if self.branch.settings.dfl_loss == "off":
            term = (pred_dist * 0).sum(-1).view(target.shape).mean(-1, keepdim=True)
        else:
            target = target.clamp(0, pred_dist.shape[-1] - 1 - 0.01)
            losses = distribution_focal_loss(pred_dist, target.reshape(-1)).view(target.shape)
            term = losses.mean(-1, keepdim=True)
        return self.record("distribution", term)


def distribution_name(bbox_loss: Any) -> str:
    """Return the name of the distribution term of a box part, "" if the head predicts no distribution."""
    if getattr(bbox_loss, "dfl_loss", None) is not None:
        return "dfl_loss"
    return "_df_loss" if getattr(bbox_loss, "use_dfl", False) else ""  # a static method, before Ultralytics 8.2.48
