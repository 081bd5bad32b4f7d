"""Wise-IoU: its versions, and its running mean."""

from __future__ import annotations

import functools

import pytest
import torch
from box_pairs import boxes, formula
from conftest import gradient

from yolo_losses.losses._state import commit_collected
from yolo_losses.losses._step import Step
from yolo_losses.losses.boxes._base import ModifiedBoxLoss
from yolo_losses.losses.boxes.wiou import WIoULoss, wiou_loss
from yolo_losses.losses.build import make_box_loss


def test_wiou_versions_focus_as_the_paper_says() -> None:
    pred, target = boxes(30)
    plain = wiou_loss(pred, target, version=1)
    iou = 1 - formula("iou")(pred, target)
    beta = (1 - iou) / 0.4
    torch.testing.assert_close(wiou_loss(pred, target, 0.4, version=2), plain * beta.sqrt(), rtol=1e-6, atol=1e-8)
    focus = beta / (3 * 1.9 ** (beta - 3))
    torch.testing.assert_close(wiou_loss(pred, target, 0.4), plain * focus, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(wiou_loss(pred, target), wiou_loss(pred, target, (1 - iou).mean()), rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="version"):
        wiou_loss(pred, target, version=4)


def test_wiou_gives_no_gradient_through_focus_and_diagonal() -> None:
    pred, target = boxes(30)
    box = pred.clone().requires_grad_()
    c2 = (torch.maximum(box[:, 2:], target[:, 2:]) - torch.minimum(box[:, :2], target[:, :2])).square().sum(-1).detach()
    r2 = ((box[:, :2] + box[:, 2:] - target[:, :2] - target[:, 2:]) / 2).square().sum(-1)
    by_hand = (r2 / c2).exp() * formula("iou")(box, target)
    (expected,) = torch.autograd.grad(by_hand.sum(), box)
    _, grad = gradient(functools.partial(wiou_loss, version=1), pred, target)
    torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-8)
    # Versions 2 and 3 scale each pair's gradient by its focus, and turn it nowhere.
    value, focused = gradient(functools.partial(wiou_loss, mean_loss=0.4), pred, target)
    ratio = value / wiou_loss(pred, target, version=1)
    torch.testing.assert_close(focused, grad * ratio[:, None])


def test_wiou_mean_starts_at_one_and_moves_in_training_alone() -> None:
    pred, target = boxes(30, dtype=torch.float32)
    batch = formula("iou")(pred, target).mean()
    module = make_box_loss("wiou", wiou_momentum=0.25)
    assert module.mean_loss == 1
    module(pred, target)
    torch.testing.assert_close(module.mean_loss, 0.75 + 0.25 * batch)
    module(pred[:0], target[:0])
    module(pred, target, mean_loss=0.3)
    module.eval()(pred, target)
    torch.testing.assert_close(module.mean_loss, 0.75 + 0.25 * batch)
    assert "mean_loss" in module.state_dict()


def step(*ious: float, training: bool = True) -> Step:
    """A step with these IoUs."""
    return Step(torch.tensor(ious), None, training)


def test_wiou_state_follows_the_training_steps() -> None:
    module = make_box_loss("wiou", wiou_momentum=0.5)
    assert module.prepare(step(0.2, 0.6))["mean_loss"] == pytest.approx(0.8)
    assert module.prepare(step(0.2, 0.6, training=False))["mean_loss"] == pytest.approx(0.8)
    assert module.prepare(step())["mean_loss"] == pytest.approx(0.8)
    supplied = module.prepare(step(0.9))
    assert supplied["mean_loss"] == pytest.approx(0.45)
    pred, target = boxes(10)
    assert torch.equal(module.pairs(pred, target, **supplied), wiou_loss(pred, target, module.mean_loss))
    assert module.mean_loss == pytest.approx(0.45)


def test_wiou_deferred_uses_the_mean_that_the_step_leads_to_and_does_not_write_it() -> None:
    module = make_box_loss("wiou", wiou_momentum=0.5)
    module.deferred = True
    for _ in range(2):  # the same batch, computed again
        assert module.prepare(step(0.2, 0.6))["mean_loss"] == pytest.approx(0.8)
        assert module.mean_loss == 1
    commit_collected([module])
    assert module.mean_loss == pytest.approx(0.8)


def test_wiou_keeps_its_state_behind_modifiers() -> None:
    module = make_box_loss("inner_wiou")
    assert isinstance(module, ModifiedBoxLoss)
    assert isinstance(module.base, WIoULoss)
    assert module.prepare(step(0.5))["mean_loss"] == module.base.mean_loss
    assert module.base.mean_loss < 1


def test_wiou_mean_may_move_between_two_losses_and_their_backward() -> None:
    pred, target = boxes(10)
    module = make_box_loss("wiou")
    box = pred.requires_grad_()
    (module(box, target).sum() + module(box, target).sum()).backward()
