"""NWD: pixels, its share of CIoU, and modifiers."""

from __future__ import annotations

import torch
from box_pairs import boxes, formula
from conftest import gradient

from yolo_losses.losses.boxes.nwd import nwd_loss
from yolo_losses.losses.build import make_box_loss


def test_nwd_measures_in_pixels() -> None:
    pred, target = boxes(20)
    stride = torch.tensor([[8.0], [16.0]]).repeat(10, 1).double()
    module = make_box_loss("nwd", nwd_ratio=1.0)
    torch.testing.assert_close(module.pairs(pred / stride, target / stride, stride=stride), nwd_loss(pred, target))
    assert torch.equal(module(pred, target), nwd_loss(pred, target))


def test_nwd_is_mixed_with_ciou_by_its_ratio() -> None:
    pred, target = boxes(20)
    ciou = formula("ciou")(pred, target)
    for ratio in (0.0, 0.25, 0.5, 1.0):
        expected = ratio * nwd_loss(pred, target) + (1 - ratio) * ciou
        torch.testing.assert_close(make_box_loss("nwd", nwd_ratio=ratio)(pred, target), expected)


def test_nwd_draws_boxes_that_do_not_meet() -> None:
    pred, target = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[100.0, 0, 104, 4]])
    _, grad = gradient(nwd_loss, pred, target)
    assert (grad[:, [0, 2]] < 0).all()


def test_modifiers_of_nwd_act_on_the_ciou_within() -> None:
    pred, target = boxes(20)
    for modifier in ("inner", "focaler"):
        expected = 0.5 * nwd_loss(pred, target) + 0.5 * make_box_loss(f"{modifier}_ciou")(pred, target)
        torch.testing.assert_close(make_box_loss(f"{modifier}_nwd")(pred, target), expected)
        pure = make_box_loss(f"{modifier}_nwd", nwd_ratio=1.0)(pred, target)
        torch.testing.assert_close(pure, nwd_loss(pred, target))
