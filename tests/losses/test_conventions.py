"""The calling conventions that people bring along: MMDetection's, torch's, torchvision's, fvcore's and detectron2's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
import torchvision
from torch import Tensor, nn

import yolo_losses
from yolo_losses import functional, registry
from yolo_losses.losses._reduction import reduce_loss

EXAMPLES_FILE = Path(__file__).parents[1] / "golden" / "examples.json"
EXAMPLES = {case["name"]: case for case in json.loads(EXAMPLES_FILE.read_text(encoding="utf-8"))["examples"]}
FAMILIES = [spec for kind in ("cls", "box") for spec in registry.specs(kind)]  # type: ignore[arg-type]
EXACT = {"rtol": 1e-9, "atol": 1e-15}

every_loss = pytest.mark.parametrize("spec", FAMILIES, ids=lambda spec: spec.name)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def boxes(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    corners = random(count, 4, seed=seed) * 60
    return torch.cat((corners[:, :2], corners[:, :2] + corners[:, 2:] + 1), 1).to(dtype)


def pair(spec: registry.LossSpec, count: int = 12, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A prediction and a target that the loss takes."""
    if spec.kind == "cls":
        return (random(count, 5) * 8 - 4).to(dtype), random(count, 5, seed=1).to(dtype)
    if spec.rotated:
        sides = random(count, 5, seed=2).to(dtype)
        return sides * 9 + 1, random(count, 5, seed=3).to(dtype) * 9 + 1
    return boxes(count, 0, dtype), boxes(count, 1, dtype)


def module(spec: registry.LossSpec, **options: Any) -> Callable[..., Tensor]:
    loss = spec.module(**options).eval()

    def call(*args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = loss(*args, **kwargs, **({"image_wh": (640, 480)} if spec.name == "mpdiou" else {}))
        return result

    return call


def slope_of(value: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), by)[0]


# Worked cases of the originals


def loss_of_example(name: str, pred: Tensor, args: dict[str, Any]) -> Tensor:
    """The case's loss by ours: each name's first part says which."""
    given = args.pop("target")
    target = torch.tensor(given, dtype=torch.float64 if torch.tensor(given).is_floating_point() else None)
    if "weight" in args:
        args["weight"] = torch.tensor(args["weight"], dtype=torch.float64)
    if name.startswith("focal_"):
        reduction = "none" if name.endswith(("onehot", "background")) else "mean"
        return adapters.FocalLoss(activated="logits" not in name, reduction=reduction)(pred, target, **args)
    if name.startswith("bce_"):
        return functional.bce_loss(pred, target, reduction=name.rpartition("_")[2])
    if name.startswith("slide_"):
        return functional.slide_loss(pred, target, 0.5)
    if name == "vfl_ultralytics":
        mask = torch.tensor(args["label"]) > 0
        return functional.varifocal_loss(pred, target, positive_mask=mask).mean(1).sum()
    if name == "qfl_tuple_none":
        score = torch.tensor(args["score"], dtype=torch.float64)
        return adapters.QualityFocalLoss(reduction="none")(pred, (target, score))
    if name == "box_ultralytics_ciou_value":
        return 1 - functional.ciou_loss(pred, target)
    return {
        "vfl_none": functional.varifocal_loss,
        "dfl_4bins": functional.distribution_focal_loss,
        "box_giou": functional.giou_loss,
        "box_diou": functional.diou_loss,
        "box_ciou": adapters.complete_box_iou_loss,
    }[name](pred, target)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if not name.startswith("box_mmdet_")])
def test_worked_case_has_the_originals_value_gradient_and_error(name: str) -> None:
    case = EXAMPLES[name]
    pred = torch.tensor(case["pred"], dtype=torch.float64, requires_grad=True)
    if "raises" in case:
        kind = {"ValueError": ValueError, "AssertionError": AssertionError}[case["raises"].partition(":")[0]]
        with pytest.raises(kind):
            loss_of_example(name, pred, dict(case["args"]))
        return
    value = loss_of_example(name, pred, dict(case["args"]))
    wanted = torch.tensor(case["out"], dtype=torch.float64)
    # torchvision has no eps on the heights, which shows in the eighth place on boxes of side 1 and 2.
    # Ultralytics' varifocal loss is in float32 whatever it is given.
    tolerance = {"rtol": 2e-7, "atol": 2e-7} if name.startswith(("box_", "vfl_ultralytics")) else EXACT
    torch.testing.assert_close(value, wanted, **tolerance)
    if not name.startswith("box_"):  # the boxes touch or coincide, where a side's gradient is a matter of taste
        slope = torch.tensor(case["grad_of_sum"], dtype=torch.float64)
        torch.testing.assert_close(slope_of(value, pred), slope, **tolerance)


