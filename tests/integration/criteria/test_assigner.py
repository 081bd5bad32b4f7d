"""The keys of the task-aligned assigner, against the assignment written out as loops."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import pickle
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import assigner_reference as reference
import pytest
import torch
from assigner_reference import Image, Rules
from conftest import HEADS, SIZE, criterion_of, made_up_batch, predictions
from conftest import run as step

import yolo_losses
from yolo_losses.integration.criteria import anchors
from yolo_losses.integration.criteria.anchor_branch import AssignerPart

STRIDES = (8, 16, 32)
CLASSES = 3
KEYS: dict[str, dict[str, Any]] = {
    "topk 1": {"tal_topk": 1},
    "topk 3": {"tal_topk": 3},
    "topk 20": {"tal_topk": 20},
    "more than there are anchors": {"tal_topk": 1000},
    "alpha 0": {"tal_alpha": 0},
    "alpha 1.5": {"tal_alpha": 1.5},
    "beta 0": {"tal_beta": 0},
    "beta 2": {"tal_beta": 2},
    "no floor": {"tal_min_side": 0},
    "floor 8": {"tal_min_side": 8},
    "floor 40.5": {"tal_min_side": 40.5},
    **{name: {"tal_overlap": name} for name in reference.OVERLAPS},
    "all": {
        "tal_topk": 13,
        "tal_alpha": 1,
        "tal_beta": 3,
        "tal_overlap": "nwd",
        "tal_min_side": 24,
        "nwd_constant": 30,
    },
}
Topk = namedtuple("Topk", "values indices")


def stable_topk(values: torch.Tensor, k: int, dim: int = -1, largest: bool = True) -> Topk:
    """Return the largest values; of equals the first, which `torch.topk` leaves open."""
    ordered = torch.sort(values, dim=dim, descending=largest, stable=True)
    return Topk(ordered.values.narrow(dim, 0, k), ordered.indices.narrow(dim, 0, k))


@functools.cache
def inputs(name: str, images: int = 3, seed: int = 0) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Return the arguments of a head's assigner, in double precision.

    The images have a crowd with two equal objects and objects smaller than a stride, one object, and none; half of the
    anchors predict what their neighbour does.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    points = [((torch.arange(SIZE // s) + 0.5) * s).double() for s in STRIDES]
    points = [torch.cartesian_prod(p, p).flip(-1) for p in points]
    anchors = torch.cat(points)
    most = 7
    sides = torch.tensor([[3, 5], [30, 26], [30, 26], [12, 40], [50, 9], [7, 3], [20, 20]]).double()
    centres = 20 + 24 * uniform(images, most, 2)
    centres[0, 2] = centres[0, 1]
    boxes = torch.cat((centres, sides.expand(images, -1, -1)), -1)
    labels = torch.randint(CLASSES, (images, most, 1), generator=generator).double()
    labels[0, 2] = labels[0, 1]
    valid = torch.zeros(images, most, 1, dtype=torch.float64)
    valid[0], valid[1, 0] = 1, 1
    near = torch.randint(most, (images, len(anchors)), generator=generator)
    pred = boxes.gather(1, near.unsqueeze(-1).expand(-1, -1, 4)) * (0.7 + 0.6 * uniform(images, len(anchors), 4))
    pred[:, 1::2] = pred[:, ::2]
    scores = uniform(images, len(anchors), CLASSES)
    scores[:, 1::2] = scores[:, ::2]
    if name.endswith("obb"):
        boxes, pred = (torch.cat((b, 3 * uniform(*b.shape[:2], 1) - 1), -1) for b in (boxes, pred))
        pred[:, 1::2] = pred[:, ::2]
    else:
        boxes, pred = (torch.cat((b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2), -1) for b in (boxes, pred))
    extra: dict[str, torch.Tensor] = {}
    kind = type(criterion_of(name).one2many.assigner).__name__ if name.startswith("26") else ""
    if kind.startswith("Pose"):
        extra["anc_strides"] = torch.cat(
            [torch.full((len(p),), float(s)) for p, s in zip(points, STRIDES, strict=True)]
        )
        keypoints = len(criterion_of(name).one2many.assigner.sigmas)
        extra["gt_kpts"] = torch.cat(
            (SIZE * uniform(images, most, keypoints, 2), uniform(images, most, keypoints, 1)), -1
        )
        extra["gt_kpts"][..., 2] = (extra["gt_kpts"][..., 2] > 0.5).double()
        extra["gt_kpts"][0, 3, :, 2] = 0
        own = extra["gt_kpts"].gather(1, near[..., None, None].expand(-1, -1, keypoints, 3))[..., :2]
        extra["pd_kpts"] = own + 3 * uniform(*own.shape)
    if kind.startswith("Seg"):
        extra["proto"] = uniform(images, 4, 16, 16) - 0.5
        extra["pd_coef"] = uniform(images, len(anchors), 4) - 0.5
        extra["mask_scale"] = torch.full((images, 1), 0.25, dtype=torch.float64)
        extra["gt_masks"] = uniform(images, most, 16, 16) > 0.5
    return (scores, pred, anchors, labels, boxes * valid, valid), extra


def rules_of(stock: Any, keys: dict[str, Any]) -> Rules:
    """Return what an assigner is to do under some keys."""
    rotated = "Rotated" in type(stock).__name__
    name = keys.get("tal_overlap", "ciou")
    overlap: Callable[..., float] = reference.probiou if rotated else reference.OVERLAPS[name]
    if name == "nwd":
        overlap = functools.partial(overlap, constant=keys.get("nwd_constant", 12.8))
    below = floor = getattr(stock, "stride_val", None)
    if below is not None and "self.stride[0]" in inspect.getsource(type(stock).select_candidates_in_gts):
        below = stock.stride[0]
    if "tal_min_side" in keys:
        below = floor = keys["tal_min_side"]
    topk, topk2 = stock.topk, getattr(stock, "topk2", stock.topk)
    if "tal_topk" in keys and topk > 1:
        topk, topk2 = keys["tal_topk"], keys["tal_topk"] if topk2 == topk else topk2
    return Rules(
        topk,
        topk2,
        keys.get("tal_alpha", stock.alpha),
        keys.get("tal_beta", stock.beta),
        overlap,
        below,
        floor or 0.0,
    )


def image_of(stock: Any, given: tuple[torch.Tensor, ...], extra: dict[str, torch.Tensor], number: int) -> Image:
    """Return one image of a batch as the reference takes it."""
    scores, pred, points, labels, boxes, valid = given
    count = int(valid[number].sum())
    options: dict[str, Any] = {}
    objects = boxes[number, :count].tolist()
    if "gt_kpts" in extra:
        keypoints, predicted = extra["gt_kpts"][number].tolist(), extra["pd_kpts"][number].tolist()
        strides, sigmas = extra["anc_strides"].tolist(), stock.sigmas.tolist()
        low, high = stock.level_range

        def allowed(g: int, a: int) -> bool:
            _, _, w, h = reference.xywh(objects[g])
            side, s = math.sqrt(w * h), strides[a]
            return (side >= low * s or s == min(strides)) and (side <= high * s or s == max(strides))

        def similarity(g: int, a: int, overlap: float) -> float:
            _, _, w, h = reference.xywh(objects[g])
            seen = [k for k, (_, _, visible) in enumerate(keypoints[g]) if visible]
            found = 0.0
            for k in seen:
                squared = sum((p - t) ** 2 for p, t in zip(predicted[a][k], keypoints[g][k][:2], strict=True))
                found += math.exp(-squared / (2 * (2 * sigmas[k]) ** 2 * (w * h * 0.53 + 1e-9)))
            return found / len(seen) if seen else overlap

        options = {"allowed": allowed, "pair": similarity}
    if "proto" in extra:
        logits = torch.einsum("ac,chw->ahw", extra["pd_coef"][number], extra["proto"][number])
        wanted = extra["gt_masks"][number]

        def mask_iou(g: int, a: int, overlap: float) -> float:
            x1, y1, x2, y2 = (side * 0.25 for side in pred[number, a].tolist())
            columns, rows = (torch.arange(16) for _ in range(2))
            inside = ((rows >= y1) & (rows < y2))[:, None] & ((columns >= x1) & (columns < x2))
            mask = (logits[a] > 0) & inside
            return float((mask & wanted[g]).sum() / (mask | wanted[g]).sum().clamp_min(1))

        options = {"pair": mask_iou, "masks": True}
    return Image(
        scores[number].tolist(),
        pred[number].tolist(),
        [(float(x), float(y)) for x, y in points],
        labels[number, :count, 0].long().tolist(),
        objects,
        **options,
    )


def check_equal(stock: Any, assign: Callable[..., Any], name: str, keys: dict[str, Any]) -> int:
    """Compare an assigner with the reference; return the number of positives."""
    given, extra = inputs(name)
    labels, boxes, scores, mask, numbers = assign(*given, **extra)
    total = 0
    for i in range(len(mask)):
        wanted = reference.assign(image_of(stock, given, extra, i), rules_of(stock, keys))
        assert mask[i].nonzero().flatten().tolist() == sorted(wanted)
        target = torch.zeros_like(scores[i])
        for a, positive in wanted.items():
            assert int(numbers[i, a]) == positive.number
            assert boxes[i, a].tolist() == given[4][i, positive.number].tolist()
            assert int(labels[i, a]) == int(given[3][i, positive.number, 0])
            target[a, int(labels[i, a])] = positive.target
        torch.testing.assert_close(scores[i], target, rtol=2e-4, atol=1e-7)
        total += len(wanted)
    return total


def refused(stock: Any, keys: dict[str, Any]) -> bool:
    """Return whether an assigner has another overlap than that of axis-aligned boxes, or no floor."""
    other_overlap = hasattr(stock, "sigmas") or "Rotated" in type(stock).__name__
    return ("tal_overlap" in keys and other_overlap) or ("tal_min_side" in keys and not hasattr(stock, "stride_val"))


@pytest.mark.parametrize("name", list(HEADS))
def test_positives_and_targets_are_those_of_the_loops_for_every_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "topk", stable_topk)
    monkeypatch.setattr(torch.Tensor, "topk", stable_topk)
    positives: dict[str, list[int]] = {}
    for keys in ({}, *KEYS.values()):
        criterion = criterion_of(name)
        stocks = {path: copy.deepcopy(leaf.assigner) for path, leaf in anchors.leaves(criterion)}
        if refused(next(iter(stocks.values())), keys):
            with pytest.raises(ValueError, match="allowed is stock"):
                yolo_losses.equip(criterion, keys)
            continue
        yolo_losses.equip(criterion, keys)
        for path, leaf in anchors.leaves(criterion):
            assert isinstance(leaf.assigner, AssignerPart) == bool(keys)
            positives.setdefault(path, []).append(check_equal(stocks[path], leaf.assigner, name, keys))
    for path, counts in positives.items():
        assert min(counts) > 0
        assert path == "one2one" or len(set(counts)) > 3  # the keys change something


def test_a_batch_without_objects_has_no_positives() -> None:
    criterion = criterion_of("v8")
    (branch,) = yolo_losses.equip(criterion, {"tal_topk": 20, "tal_overlap": "nwd", "loss_stats": True}).values()
    scores, pred, points, labels, boxes, valid = inputs("v8")[0]
    found = criterion.assigner(scores, pred, points, labels[:, :0], boxes[:, :0], valid[:, :0])
    assert not found[3].any()
    assert branch.statistics is not None
    assert not branch.statistics.found["by_size"].any()
    assert branch.positives_per_object is None


def same(one: Any, other: Any, name: str = "v8") -> bool:
    """Return whether two assigners assign the same."""
    given, extra = inputs(name)
    return all(torch.equal(a, b) for a, b in zip(one(*given, **extra), other(*given, **extra), strict=True))


@pytest.mark.parametrize("name", list(HEADS))
def test_without_a_key_the_assigner_is_stock_to_the_bit(name: str) -> None:
    stock, equipped = criterion_of(name), criterion_of(name)
    box = "rotated_iou" if name.endswith("obb") else "giou"
    yolo_losses.equip(equipped, {"box_loss": box, "cls_loss": "focal", "loss_stats": True})
    for (_, one), (_, other) in zip(anchors.leaves(stock), anchors.leaves(equipped), strict=True):
        assert isinstance(other.assigner, AssignerPart)
        assert not other.assigner.changed
        assert same(one.assigner, other.assigner, name)


@pytest.mark.parametrize("name", list(HEADS))
def test_the_stock_values_as_keys_are_the_same_training_step(name: str) -> None:
    criterion, stock = criterion_of(name), criterion_of(name)
    yolo_losses.equip(criterion, {"tal_alpha": 0.5, "tal_beta": 6})
    one, other = (step(c, predictions(name), made_up_batch(name)) for c in (criterion, stock))
    assert one[0] == other[0]
    assert torch.equal(one[1], other[1])
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(one[2], other[2], strict=True))


def test_outside_its_calls_the_assigner_has_its_stock_values(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"tal_topk": 20, "tal_alpha": 1, "tal_beta": 2, "tal_overlap": "nwd", "tal_min_side": 24}
    criterion = criterion_of("v8")
    stock = criterion.assigner
    before = dict(vars(stock))
    yolo_losses.equip(criterion, keys)
    part = criterion.assigner
    assert (part.topk, part.alpha, part.beta, part.stride_val) == (20, 1, 2, 24)  # read as set
    part.num_classes = CLASSES  # as YOLOE sets it
    assert vars(stock) == before
    given, _ = inputs("v8")
    part(*given)
    state = {name: value for name, value in vars(stock).items() if name not in ("bs", "n_max_boxes")}
    assert state == before
    with pytest.raises(IndexError):
        part(given[0][..., :0], *given[1:])
    assert {name: value for name, value in vars(stock).items() if name in before} == before
    assert "iou_calculation" not in vars(stock)

    unpickled = pickle.loads(pickle.dumps(criterion.assigner))
    assert type(unpickled) is type(stock)
    assert (unpickled.topk, unpickled.alpha, unpickled.beta, unpickled.stride_val) == (10, 0.5, 6.0, 16)
    copied = copy.deepcopy(criterion)
    assert isinstance(copied.assigner, AssignerPart)
    assert copied.assigner.stock is not stock
    assert same(copied.assigner, part)
    assert not same(stock, part)

    yolo_losses.equip(criterion, {})
    assert criterion.assigner is stock
    assert same(stock, criterion_of("v8").assigner)


def test_the_criterion_for_validation_assigns_the_same() -> None:
    training, validation = criterion_of("26"), criterion_of("26")
    branches = yolo_losses.equip(training, {"tal_topk": 20})
    yolo_losses.equip(validation, {"tal_topk": 20}, branches)
    with torch.no_grad():
        for (_, one), (_, other) in zip(anchors.leaves(training), anchors.leaves(validation), strict=True):
            assert one.assigner.branch is other.assigner.branch
            assert same(one.assigner, other.assigner)


@pytest.mark.parametrize("chosen", ["one2many", "one2one"])
def test_the_keys_act_on_both_branches_whatever_loss_branches_says(chosen: str) -> None:
    criterion = criterion_of("26")
    keys = {"tal_overlap": "nwd", "nwd_constant": 20, "cls_loss": "focal", "loss_branches": chosen}
    branches = yolo_losses.equip(criterion, keys)
    assert {path: branch.expected for path, branch in branches.items()} == {
        path: ("class", "assigner") if path == chosen else ("assigner",) for path in ("one2many", "one2one")
    }
    for branch in branches.values():
        assert branch.assigner == "overlap=nwd (nwd_constant=20)"


@pytest.mark.parametrize("name", ["v8", "26"])
def test_a_call_proves_the_assigner_and_counts_the_positives_per_object(name: str) -> None:
    criterion = criterion_of(name)
    branches = yolo_losses.equip(criterion, {"tal_topk": 5})
    step(criterion, predictions(name), made_up_batch(name))
    for path, leaf in anchors.leaves(criterion):
        branch = branches[path]
        assert branch.proven
        assert branch.ledger.untrained == ()
        assert branch.positives_per_object is not None
        assert 0 < branch.positives_per_object <= leaf.assigner.topk
    first = [branch.positives_per_object for branch in branches.values()]
    step(criterion, predictions(name, seed=5), made_up_batch(name, each=1))
    assert [branch.positives_per_object for branch in branches.values()] == first
