"""The criteria as classes."""

from __future__ import annotations

import pytest
import torch
from conftest import SIZE, made_up_batch
from ultralytics import YOLO

import yolo_losses


def test_the_classes_take_what_yolo_gives_people_and_refuse_heads_with_two_branches() -> None:
    for model in (YOLO("yolov8n.yaml"), YOLO("yolov8n.yaml").model):
        criterion = yolo_losses.DetectionLoss(model, settings={"cls_loss": "focal"})
        preds = (model.model if isinstance(model, YOLO) else model).train()(torch.zeros(2, 3, SIZE, SIZE))
        assert criterion(preds, made_up_batch("v8"))[0].isfinite().all()
    with pytest.raises(ValueError, match=r"DetectionLoss is not for a Detect head with two branches \(end2end\): use"):
        yolo_losses.DetectionLoss(YOLO("yolo26n.yaml").model)
