"""A project with its own copy of Ultralytics' trainers, which share no base with those that this package patches."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from conftest import TINY, logged
from torch import Tensor
from ultralytics import YOLO
from ultralytics.engine.trainer import BaseTrainer

pytestmark = pytest.mark.slow

PACKAGE = "vendored_by_a_project"


@pytest.fixture
def vendored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A detection trainer from copies of Ultralytics' files."""
    source, folder = Path(ultralytics.__file__).parent, tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "engine.py").write_text((source / "engine" / "trainer.py").read_text(encoding="utf-8"), encoding="utf-8")
    text = (source / "models" / "yolo" / "detect" / "train.py").read_text(encoding="utf-8")
    own = text.replace("from ultralytics.engine.trainer import", f"from {PACKAGE}.engine import")
    assert own != text
    (folder / "detect.py").write_text(own, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module(f"{PACKAGE}.detect").DetectionTrainer
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def trained(trainer: Any, data: Path, folder: Path, **keys: Any) -> Tensor:
    """Return the weights after an epoch."""
    model = YOLO("yolov8n.yaml")
    model.train(trainer=trainer, data=str(data), project=str(folder), **{**TINY, **keys})
    return torch.cat([parameter.detach().flatten() for parameter in model.trainer.model.parameters()])


def test_a_vendored_trainer_trains_the_chosen_loss_and_says_so(vendored: Any, data: Path, tmp_path: Path) -> None:
    assert not issubclass(vendored, BaseTrainer)
    stock = trained(vendored, data, tmp_path)
    with logged() as lines:
        chosen = trained(vendored, data, tmp_path, cls_loss="focal")
    said = [line for line in lines if "yolo_losses: " in line]
    assert "cls_loss=focal FocalLoss" in said[0]
    assert "ran in the first batch with objects: class" in said[1]
    assert not torch.equal(chosen, stock)
    assert torch.equal(chosen, trained(None, data, tmp_path, cls_loss="focal"))  # Ultralytics' own trainer


def test_a_vendored_trainer_with_a_loss_that_there_is_not_is_an_error(
    vendored: Any, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="'cls_loss=focl' is not valid"):
        trained(vendored, data, tmp_path, cls_loss="focl")