# MMDetection's


@every_loss
def test_weight_may_be_one_a_row_one_an_element_or_flat(spec: registry.LossSpec) -> None:
    pred, target = pair(spec)
    loss = module(spec, reduction="none")
    plain = loss(pred, target)
    row = random(len(pred), seed=5)
    if spec.name == "ghm":  # there a weight says whether an element counts
        row = torch.ones_like(row)
    by_row = loss(pred, target, row)
    weight = row.view(-1, *[1] * (plain.dim() - 1)).expand_as(plain)
    torch.testing.assert_close(by_row, plain * weight, **EXACT)
    for same in (weight, weight.flatten(), weight.float()):
        torch.testing.assert_close(loss(pred, target, same), by_row, rtol=1e-6, atol=1e-9)
    if spec.kind == "box":
        torch.testing.assert_close(loss(pred, target, row[:, None].expand_as(pred)), by_row, **EXACT)
    if spec.name != "ghm":
        assert loss(pred, target, torch.zeros(len(pred))).count_nonzero() == 0


@every_loss
def test_a_weight_of_another_shape_is_refused(spec: registry.LossSpec) -> None:
    for shape in ((7,), (2, 5, 5), (13, 1)):
        with pytest.raises(ValueError, match="does not fit"):
            module(spec)(*pair(spec), torch.ones(shape))


@every_loss
def test_average_factor_divides_the_sum_and_has_no_part_in_none(spec: registry.LossSpec) -> None:
    pred, target = pair(spec)
    plain = module(spec, reduction="none")(pred, target)
    mean = module(spec, reduction="mean")
    for factor in (4, 2.5, torch.tensor(3.0)):
        torch.testing.assert_close(mean(pred, target, avg_factor=factor), plain.sum() / factor, rtol=1e-6, atol=0)
        unreduced = mean(pred, target, avg_factor=factor, reduction_override="none")
        torch.testing.assert_close(unreduced, plain, **EXACT)
        with pytest.raises(ValueError, match="avg_factor"):
            mean(pred, target, avg_factor=factor, reduction_override="sum")
    assert mean(pred[:0], target[:0], avg_factor=0).item() == 0


@every_loss
def test_reduction_override_takes_the_place_of_the_reduction(spec: registry.LossSpec) -> None:
    pred, target = pair(spec)
    plain = module(spec, reduction="none")(pred, target)
    loss = module(spec, reduction="sum")
    torch.testing.assert_close(loss(pred, target), plain.sum(), **EXACT)
    torch.testing.assert_close(loss(pred, target, reduction_override="mean"), plain.mean(), **EXACT)
    torch.testing.assert_close(loss(pred, target, reduction_override="none"), plain, **EXACT)
    torch.testing.assert_close(loss(pred, target, None, None, "none"), plain, **EXACT)
    for unknown in ("xyz", True, False, ""):
        # MMDetection asserts, torchvision raises a ValueError that says "Invalid"
        with pytest.raises(AssertionError):
            loss(pred, target, reduction_override=unknown)
        with pytest.raises(ValueError, match=r"Invalid.*none, mean, sum"):
            loss(pred, target, reduction_override=unknown)
    with pytest.raises(ValueError, match="Invalid"):
        spec.module(reduction="batchmean")


