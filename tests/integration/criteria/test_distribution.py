"""The distribution term: equal to Ultralytics' at every target, those beyond its bins among them."""

from __future__ import annotations

import pytest
import torch
from conftest import criterion_of

import yolo_losses


@pytest.mark.parametrize("target", [-3.0, 0.0, 7.3, 14.98, 14.99, 15.0, 40.0])
def test_a_target_beyond_the_bins_counts_as_ultralytics_counts_it(target: float) -> None:
    stock, own = criterion_of("v8").bbox_loss.dfl_loss, criterion_of("v8")
    yolo_losses.equip(own, {"dfl_loss": "dfl"})
    logits = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    gradients = []
    for loss in (stock, own.bbox_loss.dfl_loss):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, torch.full((2, 4), target))
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        gradients.append((value.detach(), gradient))
    torch.testing.assert_close(gradients[1], gradients[0])
