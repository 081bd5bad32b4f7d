"""No model whose `args` hold a chosen loss trains a stock loss in silence, whoever trains it."""

from __future__ import annotations

import copy
import functools
import pickle
import sys
from typing import Any

import pytest
import torch
from conftest import criterion_of, logged, made_up_batch, predictions, run, start
from loops import CHOSEN, batch, model_of, sgd, train, weights
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss

import yolo_losses
from yolo_losses.integration import context, guard
from yolo_losses.integration.criteria.anchor_branch import AssignerPart
from yolo_losses.integration.criteria.class_part import ClassPart

pytest_plugins = ("no_context",)
pytestmark = pytest.mark.usefixtures("no_context")


@pytest.mark.parametrize("chosen", [CHOSEN, {}])
def test_statistics_that_a_loop_of_one_s_own_does_not_write_are_warned_of_once(chosen: dict[str, Any]) -> None:
    with logged() as lines:
        train(model_of(loss_stats=True, **chosen), steps=3)
        train(model_of(**chosen))
    assert len([line for line in lines if "loss_stats=True has no effect in this training loop" in line]) == 1


def test_statistics_that_a_criterion_built_by_hand_does_not_write_are_warned_of_once() -> None:
    model = model_of()
    criterion = yolo_losses.DetectionLoss(model, settings={**CHOSEN, "loss_stats": True})
    with logged() as lines:
        for _ in range(3):
            criterion(predictions("v8"), made_up_batch("v8"))[0].sum().backward()
    assert len([line for line in lines if "loss_stats=True has no effect in this training loop" in line]) == 1


def test_a_loop_of_one_s_own_trains_the_chosen_loss_and_says_so() -> None:
    stock, chosen, by_hand = model_of(), model_of(**CHOSEN), model_of()
    by_hand.criterion = by_hand.init_criterion()
    yolo_losses.equip(by_hand.criterion, CHOSEN)
    with logged() as lines:
        train(chosen)
    for other in (stock, by_hand):
        train(other)
    assert torch.equal(weights(chosen), weights(by_hand))
    assert not torch.equal(weights(chosen), weights(stock))
    said = [line for line in lines if "yolo_losses: " in line]
    assert len(said) == 2
    assert "cls_loss=focal FocalLoss" in said[0]
    assert "ran in the first batch with objects: class, box" in said[1]


@pytest.mark.parametrize(
    ("kind", "config", "keys", "named"),
    [
        (
            "ClassificationModel",
            "yolov8n-cls.yaml",
            {"cls_loss": "gce"},
            "cls_loss=gce GeneralizedCrossEntropyLoss(q=0.7)",
        ),
        (
            "SegmentationModel",
            "yolov8n-seg.yaml",
            {"seg_loss": "dice"},
            "dfl_loss=stock; seg_loss=dice DiceLoss(smooth=1.0)",
        ),
        ("DetectionModel", "yolov8n.yaml", {"cls_scale": 2.0}, "box_loss=stock; dfl_loss=stock"),
    ],
)
def test_the_task_of_a_loop_of_one_s_own_is_that_of_its_model(
    kind: str, config: str, keys: dict[str, Any], named: str
) -> None:
    model = model_of(getattr(tasks, kind), config, **keys)
    for task in ("detect", None):  # Ultralytics' default, and none
        model.args.task, model.criterion = task, None
        with logged() as lines:
            guard.release()
            guard._equip(model, guard._chosen(model))
        assert f"{named}; equipped for training" in lines[-1]


def test_a_head_that_cannot_use_the_loss_is_refused_at_its_first_batch() -> None:
    with pytest.raises(ValueError, match=r"'dfl_loss=dfl' is not valid: this head predicts no distribution"):
        model_of(config="yolo26n.yaml", dfl_loss="dfl").loss(batch())


def test_without_gradients_and_without_keys_nothing_is_touched() -> None:
    chosen, stock = model_of(**CHOSEN).eval(), model_of().eval()
    with torch.no_grad():
        found, expected = chosen.loss(batch())[0], stock.loss(batch())[0]
    assert torch.equal(found, expected)
    train(stock.train())
    assert type(stock.criterion.bce) is nn.BCEWithLogitsLoss
    assert not isinstance(stock.criterion.assigner, guard.Part)


def test_after_uninstall_models_are_ultralytics_alone() -> None:
    from yolo_losses.integration import hook

    hook.uninstall()
    try:
        model, stock = model_of(**CHOSEN), model_of()
        train(model)
        train(stock)
        assert torch.equal(weights(model), weights(stock))
    finally:
        hook.install()


