"""Factors and weights multiply what a criterion's own part returns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import criterion_of, logged, made_up_batch, predictions, run
from torch import Tensor, nn

import yolo_losses


def with_own_bce(weight: Tensor) -> Any:
    criterion = criterion_of("v8")
    criterion.bce = nn.BCEWithLogitsLoss(reduction="none", pos_weight=weight)
    return criterion


def test_factor_and_weights_multiply_what_the_part_in_place_returns() -> None:
    weight = torch.tensor([1.0, 1.0, 50.0])
    outputs, labels = predictions("v8"), made_up_batch("v8")
    once = run(with_own_bce(weight), outputs, labels)[0]
    doubled, weighted = with_own_bce(weight), with_own_bce(weight)
    yolo_losses.equip(doubled, {"cls_scale": 2})
    yolo_losses.equip(weighted, {"cls_weights": [2, 2, 2]})
    for criterion in (doubled, weighted):
        found = run(criterion, outputs, labels)[0]
        assert found["cls_loss"] == pytest.approx(2 * once["cls_loss"], rel=1e-5)
        assert found["box_loss"] == once["box_loss"]


def test_auto_on_a_part_that_is_not_plain_bce_is_refused_and_a_loss_that_replaces_it_says_so() -> None:
    criterion = with_own_bce(torch.ones(3))
    with pytest.raises(ValueError, match=r"^'cls_scale=auto' cannot be used with the criterion's own class loss"):
        yolo_losses.equip(criterion, {"cls_scale": "auto"})
    with logged() as lines:
        yolo_losses.equip(criterion, {"cls_loss": "slide"})
    assert any("cls_loss=slide replaces the criterion's own class loss, a BCEWithLogitsLoss" in line for line in lines)


def test_the_factor_on_masks_multiplies_the_mask_loss_in_place() -> None:
    def squared(gt: Tensor, pred: Tensor, proto: Tensor, xyxy: Tensor, area: Tensor) -> Tensor:
        return (torch.einsum("in,nhw->ihw", pred, proto) - gt).square().mean()

    outputs, labels = predictions("v8-seg"), made_up_batch("v8-seg")
    losses = []
    for keys in ({}, {"seg_scale": 2.0}):
        criterion = criterion_of("v8-seg")
        criterion.single_mask_loss = squared
        yolo_losses.equip(criterion, keys)
        losses.append(criterion(outputs, labels)[0][1])
    torch.testing.assert_close(losses[1], 2 * losses[0])


def test_rtdetr_without_vfl_can_be_scaled_and_without_fl_is_refused_by_the_key_that_was_set() -> None:
    from ultralytics.models.utils.loss import RTDETRDetectionLoss

    yolo_losses.equip(RTDETRDetectionLoss(nc=3, use_vfl=False), {"cls_scale": 2})
    with pytest.raises(ValueError, match=r"^'cls_scale=2.0' cannot be used with a RTDETRDetectionLoss without 'fl'"):
        yolo_losses.equip(RTDETRDetectionLoss(nc=3, use_fl=False), {"cls_scale": 2})
