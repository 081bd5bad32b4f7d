"""The mask term of segment heads: a part that replaces `v8SegmentationLoss.single_mask_loss`.

Ultralytics calls this method for every image with positives, sums the results, divides by the number of positives of
the batch, and multiplies by the gain `box` and the number of images. The part returns for one image

    seg_scale * sum over the positives of the loss of the predicted mask, cropped to the object's box.

For a loss per pixel (`bce`, `focal`), the loss of a positive is the mean over the whole grid divided by the fraction of
the grid that the box covers, which is the mean over the pixels of the box, except for those cut by its edge. For a loss
per region (`dice`, `tversky`, `lovasz`), it is the loss of the pixels in the box, not divided by the area, since it is
already relative to the size of the object. In `bce_dice` only the BCE is divided.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from ultralytics.utils.ops import crop_mask

from yolo_losses._log import PREFIX
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.criteria.parts import Part, check_term, full_precision, put_back
from yolo_losses.losses.masks._base import cropped

METHOD = "single_mask_loss"
# An eighth of the masks of an image at a time: the intermediate tensors, up to 60 bytes per pixel, then take no more
# memory than the masks that stock keeps for the backward pass.
SHARE = 8
LEAST_PIXELS = 2**16
MOST_PIXELS = 2**22


def check(criterion: Any, settings: LossSettings) -> None:
    """Raise a `ValueError` if the mask term is chosen and the criterion has none."""
    check_term(criterion, settings, "mask", METHOD)


def put(criterion: Any, branch: Branch) -> None:
    """Put the mask part in place, if the term is chosen."""
    if "mask" in branch.expected:
        setattr(criterion, METHOD, MaskPart(getattr(criterion, METHOD), branch))


def restore(criterion: Any) -> None:
    """Restore the stock method."""
    put_back(criterion, METHOD)


class MaskPart(Part):
    """Replaces `single_mask_loss`, the mask term of one image."""

    def __call__(self, gt_mask: Tensor, pred: Tensor, proto: Tensor, xyxy: Tensor, area: Tensor) -> Tensor:
        """Return the sum of the losses of the positives of an image, a scalar in float32 or float64.

        Args:
            gt_mask: mask of each positive's object, shape `(N, H, W)`.
            pred: predicted coefficients, shape `(N, prototypes)`.
            proto: prototypes, shape `(prototypes, H, W)`.
            xyxy: box of the object in pixels of the grid, shape `(N, 4)`.
            area: fraction of the image that the box covers, shape `(N,)`.
        """
        loss, scale = self.branch.seg, self.branch.settings.seg_scale
        if loss is None:
            stock: Tensor = self.stock(gt_mask, pred, proto, xyxy, area)
            return self.record("mask", stock * scale)
        with torch.no_grad():
            inside = crop_mask(torch.ones_like(gt_mask, dtype=torch.float32), xyxy) > 0

        def of_some(some: slice, coefficients: Tensor, prototypes: Tensor) -> Tensor:
            logits = torch.einsum("in,nhw->ihw", coefficients, prototypes)
            masks = cropped(logits, gt_mask[some].to(logits.dtype), inside[some])
            value: Tensor = loss.masks(*masks, area=area[some].to(logits.dtype)).sum()
            return value

        each = max(gt_mask[0].numel(), 1) if len(gt_mask) else 1
        at_a_time = max(min(max(gt_mask.numel() // SHARE, LEAST_PIXELS), MOST_PIXELS) // each, 1)
        with full_precision(pred):
            total: Tensor = _Summed.apply(pred, proto, of_some, at_a_time)
            return self.record("mask", total * scale)


class _Summed(torch.autograd.Function):
    """Sums a loss over masks, a few at a time, and computes the gradient together with the value.

    Only the gradients with respect to coefficients and prototypes are kept for the backward pass, no masks. They are in
    float32 or float64, since the gradient of a mean over many pixels would vanish in half precision.
    """

    @staticmethod
    def forward(ctx: Any, pred: Tensor, proto: Tensor, of_some: Callable[..., Tensor], at_a_time: int) -> Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        dtype = torch.promote_types(pred.dtype, torch.float32)
        pred, proto, dtypes = pred.detach().to(dtype), proto.detach().to(dtype), (pred.dtype, proto.dtype)
        total = pred.new_zeros(())
        gradient_by_pred, gradient_by_proto = (torch.zeros_like(x) if wanted else None for x in (pred, proto))
        with torch.set_grad_enabled(wanted):
            for first in range(0, len(pred), at_a_time):
                some = slice(first, first + at_a_time)
                leaves = [x.detach().requires_grad_(wanted) for x in (pred[some], proto)]
                value = of_some(some, *leaves)
                total += value.detach()
                if gradient_by_pred is not None and gradient_by_proto is not None:
                    gradient_by_pred[some], more = torch.autograd.grad(value, leaves)
                    gradient_by_proto += more
        if wanted:
            ctx.save_for_backward(gradient_by_pred, gradient_by_proto)
            ctx.dtypes = dtypes
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(f"{PREFIX}the mask term has no second derivative, which would need the masks to be kept")
        gradients = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *((grad_output * gradient).to(dtype) for gradient, dtype in gradients), None, None
