"""Living beside others: other modes, other trainings, other people's classes and callbacks."""

from __future__ import annotations

import csv
import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import (
    TINY,
    Model,
    criterion_of,
    logged,
    made_up_batch,
    predictions,
    run,
    start,
    start_without_plugin,
)
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.loss import v8DetectionLoss

import yolo_losses
from yolo_losses.integration import callbacks, hook


def results(trainer: Any) -> list[dict[str, str]]:
    """Return what a run logged, without its clock."""
    with (Path(trainer.save_dir) / "results.csv").open(encoding="utf-8") as file:
        return [{k.strip(): v for k, v in row.items() if k.strip() != "time"} for row in csv.DictReader(file)]


def train(model: Any, folder: Path, name: str, data: Path, **keys: Any) -> Any:
    """Train for an epoch and return the trainer."""
    model.train(data=str(data), project=str(folder), name=name, **{**TINY, **keys})
    return model.trainer


# Modes other than train.
MODES = """
import json, sys, torch
from pathlib import Path
from ultralytics import YOLO
data, folder = Path(sys.argv[1]), Path(sys.argv[2])
torch.manual_seed(0)
YOLO("yolov8n.yaml").save(folder / "model.pt")
model = YOLO(folder / "model.pt")
options = dict(imgsz=64, device="cpu", verbose=False, project=str(folder))
image = next((data.parent / "images" / "val").iterdir())
found = model.predict(image, conf=0.0, max_det=5, **options)[0]
metrics = model.val(data=str(data), workers=0, plots=False, conf=0.001, **options)
exported = Path(model.export(format="torchscript", imgsz=64, device="cpu"))
arguments = {key: str(value) for key, value in vars(model.predictor.args).items()}
print("FOUND", json.dumps({
    "boxes": found.boxes.data.tolist(),
    "metrics": {key: float(value) for key, value in metrics.results_dict.items()},
    "export": torch.jit.load(exported)(torch.ones(1, 3, 64, 64)).sum().item(),
    "plugin": "yolo_losses.integration.hook" in sys.modules,
}))
"""


@pytest.mark.slow
def test_predict_val_and_export_are_what_they_are_without_the_plugin(tmp_path: Path, data: Path) -> None:
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    waits = [
        start(sys.executable, "-c", MODES, str(data), str(tmp_path / "with")),
        start_without_plugin(MODES, str(data), str(tmp_path / "without")),
    ]
    lines = [wait().check().saying("FOUND ")[0] for wait in waits]
    with_plugin, without = (json.loads(line.split("FOUND ")[1]) for line in lines)
    assert with_plugin.pop("plugin")
    assert not without.pop("plugin")
    assert with_plugin == without
    assert with_plugin["boxes"]


# Trainings in one process.
@pytest.mark.slow
def test_a_training_leaves_nothing_behind_for_the_next_one(tmp_path: Path, data: Path) -> None:
    before = train(YOLO("yolov8n.yaml"), tmp_path, "before", data)
    model = YOLO("yolov8n.yaml")
    chosen = train(model, tmp_path, "chosen", data, cls_loss="focal", box_loss="giou", focal_gamma=3.0)
    other = train(YOLO("yolov8n.yaml"), tmp_path, "other", data, cls_loss="vfl", dfl_loss="off")
    after = train(YOLO("yolov8n.yaml"), tmp_path, "after", data)
    assert results(before) == results(after)
    assert results(chosen) != results(other) != results(after)
    assert other.yolo_losses_run.settings.non_default() == {"cls_loss": "vfl", "dfl_loss": "off"}
    assert not {"cls_loss", "focal_gamma"} & vars(after.args).keys()
    # The same model again, now without a key: stock.
    again = train(model, tmp_path, "again", data)
    assert again.yolo_losses_run is None
    assert not {"cls_loss", "focal_gamma"} & vars(again.args).keys()
    assert DEFAULT_CFG_DICT["cls_loss"] == "stock"
    assert DEFAULT_CFG_DICT["focal_gamma"] == 1.5


def test_equipping_one_criterion_leaves_another_and_the_classes_alone() -> None:
    equipped, stock = criterion_of("v8"), criterion_of("v8")
    classes = dict(vars(v8DetectionLoss)), dict(vars(type(stock.bbox_loss))), dict(vars(type(stock.assigner)))
    parts = stock.bce, stock.assigner, stock.bbox_loss, stock.bbox_loss.dfl_loss
    expected = run(stock, predictions("v8"), made_up_batch("v8"))
    yolo_losses.equip(equipped, {"cls_loss": "focal", "box_loss": "siou", "dfl_loss": "off"})
    assert run(equipped, predictions("v8"), made_up_batch("v8"))[0] != expected[0]
    assert run(stock, predictions("v8"), made_up_batch("v8"))[0] == expected[0]
    assert all(a is b for a, b in zip(parts, (stock.bce, stock.assigner, stock.bbox_loss, stock.bbox_loss.dfl_loss)))  # noqa: B905
    kinds = v8DetectionLoss, type(stock.bbox_loss), type(stock.assigner)
    assert classes == tuple(dict(vars(kind)) for kind in kinds)


