"""The state of the chosen losses, and copies and pickles of criteria."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from anchor_criteria import BOX_LOSSES, CLS_LOSSES, equipped, leaves
from conftest import criterion_of, head, made_up_batch, predictions, run, start_without_plugin
from torch import Tensor
from ultralytics.utils.loss import v8OBBLoss

import yolo_losses
from yolo_losses.losses import build as factory

STATEFUL = [name for name in CLS_LOSSES if any(True for _ in factory.make_cls_loss(name).buffers())]


@pytest.mark.parametrize("cls_loss", STATEFUL)
def test_state_is_shared_with_the_ema_and_written_in_training_only(cls_loss):
    assert "ema_slide" in STATEFUL
    model_criterion, branches = equipped("v8", cls_loss=cls_loss)
    ema_criterion = criterion_of("v8")
    assert yolo_losses.equip(ema_criterion, {"cls_loss": cls_loss}, branches)[""] is branches[""]
    outputs, batch = predictions("v8"), made_up_batch("v8")
    module = branches[""].cls

    def state() -> list[Tensor]:
        return [buffer.clone() for buffer in module.buffers()]

    fresh = state()
    with torch.no_grad():
        run(ema_criterion, outputs, batch)
    assert all(torch.equal(a, b) for a, b in zip(state(), fresh, strict=True))
    run(model_criterion, outputs, batch)
    trained = state()
    assert not all(torch.equal(a, b) for a, b in zip(trained, fresh, strict=True))
    with torch.no_grad():
        validated = run(ema_criterion, predictions("v8", seed=5), batch)[0]
        again = run(model_criterion, predictions("v8", seed=5), batch)[0]
    assert all(torch.equal(a, b) for a, b in zip(state(), trained, strict=True))
    assert validated == again


@pytest.mark.parametrize("box_loss", [n for n in BOX_LOSSES if any(True for _ in factory.make_box_loss(n).buffers())])
def test_box_state_is_written_in_training_only(box_loss):
    criterion, branches = equipped("v8", box_loss=box_loss)
    fresh = [buffer.clone() for buffer in branches[""].box.buffers()]
    with torch.no_grad():
        run(criterion, predictions("v8"), made_up_batch("v8"))
    assert all(torch.equal(a, b) for a, b in zip(branches[""].box.buffers(), fresh, strict=True))
    run(criterion, predictions("v8"), made_up_batch("v8"))
    assert not all(torch.equal(a, b) for a, b in zip(branches[""].box.buffers(), fresh, strict=True))


def test_validation_needs_no_graph():
    with torch.no_grad():
        _, loss, gradients = run(
            equipped("v8", cls_loss="vfl", box_loss="giou")[0], predictions("v8"), made_up_batch("v8")
        )
    assert not loss.requires_grad
    assert gradients == []


@pytest.mark.parametrize("name", ["v8", "26"])
def test_a_deep_copy_shares_the_branch_and_gives_the_same_numbers(name):
    """NaN recovery rebuilds the EMA by deep copy of the model, criterion included."""
    criterion, branches = equipped(name, cls_loss="ema_slide", box_loss="giou")
    copied = copy.deepcopy(criterion)
    assert [one.bce.branch for one in leaves(copied)] == list(branches.values())
    assert all(one.bce.branch is branch for one, branch in zip(leaves(copied), branches.values(), strict=True))
    assert all(a.assigner.stock is not b.assigner.stock for a, b in zip(leaves(copied), leaves(criterion), strict=True))
    outputs, batch = predictions(name), made_up_batch(name)
    with torch.no_grad():
        assert run(copied, outputs, batch)[0] == run(criterion, outputs, batch)[0]


def test_attributes_of_a_part_are_those_of_the_stock_part():
    criterion = criterion_of("v8")
    assigner, box = criterion.assigner, criterion.bbox_loss
    yolo_losses.equip(criterion, {"cls_loss": "slide", "box_loss": "giou"})
    assert criterion.assigner is not assigner
    assert criterion.assigner.topk == assigner.topk
    criterion.assigner.num_classes = 7  # as YOLOE sets it
    assert assigner.num_classes == criterion.assigner.num_classes == 7
    assert criterion.bbox_loss.dfl_loss is box.dfl_loss
    assert not hasattr(criterion.assigner, "nothing_of_that_name")


def test_a_pickled_criterion_is_the_stock_one_where_the_package_is_not(tmp_path: Path):
    """Until 8.4.95 a checkpoint taken mid-run holds the EMA's criterion."""
    cases: dict[str, Any] = {
        "v8": equipped("v8", cls_loss="ema_slide", box_loss="giou", dfl_loss="off")[0],
        "v10": equipped("v10", cls_loss="focal", loss_branches="one2one")[0],
        "26": equipped("26", cls_loss="slide", box_loss="ciou")[0],
        "obb": equipped("v8-obb", cls_loss="qfl", dfl_loss="dfl")[0],
        "class": yolo_losses.DetectionLoss(head("v8"), settings={"cls_loss": "focal"}),
    }
    for criterion in cases.values():
        run(leaves(criterion)[0], *sample(criterion))  # with what a step leaves behind
    torch.save(cases, tmp_path / "criteria.pt")
    assert b"yolo_losses" not in pickle.dumps(list(cases.values()))
    code = """
import sys, torch
cases = torch.load(sys.argv[1], weights_only=False)
for name, criterion in cases.items():
    for one in (criterion.one2many, criterion.one2one) if hasattr(criterion, "one2many") else [criterion]:
        kinds = [type(one), type(one.assigner), type(one.bce), type(one.bbox_loss), type(one.bbox_loss.dfl_loss)]
        print(name, *(kind.__name__ for kind in kinds))
assert not [module for module in sys.modules if module.startswith("yolo_losses")]
"""
    result = start_without_plugin(code, str(tmp_path / "criteria.pt"))().check()
    bce = "BCEWithLogitsLoss"
    detect = f"v8DetectionLoss TaskAlignedAssigner {bce} BboxLoss"
    assert result.lines[-7:] == [
        f"v8 {detect} DFLoss",
        f"v10 {detect} DFLoss",
        f"v10 {detect} DFLoss",
        f"26 {detect} NoneType",
        f"26 {detect} NoneType",
        f"obb v8OBBLoss RotatedTaskAlignedAssigner {bce} RotatedBboxLoss DFLoss",
        f"class {detect} DFLoss",
    ]


