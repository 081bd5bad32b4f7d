"""Distribution focal loss."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import golden, gradient

from yolo_losses.losses.distribution.dfl import DistributionFocalLoss, distribution_focal_loss


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", ["mmdet_dfl_none", "ultralytics_DFLoss_target"])
def test_distribution_focal_loss_is_its_originals(case: str, dtype: torch.dtype) -> None:
    arrays, cases, _ = golden("dfl")
    result = cases[case]["results"][str(dtype)[6:]]
    pred, target = (arrays[f"inputs/{k}"].to(dtype) for k in ("pred", "target"))
    sides = (-1, 1) if case.startswith("mmdet") else (-1, 4)
    value, grad = gradient(
        lambda p, t: distribution_focal_loss(p, t).view(sides).mean(-1, keepdim=sides[1] == 4), pred, target
    )
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(value, arrays[result["out"]], **tolerance)
    torch.testing.assert_close(grad, arrays[result["grad"]], **tolerance)


def test_distribution_focal_loss_is_least_where_the_weights_are() -> None:
    target = torch.tensor([3.25], dtype=torch.float64)
    logits = torch.full((1, 16), -50.0, dtype=torch.float64)
    logits[0, 3], logits[0, 4] = math.log(0.75), math.log(0.25)
    _, grad = gradient(distribution_focal_loss, logits, target)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-12)


def test_distribution_focal_loss_at_a_bin_is_cross_entropy() -> None:
    logits, bins = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(16)
    expected = torch.nn.functional.cross_entropy(logits, bins, reduction="none")
    torch.testing.assert_close(distribution_focal_loss(logits, bins.float()), expected)


def test_distribution_focal_loss_takes_targets_beyond_the_ends_and_leaves_them_alone() -> None:
    logits = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)) * 100
    target = torch.tensor([-3.0, 15.0, 15.5, 1e4])
    given = target.clone()
    value, grad = gradient(distribution_focal_loss, logits, target)
    assert torch.equal(target, given)
    assert value.isfinite().all()
    assert grad.isfinite().all()
    torch.testing.assert_close(value, distribution_focal_loss(logits, target.clamp(0, 15)))


def test_distribution_focal_loss_reduces_as_the_others_do() -> None:
    logits, target, weight = torch.randn(8, 16), torch.rand(8) * 14, torch.rand(8)
    value = distribution_focal_loss(logits, target)
    torch.testing.assert_close(DistributionFocalLoss()(logits, target), value.mean())
    module = DistributionFocalLoss(reduction="sum", loss_weight=2.0)
    torch.testing.assert_close(module(logits, target, weight), 2 * (value * weight).sum())
    torch.testing.assert_close(module(logits, target, weight, 5.0, "mean"), 2 * (value * weight).sum() / 5)
    with pytest.raises(ValueError, match="reduction"):
        DistributionFocalLoss(reduction="max")
    with pytest.raises(ValueError, match="shape"):
        distribution_focal_loss(logits, target[:3])
    empty = torch.zeros(0, 16, requires_grad=True)
    DistributionFocalLoss()(empty, torch.zeros(0)).backward()
    assert empty.grad is not None
