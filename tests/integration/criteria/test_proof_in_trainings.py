"""No silent stock run, in whole trainings: what changes a criterion, its keys or its callbacks is noticed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, criterion_of, logged
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss

from yolo_losses.losses.classification._base import ClassificationLoss


def train(tmp_path: Path, data: Path, callbacks: dict[str, Any] | None = None, **keys: Any) -> list[str]:
    """Train a model and return what the package said."""
    model = YOLO("yolov8n.yaml")
    for event, callback in (callbacks or {}).items():
        model.add_callback(event, callback)
    with logged() as lines:
        model.train(data=str(data), project=str(tmp_path), **{**TINY, **keys})
    return [line for line in lines if "yolo_losses: " in line]


@pytest.mark.slow
def test_a_class_term_of_zero_is_warned_of(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClassificationLoss, "per_element", lambda self, batch, step: (batch.logits * 0, None))
    said = train(tmp_path, data, cls_loss="slide")
    assert any("class term 0 times BCE's" in line for line in said)
    assert any("the class term is 0: the classes learn nothing from it" in line for line in said)


@pytest.mark.slow
def test_a_training_whose_time_is_over_in_its_first_batch_is_proven(tmp_path: Path, data: Path) -> None:
    said = train(tmp_path, data, cls_loss="ema_slide", time=1e-7, nbs=4)
    assert any("ran in the first batch with objects: class" in line for line in said)
    state = torch.load(next(tmp_path.rglob("yolo_losses_state.pt")), weights_only=True)["state"]
    assert state["/cls"]["updates"] == 1


@pytest.mark.slow
def test_keys_that_a_callback_changes_after_set_up_end_the_run(tmp_path: Path, data: Path) -> None:
    """The checkpoint would name a loss that never ran."""

    def change(trainer: Any) -> None:
        trainer.args.cls_loss = "focal"

    for keys in ({"cls_loss": "slide"}, {}):
        for event in ("on_train_start", "on_train_epoch_end"):
            with pytest.raises(RuntimeError, match="'cls_loss' was changed to focal after set-up"):
                train(tmp_path, data, {event: change}, epochs=2, **keys)


@pytest.mark.slow
def test_an_override_of_run_callbacks_that_drops_events_ends_the_run(tmp_path: Path, data: Path) -> None:
    class Quiet(DetectionTrainer):
        dropped: tuple[str, ...] = ()

        def run_callbacks(self, event: str) -> None:
            if event not in self.dropped:
                super().run_callbacks(event)

    overrides = {**TINY, "model": "yolov8n.yaml", "data": str(data), "project": str(tmp_path)}
    for dropped, words in (
        (("on_pretrain_routine_end",), "did not call the callbacks of 'on_pretrain_routine_end'"),
        (("on_train_batch_start", "on_train_batch_end"), "did not call the callbacks of 'on_train_batch_end'"),
    ):
        Quiet.dropped = dropped
        with pytest.raises(RuntimeError, match=words):
            Quiet(overrides={**overrides, "cls_loss": "slide"}).train()
        Quiet(overrides=overrides).train()


@pytest.mark.slow
def test_a_model_whose_own_loss_ignores_the_criterion_ends_at_its_first_batch(tmp_path: Path, data: Path) -> None:
    class Own(DetectionModel):
        def loss(self, batch: Any, preds: Any = None) -> Any:
            return v8DetectionLoss(self)(self.forward(batch["img"]) if preds is None else preds, batch)

    class Trainer(DetectionTrainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            return Own("yolov8n.yaml", nc=self.data["nc"], verbose=False)

    overrides = {**TINY, "model": "yolov8n.yaml", "data": str(data), "project": str(tmp_path)}
    with pytest.raises(RuntimeError, match="calls a TaskAlignedAssigner of a criterion that is not an attribute"):
        Trainer(overrides={**overrides, "cls_loss": "slide"}).train()


@pytest.mark.slow
def test_an_epoch_without_objects_claims_nothing_and_warns(tmp_path: Path, data: Path) -> None:
    def empty(trainer: Any) -> None:
        if not hasattr(trainer, "emptied"):
            trainer.emptied, preprocess = True, trainer.preprocess_batch

            def without_objects(batch: Any) -> Any:
                batch = preprocess(batch)
                if trainer.epoch == 0:
                    batch.update({k: batch[k][:0] for k in ("cls", "bboxes", "batch_idx")})
                return batch

            trainer.preprocess_batch = without_objects

    lines = train(tmp_path, data, {"on_train_start": empty}, cls_loss="slide", epochs=2)
    assert len([line for line in lines if "no batch of epoch 1 had objects" in line]) == 1
    ran = [line for line in lines if "ran in the first batch with objects" in line]
    assert len(ran) == 1
    assert lines.index(ran[0]) > next(i for i, line in enumerate(lines) if "no batch of epoch 1" in line)


@pytest.mark.slow
def test_an_assigner_that_a_callback_replaces_at_a_later_epoch_is_equipped_again(tmp_path: Path, data: Path) -> None:
    def replace(trainer: Any) -> None:
        if trainer.epoch == 1:
            trainer.model.criterion.assigner = criterion_of("v8").assigner

    lines = train(tmp_path, data, {"on_train_epoch_start": replace}, cls_loss="slide", epochs=2)
    assert [line for line in lines if "the criterion for training was replaced after set-up" in line]


@pytest.mark.slow
def test_validation_is_of_the_chosen_loss_with_the_class_weights_and_gains_of_its_model(
    tmp_path: Path, data: Path
) -> None:
    """Upstream builds the EMA's criterion as it validates; so do we: with losses equal to stock's all columns are."""

    def gains(trainer: Any) -> None:
        trainer.args.box = trainer.model.args.box = 2.5
        trainer.model.class_weights = torch.tensor([2.0, 1.0, 0.5])

    rows = []
    for name, keys in (("stock", {}), ("ours", {"cls_loss": "bce", "box_loss": "ciou"})):
        train(tmp_path, data, {"on_train_start": gains}, epochs=2, name=name, **keys)
        with open(tmp_path / name / "results.csv", newline="") as file:
            rows.append([{k: float(v) for k, v in row.items() if k.strip() != "time"} for row in csv.DictReader(file)])
    for stock, ours in zip(*rows, strict=True):
        assert ours == pytest.approx(stock, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_a_criterion_that_is_replaced_as_validation_starts_is_equipped_again(tmp_path: Path, data: Path) -> None:
    def replace(validator: Any) -> None:
        if validator.training:
            replace.model.criterion = None  # type: ignore[attr-defined]

    def remember(trainer: Any) -> None:
        replace.model = trainer.ema.ema  # type: ignore[attr-defined]

    lines = train(tmp_path, data, {"on_train_start": remember, "on_val_start": replace}, cls_loss="slide", epochs=2)
    assert [line for line in lines if "for validation was replaced" in line or "validation did not call" in line]


class WithoutCallbacks(DetectionTrainer):
    """A trainer whose validator calls no callbacks."""

    def get_validator(self) -> Any:
        validator = super().get_validator()
        validator.run_callbacks = lambda event: None
        return validator


@pytest.mark.slow
def test_a_validator_that_calls_no_callbacks_validates_the_chosen_loss(tmp_path: Path, data: Path) -> None:
    for kind in (DetectionTrainer, WithoutCallbacks):
        overrides = {**TINY, "model": "yolov8n.yaml", "data": str(data), "project": str(tmp_path)}
        kind(overrides={**overrides, "name": kind.__name__, "cls_loss": "focal"}).train()
    logs = [(tmp_path / kind / "results.csv").read_text() for kind in ("DetectionTrainer", "WithoutCallbacks")]
    expected, found = (
        [row["val/cls_loss"] for row in csv.DictReader(log.replace(" ", "").splitlines())] for log in logs
    )
    assert found == expected
