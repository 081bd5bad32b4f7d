"""Classification losses have the values and gradients of the originals, and of the formulas as papers print them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from class_elements import MEAN_IOU, SPECS, elements, gradient_of, make, variants
from conftest import golden
from torch import Tensor

import yolo_losses
from yolo_losses import functional
from yolo_losses.losses.build import make_cls_loss

precisions = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


# Values and gradients of the originals
def dense(labels: Tensor, score: Tensor, classes: int) -> Tensor:
    """One row an anchor, the score at its class; all zeros where the label is that of the background."""
    rows = torch.nn.functional.one_hot(labels, classes + 1)[:, :classes]
    return rows.to(score.dtype) * score[:, None]


def ema_slide(pred: Tensor, target: Tensor) -> Tensor:
    loss = make_cls_loss("ema_slide")
    calls = []
    for mean in (0.3, 0.6, 0.1):
        calls.append(loss(pred, target, mean_iou=mean))
    calls.append(loss.eval()(pred, target))  # the original's -1: the average stays
    return torch.stack(calls)


def focal_of_probabilities(pred: Tensor, target: Tensor) -> Tensor:
    return yolo_losses.FocalLoss(gamma=2.0, activated=True, reduction="none")(pred, target)


def positives_of(labels: Tensor, classes: int) -> Tensor:
    return dense(labels, torch.ones(len(labels)), classes) > 0


# Each original's case: its family, and the same loss in our words, given the case's inputs by name.
ORIGINALS: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "bce_logits_hard": ("bce", functional.bce_loss),
    "bce_logits_tal": ("bce", functional.bce_loss),
    "bce_logits_extreme": ("bce", functional.bce_loss),
    "bce_logits_weight": ("bce", functional.bce_loss),
    "bce_logits_posweight2": ("bce", functools.partial(functional.bce_loss, pos_weight=2.0)),
    "tv_sigmoid_focal_hard_a0.25_g2.0": ("focal", functools.partial(functional.focal_loss, gamma=2.0)),
    "tv_sigmoid_focal_hard_a-1_g2.0": ("focal", functools.partial(functional.focal_loss, gamma=2.0, alpha=-1)),
    "tv_sigmoid_focal_extreme_a0.25_g2.0": ("focal", functools.partial(functional.focal_loss, gamma=2.0)),
    "mmdet_py_sigmoid_focal_tal_a0.25_g2.0": ("focal", functools.partial(functional.focal_loss, gamma=2.0)),
    "mmdet_py_focal_with_prob_hard_a0.25_g2.0": ("focal", focal_of_probabilities),
    "mmdet_py_sigmoid_focal_hard_wN_mean": (
        "focal",
        functools.partial(functional.focal_loss, gamma=2.0, reduction="mean"),
    ),
    "mmdet_py_sigmoid_focal_hard_wN_avg17": (
        "focal",
        functools.partial(functional.focal_loss, gamma=2.0, reduction="mean", avg_factor=17),
    ),
    "mmdet_py_sigmoid_focal_hard_wflat_mean": (
        "focal",
        lambda pred, target, weight: functional.focal_loss(
            pred, target, 2.0, weight=weight.flatten(), reduction="mean"
        ),
    ),
    "yolov5_FocalLoss_tal_none": ("focal", functional.focal_loss),
    "poly1_focal_hard_e1.0_a0.25_g2.0": ("focal", functional.poly_focal_loss),
    "asl_AsymmetricLoss_hard_gn4_gp1_c0.05_dg1": (
        "focal",
        functools.partial(functional.asymmetric_loss, reduction="sum"),
    ),
    "mmdet_GHMC_bins10": ("focal", functools.partial(functional.ghm_loss, reduction="mean")),
    "mmdet_qfl_tensor_tal_b2.0": ("qfl", lambda pred, target: functional.quality_focal_loss(pred, target).sum(1)),
    "mmdet_qfl_quality_z_b2.0": (
        "qfl",
        lambda pred, label, score: functional.quality_focal_loss(pred, dense(label, score, 5)).sum(1),
    ),
    "yolov5_QFocalLoss_tal_a0.25_g1.5": (
        "qfl",
        functools.partial(functional.quality_focal_loss, beta=1.5, alpha=0.25),
    ),
    "mmdet_QualityFocalLoss_mean_avg13.5": (
        "qfl",
        lambda pred, label, score: yolo_losses.QualityFocalLoss()(pred, (label, score), avg_factor=13.5),
    ),
    "facev2_SlideLoss_v1_tal_iou0.05": ("slide", functools.partial(functional.slide_loss, mean_iou=0.05)),
    "facev2_SlideLoss_v1_tal_iou0.45": ("slide", functools.partial(functional.slide_loss, mean_iou=0.45)),
    "facev2_SlideLoss_v1_hard_iou0.45": ("slide", functools.partial(functional.slide_loss, mean_iou=0.45)),
    "csdn_EMASlide_seq_0.3_0.6_0.1_-1": ("slide", ema_slide),
    "mmdet_vfl_tal_a0.75_g2.0_iw1": ("vfl", functional.varifocal_loss),
    "mmdet_vfl_tal_a0.75_g2.0_iw0": ("vfl", functools.partial(functional.varifocal_loss, iou_weighted=False)),
    "rtdetr_vfl_quality_a0.75_g2.0": (
        "vfl",
        lambda pred, labels, score: functional.varifocal_loss(
            pred,
            dense(labels, score, 5),
            detach_weight=True,
            positive_mask=positives_of(labels, 5),
            reduction="sum",
        ),
    ),
    "deim_mal_quality_alphaNone_g1.5_v1.0": (
        "vfl",
        lambda pred, labels, score: functional.matchability_loss(
            pred, dense(labels, score, 5), positive_mask=positives_of(labels, 5), reduction="sum"
        ),
    ),
    "mmdet_VarifocalLoss_mean_avg9.25": (
        "vfl",
        lambda pred, target: yolo_losses.VarifocalLoss()(pred, target, avg_factor=9.25),
    ),
}


def against(case_id: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Our value and gradient, and the original's."""
    family, ours = ORIGINALS[case_id]
    arrays, cases, _ = golden(family)
    case = cases[case_id]
    inputs = {name: arrays[f"inputs/{key}"] for name, key in case["inputs"].items()}
    inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    if case_id == "mmdet_GHMC_bins10":
        del inputs["weight"]  # of ones
    pred = inputs.pop("pred").requires_grad_()
    others = [inputs.pop("target")] if "target" in inputs else []
    value = ours(pred, *others, **inputs)
    (slope,) = torch.autograd.grad(value.sum(), pred)
    result = case["results"][str(dtype).removeprefix("torch.")]
    return value.detach(), slope, arrays[result["out"]], arrays[result["grad"]]


