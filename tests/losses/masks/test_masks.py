"""Mask losses: the originals' numbers, and what holds for every registered one."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ROOT, golden
from torch import Tensor

import yolo_losses
from yolo_losses import functional, registry
from yolo_losses.losses.masks._base import cropped
from yolo_losses.losses.masks.lovasz import jaccard_steps
from yolo_losses.registry import LossSpec

ARRAYS, CASES, _ = golden("mask")
SPECS = registry.specs("seg")

every_loss = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def per_channel(formula: Callable[..., Tensor], logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each channel, shape `(b, C)`, of masks `(b, C, H, W)`."""
    return formula(logits.flatten(0, 1), targets.flatten(0, 1)).view(logits.shape[:2])


def focal_tversky(prob: Tensor, targets: Tensor) -> Tensor:
    # The original counts at the probabilities, and has its alpha on the false negatives.
    return functional.tversky_loss(prob.clamp(1e-15, 1 - 1e-15).logit(), targets, alpha=0.3, beta=0.7) ** 0.75


# The rows of the empty target are left out where the original takes it for no loss.
ORIGINALS: dict[str, tuple[Callable[..., Tensor], slice]] = {
    "mmdet_dice_naive": (functools.partial(functional.dice_loss, smooth=1e-3), slice(None)),
    "ultralytics_MultiChannelDice_smooth1": (
        lambda z, t: per_channel(functional.dice_loss, z, t).mean(1),
        slice(None),
    ),
    "ultralytics_BCEDice": (lambda z, t: per_channel(functional.bce_dice_loss, z, t).mean(), slice(None)),
    "lovasz_hinge_perimageTrue": (functools.partial(functional.lovasz_hinge_loss, reduction="mean"), slice(None)),
    "lovasz_hinge_flat_each": (functional.lovasz_hinge_loss, slice(None)),
    "smp_tversky_each_a0.3_b0.7": (functools.partial(functional.tversky_loss, smooth=0.0), [0, 1, 3, 4, 5]),
    "ftl_focal_tversky_each": (focal_tversky, slice(None)),
}


@pytest.mark.parametrize("case", ORIGINALS)
def test_value_and_gradient_are_those_of_the_original(case: str) -> None:
    ours, rows = ORIGINALS[case]
    inputs, result = CASES[case]["inputs"], CASES[case]["results"]["float64"]
    pred, target = (ARRAYS[f"inputs/{inputs[name]}"].double() for name in ("pred", "target"))
    pred.requires_grad_()
    value = ours(pred, target)
    (slope,) = torch.autograd.grad(value.sum(), pred)
    wanted, wanted_slope = ARRAYS[result["out"]], ARRAYS[result["grad"]]
    if value.dim() == 0:
        rows = slice(None)
        torch.testing.assert_close(value, wanted, rtol=1e-7, atol=1e-15)
    else:
        torch.testing.assert_close(value[rows], wanted[rows], rtol=1e-7, atol=1e-15)
    usual = pred if case != "ftl_focal_tversky_each" else pred.clamp(1e-12, 1 - 1e-12)
    inside = (usual == pred)[rows]  # of probabilities at 0 and 1 the logit has no digits
    torch.testing.assert_close(slope[rows][inside], wanted_slope[rows][inside], rtol=1e-6, atol=1e-15)


def test_the_squared_dice_and_what_is_pooled_over_a_batch_are_other_losses() -> None:
    others = {"mmdet_dice", "smp_tversky_batch_a0.3_b0.7", "ultralytics_single_mask_loss_grad_coef"}
    others |= {case for case in CASES if case.startswith("sdm_")}
    assert set(CASES) == {*ORIGINALS, *others}  # the third is compared with the criterion's part


def make(spec: LossSpec, **keys: Any) -> Any:
    options = {"reduction": "none"}
    return spec.build(registry.parse_keys([spec], keys), **options)


