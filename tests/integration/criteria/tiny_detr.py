"""A tiny RT-DETR: its criterion, on a real model's outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from conftest import TINY, made_up_batch
from torch import Tensor
from ultralytics.models.utils.loss import RTDETRDetectionLoss
from ultralytics.nn.tasks import RTDETRDetectionModel

from yolo_losses import equip

CLASSES = 3
MODEL = """
nc: 3
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]] # P3/8
  - [-1, 1, Conv, [32, 3, 2]] # P4/16
  - [-1, 1, Conv, [32, 3, 2]] # P5/32
head:
  - [-1, 1, AIFI, [32, 2]]
  - [[2, 3, 5], 1, RTDETRDecoder, [nc, 32, 20, 4, 4, 3, 64]]
"""
TRAIN = {**TINY, "optimizer": "AdamW", "lr0": 0.0005}


def write_model(folder: Path) -> Path:
    """Write the model's YAML file and return its path."""
    path = folder / "rtdetr-tiny.yaml"
    path.write_text(MODEL, encoding="utf-8")
    return path


@functools.cache
def outputs_of(each: int) -> tuple[Any, Any, dict[str, Any]]:
    torch.manual_seed(0)
    model = RTDETRDetectionModel(yaml.safe_load(MODEL), nc=CLASSES, verbose=False).train()
    seen: list[Any] = []
    stock = stock_criterion()

    def listen(*args: Any, **kwargs: Any) -> Any:
        seen.append((args, kwargs))
        return stock(*args, **kwargs)

    model.__dict__["criterion"] = listen
    batch = made_up_batch("v8", each=each, classes=CLASSES)
    batch["img"] = torch.rand_like(batch["img"])
    model.loss(batch)
    (preds, targets), kwargs = seen[0]
    return preds, targets, kwargs


def given(each: int = 3) -> tuple[list[Tensor], Callable[[Any], dict[str, Tensor]]]:
    """Return leaves of a real model's outputs, and a call of a criterion on them; denoising included."""
    preds, targets, kwargs = outputs_of(each)
    generator = torch.Generator().manual_seed(3)

    def leaf(value: Tensor, box: bool) -> Tensor:
        noise = torch.randn(value.shape, generator=generator)
        value = value.detach().clone()
        value = (value + 0.02 * noise).clamp(0.01, 0.99) if box else value + 2 * noise
        return value.requires_grad_()

    boxes, scores = leaf(preds[0], True), leaf(preds[1], False)
    leaves, more = [boxes, scores], {**kwargs}
    if kwargs.get("dn_meta") is not None:
        more |= {"dn_bboxes": leaf(kwargs["dn_bboxes"], True), "dn_scores": leaf(kwargs["dn_scores"], False)}
        leaves += [more["dn_bboxes"], more["dn_scores"]]
    return leaves, lambda criterion: criterion((boxes, scores), targets, **more)


def stock_criterion() -> Any:
    return RTDETRDetectionLoss(nc=CLASSES, use_vfl=True)


def equipped(image_size: float | None = None, **keys: Any) -> Any:
    criterion = stock_criterion()
    criterion.branches = equip(criterion, keys, image_size=image_size)
    return criterion