@precisions
@pytest.mark.parametrize("case", ORIGINALS)
def test_value_and_gradient_are_those_of_the_original(case: str, dtype: torch.dtype) -> None:
    value, slope, original, original_slope = against(case, dtype)
    if dtype == torch.float32:
        tolerance = {"rtol": 1e-5, "atol": 1e-6}
    elif case == "mmdet_GHMC_bins10":
        tolerance = {"rtol": 1e-6, "atol": 1e-9}  # its entropy is of targets in float32, whatever the logits are
    else:
        # The original's 1 - p loses its digits at large logits: what is left of a loss of 1e-20 there is not compared.
        tolerance = {"rtol": 1e-9, "atol": 1e-18}
    assert value.isfinite().all()
    assert slope.isfinite().all()
    torch.testing.assert_close(value, original, **tolerance)
    torch.testing.assert_close(slope, original_slope, **tolerance)


def test_every_golden_case_is_compared() -> None:
    families = {family for family, _ in ORIGINALS.values()}
    assert {case for family in families for case in golden(family)[1]} == set(ORIGINALS)


# The formulas as the papers print them, for parameters that no golden case has
def bce(z: Tensor, t: Tensor) -> Tensor:
    return -(t * z.sigmoid().log() + (1 - t) * (1 - z.sigmoid()).log())


def p_t(z: Tensor, t: Tensor) -> Tensor:
    return t * z.sigmoid() + (1 - t) * (1 - z.sigmoid())