def sample(criterion: Any) -> tuple[Any, dict[str, Any]]:
    """Return outputs and a batch for one of a criterion's branches."""
    if isinstance(leaves(criterion)[0], v8OBBLoss):
        return predictions("v8-obb"), made_up_batch("v8-obb")
    if hasattr(criterion, "one2many"):
        name = "v10" if criterion.one2many.use_dfl else "26"
        return predictions(name)["one2many"], made_up_batch(name)
    return predictions("v8"), made_up_batch("v8")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("v8", "DetectionLoss"), ("v8-seg", "SegmentationLoss"), ("v8-pose", "PoseLoss"), ("v8-obb", "OBBLoss")],
)
def test_the_criteria_as_classes_are_equip_on_the_stock_ones(name, kind):
    outputs, batch = predictions(name), made_up_batch(name)
    ours = getattr(yolo_losses, kind)(head(name), settings={"cls_loss": "slide"})
    assert isinstance(ours, type(criterion_of(name)))
    assert run(ours, outputs, batch)[0] == run(equipped(name, cls_loss="slide")[0], outputs, batch)[0]
    # Without settings, the model's own arguments are asked.
    model = copy.copy(head(name))
    model.args = copy.copy(model.args)
    model.args.cls_loss = "slide"
    assert run(getattr(yolo_losses, kind)(model), outputs, batch)[0] == run(ours, outputs, batch)[0]
