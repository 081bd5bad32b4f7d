"""What a chosen class loss costs against the stock one: memory always, time in the long tests."""

from __future__ import annotations

import statistics
import time

import pytest
import torch

from yolo_losses import registry
from yolo_losses.commands.bench import peak_bytes
from yolo_losses.losses import build as factory
from yolo_losses.losses._step import Step
from yolo_losses.losses.classification._batch import Batch


@pytest.mark.long
@pytest.mark.parametrize("name", [s.name for s in registry.specs("cls") if s.built_in])
def test_takes_at_most_seven_tenths_of_the_time_of_stock(name: str) -> None:
    images, anchors, classes, positives = 16, 8400, 80, 680
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(images, anchors, classes, generator=generator) * 1.5 - 4).requires_grad_()
    rows = torch.randperm(images * anchors, generator=generator)[:positives]
    index = rows * classes + torch.randint(0, classes, (positives,), generator=generator)
    quality = torch.rand(positives, generator=generator)
    targets = torch.zeros(logits.numel()).index_copy_(0, index, quality).view_as(logits)
    stock = torch.nn.BCEWithLogitsLoss(reduction="none")
    loss = factory.make_cls_loss(name)
    step = Step(quality, None, training=True)
    rows = index // 80
    batch = Batch(logits, targets.view(-1, 80)[rows], targets.view(-1, 80)[rows] > 0, rows)

    def seconds(chosen: bool) -> float:
        logits.grad = None
        start = time.perf_counter()
        term = loss.per_element(batch, step)[0] if chosen else stock(logits, targets)
        term.sum().backward()
        return time.perf_counter() - start

    ratios = []
    for _ in range(12):
        base = seconds(chosen=False)
        ratios.append(seconds(chosen=True) / base)
    assert statistics.median(ratios[1:]) <= 0.7, ratios


@pytest.mark.parametrize("name", [s.name for s in registry.specs("cls") if s.built_in])
def test_holds_at_most_the_derivative_more_than_stock(name: str) -> None:
    """One tensor of the logits' size is kept until the backward pass; what chunks take comes on top."""
    logits = torch.randn(8, 8400, 80).sub(4).requires_grad_()
    index = torch.arange(0, logits.numel(), 16_001)
    quality = torch.rand(len(index))
    targets = torch.zeros(logits.numel()).index_copy_(0, index, quality).view_as(logits)
    stock = torch.nn.BCEWithLogitsLoss(reduction="none")
    loss = factory.make_cls_loss(name)
    step = Step(quality, None, training=True)
    rows = index // 80
    batch = Batch(logits, targets.view(-1, 80)[rows], targets.view(-1, 80)[rows] > 0, rows)

    def peak(chosen: bool) -> int:
        def once() -> None:
            term = loss.per_element(batch, step)[0] if chosen else stock(logits, targets)
            term.sum().backward()
            logits.grad = None

        return peak_bytes(once, logits.device)

    size = logits.numel() * logits.element_size()
    assert peak(chosen=True) <= peak(chosen=False) + 1.25 * size
