"""No model whose `args` hold a chosen loss trains a stock loss in silence, whoever trains it."""

from __future__ import annotations

import copy
import functools
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import SIZE, criterion_of, logged, made_up_batch, predictions, run, start
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss

import yolo_losses
from yolo_losses.integration import context, guard
from yolo_losses.integration.criteria.anchor_branch import AssignerPart
from yolo_losses.integration.criteria.class_part import ClassPart

CHOSEN = {"cls_loss": "focal", "box_loss": "siou"}


@pytest.fixture(autouse=True)
def nothing_is_running() -> Iterator[None]:
    yield
    context.enter(None)


def model_of(kind: type = DetectionModel, config: str = "yolov8n.yaml", **keys: Any) -> Any:
    """Return a model whose `args` hold keys, that no trainer has set up."""
    torch.manual_seed(0)
    model = kind(config, nc=3, verbose=False)
    model.args = get_cfg(overrides={"imgsz": SIZE})
    for key, value in keys.items():
        setattr(model.args, key, value)
    return model.train()


def batch() -> dict[str, Any]:
    return {**made_up_batch("v8"), "img": torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))}


def sgd(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01)


def train(model: Any, optimizer: torch.optim.Optimizer | None = None, steps: int = 1) -> None:
    """Train as a loop of one's own does."""
    optimizer = sgd(model) if optimizer is None else optimizer
    for _ in range(steps):
        model.loss(batch())[0].sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def weights(model: Any) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


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
    with pytest.raises(RuntimeError, match="a criterion that is no attribute of the model and would train a stock"):
        in_a_batch(model_of(Hidden, **CHOSEN))


# ------------------------------------------------------------------------------------- called, but not what is trained


@pytest.mark.parametrize("spoil", [lambda loss: loss * 0, lambda loss: loss[:1] * 1], ids=["times 0", "thrown away"])
def test_a_result_that_is_not_used_is_an_error_before_the_step(spoil: Any) -> None:
    model = model_of(**CHOSEN)
    before = weights(model)
    spoil(model.loss(batch())[0]).sum().backward()
    with pytest.raises(RuntimeError, match="no gradient reached it before the optimizer's step"):
        sgd(model).step()
    assert torch.equal(weights(model), before)


def test_gradients_that_are_set_to_zero_before_a_stock_loss_are_an_error() -> None:
    model = model_of(**CHOSEN)
    optimizer = sgd(model)
    train(model, optimizer)
    for branch in guard._find(model).branches.values():  # type: ignore[union-attr]
        branch.ledger.due = True  # as an epoch begins
    model.loss(batch())[0].sum().backward()
    optimizer.zero_grad()
    model.forward(batch()["img"])["scores"].sum().backward()
    with pytest.raises(RuntimeError, match="no gradient reached it before the optimizer's step"):
        optimizer.step()


def test_a_step_that_a_scaler_skips_is_no_alarm() -> None:
    model = model_of(**CHOSEN)
    optimizer = sgd(model)
    train(model, optimizer)
    for branch in guard._find(model).branches.values():  # type: ignore[union-attr]
        branch.ledger.due = True
    model.loss(batch())[0].sum().backward()
    optimizer.zero_grad()  # the step before it was skipped
    train(model, optimizer)


def test_a_frozen_head_owes_no_gradient() -> None:
    model = model_of(**CHOSEN)
    for parameter in model.model[-1].parameters():
        parameter.requires_grad = False
    for parameter in model.model[:-1].parameters():
        parameter.requires_grad = False
    first = next(model.model[-1].cv2.parameters())
    first.requires_grad = True  # the boxes alone
    with logged() as lines:
        train(model, torch.optim.SGD([first], lr=0.01))
    assert any("class (not trained here), box" in line for line in lines)


# ---------------------------------------------------------------------------------------------------------------- state


class Checkpointed(DetectionModel):
    """A model that computes its criterion under activation checkpointing."""

    def loss(self, batch: Any, preds: Any = None) -> Any:
        preds = self.forward(batch["img"]) if preds is None else preds
        names = list(preds)

        def compute(*values: Any) -> Any:
            return self.criterion(dict(zip(names, values, strict=True)), batch)[0]

        return checkpoint(compute, *preds.values(), use_reentrant=False), {}


@pytest.mark.parametrize("cls_loss", ["ema_slide", "ghm"])
def test_state_moves_once_a_batch_under_checkpointing(cls_loss: str) -> None:
    keys = {"cls_loss": cls_loss, "cls_scale": "auto", "box_loss": "wiou"}
    plain, recomputed = model_of(**keys), model_of(Checkpointed, **keys)
    equipment = guard._equip(recomputed, guard._chosen(recomputed))
    optimizer = sgd(recomputed)
    for _ in range(2):
        context.enter(context.Context(recomputed, equipment))
        recomputed.loss(batch())[0].sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    train(plain, sgd(plain), steps=2)
    expected = guard._find(plain).branches[""]  # type: ignore[union-attr]
    for term, module in equipment.branches[""].modules.items():
        for name, buffer in module.named_buffers():
            torch.testing.assert_close(buffer, dict(expected.modules[term].named_buffers())[name], msg=f"{term} {name}")
    assert torch.equal(weights(plain), weights(recomputed))


def test_eval_mode_with_gradients_moves_no_state() -> None:
    model = model_of(cls_loss="ema_slide")
    train(model)
    branch = guard._find(model).branches[""]  # type: ignore[union-attr]
    before = copy.deepcopy(branch.cls.state_dict())
    model.eval().loss(batch())
    optimizer = sgd(model)
    train(model.train(), optimizer)
    train(model, optimizer)
    assert int(branch.cls.updates) == int(before["updates"]) + 2


