"""Targets that are soft in several classes have the right divisor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import criterion_of, made_up_batch, predictions, run
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

import yolo_losses


def soft(name: str = "v8") -> tuple[Any, dict[str, Tensor]]:
    """Return a criterion whose assigner gives a second class half the score, and what it said."""
    criterion = criterion_of(name)
    stock, seen = criterion.assigner, {}

    class Soft:
        num_classes = 3

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            labels, boxes, scores, mask, index = stock(*args, **kwargs)
            scores = scores + 0.5 * scores.roll(1, -1)
            seen.update(
                labels=labels,
                boxes=boxes,
                scores=scores,
                mask=mask,
                pred=args[1] if len(args) > 1 else kwargs["pd_bboxes"],
            )
            return labels, boxes, scores, mask, index

    criterion.assigner = Soft()
    return criterion, seen


def reference(cls_loss: str, logits: Tensor, seen: dict[str, Tensor]) -> Tensor:
    """Return the class term by its definition, before the gain."""
    scores, mask = seen["scores"].double(), seen["mask"]
    label = seen["labels"].long().clamp(0, scores.shape[-1] - 1)
    a, b = seen["pred"].double(), seen["boxes"].double()
    wh = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0)
    shared = wh.prod(-1)
    iou = shared / ((a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared)
    one_hot = torch.nn.functional.one_hot(label, scores.shape[-1]) * mask[..., None]
    z, p = logits, logits.sigmoid()
    if cls_loss == "qfl":
        t = one_hot * iou[..., None]
        return ((t - p).abs() ** 2 * binary_cross_entropy_with_logits(z, t, reduction="none")).sum() / mask.sum()
    if cls_loss == "mal":
        t = one_hot * iou[..., None] ** 1.5
        positive = (one_hot > 0) | (t > 0)
        weight = torch.where(positive, 1.0, p.detach() ** 1.5)
        return (weight * binary_cross_entropy_with_logits(z, t, reduction="none")).sum() / mask.sum()
    if cls_loss == "ghm":
        loss = yolo_losses.GHMLoss(momentum=0.0, reduction="none")
        return loss(z, scores).sum() / z.numel()
    return binary_cross_entropy_with_logits(z, scores, reduction="sum") / scores.sum()


@pytest.mark.parametrize("cls_loss", ["bce", "qfl", "mal", "ghm"])
def test_soft_targets_in_several_classes_have_the_right_divisor(cls_loss: str) -> None:
    """Upstream divides by the sum of all scores, of whichever classes."""
    criterion, seen = soft()
    keys = {"ghm_momentum": 0.0} if cls_loss == "ghm" else {}
    yolo_losses.equip(criterion, {"cls_loss": cls_loss, **keys})
    outputs, batch = predictions("v8"), made_up_batch("v8")
    items, _, gradients = run(criterion, outputs, batch)
    logits = outputs["scores"].detach().double().transpose(1, 2).requires_grad_()
    wanted = reference(cls_loss, logits, seen) * criterion.hyp.cls
    assert items["cls_loss"] == pytest.approx(float(wanted), rel=1e-5)
    (gradient,) = torch.autograd.grad(wanted * len(batch["img"]), logits)
    torch.testing.assert_close(gradients[1].transpose(1, 2).double(), gradient, rtol=1e-3, atol=1e-7)
