"""The task semantic: whole trainings by the stock command."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import ultralytics.utils.loss as upstream
from conftest import TINY, Result, logged, start_without_plugin, yolo
from ultralytics import YOLO

if not hasattr(upstream, "SemanticSegmentationLoss"):
    pytest.skip("this Ultralytics has no task semantic", allow_module_level=True)


def write_masks(root: Path, classes: int) -> Path:
    """Write images of squares and their masks, the upper rows ignored; return the file that describes them."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for number in range(4):
            image, mask = np.full((64, 64, 3), 60, np.uint8), np.zeros((64, 64), np.uint8)
            for label in range(1, max(classes, 2)):
                x, y = random.integers(4, 36, 2)
                image[y : y + 20, x : x + 20] = (90 * label, 255 - 90 * label, 30)
                mask[y : y + 20, x : x + 20] = label
            mask[:6] = 255
            assert cv2.imwrite(str(root / "images" / split / f"{number}.png"), image)
            assert cv2.imwrite(str(root / "masks" / split / f"{number}.png"), mask)
    names = "".join(f"\n  {number}: c{number}" for number in range(classes))
    file = root / "data.yaml"
    file.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nmasks_dir: masks\nnames:{names}\n")
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of three classes."""
    return write_masks(tmp_path_factory.mktemp("semantic"), 3)


def train(data: Path, project: Path, **keys: Any) -> Result:
    words = {**TINY, "model": "yolo26n-sem.yaml", "data": data, "project": project, "name": "run", **keys}
    return yolo("semantic", "train", *(f"{key}={value}" for key, value in words.items()))


WORDS = {"ce_loss": "ohem", "dice_loss": "tversky", "cls_weights": "{c1: 2}", "loss_stats": True}


@pytest.mark.slow
def test_the_stock_command_trains_the_chosen_losses_and_says_so(data: Path, tmp_path: Path) -> None:
    done = train(data, tmp_path, epochs=2, **WORDS).check()
    (line,) = done.saying("yolo_losses: ce_loss=ohem OHEMCrossEntropyLoss(threshold=0.7, keep=0.0625), ")
    assert "class weights: c0 1, c1 2, c2 1; dice_loss=tversky SoftmaxTverskyLoss(alpha=0.3," in line
    assert line.endswith("; equipped for training and validation")
    assert done.saying("yolo_losses: ran in the first batch with objects: class, dice; class term ")
    assert not done.saying("validation did not call")
    rows = list(csv.DictReader((tmp_path / "run" / "loss_stats.csv").open()))
    assert [sum(float(row[f"by_class/c{i}"]) for i in range(3)) for row in rows] == pytest.approx([1, 1], abs=1e-4)
    kept = torch.load(tmp_path / "run" / "weights" / "last.pt", weights_only=False)["train_args"]
    assert kept["cls_weights"] == {"c1": 2.0}
    assert kept["ce_ohem_threshold"] == 0.7


def stop_in_epoch_1(trainer: Any) -> None:
    if trainer.epoch == 1:
        raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_of_one_class_is_resumed_with_its_losses_and_loads_without_the_plugin(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", 1)
    keys = {"data": str(data), "project": str(tmp_path), "name": "run", "ce_loss": "focal", "dice_loss": "lovasz"}
    model = YOLO("yolo26n-sem.yaml")
    model.add_callback("on_train_epoch_start", stop_in_epoch_1)
    with pytest.raises(KeyboardInterrupt):
        model.train(**{**TINY, **keys, "epochs": 2})
    last = tmp_path / "run" / "weights" / "last.pt"
    with pytest.raises(ValueError, match=r"^[^\n]*ce_loss[^\n]*$"):
        YOLO(last).train(resume=True, ce_loss="ohem")
    with logged() as lines:
        YOLO(last).train(resume=True)
    said = "\n".join(lines)
    assert "yolo_losses: ce_loss=focal PixelFocalLoss(gamma=2.0); dice_loss=lovasz LovaszSoftmaxLoss()" in said
    assert "yolo_losses: ran in the first batch with objects: class, dice; " in said
    code = "import sys; from ultralytics import YOLO; print(type(YOLO(sys.argv[1]).model).__name__)"
    loaded = start_without_plugin(code, str(last))().check()
    assert loaded.lines[-1] == "SemanticSegmentationModel"


@pytest.mark.parametrize(
    "words",
    [{"cls_loss": "focal"}, {"ce_loss": "slide"}, {"cls_weights": [1, 2]}, {"ce_loss": "ohem", "ce_ohem_threshold": 2}],
    ids=lambda words: next(iter(words)),
)
def test_a_refusal_is_one_line_and_writes_nothing(words: dict[str, Any], data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^[^\n]*{list(words)[-1]}[^\n]*$"):
        YOLO("yolo26n-sem.yaml").train(**TINY, data=str(data), project=str(tmp_path), name="run", **words)
    assert not (tmp_path / "run" / "args.yaml").exists()


def test_weights_of_one_class_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", 1)
    with pytest.raises(ValueError, match=r"^[^\n]*cannot be used in the task 'semantic' with one class[^\n]*$"):
        YOLO("yolo26n-sem.yaml").train(**TINY, data=str(data), project=str(tmp_path), name="run", cls_weights=[2])
    assert not (tmp_path / "run").exists()