# --------------------------------------------------------------------------------------- a criterion's own class loss


def with_own_bce(weight: Tensor) -> Any:
    criterion = criterion_of("v8")
    criterion.bce = nn.BCEWithLogitsLoss(reduction="none", pos_weight=weight)
    return criterion


def test_factor_and_weights_multiply_what_the_part_in_place_returns() -> None:
    weight = torch.tensor([1.0, 1.0, 50.0])
    outputs, labels = predictions("v8"), made_up_batch("v8")
    once = run(with_own_bce(weight), outputs, labels)[0]
    doubled, weighted = with_own_bce(weight), with_own_bce(weight)
    yolo_losses.equip(doubled, {"cls_scale": 2})
    yolo_losses.equip(weighted, {"cls_weights": [2, 2, 2]})
    for criterion in (doubled, weighted):
        found = run(criterion, outputs, labels)[0]
        assert found["cls_loss"] == pytest.approx(2 * once["cls_loss"], rel=1e-5)
        assert found["box_loss"] == once["box_loss"]


def test_auto_on_a_part_that_is_not_plain_bce_is_refused_and_a_loss_that_replaces_it_says_so() -> None:
    criterion = with_own_bce(torch.ones(3))
    with pytest.raises(ValueError, match=r"^'cls_scale=auto' cannot be used with the criterion's own class loss"):
        yolo_losses.equip(criterion, {"cls_scale": "auto"})
    with logged() as lines:
        yolo_losses.equip(criterion, {"cls_loss": "slide"})
    assert any("cls_loss=slide replaces the criterion's own class loss, a BCEWithLogitsLoss" in line for line in lines)


def test_the_factor_on_masks_multiplies_the_mask_loss_in_place() -> None:
    def squared(gt: Tensor, pred: Tensor, proto: Tensor, xyxy: Tensor, area: Tensor) -> Tensor:
        return (torch.einsum("in,nhw->ihw", pred, proto) - gt).square().mean()

    outputs, labels = predictions("v8-seg"), made_up_batch("v8-seg")
    losses = []
    for keys in ({}, {"seg_scale": 2.0}):
        criterion = criterion_of("v8-seg")
        criterion.single_mask_loss = squared
        yolo_losses.equip(criterion, keys)
        losses.append(criterion(outputs, labels)[0][1])
    torch.testing.assert_close(losses[1], 2 * losses[0])


def test_rtdetr_without_vfl_can_be_scaled_and_without_fl_is_refused_by_the_key_that_was_set() -> None:
    from ultralytics.models.utils.loss import RTDETRDetectionLoss

    yolo_losses.equip(RTDETRDetectionLoss(nc=3, use_vfl=False), {"cls_scale": 2})
    with pytest.raises(ValueError, match=r"^'cls_scale=2.0' cannot be used with a RTDETRDetectionLoss without 'fl'"):
        yolo_losses.equip(RTDETRDetectionLoss(nc=3, use_fl=False), {"cls_scale": 2})


# ------------------------------------------------------------------------------------- classes on models people have


def test_the_classes_take_what_yolo_gives_people_and_refuse_heads_with_two_branches() -> None:
    for model in (YOLO("yolov8n.yaml"), YOLO("yolov8n.yaml").model):
        criterion = yolo_losses.DetectionLoss(model, settings={"cls_loss": "focal"})
        preds = (model.model if isinstance(model, YOLO) else model).train()(torch.zeros(2, 3, SIZE, SIZE))
        assert criterion(preds, made_up_batch("v8"))[0].isfinite().all()
    with pytest.raises(ValueError, match=r"DetectionLoss is not for a Detect head with two branches \(end2end\): use"):
        yolo_losses.DetectionLoss(YOLO("yolo26n.yaml").model)


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


# --------------------------------------------------------------------------- criteria and copies that nobody has set up


def test_a_criterion_that_is_built_by_hand_is_refused_rather_than_stock() -> None:
    model = model_of(**CHOSEN)
    criterion = v8DetectionLoss(model)
    with torch.no_grad():
        criterion(model(batch()["img"]), batch())  # as validation does
    with pytest.raises(RuntimeError, match="would train a stock loss: equip it"):
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


def test_gradients_that_are_set_to_zero_before_the_first_step_are_no_proof() -> None:
    stock, model = model_of(), model_of(**CHOSEN)
    optimizer = sgd(model)
    model.loss(batch())[0].sum().backward()
    optimizer.zero_grad()
    model.criterion = stock.init_criterion()
    model.criterion(model(batch()["img"]), batch())[0].sum().backward()
    with pytest.raises(RuntimeError, match="no gradient reached it"):
        optimizer.step()


def test_the_gradient_is_followed_again_in_a_long_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "RECHECK_EVERY", 2)
    model = model_of(**CHOSEN)
    optimizer = sgd(model)
    train(model, optimizer, steps=2)
    (loss, _) = model.loss(batch())
    (loss.detach() + 0 * loss).sum().backward()
    with pytest.raises(RuntimeError, match="no gradient reached it"):
        optimizer.step()


def test_weights_of_a_model_without_names_are_by_number() -> None:
    model = model_of(cls_loss="bce", cls_weights=[1, 2, 3])
    del model.names
    with logged() as log:
        train(model)
    assert "class weights: 0 1, 1 2, 2 3" in "\n".join(log)
