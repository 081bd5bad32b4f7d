"""RT-DETR: whole trainings with the chosen losses, and the size of their images."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import logged, pairs, start_without_plugin, yolo
from tiny_detr import TRAIN, write_model
from ultralytics import RTDETR

from yolo_losses.integration.state import STATE_FILE


@pytest.mark.slow
def test_stock_command_trains_it(tmp_path: Path, data: Path) -> None:
    keys = {**TRAIN, "epochs": 2, "cls_loss": "mal", "box_loss": "inner_ciou"}
    result = yolo("train", *pairs(model=write_model(tmp_path), data=data, project=tmp_path, name="run", **keys)).check()
    (started,) = result.saying("equipped for training and validation")
    for words in ("cls_loss=mal", "gamma=1.5", "target: IoU", "box_loss=inner_ciou"):
        assert words in started
    (ran,) = result.saying("ran in the first batch")
    for words in ("with objects: class, box;", "times the stock loss's", "giou_loss"):
        assert words in ran
    rows = list(csv.DictReader((tmp_path / "run" / "results.csv").open(encoding="utf-8")))
    rows = [{key.strip(): float(value) for key, value in row.items()} for row in rows]
    assert len(rows) == 2
    for row in rows:
        for term in ("giou_loss", "cls_loss", "l1_loss"):
            assert row[f"train/{term}"] > 0
            assert row[f"val/{term}"] > 0
            assert math.isfinite(row[f"train/{term}"] + row[f"val/{term}"])
    assert "cls_loss: mal" in (tmp_path / "run" / "args.yaml").read_text(encoding="utf-8")
    code = "from ultralytics import RTDETR; import torch; print(RTDETR(sys.argv[1]).model.nc)"
    start_without_plugin(code, str(tmp_path / "run" / "weights" / "best.pt"))().check()


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{"cls_loss": "focal", "box_loss": "nwd"}, {"cls_scale": 0.5}])
def test_python_trains_it(tmp_path: Path, data: Path, keys: dict[str, Any]) -> None:
    with logged() as lines:
        RTDETR(str(write_model(tmp_path))).train(data=str(data), project=str(tmp_path), name="run", **TRAIN, **keys)
    assert len([line for line in lines if "ran in the first batch" in line]) == 1


@pytest.mark.slow
def test_resumed_run_takes_up_the_state(tmp_path: Path, data: Path) -> None:
    def stop(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    model = RTDETR(str(write_model(tmp_path)))
    model.add_callback("on_train_epoch_start", stop)
    with pytest.raises(KeyboardInterrupt):
        model.train(data=str(data), project=str(tmp_path), name="run", **{**TRAIN, "epochs": 2}, box_loss="wiou")
    weights = tmp_path / "run" / "weights"
    saved = torch.load(weights / STATE_FILE, weights_only=True)
    code = "import torch; torch.load(sys.argv[1], weights_only=False)"
    start_without_plugin(code, str(weights / "last.pt"))().check()
    with logged() as lines:
        resumed = RTDETR(str(weights / "last.pt"))
        resumed.train(resume=True)
    assert [line for line in lines if "state is that of epoch 1" in line]
    assert list(saved["state"]) == ["/box"]


@pytest.mark.parametrize("engine", ["trainer", "validator"])
def test_pixels_are_those_of_the_images_that_an_engine_prepares(engine: str) -> None:
    from yolo_losses.integration.run import _follow_image_size

    def prepare(batch: Any) -> Any:
        return {"img": batch["img"].float()}

    trainer = SimpleNamespace(preprocess_batch=prepare, validator=SimpleNamespace(preprocess=prepare))
    branch = SimpleNamespace(image_size=640.0)
    _follow_image_size(trainer, branch)
    preprocess = trainer.preprocess_batch if engine == "trainer" else trainer.validator.preprocess
    for size in (320, 480):
        assert preprocess({"img": torch.zeros(1, 3, size, size)})["img"].shape[-1] == size
        assert branch.image_size == size


@pytest.mark.slow
def test_pixels_are_those_of_each_batch_in_multi_scale_training(tmp_path: Path, data: Path) -> None:
    model, sizes = RTDETR(str(write_model(tmp_path))), []

    def look(trainer: Any) -> None:
        sizes.append((float(trainer.yolo_losses_run.branches[""].image_size), trainer.size_of_batch))

    def remember(trainer: Any) -> None:
        preprocess = trainer.preprocess_batch

        def and_remember(batch: Any) -> Any:
            batch = preprocess(batch)
            trainer.size_of_batch = batch["img"].shape[-1]
            return batch

        trainer.preprocess_batch = and_remember

    model.add_callback("on_train_start", remember)
    model.add_callback("on_train_batch_end", look)
    keys = {**TRAIN, "epochs": 4, "imgsz": 128, "multi_scale": 0.5, "box_loss": "nwd", "val": False}
    model.train(data=str(data), project=str(tmp_path), **keys)
    assert all(seen == of_batch for seen, of_batch in sizes)
    assert len({size for size, _ in sizes}) > 1
