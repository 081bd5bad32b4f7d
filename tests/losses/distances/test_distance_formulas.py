"""The losses of box distances."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from yolo_losses.losses.distances.l1 import l1_distance_loss
from yolo_losses.losses.distances.smooth_l1 import smooth_l1_distance_loss


def test_l1_and_smooth_l1_are_those_of_torch() -> None:
    pred, target = torch.rand(9, 4), torch.rand(9, 4)
    torch.testing.assert_close(l1_distance_loss(pred, target), nn.functional.l1_loss(pred, target, reduction="none"))
    wanted = nn.functional.smooth_l1_loss(pred, target, reduction="none", beta=0.3)
    torch.testing.assert_close(smooth_l1_distance_loss(pred, target, beta=0.3), wanted)


def test_smooth_l1_by_hand_on_both_sides_of_beta() -> None:
    pred = torch.tensor([0.005, 0.25])
    loss = smooth_l1_distance_loss(pred, torch.zeros(2), beta=0.01)
    assert loss.tolist() == pytest.approx([0.005**2 / 0.02, 0.245])
