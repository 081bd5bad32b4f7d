"""Class weights in the class term: value and gradient of every loss, on every head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from anchor_criteria import CLS_LOSSES, leaves
from conftest import HEADS, criterion_of, made_up_batch, predictions, run
from torch import Tensor

import yolo_losses

WEIGHTS = [0.5, 1.0, 3.0]


def assert_same(got: tuple[Any, ...], wanted: tuple[Any, ...]) -> None:
    items, loss, gradients = got
    assert items == pytest.approx(wanted[0], rel=1e-5)
    torch.testing.assert_close(loss, wanted[1], rtol=1e-5, atol=0)
    for a, b in zip(gradients, wanted[2], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7 * float(b.abs().max()))


class Weighting(torch.nn.Module):
    """Multiplies what a criterion's own `bce` returns, element by element."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return loss * torch.tensor(WEIGHTS)


@pytest.mark.parametrize("cls_loss", ["stock", "bce"])
@pytest.mark.parametrize("name", HEADS)
def test_weighted_bce_is_torchs_times_the_weights(name, cls_loss):
    """For detect, segment, pose and obb, and on both branches of v10 and 26; the other terms are untouched."""
    outputs, batch = predictions(name), made_up_batch(name)
    stock = criterion_of(name)
    for one in leaves(stock):
        one.bce = Weighting()
    criterion = criterion_of(name)
    yolo_losses.equip(criterion, {"cls_loss": cls_loss, "cls_weights": WEIGHTS})
    assert_same(run(criterion, outputs, batch), run(stock, outputs, batch))


@pytest.mark.parametrize("large", [False, True], ids=["at once", "in chunks"])
@pytest.mark.parametrize("cls_target", ["auto", "hard"])
@pytest.mark.parametrize("cls_loss", CLS_LOSSES)
def test_any_loss_is_weighted_as_ultralytics_weights_its_own(cls_loss, cls_target, large, monkeypatch):
    """Which is by `class_weights` (cls_pw), in place, on what the class part returned."""
    if large:
        monkeypatch.setattr("yolo_losses.losses.classification._batch.CHUNK", 64)
    outputs, batch = predictions("v8"), made_up_batch("v8")
    keys = {"cls_loss": cls_loss, "cls_target": cls_target}
    theirs, ours = criterion_of("v8"), criterion_of("v8")
    if not hasattr(theirs, "class_weights"):
        pytest.skip("this Ultralytics has no class weights")
    yolo_losses.equip(theirs, keys)
    theirs.class_weights = torch.tensor(WEIGHTS).view(1, 1, -1)
    yolo_losses.equip(ours, {**keys, "cls_weights": WEIGHTS})
    wanted, got = run(theirs, outputs, batch), run(ours, outputs, batch)
    assert_same(got, wanted)
    plain = criterion_of("v8")
    yolo_losses.equip(plain, keys)
    assert run(plain, outputs, batch)[0]["cls_loss"] != pytest.approx(got[0]["cls_loss"], rel=1e-3)


def test_a_scale_comes_on_top():
    outputs, batch = predictions("v8"), made_up_batch("v8")
    both, weighted = criterion_of("v8"), criterion_of("v8")
    yolo_losses.equip(both, {"cls_loss": "focal", "cls_weights": WEIGHTS, "cls_scale": 2})
    yolo_losses.equip(weighted, {"cls_loss": "focal", "cls_weights": [2 * w for w in WEIGHTS]})
    assert_same(run(both, outputs, batch), run(weighted, outputs, batch))


@pytest.mark.parametrize("cls_loss", ["slide", "ghm", "efl"])
def test_weights_do_not_enter_the_state_of_a_loss(cls_loss):
    states = []
    for keys in ({}, {"cls_weights": WEIGHTS}):
        criterion = criterion_of("v8")
        branches = yolo_losses.equip(criterion, {"cls_loss": cls_loss, **keys})
        for seed in (0, 1):
            run(criterion, predictions("v8", seed=seed), made_up_batch("v8"))
        states.append(branches[""].cls.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_single_class_may_be_weighted():
    outputs, batch = predictions("v8", classes=1), made_up_batch("v8", classes=1)
    criterion = criterion_of("v8", classes=1)
    yolo_losses.equip(criterion, {"cls_weights": [2.0]})
    stock = run(criterion_of("v8", classes=1), outputs, batch)[0]["cls_loss"]
    assert run(criterion, outputs, batch)[0]["cls_loss"] == pytest.approx(2 * stock, rel=1e-5)


def test_the_ratio_to_bce_is_that_of_the_loss_without_weights():
    outputs, batch = predictions("v8"), made_up_batch("v8")
    criterion = criterion_of("v8")
    branches = yolo_losses.equip(criterion, {"cls_loss": "bce", "cls_weights": WEIGHTS})
    run(criterion, outputs, batch)
    assert branches[""].ratios == pytest.approx({"value": 1.0, "gradient": 1.0}, rel=1e-4)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1, 2], "'cls_weights=[1.0, 2.0]' is not valid: allowed are as many numbers as there are classes, 3"),
        ({"star": 2}, "'cls_weights={'star': 2.0}' names classes, which a criterion does not know: pass a list, one"),
        ("balanced", "'cls_weights=balanced' needs the labels of the training set, which a criterion does not know"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["v8", "26", "v8-obb"])
def test_what_a_criterion_cannot_take_is_refused_in_one_line(name, weights, words):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        yolo_losses.equip(criterion_of(name), {"cls_weights": weights})
    assert str(error.value).startswith(words)
    if weights == "balanced":
        assert "class_balanced_weights" in str(error.value)


def test_a_criterion_that_has_ultralytics_weights_is_refused():
    criterion = criterion_of("v8")
    criterion.class_weights = torch.ones(1, 1, 3)
    with pytest.raises(ValueError, match=r"^'cls_weights=[^\n]* cannot be used together with cls_pw[^\n]*$"):
        yolo_losses.equip(criterion, {"cls_weights": [1, 2, 3]})
    yolo_losses.equip(criterion, {"cls_loss": "slide"})
