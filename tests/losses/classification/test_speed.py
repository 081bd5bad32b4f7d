"""What a chosen class loss costs against the stock one: memory always, time in the long tests."""

from __future__ import annotations

import pytest
import torch

from yolo_losses import registry
from yolo_losses.benchmark.measurement import measure, peak_bytes
from yolo_losses.benchmark.workloads import anchors, class_terms

CPU = torch.device("cpu")
NAMES = [spec.name for spec in registry.specs("cls") if spec.built_in]


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_takes_about_the_time_of_stock(name: str) -> None:
    runs = class_terms(16, 640, 80, CPU, {name: "cls_loss"}, naive=False)
    row = measure(runs, 7, CPU, name)[name]
    assert row["time"] <= 1.5, row  # 0.8 to 1.2 on a machine that does nothing else


@pytest.mark.parametrize("name", NAMES)
def test_holds_at_most_the_derivative_more_than_stock(name: str) -> None:
    """One tensor of the logits' size is kept until the backward pass; what chunks take comes on top."""
    runs = class_terms(8, 640, 80, CPU, {name: "cls_loss"}, naive=False)
    size = 8 * anchors(640) * 80 * 4
    more = peak_bytes(runs[name], CPU) - peak_bytes(runs["stock"], CPU)
    assert more <= 1.25 * size, f"{name} keeps {more / size:.1f} tensors of the logits' size: give it a `closed_form`"