@pytest.mark.parametrize("spec", registry.specs("cls"), ids=lambda spec: spec.name)
def test_integer_labels_are_one_hot_rows_and_the_last_is_background(spec: registry.LossSpec) -> None:
    pred = random(6, 5) * 8 - 4
    labels = torch.tensor([0, 4, 5, 2, 5, 1])
    rows = torch.zeros(6, 5, dtype=torch.float64)
    rows[labels < 5, labels[labels < 5]] = 1
    loss = module(spec, reduction="none")
    wanted = loss(pred, rows)
    for same in (labels, labels.int(), rows.long(), (labels, torch.ones(6))):
        torch.testing.assert_close(loss(pred, same), wanted, **EXACT)
    score = random(6, seed=4)
    torch.testing.assert_close(loss(pred, (labels, score)), loss(pred, rows * score[:, None]), **EXACT)
    batch = pred.view(2, 3, 5)
    torch.testing.assert_close(loss(batch, labels.view(2, 3)), wanted.view(2, 3, 5), **EXACT)
    for wrong in (torch.tensor([0, 1, 2, 3, 4, 6]), torch.tensor([0, 1, 2, 3, 4, -1]), labels[:3], random(6)):
        with pytest.raises(ValueError, match=r"labels must lie|do not fit"):
            loss(pred, wrong)


def test_quality_focal_rows_are_the_same_from_pairs_and_from_dense_targets() -> None:
    pred, labels, score = random(4, 5), torch.tensor([0, 1, 2, 5]), random(4, seed=1)
    dense = torch.nn.functional.one_hot(labels, 6)[:, :5] * score[:, None]
    for activated in (False, True):
        loss = adapters.QualityFocalLoss(activated=activated)
        assert loss(pred, (labels, score)) == loss(pred, dense)
    rows = adapters.QualityFocalLoss(reduction="none")(pred, dense)
    assert rows.shape == (4,)
    torch.testing.assert_close(adapters.QualityFocalLoss()(pred, dense), rows.mean())


def test_varifocal_asserts_on_alpha_and_shape() -> None:
    with pytest.raises(AssertionError):
        adapters.VarifocalLoss(alpha=-0.5)
    with pytest.raises(AssertionError):
        adapters.VarifocalLoss()(random(4, 5), random(4, 1))
    pred, target = random(4, 5), random(4, 5, seed=1)
    wanted = functional.varifocal_loss(pred, target, 0.5, reduction="mean")
    torch.testing.assert_close(adapters.VarifocalLoss(alpha=0.5)(pred, target), wanted, **EXACT)


def test_ghmc_is_the_mean_over_the_rows_that_count_whatever_the_average_factor() -> None:
    pred, labels = random(6, 5) * 8 - 4, torch.tensor([0, 4, 5, 2, 5, 1])
    weight = torch.tensor([1.0, 0, 1, 1, 0, 1])
    counted = weight > 0
    wanted = adapters.GHMC()(pred[counted], labels[counted], torch.ones(4))
    for factor in (None, 1.0, 99.0):
        torch.testing.assert_close(adapters.GHMC()(pred, labels, weight, avg_factor=factor), wanted, **EXACT)


def test_iou_loss_of_each_mode() -> None:
    # The first pair shares a quarter of its union, the second touches nothing.
    pred = torch.tensor([[0.0, 0, 20, 10], [0, 0, 10, 10]], dtype=torch.float64)
    target = torch.tensor([[0.0, 0, 5, 10], [30, 30, 40, 40]], dtype=torch.float64)
    modes = {"log": (math.log(4), -math.log(1e-3)), "linear": (0.75, 0.999), "square": (15 / 16, 1 - 1e-6)}
    for mode, wanted in modes.items():
        loss = adapters.IoULoss(mode=mode, eps=1e-3, reduction="none")(pred, target)
        torch.testing.assert_close(loss, torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=0)
    assert adapters.IoULoss(linear=True)(pred, target).equal(adapters.IoULoss(mode="linear")(pred, target))
    torch.testing.assert_close(adapters.IoULoss()(pred[:1], target[:1]).item(), math.log(4), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["GIoULoss", "DIoULoss"])
def test_box_losses_take_their_eps(name: str) -> None:
    a, b = boxes(5, 0), boxes(5, 1)
    function = getattr(functional, {"GIoULoss": "giou_loss", "DIoULoss": "diou_loss"}[name])
    for eps in (1e-6, 0.5):
        ours = getattr(adapters, name)(eps=eps, reduction="none")(a, b)
        torch.testing.assert_close(ours, function(a, b, eps), **EXACT)
    assert getattr(adapters, name)()(a, b).equal(getattr(adapters, name)(eps=1e-6)(a, b))


