"""YOLO-World and YOLOE, whose trainers need a text model: their models and criteria, with made-up embeddings."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import logged

from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria.anchor_branch import AssignerPart
from yolo_losses.integration.criteria.box_part import BoxPart
from yolo_losses.integration.criteria.class_part import ClassPart
from yolo_losses.integration.run import Run

SIZE = 64
CLASSES = 4


def trainer_of(model: Any) -> Any:
    """Return what a run needs of a trainer: the model in training mode and its EMA."""
    from ultralytics.cfg import get_cfg

    model.args = get_cfg(overrides={"epochs": 2})
    model.train()
    ema = SimpleNamespace(ema=copy.deepcopy(model).eval())
    return SimpleNamespace(model=model, ema=ema, args=model.args, resume=False, start_epoch=0)


def batch(**more: Any) -> dict[str, Any]:
    """Return two images with an object each."""
    return {
        "img": torch.rand(2, 3, SIZE, SIZE),
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.tensor([[0.0], [1.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.6, 0.4], [0.4, 0.5, 0.5, 0.5]]),
        **more,
    }


@pytest.mark.parametrize("prompt", ["text", "visual"])
@pytest.mark.parametrize("config", ["yoloe-11s.yaml", "yoloe-26n.yaml"])
def test_yoloe_is_equipped_once_its_first_batch_has_chosen_the_criterion(config: str, prompt: str) -> None:
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    try:
        model = tasks.YOLOEModel(config, nc=CLASSES, verbose=False)
    except FileNotFoundError:
        pytest.skip(f"this Ultralytics has no {config}")
    trainer = trainer_of(model)
    with logged() as lines:
        run = Run(trainer, LossSettings.from_mapping({"cls_loss": "focal", "box_loss": "siou"}))
        assert not lines  # nothing is known of the criterion yet
        if prompt == "text":
            given = batch(txt_feats=torch.randn(2, model.model[-1].nc, 512))
        else:
            given = batch(visuals=torch.rand(2, CLASSES, SIZE // 8, SIZE // 8))
        run.before_batch(trainer)
        trainer.loss = model.loss(given)[0].sum()
        trainer.loss.backward()
        run.after_batch(trainer)
        run.before_validation(trainer)
        with torch.no_grad():
            trainer.ema.ema.loss(given)
        run.after_validation(SimpleNamespace())
    assert not [line for line in lines if "validation did not call" in line]
    assert list(run.equipment.criteria) == ["training", "validation"]
    assert any("equipped for training and validation" in line for line in lines)
    assert any("ran in the first batch with objects" in line and "class, box" in line for line in lines)
    for net in (model, trainer.ema.ema):
        criteria = [getattr(net.criterion, name) for name in ("one2many", "one2one") if hasattr(net.criterion, name)]
        for criterion in criteria or [net.criterion]:
            inner = getattr(criterion, "vp_criterion", criterion)
            assert isinstance(inner.assigner, AssignerPart)
            assert isinstance(inner.bce, ClassPart)
            assert isinstance(inner.bbox_loss, BoxPart)


@pytest.mark.parametrize("config", ["yoloe-11s.yaml", "yoloe-26n.yaml"])
def test_a_batch_with_as_many_visual_prompts_as_classes_is_no_alarm_and_no_proof(config: str) -> None:
    """Upstream returns zeros before its criterion is called; ranks must not wait for each other there either."""
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    try:
        model = tasks.YOLOEModel(config, nc=CLASSES, verbose=False)
    except FileNotFoundError:
        pytest.skip(f"this Ultralytics has no {config}")
    trainer = trainer_of(model)
    with logged() as lines:
        run = Run(trainer, LossSettings.from_mapping({"cls_loss": "ema_slide"}))
        own = model.model[-1].nc
        trainer.loss = model.loss(batch(visuals=torch.rand(2, own, SIZE // 8, SIZE // 8)))[0].sum()
        trainer.loss.backward()
        run.after_batch(trainer)
    if float(trainer.loss.detach()) == 0:
        assert not run.equipment.proven
        assert not [line for line in lines if "ran in the first batch" in line]
    for path, branch in run.branches.items():
        assert branch.joined == ("vp_criterion" not in path.split("."))
    with logged() as lines:
        trainer.loss = model.loss(batch(visuals=torch.rand(2, own - 1, SIZE // 8, SIZE // 8)))[0].sum()
        trainer.loss.backward()
        run.after_batch(trainer)
    assert run.equipment.proven
    assert [line for line in lines if "ran in the first batch" in line]


def test_yolo_world_is_equipped_before_its_first_batch() -> None:
    from ultralytics.nn.tasks import WorldModel

    model = WorldModel("yolov8s-world.yaml", nc=CLASSES, verbose=False)
    trainer = trainer_of(model)
    run = Run(trainer, LossSettings.from_mapping({"cls_loss": "vfl"}))
    assert list(run.equipment.criteria) == ["training"]  # that of the EMA is built as it validates
    loss, _ = model.loss(batch(txt_feats=torch.randn(2, CLASSES, 512)))
    loss.sum().backward()
    run.after_batch(trainer)
    assert run.equipment.proven
