"""What single box losses are known for: values worked out by hand, and their parameters."""

from __future__ import annotations

import math

import pytest
import torch
from box_pairs import boxes, formula, loss_of
from conftest import gradient

from yolo_losses.losses.boxes.mpdiou import mpdiou_loss
from yolo_losses.losses.boxes.piou2 import piou2_loss
from yolo_losses.losses.boxes.probiou import probiou_loss
from yolo_losses.losses.boxes.shape_iou import shape_iou_loss
from yolo_losses.losses.boxes.siou import siou_loss


def test_hand_drawn_boxes_have_the_values_of_the_papers() -> None:
    a, b = torch.tensor([[0.0, 0, 4, 4]]).double(), torch.tensor([[2.0, 0, 6, 4]]).double()
    iou = 8 / 24
    expected = {
        "iou": 1 - iou,
        "giou": 1 - iou,  # the enclosing box is full
        "diou": 1 - iou + 4 / 52,
        "ciou": 1 - iou + 4 / 52,
        "eiou": 1 - iou + 4 / 52,
        "siou": 1 - iou + (1 - math.exp(-2 * (2 / 6) ** 2)) / 2,
        "mpdiou": 1 - iou + 8 / (640**2 + 480**2),
        "shape_iou": 1 - iou + 4 / 52,
        "piou": 2 - iou - math.exp(-(0.25**2)),
    }
    for name, value in expected.items():
        assert loss_of(name)(a, b).item() == pytest.approx(value, abs=1e-6), name


def test_shape_iou_weighs_by_the_targets_shape() -> None:
    pred, target = torch.tensor([0.0, 0, 5, 9]).double(), torch.tensor([1.0, 2, 9, 4]).double()
    for scale in (0.5, 1.0, 4.0):
        w, h, c2 = 8.0**scale, 2.0**scale, 9**2 + 9**2
        ww, hh = 2 * w / (w + h), 2 * h / (w + h)
        distance = (hh * 2.5**2 + ww * 1.5**2) / c2
        shape = (1 - math.exp(-hh * 3 / 8)) ** 4 + (1 - math.exp(-ww * 7 / 9)) ** 4
        expected = 1 - 8 / 53 + distance + shape / 2
        assert shape_iou_loss(pred, target, scale=scale).item() == pytest.approx(expected, abs=1e-7)
    assert shape_iou_loss(pred.float(), target.float() * 1e3, scale=50.0).isfinite()


@pytest.mark.parametrize("angle", [0.0, 0.2, math.pi / 4, 1.2, math.pi / 2])
def test_siou_counts_the_angle_of_the_way_between_the_centres(angle: float) -> None:
    target = torch.tensor([0.0, 0, 20, 20]).double()
    dx, dy = 4 * math.cos(angle), 4 * math.sin(angle)
    pred = target + torch.tensor([dx, dy, dx, dy]).double()
    g = 2 - abs(math.sin(2 * angle))
    shared = (20 - dx) * (20 - dy)
    distance = 2 - math.exp(-g * (dx / (20 + dx)) ** 2) - math.exp(-g * (dy / (20 + dy)) ** 2)
    expected = 1 - shared / (800 - shared) + distance / 2
    assert siou_loss(pred, target).item() == pytest.approx(expected, abs=1e-6)


def test_siou_theta_weakens_small_differences_of_shape() -> None:
    pred, target = torch.tensor([0.0, 0, 10, 10]), torch.tensor([1.0, 1, 9, 9])
    assert siou_loss(pred, target, theta=2.0) > siou_loss(pred, target, theta=4.0) > siou_loss(pred, target, theta=6.0)


@pytest.mark.parametrize("image", [(640, 480), torch.tensor([640, 480]), torch.tensor([[640.0, 480.0]] * 20)])
def test_mpdiou_takes_the_images_size_in_any_form(image) -> None:
    pred, target = boxes(20)
    d2 = (pred - target).square().sum(-1)
    expected = formula("iou")(pred, target) + d2 / (640**2 + 480**2)
    torch.testing.assert_close(mpdiou_loss(pred, target, image), expected)


def test_piou2_attends_to_boxes_of_middling_quality() -> None:
    target = torch.tensor([[0.0, 0, 10, 10]]).double().expand(200, 4)
    off = torch.linspace(0, 40, 200).double()[:, None]
    value = piou2_loss(target + off, target)
    assert 0 < value.argmax() < 199
    _, grad = gradient(piou2_loss, target + off, target)
    slope = torch.autograd.functional.jacobian(lambda o: piou2_loss(target + o, target).sum(), off)
    torch.testing.assert_close(grad.sum(-1, keepdim=True), slope)  # the attention is not detached


@pytest.mark.parametrize("turned", [math.pi / 2, math.pi, -math.pi])
def test_probiou_knows_the_period_of_the_angle(turned: float) -> None:
    pred, target = boxes(20, rotated=True)
    again = pred.clone()
    again[:, 4] += turned
    if turned == math.pi / 2:
        again[:, [2, 3]] = again[:, [3, 2]]
    torch.testing.assert_close(probiou_loss(again, target), probiou_loss(pred, target))


def test_probiou_is_right_in_float32_for_long_thin_boxes() -> None:
    pred = torch.tensor([[0.0, 0, 5000, 0.01, 0.785]])
    target = torch.tensor([[1.0, 0, 4000, 0.02, 0.785]])
    torch.testing.assert_close(
        probiou_loss(pred, target).double(), probiou_loss(pred.double(), target.double()), rtol=1e-3, atol=0
    )
