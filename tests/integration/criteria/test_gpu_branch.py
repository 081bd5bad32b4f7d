"""The code that a GPU takes, without a GPU: fake tensors on a `cuda` device refuse whatever needs a value on the host.

A fake tensor has a device, a type and a shape, and no values: `item`, `nonzero` and masks as indices, which
synchronise, raise. That runs the forward pass, in which the gradient of the class term is made as well. Autograd looks
for a driver of the device, so the backward pass runs on tensors of the device `meta`, which have no values either and
take the same branches.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import criterion_of
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

import yolo_losses
from yolo_losses import registry
from yolo_losses.integration.criteria.assignment import Assignment
from yolo_losses.losses import build as factory
from yolo_losses.losses.classification import _batch

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="this torch is built without CUDA")

CLS_LOSSES = [spec.name for spec in registry.specs("cls") if spec.built_in]
BOX_LOSSES = [spec.name for spec in registry.specs("box") if spec.built_in]
TARGETS = ("auto", "tal", "iou", "ciou", "hard")


@pytest.mark.parametrize("chunk", [100, 2**23])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CLS_LOSSES)
def test_the_class_term_does_not_synchronise(
    name: str, target: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batch, "CHUNK_ON_GPU", chunk)
    criterion, branch = equipped(name, target)
    with FakeTensorMode() as mode:
        branch.losses["class"] = _faked(mode, branch.cls)
        class_term(criterion, branch, "cuda")


@pytest.mark.parametrize("chunk", [100, 2**23])
@pytest.mark.parametrize("name", CLS_LOSSES)
def test_the_backward_of_the_class_term_does_not_synchronise(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batch, "CHUNK_ON_GPU", chunk)
    criterion, branch = equipped(name, "auto")
    branch.cls.to("meta")
    logits, term = class_term(criterion, branch, "meta")
    (gradient,) = torch.autograd.grad(term.sum(), logits)
    assert gradient.device.type == "meta"
    assert gradient.shape == logits.shape


def equipped(name: str, target: str) -> tuple[Any, Any]:
    """Return a criterion with a class loss, and its branch."""
    criterion = criterion_of("v8")
    branch: Any = yolo_losses.equip(criterion, {"cls_loss": name, "cls_target": target})[""]
    branch.ledger.due = False  # a call that is compared synchronises, once an epoch
    return criterion, branch


def class_term(criterion: Any, branch: Any, device: str) -> tuple[Tensor, Tensor]:
    """Return made-up logits and the class term of the criterion on a device without values."""
    batch, count, classes = 2, 84, 3
    logits = torch.randn(batch, count, classes, device=device, requires_grad=True)
    boxes = torch.rand(batch, count, 4, device=device)
    scores = torch.rand(batch, count, classes, device=device)
    labels = torch.zeros(batch, count, dtype=torch.long, device=device)
    positive = torch.zeros(batch, count, dtype=torch.bool, device=device)
    points = torch.rand(count, 2, device=device)
    branch.assignment = Assignment(boxes, points, (labels, boxes, scores, positive), True)
    branch.consumers = ()
    term: Tensor = criterion.bce(logits, scores)
    assert term.device.type == device
    assert term.shape == (batch, count, classes)
    assert term.requires_grad
    return logits, term


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


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_the_backward_of_a_box_loss_does_not_synchronise(name: str) -> None:
    loss = factory.make_box_loss(name).to("meta")
    sides = 5 if registry.split_box_name(name)[1].rotated else 4
    pred, target = (torch.rand(20, sides, device="meta", requires_grad=grad) for grad in (True, False))
    supplied = {"stride": torch.ones(20, 1, device="meta"), "image_wh": torch.ones(20, 2, device="meta")}
    (gradient,) = torch.autograd.grad(loss.pairs(pred, target, **supplied, floor=0.01).sum(), pred)
    assert gradient.shape == pred.shape


def test_what_synchronises_is_noticed() -> None:
    with FakeTensorMode():
        values = torch.rand(3, device="cuda")
        with pytest.raises(DataDependentOutputException):
            values.sum().item()
        with pytest.raises(DynamicOutputShapeException):
            values.nonzero()
    values = torch.rand(3, device="meta")
    for synchronising in (lambda: values.sum().item(), values.nonzero, lambda: values[values > 0]):
        with pytest.raises((RuntimeError, NotImplementedError)):
            synchronising()


def _faked(mode: FakeTensorMode, module: Any) -> Any:
    """Return the module with its buffers on the fake device."""
    for name, buffer in list(module.named_buffers(recurse=False)):
        module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")
    for child in module.children():
        _faked(mode, child)
    return module
