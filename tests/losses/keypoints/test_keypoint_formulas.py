"""The losses of keypoints: Ultralytics' OKS, values worked out by hand, finite gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from ultralytics.utils.loss import KeypointLoss

from yolo_losses.losses.keypoints.l1 import l1_keypoint_loss
from yolo_losses.losses.keypoints.oks import oks_loss
from yolo_losses.losses.keypoints.smooth_l1 import smooth_l1_keypoint_loss
from yolo_losses.losses.keypoints.wing import wing_loss

SIGMAS = torch.tensor([0.026, 0.1, 0.3, 0.05, 0.5], dtype=torch.float64)


def made_up() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pred = torch.rand(7, 5, 3, generator=generator, dtype=torch.float64) * 9
    target = torch.rand(7, 5, 3, generator=generator, dtype=torch.float64) * 9
    return pred.requires_grad_(), target, torch.rand(7, 1, generator=generator, dtype=torch.float64) * 40 + 1


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "oks": lambda p, t, a: oks_loss(p, t, a, SIGMAS),
    "l1": l1_keypoint_loss,
    "smooth_l1": smooth_l1_keypoint_loss,
    "wing": lambda p, t, a: wing_loss(p, t),
}


def test_oks_is_that_of_ultralytics() -> None:
    pred, target, area = made_up()
    visible = torch.ones(7, 5, dtype=torch.bool)
    theirs = KeypointLoss(SIGMAS)(pred, target, visible, area)
    ours = oks_loss(pred, target, area, SIGMAS, reduction="mean")
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss, pred, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_l1_is_the_distance_in_units_of_the_objects_size() -> None:
    pred, target = torch.tensor([[[3.0, -4.0]]]), torch.zeros(1, 1, 2)
    assert float(l1_keypoint_loss(pred, target, torch.tensor([[4.0]]))) == pytest.approx(3.5)


def test_smooth_l1_by_hand_on_both_sides_of_beta() -> None:
    pred, target = torch.tensor([[[0.5, 4.0]]]), torch.zeros(1, 1, 2)
    loss = smooth_l1_keypoint_loss(pred, target, torch.tensor([[100.0]]), beta=0.1)
    assert float(loss) == pytest.approx(0.05**2 / 0.2 + 0.4 - 0.05)


def test_wing_by_hand_on_both_sides_of_w() -> None:
    pred, target = torch.tensor([[[4.0, 15.0]]]), torch.zeros(1, 1, 2)
    constant = 10 - 10 * math.log(1 + 10 / 2)
    assert float(wing_loss(pred, target, w=10, epsilon=2)) == pytest.approx(10 * math.log(3) + 15 - constant)


def test_wing_is_continuous_at_w() -> None:
    below, above = (wing_loss(torch.tensor([[[x, 0.0]]]), torch.zeros(1, 1, 2)) for x in (10 - 1e-5, 10 + 1e-5))
    assert float(above - below) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_equals_finite_differences(name: str) -> None:
    pred, target, area = made_up()
    assert torch.autograd.gradcheck(lambda p: LOSSES[name](p, target, area), pred)


@pytest.mark.parametrize("name", LOSSES)
def test_equal_points_and_an_object_without_area_have_finite_gradients(name: str) -> None:
    pred = torch.tensor([[[1.0, 1, 0], [2, 2, 0], [3, 3, 0], [4, 4, 0], [5, 5, 0]]]).requires_grad_()
    for target in (pred.detach(), pred.detach() + 1):
        loss = LOSSES[name](pred, target, torch.zeros(1, 1))
        (gradient,) = torch.autograd.grad(loss.sum(), pred)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


def test_wing_is_that_of_mmpose() -> None:
    """Numbers of `mmpose.models.losses.WingLoss`, 1.3.2, of one keypoint at a time."""
    pred = (torch.arange(12, dtype=torch.float64) * 1.7).sin().view(2, 3, 2) * 20
    wanted = [27.75089090132992, 39.11859507971234, 41.70633636477139, 42.19542538117261, 41.12980817114958]
    wanted.append(36.268332510633556)
    assert wing_loss(pred, torch.zeros_like(pred)).flatten().tolist() == pytest.approx(wanted, rel=1e-12)


def test_distances_are_torch_s_in_units_of_the_objects_size() -> None:
    pred, target, area = made_up()
    p, t = (points[..., :2] / area[..., None].sqrt() for points in (pred, target))
    losses = {
        l1_keypoint_loss: nn.functional.l1_loss(p, t, reduction="none"),
        smooth_l1_keypoint_loss: nn.functional.smooth_l1_loss(p, t, reduction="none", beta=0.1),
    }
    for ours, theirs in losses.items():
        torch.testing.assert_close(ours(pred, target, area), theirs.sum(-1), rtol=1e-6, atol=1e-9)
