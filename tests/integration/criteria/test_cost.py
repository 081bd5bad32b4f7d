"""What a step of the criterion costs in operations and synchronisations, forward and backward, against stock.

On a GPU small operations are bound by their launch. Counts are exact and the same on every machine with the same torch
and Ultralytics; `python tests/integration/criteria/test_cost.py` prints them, and `--write` keeps them in
`examples/bench/operations.json`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[3]
KEPT = ROOT / "examples" / "bench" / "operations.json"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples")]

from conftest import HEADS, criterion_of, made_up_batch, predictions, tensors  # noqa: E402

import yolo_losses  # noqa: E402
from yolo_losses import registry  # noqa: E402
from yolo_losses.monitor.gather import EVERY  # noqa: E402

SYNCHRONISES = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.is_nonzero", "aten.equal")
VERSIONS = {"torch": torch.__version__.partition("+")[0], "ultralytics": ultralytics.__version__}

# On v8; above it are ema_slide (its moving average) and ghm (two passes over the batch).
CLASS_LIMIT = 1.06
CLASS_LIMITS = {"ema_slide": 1.065, "ghm": 1.07}
ROTATED_LIMITS = dict.fromkeys(("qfl", "mal", "slide", "ema_slide"), 1.125)  # their IoU is probiou


class Counting(TorchDispatchMode):
    """Counts the operations that reach the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations[str(function)] += 1
        return function(*args, **(kwargs or {}))


def count(name: str, keys: dict[str, Any]) -> tuple[int, int]:
    """Return the operations, and of them those that synchronise, of a training step's criterion."""
    criterion = criterion_of(name)
    branches = yolo_losses.equip(criterion, keys)
    for branch in branches.values():
        branch.join_training()  # whose run commits the state once per batch, for all losses

    def step() -> None:
        outputs, batch = predictions(name), made_up_batch(name)
        loss = criterion(outputs, batch)[0].sum()
        torch.autograd.grad(loss, tensors(outputs), allow_unused=True)

    step()  # the first step compares the class term with BCE's
    for branch in branches.values():
        branch.settle(stepping=True)
    outputs, batch = predictions(name), made_up_batch(name)
    with Counting() as counting:
        loss = criterion(outputs, batch)[0].sum()
        torch.autograd.grad(loss, tensors(outputs), allow_unused=True)
    found = counting.operations
    return sum(found.values()), sum(n for op, n in found.items() if op.startswith(SYNCHRONISES))


def choices(name: str) -> dict[str, dict[str, Any]]:
    """Return what is counted for a head, by name."""
    rotated = name.endswith("obb")
    found = {spec.name: {"cls_loss": spec.name} for spec in registry.specs("cls") if spec.built_in}
    boxes = [s.name for s in registry.specs("box") if s.built_in and s.rotated == rotated]
    found |= {box: {"box_loss": box} for box in boxes + ([] if rotated else ["inner_siou", "focaler_ciou"])}
    if not rotated:
        found |= {f"focal {box}": {"cls_loss": "focal", "box_loss": box} for box in ("ciou", "inner_siou")}
    return found


def limit(keys: dict[str, Any], rotated: bool) -> float:
    """Return how many times stock's operations a step may take."""
    cls_loss, box_loss = keys.get("cls_loss"), keys.get("box_loss")
    if cls_loss and box_loss:
        return 1.2
    if rotated and cls_loss in ROTATED_LIMITS:
        return ROTATED_LIMITS[cls_loss]
    return CLASS_LIMITS.get(cls_loss, CLASS_LIMIT) if cls_loss else 1.15


def table(name: str) -> dict[str, int]:
    """Return the operations of a head's criterion, stock and with each choice."""
    return {"stock": count(name, {})[0], **{label: count(name, keys)[0] for label, keys in choices(name).items()}}


@pytest.mark.parametrize("name", list(HEADS))
def test_a_step_takes_few_more_operations_than_stock_and_synchronises_no_more(name: str) -> None:
    stock, stock_waits = count(name, {})
    over = {}
    for label, keys in choices(name).items():
        operations, waits = count(name, keys)
        if name.endswith("obb") and "box_loss" in keys:  # exact polygons have no bound against probiou
            assert waits <= stock_waits, label
            continue
        if operations > limit(keys, name.endswith("obb")) * stock or waits > stock_waits:
            over[label] = (round(operations / stock, 3), waits - stock_waits)
    assert not over


@pytest.mark.parametrize("name", ["v8", "26", "v8-seg"])
@pytest.mark.parametrize("keys", [{}, {"cls_loss": "focal"}, {"cls_loss": "slide", "cls_scale": "auto"}])
def test_a_measured_step_does_not_synchronise(name: str, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    without, waits = count(name, keys)
    skipped = count(name, {**keys, "loss_stats": True})
    assert skipped == (without, waits)  # the second batch is not measured
    monkeypatch.setattr("yolo_losses.monitor.gather.EVERY", 1)
    measured, own_waits = count(name, {**keys, "loss_stats": True})
    assert measured > without
    assert own_waits == waits


@pytest.mark.parametrize("name", ["v8", "26"])
def test_keys_of_the_assigner_cost_no_operation_and_statistics_by_size_under_one_percent(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = count(name, {})
    assert count(name, {"tal_topk": 13, "tal_beta": 4, "tal_min_side": 24}) == stock
    monkeypatch.setattr("yolo_losses.monitor.gather.EVERY", 1)
    measured = count(name, {"loss_stats": True})
    monkeypatch.setattr("yolo_losses.integration.criteria.anchor_branch._count_objects", lambda *_: None)
    without = count(name, {"loss_stats": True})
    assert 0 < (measured[0] - without[0]) / EVERY < 0.01 * stock[0]
    assert measured[1] == without[1]


def test_the_number_of_operations_is_the_one_that_was_kept() -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    if kept["versions"] != VERSIONS:
        pytest.skip(f"counted with {kept['versions']}, this is {VERSIONS}")
    assert table("v8") == kept["v8"], "if the change is meant, run `make loss`"


if __name__ == "__main__":
    found = {name: table(name) for name in (HEADS if "--all" in sys.argv else ["v8"])}
    for name, counts in found.items():
        print(name, *(f"{label} {n} ({n / counts['stock']:.3f})" for label, n in counts.items()), sep="\n  ")
    if "--write" in sys.argv:
        KEPT.write_text(json.dumps({"versions": VERSIONS, **found}, indent=1) + "\n", encoding="utf-8")
