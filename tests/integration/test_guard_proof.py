"""A loop of one's own: what is called but not trained is an error, and state moves once per batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from conftest import logged
from loops import CHOSEN, batch, model_of, sgd, train, weights
from torch.utils.checkpoint import checkpoint
from ultralytics.nn.tasks import DetectionModel

from yolo_losses.integration import context, guard

pytest_plugins = ("no_context",)
pytestmark = pytest.mark.usefixtures("no_context")


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


def test_gradients_that_are_set_to_zero_before_the_first_step_are_no_proof() -> None:
    stock, model = model_of(), model_of(**CHOSEN)
    optimizer = sgd(model)
    model.loss(batch())[0].sum().backward()
    optimizer.zero_grad()
    model.criterion = stock.init_criterion()
    model.criterion(model(batch()["img"]), batch())[0].sum().backward()
    with pytest.raises(RuntimeError, match="no gradient reached it"):
        optimizer.step()


def test_a_batch_that_is_computed_again_before_its_step_is_proven_by_the_second_call() -> None:
    # As in sharpness-aware minimization, within a trainer's `optimizer_step`.
    model = model_of(**CHOSEN)
    equipment = guard._equip(model, guard._chosen(model))
    optimizer = sgd(model)
    context.enter(context.Context(model, equipment))
    for _ in range(2):
        optimizer.zero_grad()
        model.loss(batch())[0].sum().backward()
    optimizer.step()
    assert equipment.calls_proven == 1


class CalledTwice(DetectionModel):
    """A model that computes its criterion twice, on the predictions and on those of a second pass, and uses one."""

    used = 0

    def loss(self, batch: Any, preds: Any = None) -> Any:
        if not hasattr(self, "criterion"):
            self.criterion = self.init_criterion()
        losses = [self.criterion(self.forward(batch["img"]), batch) for _ in range(2)]
        return losses[self.used]


@pytest.mark.parametrize("used", [0, 1])
def test_each_call_of_a_batch_must_be_used(used: int) -> None:
    model = model_of(CalledTwice, **CHOSEN)
    model.used = used
    context.enter(context.Context(model, guard._equip(model, guard._chosen(model))))  # a trainer's batch
    model.loss(batch())[0].sum().backward()
    with pytest.raises(RuntimeError, match="no gradient reached it before the optimizer's step"):
        sgd(model).step()


def test_the_gradient_is_followed_again_in_a_long_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "RECHECK_EVERY", 2)
    model = model_of(**CHOSEN)
    optimizer = sgd(model)
    train(model, optimizer, steps=2)
    (loss, _) = model.loss(batch())
    (loss.detach() + 0 * loss).sum().backward()
    with pytest.raises(RuntimeError, match="no gradient reached it"):
        optimizer.step()
