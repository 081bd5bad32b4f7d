"""The mask term of segment heads: a loss in place of `v8SegmentationLoss.single_mask_loss`.

Upstream calls that for every image with positives, adds the results up, divides by the number of positives of the
batch, and multiplies by the gain `box` and the number of images. What stands in for it returns, for one image,

    seg_scale * sum over the positives of the loss of the predicted mask, cropped to the object's box.

With a loss per pixel (`bce`, `focal`) a positive's loss is the mean over the whole grid, divided by the share of the
grid that the box covers: the mean over the pixels of the box, up to those that its edge cuts. With a loss per region
(`dice`, `tversky`, `lovasz`) it is that of the pixels in the box and is not divided by the area: it is relative to the
object's size already. `bce_dice` has its BCE divided and its dice not.
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
# An eighth of an image's masks at a time: what is made on the way, up to 60 bytes per pixel, then takes no more memory
# than the masks that stock keeps for the backward pass.
SHARE = 8
LEAST_PIXELS = 2**16
MOST_PIXELS = 2**22


def check(criterion: Any, settings: LossSettings) -> None:
    """Raise a `ValueError` if the mask term is chosen and the criterion has none."""
    check_term(criterion, settings, "mask", METHOD)


def put(criterion: Any, branch: Branch) -> None:
    """Put the mask part of a branch in place, where its term is swapped."""
    if "mask" in branch.expected:
        setattr(criterion, METHOD, MaskPart(getattr(criterion, METHOD), branch))


def restore(criterion: Any) -> None:
    """Put the stock method back."""
    put_back(criterion, METHOD)


class MaskPart(Part):
    """The mask term of one image in place of `single_mask_loss`."""

    def __call__(self, gt_mask: Tensor, pred: Tensor, proto: Tensor, xyxy: Tensor, area: Tensor) -> Tensor:
        """Return the sum of the losses of an image's positives, a scalar in float32 or more.

        Args:
            gt_mask: the mask of each positive's object, shape `(N, H, W)`.
            pred: the predicted coefficients, shape `(N, prototypes)`.
            proto: the prototypes, shape `(prototypes, H, W)`.
            xyxy: the object's box in pixels of the grid, shape `(N, 4)`.
            area: the share of the image that the box covers, shape `(N,)`.
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
    """The sum of a loss over masks, a few at a time, whose gradient is computed with the value.

    Kept for the backward pass is the gradient by coefficients and prototypes alone, no mask. In half precision the
    gradient of a mean over many pixels would vanish, so it is of float32 or more.
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
            raise RuntimeError(f"{PREFIX}the mask term has no second derivative, for which masks would be kept")
        gradients = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *((grad_output * gradient).to(dtype) for gradient, dtype in gradients), None, None