def test_a_criterion_that_is_used_directly_is_equipped_at_its_first_call() -> None:
    model = model_of(**CHOSEN)
    criterion, by_hand = model.init_criterion(), criterion_of("v8")
    assert isinstance(criterion.assigner, guard.Guard)
    restored = pickle.loads(pickle.dumps(criterion))
    assert type(restored.assigner).__name__ == "TaskAlignedAssigner"
    assert isinstance(copy.deepcopy(criterion).assigner, guard.Guard)
    yolo_losses.equip(by_hand, CHOSEN)
    found = run(criterion, predictions("v8"), made_up_batch("v8"))[0]
    assert isinstance(criterion.assigner, AssignerPart)
    assert found == run(by_hand, predictions("v8"), made_up_batch("v8"))[0]


class Auxiliary(DetectionModel):
    """A model that trains with a second criterion."""

    def loss(self, batch: Any, preds: Any = None) -> Any:
        if getattr(self, "criterion", None) is None:
            self.criterion = self.init_criterion()
        if not hasattr(self, "aux_criterion"):
            self.aux_criterion = v8DetectionLoss(self)  # within the first call
        preds = self.forward(batch["img"]) if preds is None else preds
        loss, items = self.criterion(preds, batch)
        return loss + self.aux_criterion(preds, batch)[0], items


class Hidden(DetectionModel):
    """A model that trains with a criterion that nobody can find."""

    def loss(self, batch: Any, preds: Any = None) -> Any:
        preds = self.forward(batch["img"]) if preds is None else preds
        return v8DetectionLoss(self)(preds, batch)


def in_a_batch(model: Any) -> Any:
    """Compute a loss as a trainer's batch does, for a model that overrides `loss`."""
    equipment = guard._equip(model, guard._chosen(model))
    context.enter(context.Context(model, equipment))
    loss = model.loss(batch())[0].sum()
    context.enter(None)
    return loss


def test_a_second_criterion_is_equipped_as_it_is_called() -> None:
    model = model_of(Auxiliary, **CHOSEN)
    in_a_batch(model).backward()
    assert isinstance(model.aux_criterion.bce, ClassPart)
    assert list(guard._find(model).branches) == ["", "aux_criterion"]  # type: ignore[union-attr]
    sgd(model).step()


def test_a_criterion_that_cannot_be_found_is_refused() -> None:
    with pytest.raises(RuntimeError, match="a criterion that is not an attribute of the model and would train a stock"):
        in_a_batch(model_of(Hidden, **CHOSEN))


def test_the_criterion_that_a_wrapped_function_calls_is_equipped() -> None:
    criterion, plain = criterion_of("v8"), criterion_of("v8")

    @functools.wraps(criterion, assigned=())
    def doubled(*args: Any) -> Any:
        loss, items = criterion(*args)
        return 2 * loss, items

    yolo_losses.equip(doubled, {"cls_loss": "focal"})
    yolo_losses.equip(plain, {"cls_loss": "focal"})
    outputs, labels = predictions("v8"), made_up_batch("v8")
    torch.testing.assert_close(run(doubled, outputs, labels)[1], 2 * run(plain, outputs, labels)[1])


AGAIN = """
import sys
import yolo_losses
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import DEFAULT_CFG_DICT
before = yolo_losses.integration.hook
for name in [name for name in sys.modules if name.partition(".")[0] == "yolo_losses"]:
    del sys.modules[name]
import yolo_losses
from yolo_losses.integration import hook
assert hook is not before
for method in (BaseTrainer.__init__, BaseModel.loss):
    assert method.yolo_losses_uninstall is hook.uninstall
    assert not hasattr(method.yolo_losses_original, "yolo_losses_original")
assert "cls_loss" in DEFAULT_CFG_DICT
hook.uninstall()
assert not hasattr(BaseTrainer.__init__, "yolo_losses_original")
assert not hasattr(BaseModel.loss, "yolo_losses_original")
assert "cls_loss" not in DEFAULT_CFG_DICT
print("as it was")
"""


def test_the_package_imported_afresh_takes_the_place_of_its_older_copy() -> None:
    assert start(sys.executable, "-c", AGAIN)().check().lines[-1] == "as it was"


def test_rtdetr_has_its_guard_at_its_forward() -> None:
    from ultralytics.nn.tasks import RTDETRDetectionModel

    model = model_of(RTDETRDetectionModel, "rtdetr-l.yaml", cls_loss="vfl")
    model.nc = 3
    criterion = model.init_criterion()
    assert isinstance(criterion.forward, guard.Guard)