def test_threads_give_what_one_after_another_gives() -> None:
    """Losses with state: a thread that saw the other's step, or wrote its state, would come to other numbers."""
    keys = (
        {"cls_loss": "ema_slide", "box_loss": "wiou", "ema_slide_tau": 2},
        {"cls_loss": "ghm", "box_loss": "nwd", "cls_target": "iou"},
    )
    outputs = [predictions("v8", seed=seed) for seed in range(4)]
    batches = [made_up_batch("v8", seed=seed) for seed in range(4)]

    def steps(which: int, barrier: threading.Barrier | None = None) -> list[dict[str, float]]:
        own = criterion_of("v8")
        yolo_losses.equip(own, keys[which])
        found = []
        for step in range(4):
            if barrier:
                barrier.wait(60)
            found.append(run(own, outputs[(step + which) % 4], batches[(step + which) % 4])[0])
        return found

    alone = [steps(0), steps(1)]
    together: dict[int, list[dict[str, float]]] = {}
    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=lambda w=w: together.update({w: steps(w, barrier)})) for w in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [together[0], together[1]] == alone
    assert alone[0] != alone[1]


# Other people's classes.
class SmoothedAssigner(torch.nn.Module):
    """Someone's own assigner: a little of every positive goes to the other classes."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.stock = stock

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        labels, boxes, scores, foreground, index = self.stock(*args, **kwargs)
        return labels, boxes, scores * 0.9 + 0.1 * foreground.unsqueeze(-1) / scores.shape[-1], foreground, index


class OwnLoss(v8DetectionLoss):
    """Someone's own criterion."""

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self.assigner = SmoothedAssigner(self.assigner)


class OwnModel(DetectionModel):
    """Someone's own model class."""

    def init_criterion(self) -> OwnLoss:
        return OwnLoss(self)


class OwnTrainer(DetectionTrainer):
    """Someone's own trainer."""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> OwnModel:
        return OwnModel(cfg, nc=self.data["nc"], verbose=False)


@pytest.mark.parametrize("chunk", [64, 2**17])
def test_soft_targets_of_someone_s_own_assigner_reach_the_loss_whole(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BCE on them is stock's, to float32 rounding: an anchor with several classes is not taken for one-hot."""
    stock, equipped = OwnLoss(stock_model()), OwnLoss(stock_model())
    monkeypatch.setattr("yolo_losses.losses.classification._batch.CHUNK", chunk)
    yolo_losses.equip(equipped, {"cls_loss": "bce"})
    expected = run(stock, predictions("v8"), made_up_batch("v8"))
    found = run(equipped, predictions("v8"), made_up_batch("v8"))
    assert found[0]["cls_loss"] == pytest.approx(expected[0]["cls_loss"], rel=1e-6)
    for gradient, of_stock in zip(found[2], expected[2], strict=True):
        if gradient is not None:
            torch.testing.assert_close(gradient, of_stock, rtol=1e-4, atol=1e-6)


def stock_model() -> Any:
    from conftest import head

    return head("v8")


@pytest.mark.slow
def test_someone_s_own_trainer_model_criterion_and_callbacks_get_the_loss(tmp_path: Path, data: Path) -> None:
    called: list[str] = []
    callbacks = {"on_train_start": [lambda trainer: called.append("theirs")]}
    overrides = {**TINY, "model": "yolov8n.yaml", "data": str(data), "project": str(tmp_path), "name": "own"}
    trainer = OwnTrainer(overrides={**overrides, "cls_loss": "focal"}, _callbacks=with_every_event(callbacks))
    with logged() as messages:
        trainer.train()
    assert called == ["theirs"]
    assert trainer.yolo_losses_run.equipment.proven
    assert list(trainer.yolo_losses_run.equipment.criteria) == ["training", "validation"]
    assert isinstance(trainer.model.criterion, OwnLoss)
    assert any("ran in the first batch" in message for message in messages)


def with_every_event(callbacks: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return callbacks with an empty list for every other event, which some releases ask for."""
    from ultralytics.utils.callbacks import default_callbacks

    return {**{event: [] for event in default_callbacks}, **callbacks}


def test_a_trainer_s_own_callbacks_are_kept_in_their_order_and_ours_come_once(data: Path, tmp_path: Path) -> None:
    def theirs(trainer: Any) -> None:
        """Do nothing."""

    given = with_every_event({"on_pretrain_routine_end": [theirs]})
    overrides = {**TINY, "model": "yolov8n.yaml", "data": str(data), "project": str(tmp_path)}
    for _ in range(2):  # a dictionary that two trainers share
        trainer = DetectionTrainer(overrides=dict(overrides), _callbacks=given)
        hook._add_callbacks(trainer)  # as its training begins
        # Ultralytics' integrations add some of their own.
        assert trainer.callbacks["on_pretrain_routine_end"][0] is theirs
        for event, callback in callbacks.CALLBACKS.items():
            assert trainer.callbacks[event].count(callback) == 1


@pytest.mark.slow
def test_callbacks_that_were_reset_before_training_do_not_lose_the_loss(tmp_path: Path, data: Path) -> None:
    model = YOLO("yolov8n.yaml")
    model.reset_callbacks()
    assert train(model, tmp_path, "reset", data, cls_loss="focal").yolo_losses_run.equipment.proven


def test_callbacks_that_were_replaced_after_the_trainer_was_built_end_the_run() -> None:
    """Nobody equipped the criterion: the end of the set-up says so, where it would have been a silent stock run."""
    args = SimpleNamespace(cls_loss="focal", imgsz=64, resume=False)
    model = Model(criterion=criterion_of("v8"))
    trainer = SimpleNamespace(args=args, model=model, ema=SimpleNamespace(ema=None), resume=False)
    with pytest.raises(RuntimeError, match="on_pretrain_routine_end"):
        callbacks.check_started(trainer)