def masks(dtype: torch.dtype = torch.float64, count: int = 4, side: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, side, side, generator=generator, dtype=torch.float64) * 3
    targets = (torch.rand(count, side, side, generator=generator) > 0.6).double()
    return logits.to(dtype).requires_grad_(), targets.to(dtype)


# Formulas as they are printed


def printed(name: str, z: Tensor, t: Tensor) -> Tensor:
    p = z.sigmoid()
    bce = -(t * p.log() + (1 - t) * (1 - p).log())
    dice = 1 - (2 * (p * t).sum((1, 2)) + 1) / (p.sum((1, 2)) + t.sum((1, 2)) + 1)
    if name == "bce":
        return bce.mean((1, 2))
    if name == "dice":
        return dice
    if name == "bce_dice":
        return 0.5 * bce.mean((1, 2)) + 0.5 * dice
    if name == "focal":
        miss = t * (1 - p) + (1 - t) * p
        return ((0.25 * t + 0.75 * (1 - t)) * miss**1.5 * bce).mean((1, 2))
    if name == "tversky":
        hit, extra, missed = ((a * b).sum((1, 2)) for a, b in ((p, t), (p, 1 - t), (1 - p, t)))
        return 1 - (hit + 1) / (hit + 0.3 * extra + 0.7 * missed + 1)
    assert name == "lovasz"
    values = []
    for row, truth in zip(z.flatten(1), t.flatten(1), strict=True):
        errors = (1 - row * (2 * truth - 1)).clamp_min(0)
        total, before, wrong = row.new_zeros(()), 0.0, torch.zeros(len(row), dtype=torch.bool)
        for pixel in errors.argsort(descending=True):
            wrong[pixel] = True
            # Jaccard loss of the mask in which exactly these pixels are wrong
            mask = truth.bool() ^ wrong
            union = (mask | truth.bool()).sum()
            jaccard = 1 - float((mask & truth.bool()).sum() / union) if union else 0.0
            total = total + errors[pixel] * (jaccard - before)
            before = jaccard
        values.append(total)
    return torch.stack(values)


@pytest.mark.parametrize("name", [spec.name for spec in SPECS if spec.built_in])
def test_value_and_gradient_are_those_of_the_printed_formula(name: str) -> None:
    spec = registry.find("seg", name)
    assert spec is not None
    logits, targets = masks()
    targets[1] = 0
    targets[2] = 1
    ours, theirs = make(spec)(logits, targets), printed(name, logits, targets)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(each.sum(), logits)[0] for each in (ours, theirs)))


@every_loss
def test_gradient_is_the_derivative(spec: LossSpec) -> None:
    logits, targets = masks(count=2, side=5)
    assert torch.autograd.gradcheck(lambda z: make(spec)(z, targets), logits)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_value_and_gradient_are_finite_at_any_logit_and_mask(spec: LossSpec, dtype: torch.dtype) -> None:
    levels = torch.tensor([0.0, 1e-3, -1e-3, 5, -5, 30, -30, 100, -100])
    logits = torch.cat((levels[:, None, None].expand(-1, 6, 6), levels.repeat(4).view(1, 6, 6)))
    half = torch.zeros(6, 6)
    half[:3] = 1
    for target in (torch.zeros(6, 6), torch.ones(6, 6), half):
        for keys in ({}, {p.key: 0.0 for p in spec.parameters if p.name == "smooth"}):
            z = logits.to(dtype).requires_grad_()
            value = make(spec, **keys)(z, target.expand(10, 6, 6).to(dtype))
            (slope,) = torch.autograd.grad(value.sum(), z)
            assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            assert value.isfinite().all()
            assert (value >= 0).all()
            assert slope.isfinite().all()


@every_loss
def test_half_precision_is_the_loss_of_the_rounded_logits(spec: LossSpec) -> None:
    logits, targets = masks()
    rounded = logits.detach().half()
    torch.testing.assert_close(make(spec)(rounded, targets.half()), make(spec)(rounded.float(), targets.float()))


