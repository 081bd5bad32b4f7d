"""What `loss_stats=True` has of the assignment, by size of object, against a loop over the objects."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import HEADS, SIZE, criterion_of, made_up_batch, predictions
from conftest import run as step

import yolo_losses
from yolo_losses.integration.criteria import anchors, assignment
from yolo_losses.monitor.gather import SIZES, Statistics, read

GROUPS = ("objects", "without_positive", "positives_per_object", "mean_target")


def ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def by_loop(calls: list[tuple[tuple[Any, ...], Any]]) -> dict[str, float]:
    """Return the columns of the calls of an assigner, given its arguments and what it returned."""
    sums = {size: [0.0] * 4 for size in SIZES}
    for (_, _, _, _, boxes, valid), (labels, _, scores, mask, numbers) in calls:
        for i in range(len(boxes)):
            for g in range(int(valid[i].sum())):
                box = boxes[i, g].tolist()
                w, h = (box[2], box[3]) if len(box) == 5 else (box[2] - box[0], box[3] - box[1])
                side = math.sqrt(w * h)
                size = SIZES[sum(side >= bound for bound in (16, 32, 96))]
                own = [a for a in range(mask.shape[1]) if mask[i, a] and int(numbers[i, a]) == g]
                target = sum(float(scores[i, a, int(labels[i, a])]) for a in own)
                sums[size] = [x + y for x, y in zip(sums[size], (1, not own, len(own), target), strict=True)]
    columns = {}
    for size, (objects, without, positives, targets) in sums.items():
        values = (objects, ratio(without, objects), ratio(positives, objects), ratio(targets, positives))
        columns.update({f"{group}/{size}": value for group, value in zip(GROUPS, values, strict=True)})
    return columns


@pytest.mark.parametrize("selects", [False, True])
@pytest.mark.parametrize("name", list(HEADS))
def test_objects_positives_and_targets_by_size_are_those_of_a_loop(
    name: str, selects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolo_losses.monitor.gather.EVERY", 1)
    if selects:
        monkeypatch.setattr(assignment, "fits_one_chunk", lambda scores: False)
    criterion = criterion_of(name)
    branches = yolo_losses.equip(criterion, {"tal_topk": 2, "tal_beta": 1, "loss_stats": True})
    calls: dict[str, list[Any]] = {path: [] for path in branches}
    for path, leaf in anchors.leaves(criterion):
        leaf.assigner.stock.register_forward_hook(lambda _, args, result, path=path: calls[path].append((args, result)))
    for seed in range(2):
        batch = made_up_batch(name, each=6, seed=seed)
        batch["bboxes"][:4, 2:4] = torch.tensor([[3.0, 5], [2, 2], [17, 15], [9, 40]]) / SIZE
        batch["bboxes"][4] = batch["bboxes"][5]  # of two equal ones, one may go without
        step(criterion, predictions(name, seed=seed), batch)
    columns = read(branches)
    for path in branches:
        wanted = {f"{path}/{key}" if path else key: value for key, value in by_loop(calls[path]).items()}
        own = {key: columns[key] for key in wanted}
        assert own == pytest.approx(wanted, rel=1e-4, nan_ok=True)
        assert 0 < sum(value > 0 for key, value in own.items() if "without_positive" in key) < 4
    assert sum(value for key, value in columns.items() if "objects/" in key) == 24 * len(branches)


def test_a_side_on_a_bound_belongs_to_the_larger_size_and_padding_to_none() -> None:
    statistics = Statistics()
    sides = torch.tensor([[0.0, 15.9, 16.0, 31.9], [32.0, 95.9, 96.0, 500.0]])
    ones = torch.ones_like(sides)
    valid = ones.bool()
    valid[0, 0] = False
    statistics.add_objects(sides, valid, ones * 2, ones)
    assert statistics.found["by_size"].tolist() == [[1, 2, 2, 2], [0, 0, 0, 0], [2, 4, 4, 4], [1, 2, 2, 2]]
