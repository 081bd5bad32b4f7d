"""Models trained by a plain loop, with the losses that their `args` choose."""

from __future__ import annotations

from typing import Any

import torch
from conftest import SIZE, made_up_batch
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

CHOSEN = {"cls_loss": "focal", "box_loss": "siou"}


def model_of(kind: type = DetectionModel, config: str = "yolov8n.yaml", **keys: Any) -> Any:
    """Return a model whose `args` hold keys, that no trainer has set up."""
    torch.manual_seed(0)
    model = kind(config, nc=3, verbose=False)
    model.args = get_cfg(overrides={"imgsz": SIZE})
    for key, value in keys.items():
        setattr(model.args, key, value)
    return model.train()


def batch() -> dict[str, Any]:
    return {**made_up_batch("v8"), "img": torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))}


def sgd(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01)


def train(model: Any, optimizer: torch.optim.Optimizer | None = None, steps: int = 1) -> None:
    """Train as a loop of one's own does."""
    optimizer = sgd(model) if optimizer is None else optimizer
    for _ in range(steps):
        model.loss(batch())[0].sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def weights(model: Any) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