@every_loss
def test_no_masks_are_a_zero_in_the_graph(spec: LossSpec) -> None:
    logits = torch.zeros(0, 5, 5, requires_grad=True)
    for reduction in ("mean", "sum"):
        value = make(spec)(logits, torch.zeros(0, 5, 5), reduction_override=reduction)
        value.backward()
        assert value.item() == 0


@every_loss
def test_each_mask_has_a_loss_of_its_own_whatever_the_order(spec: LossSpec) -> None:
    logits, targets = masks()
    value = make(spec)(logits, targets)
    assert value.shape == (4,)
    for order in ([2, 0, 3, 1], [3]):
        torch.testing.assert_close(make(spec)(logits[order], targets[order]), value[order])
    pixels = torch.randperm(81, generator=torch.Generator().manual_seed(1))
    shuffled = [each.flatten(1)[:, pixels].view(4, 9, 9) for each in (logits, targets)]
    torch.testing.assert_close(make(spec)(*shuffled), value)


@every_loss
def test_a_right_mask_has_hardly_a_loss_and_a_wrong_one_has(spec: LossSpec) -> None:
    _, targets = masks(torch.float32)
    right = (targets * 2 - 1) * 20
    assert make(spec)(right, targets).max() < 1e-6
    assert make(spec)(-right, targets).min() > 0.5


@every_loss
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_module_is_its_function(spec: LossSpec, reduction: str) -> None:
    logits, targets = masks()
    weight = torch.tensor([0.0, 1.0, 2.0, 0.5])
    arguments = {p.name: p.default for p in spec.parameters}
    formula = spec.module.formula
    wanted = formula(logits, targets, **arguments, weight=weight, reduction=reduction)
    torch.testing.assert_close(make(spec)(logits, targets, weight, reduction_override=reduction), wanted)
    if reduction == "mean":
        value = make(spec)(logits, targets, weight, avg_factor=3, reduction_override="mean")
        torch.testing.assert_close(value, (make(spec)(logits, targets) * weight).sum() / 3)


@every_loss
def test_a_pickled_module_is_the_module(spec: LossSpec) -> None:
    logits, targets = masks()
    keys = {p.key: 0.4 for p in spec.parameters}
    loss = make(spec, **keys)
    again = pickle.loads(pickle.dumps(loss))
    assert repr(again) == repr(loss)
    assert torch.equal(again(logits, targets), loss(logits, targets))


@every_loss
def test_masks_of_other_shapes_are_refused(spec: LossSpec) -> None:
    for pred, target in (((2, 5, 5), (2, 5, 4)), ((5, 5), (5, 5)), ((2, 1, 5, 5), (2, 1, 5, 5))):
        with pytest.raises(ValueError, match=r"both must have the same shape|allowed are masks of shape \(N, H, W\)"):
            make(spec)(torch.zeros(pred), torch.zeros(target))


@every_loss
def test_its_keys_start_with_seg_and_stand_in_a_config(spec: LossSpec) -> None:
    assert all(p.key == f"seg_{spec.name}_{p.name}" for p in spec.parameters)
    if spec.built_in:
        text = (ROOT / "configs" / f"seg_{spec.name}.yaml").read_text()
        assert f"seg_loss: {spec.name}\n" in text


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_what_is_outside_the_box_has_no_part_in_a_cropped_mask(spec: LossSpec, dtype: torch.dtype) -> None:
    logits, targets = masks(dtype)
    inside = torch.zeros(4, 9, 9, dtype=torch.bool)
    inside[:, 2:7, 1:8] = True
    whole = make(spec).masks(*cropped(logits, targets, inside), area=torch.full((4,), 35 / 81, dtype=dtype))
    alone = make(spec)(logits[:, 2:7, 1:8], targets[:, 2:7, 1:8])
    torch.testing.assert_close(whole, alone)
    (slope,) = torch.autograd.grad(whole.sum(), logits)
    assert not slope[~inside].any()
    assert slope[inside].any()