def test_a_criterion_that_is_built_by_hand_is_refused_rather_than_stock() -> None:
    model = model_of(**CHOSEN)
    criterion = v8DetectionLoss(model)
    with torch.no_grad():
        criterion(model(batch()["img"]), batch())  # as validation does
    with pytest.raises(RuntimeError, match=r"would train a stock loss, .* equip it"):
        criterion(model(batch()["img"]), batch())
    yolo_losses.equip(criterion, CHOSEN)
    criterion(model(batch()["img"]), batch())
    stock = model_of()
    v8DetectionLoss(stock)(stock(batch()["img"]), batch())


def test_a_copy_of_a_model_that_is_followed_has_losses_of_its_own() -> None:
    model = model_of(cls_loss="ema_slide")
    train(model)
    other = copy.deepcopy(model)
    train(other, steps=2)
    steps = [int(m.criterion.bce.branch.cls.state_dict()["updates"]) for m in (model, other)]
    assert model.criterion.bce.branch is not other.criterion.bce.branch
    assert steps == [1, 2]


def test_keys_that_change_are_followed() -> None:
    model = model_of(cls_loss="focal")
    optimizer = sgd(model)
    train(model, optimizer)
    model.args.cls_loss = "slide"
    train(model, optimizer)
    assert type(model.criterion.bce.branch.cls).__name__ == "SlideLoss"
    model.args.cls_loss = "stock"
    train(model, optimizer)
    assert not isinstance(model.criterion.assigner, AssignerPart)


def test_weights_of_a_model_without_names_are_by_number() -> None:
    model = model_of(cls_loss="bce", cls_weights=[1, 2, 3])
    del model.names
    with logged() as log:
        train(model)
    assert "class weights: 0 1, 1 2, 2 3" in "\n".join(log)


def test_an_end_to_end_criterion_that_is_built_by_hand_is_refused_rather_than_stock() -> None:
    keys = {"cls_loss": "focal", "loss_branches": "one2many"}
    stock, model = model_of(config="yolov10n.yaml"), model_of(config="yolov10n.yaml", **keys)
    kind = type(stock.init_criterion())  # by release
    criterion = kind(model)
    with pytest.raises(RuntimeError, match=r"would train a stock loss, .* equip it"):
        criterion(model(batch()["img"]), batch())
    yolo_losses.equip(criterion, keys)
    criterion(model(batch()["img"]), batch())
    model.init_criterion()(model(batch()["img"]), batch())  # equips itself
    kind(stock)(stock(batch()["img"]), batch())


# ------------------------------------------------------------------------------- loops that do not step on each batch


def by_model(model: Any) -> torch.Tensor:
    """Return the loss of a batch as a model computes it."""
    return model.loss(batch())[0].sum()


def by_criterion(model: Any) -> torch.Tensor:
    """Return the loss of a batch from a criterion that is called directly."""
    if getattr(model, "criterion", None) is None:
        model.criterion = model.init_criterion()
    return model.criterion(model(batch()["img"]), batch())[0].sum()


def skipping(compute: Any, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Compute the loss of a batch and go on without it, as where it is not finite."""
    compute(model)


def skipping_with_zeros(compute: Any, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """As `skipping`, with gradients set to zero."""
    compute(model)
    optimizer.zero_grad()


def without_step(compute: Any, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Compute gradients that no step uses: a scaler skips it, SAM has its own."""
    compute(model).backward()
    optimizer.zero_grad()


@pytest.mark.parametrize("compute", [by_model, by_criterion])
@pytest.mark.parametrize("before", [skipping, skipping_with_zeros, without_step])
def test_a_batch_that_no_step_uses_is_no_alarm(compute: Any, before: Any) -> None:
    model = model_of(**CHOSEN)
    optimizer = sgd(model)
    before(compute, model, optimizer)
    compute(model).backward()
    optimizer.step()
    (branch,) = guard._find(model).branches.values()  # type: ignore[union-attr]
    assert branch.ledger.calls == 1


def test_a_criterion_that_is_called_directly_and_not_used_is_an_error() -> None:
    model = model_of(**CHOSEN)
    for _ in range(2):
        (0 * by_criterion(model)).backward()
    with pytest.raises(RuntimeError, match="no gradient reached it"):
        sgd(model).step()


def test_zero_grad_works_after_uninstall_where_another_package_has_wrapped_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from yolo_losses.integration import hook

    train(model_of(**CHOSEN))
    ours = torch.optim.Optimizer.zero_grad
    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", lambda *args, **kwargs: ours(*args, **kwargs))
    hook.uninstall()
    try:
        train(model_of())
    finally:
        hook.install()
    train(model_of(**CHOSEN))
    hook.uninstall()  # before the other package's wrapper goes
    hook.install()
