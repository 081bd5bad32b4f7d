"""The workloads: the class term, the criterion, a training step and the import, with stock losses and with others."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from yolo_losses import registry
from yolo_losses.benchmark.measurement import Runs

STRIDES = (8, 16, 32)
POSITIVES = 0.005  # share of the anchors, about what the assigner gives on COCO


def anchors(imgsz: int) -> int:
    """Return the number of anchors of an image."""
    return sum((imgsz // s) ** 2 for s in STRIDES)


def _pasted_focal(z: Any, t: Any, bce: Any) -> Any:
    p = z.sigmoid()
    p_t = t * p + (1 - t) * (1 - p)
    return bce * (0.25 * t + 0.75 * (1 - t)) * (1 - p_t) ** 1.5


def _pasted_vfl(z: Any, t: Any, bce: Any) -> Any:
    return bce * (0.75 * z.sigmoid().pow(2.0) * (t <= 0) + t * (t > 0))


def _pasted_qfl(z: Any, t: Any, bce: Any) -> Any:
    return bce * (0.25 * t + 0.75 * (1 - t)) * (t - z.sigmoid()).abs() ** 2.0


def _pasted_slide(z: Any, t: Any, bce: Any, mean: float = 0.5) -> Any:
    near = (t > mean - 0.1) & (t < mean)
    return bce * (1.0 * (t <= mean - 0.1) + math.exp(1 - mean) * near + (1 - t).exp() * (t >= mean))


def _with_bce(formula: Callable[..., Any]) -> Callable[..., Any]:
    def loss(logits: Any, targets: Any) -> Any:
        from torch.nn.functional import binary_cross_entropy_with_logits

        return formula(logits, targets, binary_cross_entropy_with_logits(logits, targets, reduction="none"))

    return loss


# Losses as pasted from tutorials: whole tensors, one operation after the other.
PASTED = {
    name: _with_bce(formula)
    for name, formula in {
        "focal": _pasted_focal,
        "vfl": _pasted_vfl,
        "qfl": _pasted_qfl,
        "slide": _pasted_slide,
    }.items()
}


def class_terms(
    batch: int, imgsz: int, classes: int, device: Any, chosen: Mapping[str, str], *, naive: bool = True
) -> Runs:
    """Return a forward and backward of the class term by name: stock, this package's, and the naive form.

    On a GPU, where the class term is limited by memory bandwidth, a copy of the logits as well.
    """
    import torch
    from torch import nn

    from yolo_losses.losses._step import Step
    from yolo_losses.losses.classification._batch import Batch

    shape = batch, anchors(imgsz), classes
    logits = (torch.randn(shape, device=device) * 1.5 - 4).requires_grad_()
    rows = batch * anchors(imgsz)
    count = max(1, int(rows * POSITIVES))
    anchor = torch.randperm(rows, device=device)[:count].sort().values
    index = anchor * classes + torch.randint(classes, (count,), device=device)
    targets = torch.zeros(logits.numel(), device=device).index_copy_(0, index, torch.rand(count, device=device))
    targets = targets.view(shape)
    selected = targets.view(-1, classes)[anchor]
    # As the criterion has it: the rows of the positives on the CPU, all of them on a GPU.
    batch_ = Batch(logits, targets) if device.type == "cuda" else Batch(logits, selected, None, anchor)
    step = Step(torch.rand(count, device=device), None, True)
    stock = nn.BCEWithLogitsLoss(reduction="none")

    def backward(term: Callable[[], Any]) -> Callable[[], None]:
        def once() -> None:
            term().sum().backward()
            logits.grad = None

        return once

    runs: Runs = {"stock": backward(lambda: stock(logits, targets))}
    if device.type == "cuda":
        copy = torch.empty_like(logits, requires_grad=False)
        runs["copy"] = lambda: copy.copy_(logits.detach())
    for spec in registry.specs("cls"):
        if spec.name in chosen:
            module = spec.build().to(device)
            runs[spec.name] = backward(lambda m=module: m.per_element(batch_, step)[0])  # type: ignore[misc]
            if naive and spec.name in PASTED:
                runs[f"{spec.name} as typed"] = backward(lambda f=PASTED[spec.name]: f(logits, targets))  # type: ignore[misc]
    return runs


def criteria(batch: int, imgsz: int, classes: int, device: Any, chosen: Mapping[str, str]) -> Runs:
    """Return a forward and backward of Ultralytics' detection criterion by name: stock, each loss, and pasted ones."""
    import torch
    from ultralytics.utils.loss import v8DetectionLoss

    from yolo_losses.integration.criteria import equip

    head = SimpleNamespace(stride=torch.tensor([float(s) for s in STRIDES], device=device), nc=classes, reg_max=16)
    model: Any = torch.nn.Linear(1, 1).to(device)
    model.args, model.model, model.class_weights = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=1), [head], None
    boxes = torch.randn(batch, 64, anchors(imgsz), device=device)
    scores = torch.randn(batch, classes, anchors(imgsz), device=device) * 1.5 - 4
    sides = [imgsz // s for s in STRIDES]
    if hasattr(v8DetectionLoss, "parse_output"):
        leaves = [boxes.requires_grad_(), scores.requires_grad_()]
        feats = [torch.zeros(batch, 1, side, side, device=device) for side in sides]
        predictions: Any = {"boxes": boxes, "scores": scores, "feats": feats}
    else:  # older releases take boxes and scores concatenated, level by level
        levels = torch.cat((boxes, scores), 1).split([side**2 for side in sides], 2)
        leaves = [
            level.reshape(batch, -1, side, side).requires_grad_() for level, side in zip(levels, sides, strict=True)
        ]
        predictions = leaves
    labels = _labels(batch, classes, device)

    def backward(criterion: Any) -> Callable[[], None]:
        def once() -> None:
            criterion(predictions, labels)[0].sum().backward()
            for leaf in leaves:
                leaf.grad = None

        return once

    runs: Runs = {"stock": backward(v8DetectionLoss(model))}
    for name, key in chosen.items():
        criterion = v8DetectionLoss(model)
        equip(criterion, {key: name})
        runs[name] = backward(criterion)
        if name in PASTED:
            criterion = v8DetectionLoss(model)
            criterion.bce = PASTED[name]
            runs[f"{name} as typed"] = backward(criterion)
    return runs


def training_steps(batch: int, imgsz: int, classes: int, device: Any, chosen: Mapping[str, str]) -> Runs:
    """Return a training step of YOLOv8n by name, the optimizer's included: stock, and each class loss."""
    import torch
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    from yolo_losses.integration.criteria import equip

    model = DetectionModel("yolov8n.yaml", nc=classes, verbose=False).to(device).train()
    model.args = get_cfg()
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)  # too small to change the weights
    data = {"img": torch.rand(batch, 3, imgsz, imgsz, device=device), **_labels(batch, classes, device)}

    def step(criterion: Any) -> Callable[[], None]:
        def once() -> None:
            model.criterion = criterion
            model.loss(data)[0].sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        return once

    runs: Runs = {"stock": step(model.init_criterion())}
    for name, key in chosen.items():
        if key == "cls_loss":
            criterion = model.init_criterion()
            equip(criterion, {key: name})
            runs[name] = step(criterion)
    return runs


def _labels(batch: int, classes: int, device: Any) -> dict[str, Any]:
    """Return labels with eight objects per image."""
    import torch

    count = 8 * batch
    return {
        "batch_idx": torch.arange(batch).repeat_interleave(8).float().to(device),
        "cls": torch.randint(classes, (count, 1)).float().to(device),
        "bboxes": torch.cat((torch.rand(count, 2) * 0.6 + 0.2, torch.rand(count, 2) * 0.3 + 0.05), 1).to(device),
    }


def imports() -> Runs:
    """Return the import of Ultralytics in a fresh interpreter: without the plugin as `stock`, and with it."""

    def importing(**changed: str) -> Callable[[], object]:
        command = [sys.executable, "-c", "from ultralytics import YOLO"]
        return lambda: subprocess.run(command, env={**os.environ, **changed}, check=True)

    return {"stock": importing(YOLO_LOSSES_DISABLE="1"), "with the plugin": importing(YOLO_LOSSES_DISABLE="")}