def test_an_empty_box_has_no_loss_per_pixel() -> None:
    logits, targets = masks()
    for name in ("bce", "focal"):
        nothing = cropped(logits, targets, torch.zeros(4, 9, 9, dtype=torch.bool))
        value = make(registry.find("seg", name)).masks(*nothing, area=torch.zeros(4))  # type: ignore[arg-type]
        assert not value.any()
        assert torch.autograd.grad(value.sum(), logits)[0].isfinite().all()


def test_dice_is_tversky_of_equal_weights() -> None:
    logits, targets = masks()
    dice = functional.dice_loss(logits, targets, smooth=3.0)
    torch.testing.assert_close(functional.tversky_loss(logits, targets, 0.5, 0.5, 1.5), dice)


def test_tverskys_alpha_weighs_false_positives_and_beta_false_negatives() -> None:
    extra, missed = torch.full((1, 4, 4), 20.0), torch.full((1, 4, 4), -20.0)
    target = torch.zeros(1, 4, 4)
    target[:, :2] = 1
    for alpha, beta in ((0.9, 0.1), (0.1, 0.9)):
        value = functools.partial(functional.tversky_loss, targets=target, alpha=alpha, beta=beta, smooth=0.0)
        torch.testing.assert_close(value(extra).item(), 1 - 8 / (8 + alpha * 8), rtol=1e-6, atol=0)
    with_missed = target.clone()
    with_missed[:, :1] = 0
    half = torch.where(with_missed > 0, extra, missed)
    torch.testing.assert_close(value(half).item(), 1 - 4 / (4 + 0.9 * 4), rtol=1e-6, atol=0)


def test_the_steps_of_the_jaccard_loss_have_all_their_digits_on_a_large_mask() -> None:
    truth = (torch.rand(1, 160 * 160, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    steps, exact = jaccard_steps(truth), jaccard_steps(truth.double())
    torch.testing.assert_close(steps.double(), exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(exact.sum().item(), 1.0)


def test_equal_errors_give_the_same_gradient_again() -> None:
    logits = torch.zeros(1, 8, 8, requires_grad=True)
    target = torch.eye(8)[None]
    first, second = (torch.autograd.grad(functional.lovasz_hinge_loss(logits, target), logits)[0] for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first.abs().sum().item(), 1.0)


def test_functions_and_modules_are_found_by_name() -> None:
    for name in (
        "dice_loss",
        "tversky_loss",
        "lovasz_hinge_loss",
        "bce_dice_loss",
        "mask_bce_loss",
        "mask_focal_loss",
    ):
        assert callable(getattr(functional, name))
    for name in ("DiceLoss", "TverskyLoss", "LovaszHingeLoss", "BCEDiceLoss", "MaskBCELoss", "MaskFocalLoss"):
        assert getattr(yolo_losses, name).__name__ == name


def test_masks_have_the_numbers_of_segmentation_models_pytorch() -> None:
    """Of `DiceLoss(smooth=0.5)`, `TverskyLoss(gamma=0.75, smooth=1)` and `LovaszLoss` of one mask at a time, 0.6.0.

    Its dice has half the smoothing of this one's, its gamma is the exponent, its Lovasz loss computes in float32.
    """
    number = torch.arange(24, dtype=torch.float64)
    logits, targets = ((number * 1.7).sin() * 3).view(2, 3, 4), ((number * 2.3).cos() > 0.2).double().view(2, 3, 4)
    numbers: dict[Callable[..., Tensor], list[float]] = {
        functional.dice_loss: [0.4740276386911798, 0.5283246995938862],
        functools.partial(functional.tversky_loss, gamma=4 / 3): [0.54112173160404, 0.5426485650753127],
        functional.lovasz_hinge_loss: [2.1263582706451416, 2.530322313308716],
    }
    for loss, wanted in numbers.items():
        assert loss(logits, targets).tolist() == pytest.approx(wanted, rel=1e-6)
