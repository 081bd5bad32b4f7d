"""A tiny RT-DETR: its criterion, on a real model's outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
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


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rtdetr") / "rtdetr-tiny.yaml"
    path.write_text(MODEL, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def given(model_file: Path) -> Callable[..., tuple[list[Tensor], Callable[[Any], dict[str, Tensor]]]]:
    """Return what makes leaves of a real model's outputs, and a call of a criterion on them; denoising included."""

    @functools.cache
    def outputs(each: int) -> tuple[Any, Any, dict[str, Any]]:
        torch.manual_seed(0)
        model = RTDETRDetectionModel(str(model_file), nc=CLASSES, verbose=False).train()
        seen: list[Any] = []
        stock = stock_criterion()

        def listen(*args: Any, **kwargs: Any) -> Any:
            seen.append((args, kwargs))
            return stock(*args, **kwargs)

        model.__dict__["criterion"] = listen
        batch = made_up_batch("v8", each=each, classes=CLASSES)
        batch["img"] = torch.rand_like(batch["img"])
        model.loss(batch)
        (outputs, targets), kwargs = seen[0]
        return outputs, targets, kwargs

    def make(each: int = 3) -> tuple[list[Tensor], Callable[[Any], dict[str, Tensor]]]:
        preds, targets, kwargs = outputs(each)
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

    return make


Given = Callable[..., tuple[list[Tensor], Callable[[Any], dict[str, Tensor]]]]


def stock_criterion() -> Any:
    return RTDETRDetectionLoss(nc=CLASSES, use_vfl=True)


def equipped(image_size: float | None = None, **keys: Any) -> Any:
    criterion = stock_criterion()
    criterion.branches = equip(criterion, keys, image_size=image_size)
    return criterion
