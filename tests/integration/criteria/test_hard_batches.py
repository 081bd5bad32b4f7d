"""The chosen losses on hard input: finite on odd batches, extreme logits and half precision; no memory is held."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from anchor_criteria import BOX_LOSSES, CLS_LOSSES, assert_close, equipped
from conftest import HEADS, criterion_of, made_up_batch, predictions, run

import yolo_losses


def hard_batches(classes: int) -> dict[str, dict[str, Any]]:
    """Return batches of two images that are unlike what a data set should hold."""
    one_empty = made_up_batch("v8", each=2, classes=classes)
    one_empty["batch_idx"] = torch.zeros(4)
    outside, no_size = (made_up_batch("v8", classes=classes) for _ in range(2))
    outside["bboxes"] += torch.tensor([0.9, -0.9, 0, 0])
    no_size["bboxes"][:, 2:] = 0
    many = made_up_batch("v8", each=5_000, classes=classes)
    return {
        "no object": made_up_batch("v8", each=0, classes=classes),
        "one empty image": one_empty,
        "boxes outside of the image": outside,
        "boxes of no size": no_size,
        "10,000 objects": many,
    }


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("cls_loss", CLS_LOSSES)
def test_class_losses_are_finite_on_hard_batches(cls_loss, classes):
    outputs = predictions("v8", classes=classes)
    for what, batch in hard_batches(classes).items():
        if what == "10,000 objects" and (classes > 1 or cls_loss not in ("slide", "ghm")):
            continue  # it is the assigner that takes its time, whatever the loss
        criterion = criterion_of("v8", classes)
        yolo_losses.equip(criterion, {"cls_loss": cls_loss, "cls_target": "iou", "box_loss": "ciou"})
        _, loss, gradients = run(criterion, outputs, batch)
        assert loss.isfinite().all(), what
        assert all(g is not None and g.isfinite().all() for g in gradients), what


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_box_losses_are_finite_and_in_the_graph_on_hard_batches(box_loss):
    outputs = predictions("v8")
    for what, batch in hard_batches(3).items():
        if what == "10,000 objects":
            continue
        criterion, _ = equipped("v8", box_loss=box_loss)
        items, loss, gradients = run(criterion, outputs, batch)
        assert loss.isfinite().all(), what
        assert gradients[0] is not None, what
        assert gradients[0].isfinite().all(), what
        if what == "no object":
            assert items["box_loss"] == 0


@pytest.mark.parametrize("name", ["v8", "v8-obb", "26"])
@pytest.mark.parametrize("cls_loss", CLS_LOSSES)
@pytest.mark.parametrize("sign", [1, -1])
def test_logits_of_a_hundred_are_finite(name, cls_loss, sign):
    outputs, batch = predictions(name), made_up_batch(name)
    with torch.no_grad():
        for part in outputs.values() if name == "26" else [outputs]:
            if isinstance(part, dict):
                part["scores"][:] = torch.where(part["scores"] > part["scores"].median(), 100.0, -100.0) * sign
    _, loss, gradients = run(equipped(name, cls_loss=cls_loss)[0], outputs, batch)
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in gradients if g is not None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cls_loss", CLS_LOSSES)
def test_half_precision_is_finite_and_near_full(cls_loss, dtype):
    """As under autocast: the head's outputs come in half precision, and the sums inside are taken in full."""
    outputs, batch = predictions("v8", images=8), made_up_batch("v8", images=8)
    rounded = {k: v.detach().to(dtype) if k in ("boxes", "scores") else v for k, v in outputs.items()}
    half = {k: v.clone().requires_grad_() if k in ("boxes", "scores") else v for k, v in rounded.items()}
    full = {k: v.float().requires_grad_() if k in ("boxes", "scores") else v for k, v in rounded.items()}
    wanted = run(equipped("v8", cls_loss=cls_loss, box_loss="giou")[0], full, batch)[0]
    with torch.autocast("cpu", dtype=dtype):
        got, loss, gradients = run(equipped("v8", cls_loss=cls_loss, box_loss="giou")[0], half, batch)
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in gradients if g is not None)
    # The assigner itself runs on rounded scores, so the two differ by more than rounding.
    assert_close(got["cls_loss"], wanted["cls_loss"], 0.05)


def alive() -> int:
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


@pytest.mark.parametrize("keys", [{"cls_loss": "mal"}, {"cls_loss": "ema_slide", "box_loss": "wiou"}], ids=str)
@pytest.mark.parametrize("name", HEADS)
def test_a_step_leaves_no_memory_to_the_collector_of_cycles(name, keys):
    """It runs now and then: until then the tensors of every step since would be held, on a GPU too."""
    if name.endswith("obb"):
        keys = {key: value for key, value in keys.items() if key != "box_loss"}
    criterion = equipped(name, **keys)[0]

    def step() -> None:
        run(criterion, predictions(name), made_up_batch(name))

    step()
    gc.collect()
    gc.disable()
    try:
        step()
        before = alive()
        step()
        assert alive() == before
    finally:
        gc.enable()
