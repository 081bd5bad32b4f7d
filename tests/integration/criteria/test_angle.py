"""The angle term of rotated heads: equal to stock for `sin2`, of the named loss for the others, refused elsewhere."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from anchor_criteria import assert_same_run, leaves
from conftest import TINY, criterion_of, logged, made_up_batch, predictions, run, tensors
from torch import Tensor
from ultralytics.utils.loss import v8OBBLoss

from yolo_losses import equip, registry
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria.angle_part import METHOD, AnglePart
from yolo_losses.integration.criteria.ledger import UnprovenError

LOSSES = [spec.name for spec in registry.specs("angle")]
heads = pytest.mark.parametrize("name", ["v8-obb", "26-obb"])


def result(name: str, keys: dict[str, Any], gain: float | None = None) -> tuple[dict[str, float], list[Tensor]]:
    """The logged terms and the gradients of a criterion with the chosen losses."""
    criterion = criterion_of(name)
    equip(criterion, keys)
    for one in leaves(criterion) if gain is not None else []:
        one.hyp = copy.copy(one.hyp)
        one.hyp.angle = gain
    items, _, gradients = run(criterion, predictions(name), made_up_batch(name))
    return items, [g for g in gradients if g is not None]


@pytest.mark.parametrize("more", [{}, {"cls_loss": "bce"}], ids=["alone", "class"])
@heads
def test_sin2_is_the_stock_term_in_the_whole_criterion(name: str, more: dict[str, str]) -> None:
    assert_same_run(result(name, {"angle_loss": "sin2", **more}), result(name, more))


@pytest.mark.parametrize("loss", ["stock", "sin2"])
@heads
def test_lambda_is_upstream_s_argument(name: str, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = result(name, {"angle_loss": loss, "angle_lambda": 0.5})
    stock = v8OBBLoss.calculate_angle_loss
    monkeypatch.setattr(v8OBBLoss, METHOD, lambda self, *args: stock(self, *args, lambda_val=0.5))
    assert_same_run(ours, result(name, {}))


def boxes_in_a_batch() -> tuple[Tensor, ...]:
    """Arguments of the method: four anchors, three of them positive."""
    pred = torch.tensor([[8, 8, 6, 2, 0.4], [8, 8, 6, 2, 0.1 + math.pi / 2], [5, 5, 4, 4, 1.0], [1, 1, 1, 1, 1]])
    target = torch.tensor([[8, 8, 6, 2, 0.1], [8, 8, 6, 2, 0.1], [5, 5, 4, 4, 0.2], [9, 9, 9, 9, 0]])
    positive = torch.tensor([[True, True, True, False]])
    return pred[None].requires_grad_(), target[None], positive, torch.tensor([0.5, 0.25, 1.0]), torch.tensor(1.75)


def test_cos2_sees_a_turn_of_90_degrees_to_which_sin2_is_blind() -> None:
    weight = math.exp(-((math.log(3) / 3) ** 2))
    wanted = {
        "sin2": (0.5 * weight * math.sin(0.6) ** 2 + 0 + math.sin(1.6) ** 2) / 1.75,
        "cos2": (0.5 * weight * math.sin(0.3) ** 2 + 0.25 * weight + math.sin(0.8) ** 2) / 1.75,
    }
    for loss, value in wanted.items():
        criterion = criterion_of("v8-obb")
        equip(criterion, {"angle_loss": loss})
        given = boxes_in_a_batch()
        term = criterion.calculate_angle_loss(*given)
        assert float(term.detach()) == pytest.approx(value, rel=1e-5)
        assert torch.autograd.grad(term, given[0])[0][0, 3].abs().max() == 0


@heads
def test_off_is_the_run_with_a_gain_of_0(name: str) -> None:
    assert_same_run(result(name, {"angle_loss": "off"}), result(name, {}, gain=0.0))


@pytest.mark.parametrize("loss", [*LOSSES, "off"])
def test_it_is_finite_in_half_precision_without_objects_and_on_boxes_without_area(loss: str) -> None:
    criterion = criterion_of("v8-obb")
    branches = equip(criterion, {"angle_loss": loss})
    for each in (3, 0):
        outputs, batch = predictions("v8-obb"), made_up_batch("v8-obb", each=each)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value, _ = criterion(outputs, batch)
        gradients = torch.autograd.grad(value.sum(), tensors(outputs), allow_unused=True)
        assert value.isfinite().all()
        assert all(g.isfinite().all() for g in gradients if g is not None)
    assert branches[""].calls == 1
    pred, target, *rest = boxes_in_a_batch()
    target[..., 2:4] = 0
    assert criterion.calculate_angle_loss(pred, target, *rest).isfinite()


def test_a_part_that_does_not_run_is_an_error() -> None:
    criterion = criterion_of("v8-obb")
    equip(criterion, {"angle_loss": "cos2"})
    delattr(criterion, METHOD)
    with pytest.raises(UnprovenError, match=r"computed its angle term without the part for angle_loss=cos2"):
        run(criterion, predictions("v8-obb"), made_up_batch("v8-obb"))


def test_copies_hold_the_part_and_pickles_the_stock_method() -> None:
    wanted = result("v8-obb", {"angle_loss": "cos2"})[0]
    criterion = criterion_of("v8-obb")
    equip(criterion, {"angle_loss": "cos2"})
    again = copy.deepcopy(criterion)
    assert isinstance(again.calculate_angle_loss, AnglePart)
    assert again.calculate_angle_loss.stock.__self__ is again
    assert run(again, predictions("v8-obb"), made_up_batch("v8-obb"))[0] == wanted
    text = pickle.dumps(criterion)
    assert b"yolo_losses" not in text
    assert run(pickle.loads(text), predictions("v8-obb"), made_up_batch("v8-obb"))[0] == result("v8-obb", {})[0]
    equip(criterion, {})
    assert METHOD not in vars(criterion)


@pytest.mark.parametrize(("key", "value"), [("angle_loss", "cos2"), ("angle_lambda", 2.0)])
def test_other_tasks_and_heads_refuse_it_by_name(key: str, value: Any) -> None:
    settings = LossSettings.from_mapping({key: value})
    settings.check_task("obb")
    with pytest.raises(ValueError, match=f"^'{key}={value}' cannot be used in the task 'detect': allowed is obb$"):
        settings.check_task("detect")
    with pytest.raises(ValueError, match=rf"^'{key}={value}' cannot be used with v8DetectionLoss, which has no angle"):
        equip(criterion_of("v8"), {key: value})


def test_a_release_without_the_term_refuses_it_before_anything_is_written(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics import YOLO

    monkeypatch.delattr(v8OBBLoss, METHOD)
    with pytest.raises(ValueError, match=r"^'angle_loss=cos2' cannot be used with v8OBBLoss, which has no angle term"):
        YOLO("yolov8n-obb.yaml").train(**TINY, data="nowhere.yaml", project=str(tmp_path / "runs"), angle_loss="cos2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"angle_loss": "none"}, "'angle_loss=none' is ambiguous: use angle_loss=off"),
        ({"angle_loss": "cos3"}, r"'angle_loss=cos3' is not valid: .*Did you mean 'cos2'"),
        ({"angle_lambda": 0}, "'angle_lambda=0' is not valid: allowed is a number > 0"),
    ],
)
def test_what_cannot_be_is_refused_early(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LossSettings.from_mapping(keys)


def test_a_training_logs_the_term_and_what_cos2_penalizes(datasets: Any, tmp_path: Any) -> None:
    from ultralytics import YOLO

    with logged() as messages:
        YOLO("yolov8n-obb.yaml").train(
            **TINY, data=str(datasets("obb")), project=str(tmp_path), name="run", angle_loss="cos2", angle_lambda=2
        )
    text = "\n".join(messages)
    note = "a correct box with its sides swapped and turned by 90 degrees is penalized, and so is any turn of a square"
    assert f"angle_loss=cos2 Cos2AngleLoss(), {note}, lambda 2; equipped for training and validation" in text
    assert "ran in the first batch with objects: angle" in text
    assert "angle_lambda: 2" in (tmp_path / "run" / "args.yaml").read_text()
