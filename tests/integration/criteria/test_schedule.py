"""The weight of the one-to-many branch: upstream's schedule with other ends, a weight on YOLOv10's gains, restored."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from conftest import TINY, criterion_of, head, logged, made_up_batch, predictions, run
from torch import Tensor
from ultralytics.utils.loss import E2EDetectLoss

from yolo_losses import equip
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria import schedule

EPOCHS = 10  # of `head`
FLAT = {"o2m_start": 1.0, "o2m_end": 1.0}


def of_v10() -> Any:
    """The criterion of YOLOv10 in releases before 8.4.0."""
    return E2EDetectLoss(head("v10"))


def loss_and_gradients(criterion: Any, name: str) -> list[Tensor]:
    outputs, batch = predictions(name), made_up_batch(name)
    _, loss, gradients = run(criterion, outputs, batch)
    return [loss, *(g for g in gradients if g is not None)]


def assert_equal(some: list[Tensor], others: list[Tensor]) -> None:
    for a, b in zip(some, others, strict=True):
        assert (a - b).abs().max() <= 1e-6 * b.abs().max()


@pytest.mark.parametrize("name", ["26", "26-seg", "26-pose", "26-obb", "v10"])
def test_upstream_s_own_ends_are_stock(name: str) -> None:
    criterion, stock = criterion_of(name), criterion_of(name)
    equip(criterion, {"o2m_start": 0.8, "o2m_end": 0.1})
    for _ in range(EPOCHS + 1):
        assert (criterion.o2m, criterion.o2o) == (stock.o2m, stock.o2o)
        criterion.update()
        stock.update()
    assert_equal(loss_and_gradients(criterion, name), loss_and_gradients(stock, name))


@pytest.mark.parametrize(
    ("keys", "first", "last"),
    [
        ({"o2m_start": 0.5, "o2m_end": 0.2}, 0.5, 0.2),
        ({"o2m_start": 0.3}, 0.3, 0.1),
        ({"o2m_end": 1}, 0.8, 1.0),
        ({"o2m_start": 0, "o2m_end": 0}, 0.0, 0.0),
    ],
)
def test_the_weight_goes_from_one_end_to_the_other_and_the_other_branch_has_the_rest(
    keys: dict[str, float], first: float, last: float
) -> None:
    criterion = criterion_of("26")
    equip(criterion, keys)
    for epoch in range(EPOCHS):
        assert criterion.o2m == pytest.approx(first + (last - first) * epoch / (EPOCHS - 1), abs=1e-12)
        assert criterion.o2o == pytest.approx(1 - criterion.o2m, abs=1e-12)
        criterion.update()
    assert criterion.o2m == pytest.approx(last, abs=1e-12)  # once all epochs are done


def test_a_criterion_that_was_moved_on_as_a_run_was_resumed_has_that_epoch_s_weight() -> None:
    criterion, straight = criterion_of("26"), criterion_of("26")
    criterion.updates = 3
    criterion.update()
    equip(criterion, {"o2m_start": 0.5, "o2m_end": 0.2})
    equip(straight, {"o2m_start": 0.5, "o2m_end": 0.2})
    for _ in range(4):
        straight.update()
    assert (criterion.o2m, criterion.o2o) == (straight.o2m, straight.o2o)


@pytest.mark.parametrize("updates", [0, 3])
def test_the_stock_schedule_is_restored_exactly_and_pickled(updates: int) -> None:
    criterion, stock = criterion_of("26"), criterion_of("26")
    for each in (criterion, stock):
        for _ in range(updates):
            each.update()
    equip(criterion, {"o2m_start": 0.5})
    text = pickle.dumps(criterion)
    assert b"yolo_losses" not in text
    unpickled = pickle.loads(text)
    again = copy.deepcopy(criterion)
    equip(criterion, {"cls_loss": "bce"})
    equip(again, {})
    for each in (criterion, again):
        assert (each.o2m, each.o2o, schedule.METHOD in vars(each)) == (stock.o2m, stock.o2o, False)
    stock.update()
    for each in (unpickled, criterion, again):
        each.update()
        assert (each.o2m, each.o2o) == (stock.o2m, stock.o2o)


def test_weights_of_1_are_v10_s_stock() -> None:
    criterion = of_v10()
    equip(criterion, FLAT)
    assert_equal(loss_and_gradients(criterion, "v10"), loss_and_gradients(of_v10(), "v10"))


def test_v10_s_one_to_many_branch_is_weighted_and_the_other_one_is_not() -> None:
    criterion = of_v10()
    branches = equip(criterion, {"o2m_start": 0.5, "o2m_end": 0.25})
    stock = of_v10()
    outputs, batch = predictions("v10"), made_up_batch("v10")
    many, one = (getattr(stock, name)(outputs[name], batch)[0].sum() for name in ("one2many", "one2one"))
    for epoch in range(EPOCHS):
        for branch in branches.values():
            branch.begin_epoch(epoch, EPOCHS)
        weight = 0.5 - 0.25 * epoch / (EPOCHS - 1)
        loss, _ = criterion(outputs, batch)
        torch.testing.assert_close(loss.sum(), weight * many + one)
    assert criterion.one2many.hyp.epochs == stock.one2many.hyp.epochs
    text = pickle.dumps(criterion)
    assert b"yolo_losses" not in text
    torch.testing.assert_close(pickle.loads(text)(outputs, batch)[0].sum(), many + one)
    twin = copy.deepcopy(criterion)
    torch.testing.assert_close(twin(outputs, batch)[0].sum(), 0.25 * many + one)
    equip(criterion, {})
    assert criterion.one2many.hyp is stock.one2many.hyp
    torch.testing.assert_close(criterion(outputs, batch)[0].sum(), many + one)


@pytest.mark.parametrize("chosen", ["both", "one2one", "one2many"])
def test_it_goes_together_with_losses_on_either_branch(chosen: str) -> None:
    keys = {"o2m_start": 0.5, "cls_loss": "bce", "loss_branches": chosen, "loss_stats": True}
    for criterion, name in ((criterion_of("26"), "26"), (of_v10(), "v10")):
        branches = equip(criterion, keys)
        outputs = predictions(name)
        loss, _ = criterion(outputs, made_up_batch(name))
        assert loss.isfinite().all()
        assert [path for path, branch in branches.items() if branch.expected == ("class",)] == (
            ["one2many", "one2one"] if chosen == "both" else [chosen]
        )
        assert getattr(criterion, "o2m", 0.5) == 0.5


@pytest.mark.parametrize("key", ["o2m_start", "o2m_end"])
@pytest.mark.parametrize("name", ["v8", "v8-obb"])
def test_a_head_with_one_branch_refuses_it(name: str, key: str) -> None:
    with pytest.raises(ValueError, match=rf"^'{key}=0.5' is not valid: this head has one branch, allowed is stock$"):
        equip(criterion_of(name), {key: 0.5})


def test_rt_detr_refuses_it() -> None:
    from ultralytics.models.utils.loss import RTDETRDetectionLoss

    with pytest.raises(ValueError, match=r"'o2m_end=0\.5' cannot be used with RT-DETR, whose head has one branch"):
        equip(RTDETRDetectionLoss(nc=3), {"o2m_end": 0.5})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"o2m_start": 1.1}, "'o2m_start=1.1' is not valid: allowed is a number >= 0 and <= 1, or stock"),
        ({"o2m_end": "first"}, "'o2m_end=first' is not valid: allowed is a number >= 0 and <= 1, or stock"),
        ({"o2m_start": 0.5, "loss_branches": "one2one"}, "'loss_branches=one2one' would change nothing"),
    ],
)
def test_what_cannot_be_is_refused_early(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LossSettings.from_mapping(keys)


def test_settings_are_described_and_kept() -> None:
    settings = LossSettings.from_mapping({"o2m_start": "0.5", "o2m_end": None})
    assert settings.to_config() == {"o2m_start": 0.5}
    assert settings.describe() == "cls=stock box=stock dfl=stock o2m(start=0.5)"


def test_a_training_logs_its_weights(data: Any, tmp_path: Any) -> None:
    from ultralytics import YOLO

    seen: list[float] = []
    model = YOLO("yolo26n.yaml")
    model.add_callback("on_train_batch_start", lambda trainer: seen.append(trainer.model.criterion.o2m))
    keys = {**TINY, "epochs": 3, "batch": 8}
    with logged() as messages:
        model.train(**keys, data=str(data), project=str(tmp_path), name="run", o2m_start=0.6, o2m_end=0.2)
    text = "\n".join(messages)
    words = "one2many weighs 0.6 to 0.2 over the epochs, one2one the rest (stock: 0.8 to 0.1)"
    assert f"{words}; equipped for training and validation (one2many, one2one)" in text
    assert "ran in the first batch with objects: one2many weighs 0.6, one2one 0.4" in text
    assert seen == pytest.approx([0.6, 0.4, 0.2])
    assert "o2m_end: 0.2" in (tmp_path / "run" / "args.yaml").read_text()
