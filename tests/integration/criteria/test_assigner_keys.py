"""The keys of the task-aligned assigner: what the log says of them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import SIZE, Model, criterion_of, logged, made_up_batch, predictions
from conftest import run as step

import yolo_losses
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration import arguments, messages
from yolo_losses.integration.criteria import assigner, queries
from yolo_losses.integration.equipment import Equipment


def test_what_the_log_says_of_a_branch() -> None:
    one2many, one2one = yolo_losses.equip(criterion_of("26"), {"tal_topk": 20, "tal_min_side": 24}).values()
    assert one2many.assigner == "topk=20 (stock 10), min_side=24 (stock 16)"
    assert one2one.assigner == "topk=20 (stock 7), of which 1 stays, min_side=24 (stock 16)"
    single = criterion_of("v8")
    single.assigner.topk = single.assigner.topk2 = 1
    (branch,) = yolo_losses.equip(single, {"tal_topk": 20, "tal_alpha": 1}).values()
    assert branch.assigner == "topk=1 as in stock, one positive per object, alpha=1 (stock 0.5)"
    assert single.assigner.topk == 1


def test_start_and_proof_line_name_what_is_not_stock_on_each_branch() -> None:
    model = Model(criterion=criterion_of("26"))
    keys = {"tal_topk": 20, "tal_beta": 4, "cls_loss": "focal", "loss_branches": "one2many"}
    equipment = Equipment(model, LossSettings.from_mapping(keys), (), SIZE)
    equipment.equip("training", model.criterion)
    with logged() as lines:
        messages.log_start(equipment)
        step(model.criterion, predictions("26"), made_up_batch("26"))
        equipment.settle(stepping=False)
        messages.log_proof(equipment, model.criterion)
    one2many = "one2many assigner: topk=20 (stock 10), beta=4 (stock 6)"
    one2one = "one2one assigner: topk=20 (stock 7), of which 1 stays, beta=4 (stock 6)"
    start, proof = lines
    assert f"; {one2many}; {one2one}; equipped for training and validation (one2many)" in start
    assert "cls_loss=focal FocalLoss(" in start
    assert "ran in the first batch with objects: one2many class, assigner; one2one assigner;" in proof
    counts = [f"{branch.positives_per_object:.3g}" for branch in equipment.branches.values()]
    assert f"{one2many}, {counts[0]} positives per object; {one2one}, {counts[1]} positives per object" in proof


def test_a_tuner_keeps_the_number_of_candidates_whole() -> None:
    assert "tal_topk" in arguments.whole_numbers()
    assert not {"tal_alpha", "tal_min_side"} & arguments.whole_numbers()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tal_topk": 0}, "'tal_topk=0' is not valid: allowed is an integer >= 1, or stock"),
        ({"tal_topk": 2.5}, "'tal_topk=2.5' is not valid"),
        ({"tal_alpha": -1}, "'tal_alpha=-1' is not valid: allowed is a number >= 0, or stock"),
        ({"tal_beta": "high"}, "'tal_beta=high' is not valid"),
        ({"tal_min_side": -8}, "'tal_min_side=-8' is not valid"),
        ({"tal_overlap": "wiou"}, "allowed are stock, iou, giou, diou, ciou, nwd"),
        ({"tal_topk": 20, "loss_branches": "one2one"}, "'loss_branches=one2one' would change nothing"),
        ({"nwd_constant": 20}, "'nwd_constant=20' would change nothing"),
    ],
)
def test_values_out_of_range_are_refused_by_name(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        LossSettings.from_mapping(keys)
    assert words in str(error.value)


@pytest.mark.parametrize("task", ["classify", "semantic"])
@pytest.mark.parametrize("key", assigner.ATTRIBUTES)
def test_tasks_without_anchors_refuse_every_key(task: str, key: str) -> None:
    value = "nwd" if key == "tal_overlap" else 2
    with pytest.raises(ValueError, match=f"'{key}=.*cannot be used in the task '{task}'"):
        LossSettings.from_mapping({key: value}, task).check_task(task)


@pytest.mark.parametrize("key", assigner.ATTRIBUTES)
def test_rtdetr_refuses_every_key(key: str) -> None:
    value = "nwd" if key == "tal_overlap" else 2
    with pytest.raises(ValueError, match=f"'{key}=.*cannot be used with RT-DETR, which matches queries"):
        queries.check(LossSettings.from_mapping({key: value}))


def test_the_task_obb_refuses_an_overlap_of_upright_boxes_before_anything_is_built() -> None:
    with pytest.raises(ValueError, match="'tal_overlap=nwd' cannot be used in the task 'obb': allowed are detect"):
        LossSettings.from_mapping({"tal_overlap": "nwd"}).check_task("obb")


def test_a_release_without_a_floor_refuses_tal_min_side() -> None:
    settings = LossSettings.from_mapping({"tal_min_side": 24})
    criterion = criterion_of("v8")
    if hasattr(criterion.assigner, "stride_val"):
        assigner.check_release(settings)
        del criterion.assigner.stride_val
    with pytest.raises(
        ValueError, match=r"'tal_min_side=24.0' cannot be used with TaskAlignedAssigner, which has no 'stride_val'"
    ):
        yolo_losses.equip(criterion, settings)


def test_nwd_brings_its_constant_into_use_and_no_other_parameter() -> None:
    settings = LossSettings.from_mapping({"tal_overlap": "nwd", "nwd_constant": 20, "nwd_ratio": 0.9})
    assert settings.parameters == {"nwd_constant": 20}
    assert settings.unused == ("nwd_ratio",)
    assert settings.to_config() == {"tal_overlap": "nwd", "nwd_constant": 20}
    assert LossSettings.from_mapping(settings.to_config()) == LossSettings.from_mapping(
        {"tal_overlap": "nwd", "nwd_constant": 20}
    )
    both = LossSettings.from_mapping({"tal_overlap": "nwd", "box_loss": "nwd"})
    assert both.parameters == {"nwd_constant": 12.8, "nwd_ratio": 0.5}
    assert both.describe() == "cls=stock box=nwd(nwd_constant=12.8, nwd_ratio=0.5) dfl=stock tal(overlap=nwd)"