@pytest.mark.parametrize("name", ["IoULoss", "GIoULoss", "DIoULoss", "CIoULoss", "EIoULoss", "SIoULoss"])
def test_weights_of_zero_make_zero_of_any_four_numbers(name: str) -> None:
    loss = getattr(adapters, name, None) or getattr(yolo_losses, name)
    for seed in range(20):  # half of these boxes are turned inside out
        pred, target = random(10, 4, seed=seed).float(), random(10, 4, seed=seed + 100).float()
        assert loss()(pred, target, torch.zeros(10)).item() == 0
        assert loss()(pred[:0], target[:0], torch.zeros(0, 4), avg_factor=10).item() == 0


def test_distribution_loss_takes_the_same_arguments() -> None:
    logits, target = random(6, 16) * 4, random(6, seed=1) * 15
    loss = yolo_losses.DistributionFocalLoss(loss_weight=0.25)
    plain = functional.distribution_focal_loss(logits, target)
    weight = random(6, seed=2)
    torch.testing.assert_close(loss(logits, target), plain.mean() / 4)
    torch.testing.assert_close(loss(logits, target, weight, avg_factor=4.0), (plain * weight).sum() / 16)
    torch.testing.assert_close(loss(logits, target, reduction_override="none"), plain / 4)
    with pytest.raises(AssertionError):
        loss(logits, target, reduction_override=True)
    with pytest.raises(ValueError, match="avg_factor"):
        loss(logits, target, avg_factor=2.0, reduction_override="sum")


# torch's


def test_bce_is_torchs_in_every_argument() -> None:
    logits, targets = random(4, 6, 4) * 10 - 5, random(4, 6, 4, seed=1)
    weights: list[Tensor | None] = [None, random(4, seed=2), random(6, 1, seed=3), random(4, 6, 4, seed=4)]
    for weight in [*weights, random(4, 1, 4, seed=5), torch.tensor(2.0)]:
        for pos_weight in (None, random(4, seed=6), random(6, 4, seed=7)):
            for reduction in ("none", "mean", "sum"):
                theirs = nn.BCEWithLogitsLoss(weight=weight, pos_weight=pos_weight, reduction=reduction)
                ours = yolo_losses.BCELoss(weight=weight, pos_weight=pos_weight, reduction=reduction)
                torch.testing.assert_close(ours(logits, targets), theirs(logits, targets), **EXACT)


def test_bce_takes_a_number_as_pos_weight() -> None:
    logits, targets = random(3, 5), random(3, 5, seed=1)
    theirs = nn.functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=torch.tensor(3.0))
    assert functional.bce_loss(logits, targets, 3, reduction="mean").equal(theirs)
    assert yolo_losses.BCELoss(pos_weight=3)(logits, targets).equal(theirs)


def test_a_weight_that_can_be_read_both_ways_goes_by_rows() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0])
    assert reduce_loss(torch.ones(3, 3), weight, "none").equal(weight[:, None].expand(3, 3))
    assert reduce_loss(torch.ones(2, 3), weight, "none").equal(weight.expand(2, 3))


# torchvision's and fvcore's

NAMES = ["generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss"]


