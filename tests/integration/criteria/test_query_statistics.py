"""What `loss_stats=True` gathers of RT-DETR."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from yolo_losses.integration.criteria import equip
from yolo_losses.monitor.gather import read

pytest_plugins = ("every_batch",)


def detr(keys: dict[str, Any], objects: int = 2) -> tuple[dict[str, Tensor], Tensor, dict[str, float]]:
    """Return the terms of an RT-DETR criterion, the gradient by the scores, and its columns."""
    from ultralytics.models.utils.loss import RTDETRDetectionLoss

    generator = torch.Generator().manual_seed(0)
    batch = {
        "cls": torch.tensor([0, 1])[:objects],
        "bboxes": torch.rand(2, 4, generator=generator)[:objects] * 0.2 + 0.3,
        "gt_groups": [1, 1] if objects else [0, 0],
    }
    boxes = (torch.rand(3, 2, 20, 4, generator=generator) * 0.2 + 0.3).requires_grad_()
    scores = torch.randn(3, 2, 20, 3, generator=generator).requires_grad_()
    criterion = RTDETRDetectionLoss(nc=3, use_vfl=True)
    branches = equip(criterion, keys) if keys else {}
    terms = criterion((boxes, scores), batch)
    gradient = torch.autograd.grad(sum(terms.values()), scores)[0]
    return {k: v.detach() for k, v in terms.items()}, gradient, read(branches)


@pytest.mark.parametrize("objects", [0, 2])
def test_rtdetr_stock_is_looked_at_without_a_change(objects: int, every: None) -> None:
    terms, gradient, _ = detr({}, objects)
    own_terms, own_gradient, found = detr({"loss_stats": True}, objects)
    assert terms == own_terms
    assert torch.equal(gradient, own_gradient)
    assert found["cls_to_stock/value"] == pytest.approx(1, rel=1e-5)
    assert found["cls_to_stock/gradient"] == pytest.approx(1, rel=1e-5)
    assert found["positives"] == objects / 2
    total = float(sum(terms.values()))
    for name, start in (("giou", "loss_giou"), ("cls", "loss_class"), ("l1", "loss_bbox")):
        share = float(sum(value for key, value in terms.items() if key.startswith(start))) / total
        assert found[f"share/{name}"] == pytest.approx(share, rel=1e-5)
    for group in ("by_score", "by_class"):
        assert sum(value for name, value in found.items() if name.startswith(group)) == pytest.approx(1)


def test_rtdetr_shares_of_stock_are_those_of_its_formula(every: None) -> None:
    """The stock loss is varifocal loss, gamma 1.5 and alpha 0.25: chosen by name, it has the same columns."""
    _, _, stock = detr({"loss_stats": True})
    _, _, chosen = detr({"cls_loss": "vfl", "vfl_alpha": 0.25, "vfl_gamma": 1.5, "loss_stats": True})
    assert chosen == pytest.approx(stock, rel=1e-4)


def test_rtdetr_is_measured_against_its_own_stock_loss(every: None) -> None:
    _, gradient, _ = detr({})
    _, own_gradient, found = detr({"cls_loss": "focal", "loss_stats": True})
    _, same, _ = detr({"cls_loss": "focal"})
    assert torch.equal(own_gradient, same)
    assert found["cls_to_stock/gradient"] == pytest.approx(
        float(own_gradient[-1].norm() / gradient[-1].norm()), rel=1e-4
    )
    assert 0 < found["mean_iou"] < 1
