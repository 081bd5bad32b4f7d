"""Trainings that take minutes: a distillation, interrupted and resumed, and a compiled model."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, logged
from ultralytics import YOLO
from ultralytics.utils import DEFAULT_CFG_DICT

from yolo_losses.integration.state import State

pytestmark = pytest.mark.long

KEYS: dict[str, Any] = {"cls_loss": "ema_slide", "cls_scale": "auto", "box_loss": "wiou"}


def snapshot(trainer: Any) -> State:
    return copy.deepcopy(trainer.yolo_losses_run.state())


@pytest.mark.skipif("distill_model" not in DEFAULT_CFG_DICT, reason="this Ultralytics has no distillation")
def test_a_distillation_is_resumed_with_the_state_of_the_interrupted_one(tmp_path: Path, data: Path) -> None:
    kept, states = tmp_path / "interrupted" / "weights", {}

    def interrupt(trainer: Any) -> None:
        if trainer.epoch == 1:
            shutil.copytree(trainer.wdir, kept)
            raise KeyboardInterrupt

    teacher = str(tmp_path / "teacher.pt")
    YOLO("yolo26n.yaml").save(teacher)
    model = YOLO("yolo26n.yaml")
    model.add_callback("on_fit_epoch_end", lambda trainer: states.update({trainer.epoch: snapshot(trainer)}))
    model.add_callback("on_train_epoch_start", interrupt)
    with logged() as said, pytest.raises(KeyboardInterrupt):
        model.train(data=str(data), project=str(tmp_path), **{**TINY, "epochs": 2}, **KEYS, distill_model=teacher)
    assert any("ran in the first batch with objects: one2many class, box" in line for line in said)

    resumed = YOLO(str(kept / "last.pt"))
    seen: list[State] = []
    resumed.add_callback("on_train_start", lambda trainer: seen.append(snapshot(trainer)))
    with logged() as said:
        resumed.train(resume=True)
    assert any("ran in the first batch with objects: one2many class, box" in line for line in said)
    assert "dis_loss" in resumed.trainer.loss_items
    (start,) = seen
    assert start.keys() == states[0].keys()
    for term, tensors in start.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, states[0][term][name])
    moved = snapshot(resumed.trainer)
    assert all(int(moved[f"{path}/cls"]["updates"]) == 4 for path in ("one2many", "one2one"))


@pytest.mark.skipif("compile" not in DEFAULT_CFG_DICT, reason="this Ultralytics does not compile models")
def test_a_compiled_model_trains_with_the_chosen_losses(tmp_path: Path, data: Path) -> None:
    model = YOLO("yolov8n.yaml")
    with logged() as said:
        model.train(data=str(data), project=str(tmp_path), **TINY, **KEYS, compile=True)
    assert any("ran in the first batch with objects: class, box" in line for line in said)
    assert hasattr(model.trainer.model, "_orig_mod")
    assert int(snapshot(model.trainer)["/cls"]["updates"]) > 0