@pytest.mark.parametrize("alpha", [-1, 0.0, 0.25, 0.58, 1.0])
@pytest.mark.parametrize("gamma", [0, 1, 2.0, 2.5, 5])
def test_focal_is_torchvisions_in_value_and_gradient(alpha: float, gamma: float) -> None:
    for shape in ((7,), (4, 3), (2, 3, 4, 5), (0, 3), ()):
        logits, targets = random(*shape) * 12 - 6, random(*shape, seed=1).round()
        logits.requires_grad_()
        for reduction in ("none", "mean", "sum"):
            if reduction == "mean" and logits.numel() == 0:
                continue  # theirs is NaN
            ours = adapters.sigmoid_focal_loss(logits, targets, alpha, gamma, reduction)
            theirs = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha, gamma, reduction)
            torch.testing.assert_close(ours, theirs, **EXACT)
            torch.testing.assert_close(slope_of(ours, logits), slope_of(theirs, logits), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_focal_returns_torchvisions_type(dtype: torch.dtype) -> None:
    logits, targets = (random(9, 3) * 12 - 6).to(dtype).requires_grad_(), random(9, 3, seed=1).round().to(dtype)
    for reduction in ("none", "mean", "sum"):
        ours = adapters.sigmoid_focal_loss(logits, targets, reduction=reduction)
        assert ours.dtype == torchvision.ops.sigmoid_focal_loss(logits, targets, reduction=reduction).dtype == dtype
        # Ours is the value in float32, rounded once.
        exact = torchvision.ops.sigmoid_focal_loss(logits.double(), targets.double(), reduction=reduction)
        torch.testing.assert_close(ours.double(), exact, rtol=max(1e-6, torch.finfo(dtype).eps), atol=1e-7)
        assert slope_of(ours, logits).dtype == dtype


def test_fvcores_focal_has_alpha_off_by_default() -> None:
    logits, targets = random(9, 3) * 12 - 6, random(9, 3, seed=1).round()
    theirs = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha=-1, reduction="sum")
    torch.testing.assert_close(adapters.fvcore_sigmoid_focal_loss(logits, targets, reduction="sum"), theirs, **EXACT)


def test_focal_without_focus_and_balance_is_bce_to_the_bit() -> None:
    logits, targets = (random(9, 3) * 12 - 6).float().requires_grad_(), random(9, 3, seed=1).round().float()
    ours = adapters.fvcore_sigmoid_focal_loss(logits, targets, gamma=0, reduction="mean")
    theirs = nn.functional.binary_cross_entropy_with_logits(logits, targets)
    assert ours.equal(theirs)
    torch.testing.assert_close(slope_of(ours, logits), slope_of(theirs, logits))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_focal_can_be_called_from_torchscript() -> None:
    scripted = torch.jit.script(adapters.sigmoid_focal_loss)
    logits, targets = random(9, 3), random(9, 3, seed=1)
    assert scripted(logits, targets, alpha=-1, gamma=2).equal(adapters.sigmoid_focal_loss(logits, targets, -1, 2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(4,), (9, 4), (2, 3, 4), (0, 4)], ids=str)
def test_box_losses_are_torchvisions_for_boxes_of_any_batch(name: str, shape: tuple[int, ...]) -> None:
    count = math.prod(shape) // 4
    for reduction in ("none", "mean", "sum"):
        a, b = (boxes(count, seed).reshape(shape).requires_grad_() for seed in (0, 1))
        ours = getattr(adapters, name)(a, b, reduction=reduction)
        theirs = getattr(torchvision.ops, name)(a, b, reduction=reduction)
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)
        for box in (a, b):
            torch.testing.assert_close(
                torch.autograd.grad(ours.sum(), box, retain_graph=True)[0],
                torch.autograd.grad(theirs.sum(), box, retain_graph=True)[0],
                rtol=1e-6,
                atol=1e-7,
            )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_box_losses_return_torchvisions_type(name: str, dtype: torch.dtype) -> None:
    a, b = boxes(5, 0, dtype), boxes(5, 1, dtype)
    ours, theirs = getattr(adapters, name)(a, b), getattr(torchvision.ops, name)(a, b)
    if dtype != torch.bfloat16:  # which torchvision leaves as it is; here it is float32 inside and out
        assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-5, atol=2e-2 if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.parametrize("name", [*NAMES, "sigmoid_focal_loss", "fvcore_sigmoid_focal_loss"])
def test_unknown_reductions_raise_torchvisions_error(name: str) -> None:
    with pytest.raises(ValueError, match="Invalid"):
        getattr(adapters, name)(boxes(2), boxes(2), reduction="xyz")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_no_boxes_have_a_mean_of_zero_and_gradients(name: str, dtype: torch.dtype) -> None:
    a, b = (torch.zeros((0, 4), dtype=dtype, requires_grad=True) for _ in range(2))
    value = getattr(adapters, name)(a, b, reduction="mean")
    value.backward()
    assert value.item() == 0
    assert a.grad is not None
    assert b.grad is not None
