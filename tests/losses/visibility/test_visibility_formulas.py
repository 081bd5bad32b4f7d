"""The losses of the keypoints' visibility: torch's BCE and torchvision's focal loss."""

from __future__ import annotations

import pytest
import torch
import torchvision

from yolo_losses import functional, registry


@pytest.mark.parametrize("alpha", [-1.0, 0.25])
@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_focal_is_torchvisions_in_value_and_gradient(gamma: float, alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(9, 17, generator=generator, dtype=torch.float64) * 4).requires_grad_()
    visible = torch.randint(2, (9, 17), generator=generator).double()
    ours = functional.visibility_focal_loss(logits, visible, gamma, alpha)
    theirs = torchvision.ops.sigmoid_focal_loss(logits, visible, alpha, gamma)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_bce_is_torchs() -> None:
    logits, visible = torch.randn(9, 17), torch.randint(2, (9, 17)).float()
    (bce,) = (spec for spec in registry.specs("kobj") if spec.name == "bce")
    ours = bce.build()(logits, visible)
    torch.testing.assert_close(ours, torch.nn.functional.binary_cross_entropy_with_logits(logits, visible))
