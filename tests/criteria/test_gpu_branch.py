"""The code that a GPU takes, without a GPU: fake tensors on a `cuda` device refuse whatever needs a value on the host.

A fake tensor has a device, a type and a shape, and no values: `item`, `nonzero` and masks as indices, which
synchronise, raise. What is run is the forward pass, in which the gradient of the class term is made as well.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import criterion_of
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

import yolo_losses
from yolo_losses import factory, registry
from yolo_losses.classification._base import ClassificationLoss
from yolo_losses.criteria import assignment
from yolo_losses.criteria.assignment import Assignment

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="this torch is built without CUDA")

CLS_LOSSES = [spec.name for spec in registry.specs("cls") if spec.built_in]
BOX_LOSSES = [spec.name for spec in registry.specs("box") if spec.built_in]
TARGETS = ("auto", "tal", "iou", "ciou", "hard")


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CLS_LOSSES)
def test_the_class_term_does_not_synchronise(
    name: str, target: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = registry.find("cls", name)
    differentiated = kind.module.closed_form is ClassificationLoss.closed_form and name != "ghm"
    if differentiated and (large or kind.module.sums_a_batch()):
        pytest.skip("differentiates its formula at the positives, which a fake device cannot")
    if large:
        monkeypatch.setattr(assignment, "LARGE_ON_GPU", 0)
    criterion = criterion_of("v8")
    branch: Any = yolo_losses.equip(criterion, {"cls_loss": name, "cls_target": target})[""]
    branch.check_due = False  # what compares terms synchronises, once an epoch
    batch, count, classes = 2, 84, 3
    with FakeTensorMode() as mode:
        branch.cls = _faked(mode, branch.cls)
        logits = torch.randn(batch, count, classes, device="cuda", requires_grad=True)
        boxes = torch.rand(batch, count, 4, device="cuda")
        scores = torch.rand(batch, count, classes, device="cuda")
        labels = torch.zeros(batch, count, dtype=torch.long, device="cuda")
        positive = torch.zeros(batch, count, dtype=torch.bool, device="cuda")
        points = torch.rand(count, 2, device="cuda")
        branch.assignment = Assignment(boxes, points, (labels, boxes, scores, positive), True, True)
        branch.taken = ()
        term = criterion.bce(logits, scores)
        assert term.device.type == "cuda"
        assert term.shape in ((1, 1, classes), (batch, count, classes))
        assert term.requires_grad


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_a_box_loss_does_not_synchronise(name: str) -> None:
    loss = factory.make_box_loss(name)
    sides = 5 if registry.split_box_name(name)[1].rotated else 4
    with FakeTensorMode() as mode:
        loss = _faked(mode, loss)
        pred, target = (torch.rand(20, sides, device="cuda", requires_grad=grad) for grad in (True, False))
        supplied = {"stride": torch.ones(20, 1, device="cuda"), "image_wh": torch.ones(20, 2, device="cuda")}
        value = loss.pairs(pred, target, **supplied, floor=0.01)
        assert value.shape == (20,)
        assert value.requires_grad


def test_what_synchronises_is_noticed() -> None:
    with FakeTensorMode():
        values = torch.rand(3, device="cuda")
        with pytest.raises(DataDependentOutputException):
            values.sum().item()
        with pytest.raises(DynamicOutputShapeException):
            values.nonzero()


def _faked(mode: FakeTensorMode, module: Any) -> Any:
    """Return the module with its buffers on the fake device."""
    for name, buffer in list(module.named_buffers(recurse=False)):
        module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")
    for child in module.children():
        _faked(mode, child)
    return module