def balance(t: Tensor, alpha: float) -> Tensor:
    return alpha * t + (1 - alpha) * (1 - t) if alpha >= 0 else torch.ones_like(t)


def printed_focal(z: Tensor, t: Tensor, gamma: float, alpha: float) -> Tensor:
    return balance(t, alpha) * (1 - p_t(z, t)) ** gamma * bce(z, t)


def printed_vfl(z: Tensor, t: Tensor, alpha: float, gamma: float, iou_weighted: bool, detach_weight: bool) -> Tensor:
    p = z.detach().sigmoid() if detach_weight else z.sigmoid()
    positive = t if iou_weighted else torch.ones_like(t)
    return torch.where(t > 0, positive, alpha * p**gamma) * bce(z, t)


def printed_slide(z: Tensor, t: Tensor, delta: float, min_iou: float, m: float = MEAN_IOU, **_: float) -> Tensor:
    m = max(m, min_iou)
    weights = [1.0 if q <= m - delta else math.exp(1 - m) if q < m else math.exp(1 - q) for q in t.flatten().tolist()]
    return torch.tensor(weights, dtype=t.dtype).view_as(t) * bce(z, t)


def printed_asl(z: Tensor, t: Tensor, gamma_pos: float, gamma_neg: float, shift: float, detach_weight: bool) -> Tensor:
    p, rest = z.sigmoid(), (1 - z.sigmoid() + shift).clamp(max=1)
    focus = (1 - (p * t + rest * (1 - t))) ** (gamma_pos * t + gamma_neg * (1 - t))
    return -(t * p.log() + (1 - t) * rest.log()) * (focus.detach() if detach_weight else focus)


def printed_mal(z: Tensor, t: Tensor, gamma: float) -> Tensor:
    return torch.where(t > 0, bce(z, t**gamma), z.detach().sigmoid() ** gamma * bce(z, 0 * t))


def printed_ghm(z: Tensor, t: Tensor, bins: int, **_: float) -> Tensor:
    index = ((z.sigmoid() - t).abs() * bins).long().clamp(max=bins - 1)
    counts = torch.bincount(index.flatten(), minlength=bins)
    return t.numel() / (counts[index] * (counts > 0).sum()).double() * bce(z, t)


PRINTED: dict[str, Callable[..., Tensor]] = {
    "bce": bce,
    "focal": printed_focal,
    "vfl": printed_vfl,
    "qfl": lambda z, t, beta, alpha: balance(t, alpha) * (t - z.sigmoid()).abs() ** beta * bce(z, t),
    "slide": printed_slide,
    "ema_slide": functools.partial(printed_slide, m=1.0),  # its average before the first step
    "poly": lambda z, t, epsilon, gamma, alpha: (
        printed_focal(z, t, gamma, alpha) + epsilon * (1 - p_t(z, t)) ** (gamma + 1)
    ),
    "asl": printed_asl,
    "mal": printed_mal,
    "ghm": printed_ghm,
    # before the first step, when every class has the exponent gamma
    "efl": lambda z, t, gamma, alpha, scale: printed_focal(z, t, gamma, alpha),
    "eqfl": lambda z, t, gamma, scale: (t - z.sigmoid()).abs() ** gamma * bce(z, t),
}


@pytest.mark.parametrize("name", PRINTED)
def test_value_and_gradient_are_those_of_the_printed_formula_at_any_parameter(name: str) -> None:
    spec = next(spec for spec in SPECS if spec.name == name)
    logits, targets = elements()
    for keys in variants(spec):
        ours = make(spec, **keys)(logits, targets)
        parameters = {p.name: keys.get(p.key, p.default) for p in spec.parameters}
        printed = PRINTED[name](logits, targets, **parameters)
        # e^(1-m) is rounded to float32, as in the original
        tolerance = {"rtol": 1e-7 if "slide" in name else 1e-9, "atol": 1e-15}
        torch.testing.assert_close(ours, printed, **tolerance, msg=lambda text, keys=keys: f"{keys}: {text}")
        torch.testing.assert_close(gradient_of(ours, logits), gradient_of(printed, logits), **tolerance)
