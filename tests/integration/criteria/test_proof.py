"""No silent stock run: a part that does not run, or a term that a criterion changes, is noticed in the batch itself."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from conftest import criterion_of, head, made_up_batch, predictions, run
from torch import Tensor, nn
from ultralytics.utils.loss import BboxLoss, VarifocalLoss, v8DetectionLoss
from ultralytics.utils.metrics import bbox_iou

import yolo_losses
from yolo_losses import registry
from yolo_losses.integration import criteria

CLS_LOSSES = [spec.name for spec in registry.specs("cls")]


def step(criterion: Any, name: str = "v8", **batch: Any) -> dict[str, float]:
    """Return the items of a training step."""
    return run(criterion, predictions(name), made_up_batch(name, **batch))[0]


class OwnClassTerm(v8DetectionLoss):
    """A fork's criterion that computes its class term by itself."""

    def loss(self, preds: Any, batch: Any) -> Any:
        bce, self.bce = self.bce, nn.BCEWithLogitsLoss(reduction="none")
        try:
            return super().loss(preds, batch)
        finally:
            self.bce = bce


class Weighting(v8DetectionLoss):
    """A criterion that multiplies the class loss of positives by 2, as forks do after `self.bce(...)`."""

    def get_assigned_targets_and_loss(self, preds: Any, batch: Any, **kwargs: Any) -> tuple[Any, ...]:
        stock_bce, stock_assigner = self.bce, self.assigner
        mask: list[Tensor] = []

        class Assigner:
            def __call__(inner, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
                assigned = stock_assigner(*args, **kwargs)
                mask.append(assigned[3])
                return assigned

        def bce(*args: Any) -> Tensor:
            return stock_bce(*args) * torch.where(mask[0][..., None], 2, 1)

        self.__dict__.update(bce=bce, assigner=Assigner())
        try:
            return super().get_assigned_targets_and_loss(preds, batch, **kwargs)
        finally:
            self.__dict__.update(bce=stock_bce, assigner=stock_assigner)


class Replacing(v8DetectionLoss):
    """A fork with a varifocal loss pasted over `self.bce(...)`, so that `bce` is never called."""

    def get_assigned_targets_and_loss(self, preds: Any, batch: Any, **kwargs: Any) -> tuple[Any, ...]:
        stock = self.bce
        self.__dict__["bce"] = lambda logits, targets: VarifocalLoss()(logits, targets, (targets > 0).float())
        try:
            return super().get_assigned_targets_and_loss(preds, batch, **kwargs)
        finally:
            self.__dict__["bce"] = stock


class Auxiliary(v8DetectionLoss):
    """A criterion that adds the loss of an auxiliary one."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.aux = [v8DetectionLoss(model)]

    def loss(self, preds: Any, batch: Any) -> Any:
        loss, items = super().loss(preds, batch)
        return loss + 0.25 * self.aux[0].loss(preds, batch)[0], items


class OwnBox(BboxLoss):
    """A fork's box part with a formula of its own in its body."""

    def forward(self, pred_dist: Any, pred_bboxes: Any, *args: Any) -> tuple[Tensor, Tensor]:
        return pred_bboxes.sum() * 0 + 1, pred_dist.sum() * 0


@pytest.mark.skipif(not hasattr(v8DetectionLoss, "get_assigned_targets_and_loss"), reason="this release has one body")
def test_a_class_term_that_a_fork_computes_itself_is_an_error_in_its_first_batch() -> None:
    for kind in (Replacing, OwnClassTerm):
        criterion = kind(head("v8"))
        yolo_losses.equip(criterion, {"cls_loss": "slide"})
        with pytest.raises(RuntimeError, match=rf"{kind.__name__} computed its class term without .*cls_loss=slide"):
            step(criterion)


@pytest.mark.skipif(not hasattr(v8DetectionLoss, "get_assigned_targets_and_loss"), reason="this release has one body")
@pytest.mark.parametrize("cls_loss", ["bce", "slide", "qfl"])
def test_elements_that_a_criterion_weights_get_their_weight_in_the_first_batch_already(cls_loss: str) -> None:
    criterion, plain = Weighting(head("v8")), criterion_of("v8")
    yolo_losses.equip(criterion, {"cls_loss": cls_loss})
    yolo_losses.equip(plain, {"cls_loss": cls_loss})
    found, once = step(criterion)["cls_loss"], step(plain)["cls_loss"]
    assert once < found < 2 * once
    if cls_loss == "bce":
        assert found == pytest.approx(step(Weighting(head("v8")))["cls_loss"], rel=1e-5)


@pytest.mark.skipif(not hasattr(v8DetectionLoss, "get_assigned_targets_and_loss"), reason="this release has one body")
def test_elements_that_a_criterion_weights_get_their_weight_in_a_large_batch_without_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yolo_losses.losses.classification._batch.CHUNK", 64)
    criterion = Weighting(head("v8"))
    yolo_losses.equip(criterion, {"cls_loss": "bce"})
    for each in (0, 3):
        stock = step(Weighting(head("v8")), each=each)["cls_loss"]
        assert step(criterion, each=each)["cls_loss"] == pytest.approx(stock, rel=1e-5)


def test_a_first_batch_that_overflowed_is_no_proof_and_the_next_one_is_compared() -> None:
    criterion = criterion_of("v8")
    branch = yolo_losses.equip(criterion, {"cls_loss": "focal"})[""]
    outputs = predictions("v8")
    with torch.no_grad():
        outputs["scores"][0, 0, 0] = torch.inf
    run(criterion, outputs, made_up_batch("v8"))
    assert not branch.proven
    step(criterion)
    assert branch.proven


def test_a_criterion_s_own_attribute_called_branches_is_in_its_pickle() -> None:
    criterion = criterion_of("v8")
    yolo_losses.equip(criterion, {"cls_loss": "focal"})
    criterion.branches = ["mine"]
    again = pickle.loads(pickle.dumps(criterion))
    assert again.branches == ["mine"]


class OwnBoxTerm(v8DetectionLoss):
    """A criterion that replaces its box term after all is done."""

    def loss(self, preds: Any, batch: Any) -> Any:
        loss, items = super().loss(preds, batch)
        other = preds["boxes"].square().mean()
        return torch.stack((other * len(batch["img"]), *loss[1:])), {**items, "box_loss": other.detach()}


class OverlapAsWeight(BboxLoss):
    """A fork's box part that asks for the IoU and takes its square."""

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        pred, target, mask = args[1], args[3], args[6]
        overlap = bbox_iou(pred[mask], target[mask], xywh=False, CIoU=True)
        return (1 - overlap.detach()).square().sum() + pred.sum() * 0, args[0].sum() * 0


@pytest.mark.skipif(not hasattr(v8DetectionLoss, "loss"), reason="this release has one body")
def test_a_box_term_whose_result_is_not_used_is_an_error_before_the_step() -> None:
    overlap = criterion_of("v8")
    overlap.bbox_loss = OverlapAsWeight()
    for criterion in (OwnBoxTerm(head("v8")), overlap):
        branch = yolo_losses.equip(criterion, {"box_loss": "siou"})[""]
        branch.join_training()
        step(criterion)
        with pytest.raises(RuntimeError, match=r"the box term with box_loss=siou .* no gradient reached it before"):
            branch.settle(stepping=True)


def test_a_box_part_whose_forward_is_changed_is_refused() -> None:
    def changed(part: Any) -> None:
        part.forward = lambda *args, **kwargs: BboxLoss.forward(part, *args, **kwargs)

    def hooked(part: Any) -> None:
        part.register_forward_hook(lambda module, args, result: (result[0] * 2, result[1]))

    for change in (changed, hooked):
        criterion = criterion_of("v8")
        change(criterion.bbox_loss)
        with pytest.raises(RuntimeError, match="does not know the box part"):
            yolo_losses.equip(criterion, {"box_loss": "siou"})


def test_one_branch_of_an_end_to_end_head_that_is_replaced_is_equipped_again() -> None:
    criterion = criterion_of("26")
    branches = yolo_losses.equip(criterion, {"cls_loss": "slide"})
    assert criteria.branches_of(criterion) == branches
    criterion.one2one = criterion_of("26").one2one
    assert criteria.branches_of(criterion) != branches
    again = yolo_losses.equip(criterion, {"cls_loss": "slide"}, branches)
    assert again == branches
    assert criteria.branches_of(criterion) == branches


def test_a_method_that_is_replaced_later_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    criterion = criterion_of("v8")
    yolo_losses.equip(criterion, {"cls_loss": "slide"})
    once = step(criterion)["cls_loss"]
    entry = "loss" if hasattr(v8DetectionLoss, "loss") else "__call__"
    body = getattr(v8DetectionLoss, entry)

    def doubled(self: Any, *args: Any) -> Any:
        loss, items = body(self, *args)
        return loss * 2, {k: v * 2 for k, v in items.items()} if isinstance(items, dict) else items * 2

    monkeypatch.setattr(v8DetectionLoss, entry, doubled)
    assert step(criterion)["cls_loss"] == pytest.approx(2 * once)


def test_an_auxiliary_criterion_is_equipped_too() -> None:
    criterion = Auxiliary(head("v8"))
    branches = yolo_losses.equip(criterion, {"cls_loss": "slide", "box_loss": "siou"})
    assert list(branches) == ["", "aux.0"]
    if hasattr(v8DetectionLoss, "loss"):
        step(criterion)
        assert [branch.calls for branch in branches.values()] == [1, 1]


def test_a_box_part_with_a_formula_of_its_own_is_refused_by_name() -> None:
    criterion = criterion_of("v8")
    criterion.bbox_loss = OwnBox()
    with pytest.raises(RuntimeError, match=r"does not know the box part .*OwnBox: it does not compute its IoU"):
        yolo_losses.equip(criterion, {"box_loss": "siou"})
    yolo_losses.equip(criterion, {"cls_loss": "slide"})  # whose box term is its own affair


@pytest.mark.parametrize("name", ["assigner", "bce", "bbox_loss"])
def test_a_part_that_is_replaced_after_set_up_is_an_error(name: str) -> None:
    criterion = criterion_of("v8")
    stock = getattr(criterion, name)
    yolo_losses.equip(criterion, {"cls_loss": "slide", "box_loss": "siou"})
    step(criterion)
    setattr(criterion, name, stock)
    with pytest.raises(RuntimeError, match=r"without .*replaced after set-up"):
        step(criterion)


def test_a_distribution_part_that_is_replaced_is_an_error() -> None:
    criterion = criterion_of("v8")
    stock = criterion.bbox_loss.dfl_loss
    yolo_losses.equip(criterion, {"dfl_loss": "dfl"})
    criterion.bbox_loss.dfl_loss = stock
    criterion.bbox_loss.__dict__.pop("dfl_loss", None)
    with pytest.raises(RuntimeError, match="computed its distribution term without the part for dfl_loss=dfl"):
        step(criterion)


def test_an_assignment_is_used_once() -> None:
    criterion = criterion_of("v8")
    yolo_losses.equip(criterion, {"cls_loss": "slide"})
    logits = torch.randn(2, 84, 3)
    with pytest.raises(RuntimeError, match="asked for its class term without calling the assigner"):
        criterion.bce(logits, torch.zeros_like(logits))
    step(criterion)
    with pytest.raises(RuntimeError, match="asked for its class term without calling the assigner"):
        criterion.bce(logits, torch.zeros_like(logits))


@pytest.mark.parametrize("name", ["v8", "26", "v8-obb"])
def test_nothing_of_a_step_is_held_after_it(name: str) -> None:
    criterion = criterion_of(name)
    yolo_losses.equip(criterion, {"cls_loss": "slide", "cls_target": "iou"})
    outputs, batch = predictions(name), made_up_batch(name)
    seen: list[weakref.ref[Tensor]] = []
    leaf = getattr(criterion, "one2many", criterion)
    stock = leaf.assigner.stock
    stock.register_forward_hook(lambda module, args, result: seen.extend(weakref.ref(t) for t in result[:4]))
    run(criterion, outputs, batch)
    gc.collect()
    assert seen
    assert not [ref for ref in seen if ref() is not None]


def test_a_criterion_that_knows_its_model_is_equipped_once() -> None:
    criterion = criterion_of("v8")
    criterion.owner = type("Owner", (), {})()
    criterion.owner.criterion = criterion
    assert list(yolo_losses.equip(criterion, {"cls_loss": "slide"})) == [""]


def test_class_weights_multiply_a_third_party_s_loss_in_place() -> None:
    """Whose gradient may need its own result, as that of an exponential does."""

    def growing_for_test(logits: Tensor, targets: Tensor) -> Tensor:
        return (logits.sigmoid() - targets).abs().exp()

    yolo_losses.register_cls_loss("growing_for_test")(growing_for_test)
    try:
        criterion = criterion_of("v8")
        yolo_losses.equip(criterion, {"cls_loss": "growing_for_test"})
        once = step(criterion)["cls_loss"]
        criterion.class_weights = torch.full((1, 1, 3), 2.0)
        assert step(criterion)["cls_loss"] == pytest.approx(2 * once)
    finally:
        registry.remove("cls", "growing_for_test")


def test_a_copy_of_a_part_is_a_part() -> None:
    criterion = criterion_of("v8")
    branch = yolo_losses.equip(criterion, {"cls_loss": "slide", "box_loss": "siou", "dfl_loss": "off"})[""]
    for part in (criterion.assigner, criterion.bce, criterion.bbox_loss, criterion.bbox_loss.dfl_loss):
        copied = copy.copy(part)
        assert type(copied) is type(part)
        assert copied.branch is branch
        assert copied.stock is part.stock
    copied = copy.copy(criterion)
    assert step(copied) == step(criterion)


def test_without_objects_nothing_is_proven() -> None:
    criterion = criterion_of("v8")
    branch = yolo_losses.equip(criterion, {"cls_loss": "slide", "box_loss": "siou", "dfl_loss": "dfl"})[""]
    step(criterion, each=0)
    assert (branch.ledger.batches, branch.calls, branch.ratios) == (1, 0, {})
    step(criterion)
    assert (branch.ledger.batches, branch.calls) == (2, 1)
    assert set(branch.ratios) == {"value", "gradient"}


@pytest.mark.parametrize("cls_loss", CLS_LOSSES)
def test_the_pull_is_the_ratio_of_the_gradients_on_the_positives(cls_loss: str) -> None:
    outputs, batch = predictions("v8"), made_up_batch("v8")
    plain = criterion_of("v8")
    seen: dict[str, Tensor] = {}
    plain.assigner.register_forward_hook(lambda module, args, result: seen.update(mask=result[3], scores=result[2]))
    stock = run(plain, outputs, batch)[2][1].transpose(1, 2)
    criterion = criterion_of("v8")
    branch = yolo_losses.equip(criterion, {"cls_loss": cls_loss})[""]
    ours = run(criterion, outputs, batch)[2][1].transpose(1, 2)
    positives = seen["scores"] > 0
    wanted = ours[positives].norm() / stock[positives].norm()
    assert branch.ratios["gradient"] == pytest.approx(float(wanted), rel=1e-4)
