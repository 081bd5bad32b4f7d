"""Properties of the classification losses, of every registered one, and their equality with the originals.

What is parametrised over the registry tests a newly registered loss too, and one of `YOLO_LOSSES_PLUGINS`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import golden
from torch import Tensor

import yolo_losses
from yolo_losses import functional, registry
from yolo_losses.losses._step import Step
from yolo_losses.losses.build import make_cls_loss
from yolo_losses.losses.classification._base import ClassificationLoss
from yolo_losses.registry import LossSpec

SPECS = registry.specs("cls")
MEAN_IOU = 0.45

every_loss = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
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


@functools.cache
def variants(spec: LossSpec) -> list[dict[str, float]]:
    """The defaults, and each declared parameter in turn at values across its range."""
    found: list[dict[str, float]] = [{}]
    for parameter in spec.parameters:
        for value in (parameter.limits.low, 0, 0.15, 0.5, 1, 2.5, 3, 7, parameter.limits.high):
            try:
                make_cls_loss(spec.name, **{parameter.key: value})
            except ValueError:
                continue
            if {parameter.key: value} not in found:
                found.append({parameter.key: value})
    return found


def elements(count: int = 60, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Logits of a usual size, and targets of which a half are background, some 1 and the rest between."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 5, generator=generator, dtype=torch.float64) * 2
    targets = torch.rand(count, 5, generator=generator, dtype=torch.float64) * 0.98 + 0.01
    kind = torch.rand(count, 5, generator=generator)
    targets = torch.where(kind < 0.5, 0, torch.where(kind < 0.6, 1, targets))
    return logits.to(dtype).requires_grad_(), targets.to(dtype)


def make(spec: LossSpec, reduction: str = "none", **keys: float) -> Callable[..., Tensor]:
    """The module, its state not moving, given what it may need of the step."""
    loss = make_cls_loss(spec.name, reduction=reduction, **keys).eval()
    return functools.partial(loss, mean_iou=MEAN_IOU)


def slope_of(value: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), by)[0]


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
        torch.testing.assert_close(slope_of(ours, logits), slope_of(printed, logits), **tolerance)


# Every registered loss


@every_loss
def test_gradient_is_the_derivative(spec: LossSpec) -> None:
    logits, targets = elements()
    # A weight that is taken as a constant has no part in the gradient; mal's are the negatives'.
    if spec.name == "mal":
        targets = targets.clamp_min(0.1)
    live = {p.key: False for p in spec.parameters if p.name == "detach_weight"}
    loss = make(spec, **live)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets[0]), logits[0].detach().requires_grad_())
    for keys in variants(spec):
        loss = make(spec, **{**keys, **live})
        slope = slope_of(loss(logits, targets), logits)
        with torch.no_grad():
            difference = (loss(logits + 1e-6, targets) - loss(logits - 1e-6, targets)) / 2e-6
        torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-7)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=str)
def test_value_and_gradient_are_finite_at_any_logit(
    spec: LossSpec, dtype: torch.dtype, autocast: torch.dtype | None
) -> None:
    levels = torch.tensor([0.0, 1e-4, 5.0, 17.0, 20.0, 50.0, 88.0, 100.0])
    z, t = torch.cartesian_prod(torch.cat((levels, -levels)), torch.tensor([0.0, 1e-6, 0.3, 0.5, 1.0])).unbind(1)
    z, t = z.to(dtype).requires_grad_(), t.to(dtype)
    for keys in variants(spec):
        with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
            value = make(spec, **keys)(z, t)
            total = make(spec, "sum", **keys)(z, t)
        assert value.dtype == torch.float32
        assert value.isfinite().all(), keys
        slope = slope_of(total, z)
        assert slope.dtype == dtype
        assert slope.isfinite().all(), keys
        # In float32 inside: the same as of the rounded inputs without autocast.
        torch.testing.assert_close(value, make(spec, **keys)(z.float(), t.float()), rtol=0, atol=0)


@every_loss
def test_float32_agrees_with_float64_at_any_logit(spec: LossSpec) -> None:
    z, t = torch.cartesian_prod(torch.linspace(-99.7, 100.1, 81), torch.tensor([0.0, 0.37, 1.0])).unbind(1)
    single, double = z.clone().requires_grad_(), z.double().requires_grad_()
    for keys in variants(spec):
        if keys.get("ghm_bins", 0) > 100:
            continue  # rounding moves elements from one bin to the next
        loss = make(spec, **keys)
        a, b = loss(single, t), loss(double, t.double())
        tolerance = {"rtol": 2e-5, "atol": 1e-5}
        torch.testing.assert_close(a, b.float(), **tolerance, msg=lambda text, keys=keys: f"{keys}: {text}")
        torch.testing.assert_close(slope_of(a, single), slope_of(b, double).float(), **tolerance)


@every_loss
def test_probabilities_of_0_and_1_have_finite_value_and_gradient(spec: LossSpec) -> None:
    p, t = torch.cartesian_prod(
        torch.tensor([0.0, 1e-45, 1e-38, 0.5, 1 - 2**-24, 1.0]), torch.tensor([0.0, 0.3, 1.0])
    ).unbind(1)
    p.requires_grad_()
    value = make_cls_loss(spec.name).eval()(p, t) * 0 + spec.build(reduction="none", activated=True).eval()(p, t)
    assert value.isfinite().all()
    assert slope_of(value, p).isfinite().all()


@every_loss
def test_probabilities_cost_what_their_logits_do(spec: LossSpec) -> None:
    logits, targets = elements()
    logits = logits.detach()
    activated = spec.build(reduction="none", activated=True).eval()
    torch.testing.assert_close(
        activated(logits.sigmoid(), targets, mean_iou=MEAN_IOU), make(spec)(logits, targets), rtol=1e-9, atol=1e-12
    )


@every_loss
def test_images_without_objects_have_a_finite_loss_that_falls_with_the_logits(spec: LossSpec) -> None:
    logits, targets = elements()
    targets = torch.zeros_like(targets)
    value = make(spec, "sum")(logits, targets)
    assert value.isfinite()
    assert value > 0
    assert slope_of(value, logits).isfinite().all()
    assert make(spec, "sum")(logits - 5, targets) < value


@every_loss
@pytest.mark.parametrize("shape", [(0, 5), (0,), (2, 0, 5)], ids=str)
def test_no_elements_are_a_zero_in_the_graph(spec: LossSpec, shape: tuple[int, ...]) -> None:
    for training in (False, True):
        logits = torch.zeros(shape, requires_grad=True)
        for reduction in ("mean", "sum"):
            loss = make_cls_loss(spec.name, reduction=reduction).train(training)
            value = loss(logits, torch.zeros(shape))
            value.backward()
            assert value.item() == 0
            assert logits.grad is not None
            again = loss(*elements(8))
            assert again.isfinite()
        assert make(spec)(logits, torch.zeros(shape)).shape == shape
    assert make(spec, "mean")(logits, torch.zeros(shape), avg_factor=0).item() == 0


@every_loss
def test_the_order_of_the_elements_plays_no_role(spec: LossSpec) -> None:
    logits, targets = elements()
    order = torch.randperm(logits.numel(), generator=torch.Generator().manual_seed(0))
    value = make(spec)(logits, targets)
    permuted = make(spec)(logits.flatten()[order], targets.flatten()[order])
    torch.testing.assert_close(permuted, value.flatten()[order], rtol=1e-12, atol=0)
    torch.testing.assert_close(
        slope_of(permuted, logits), slope_of(make(spec)(logits, targets), logits), rtol=1e-12, atol=0
    )


@every_loss
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_module_is_its_function(spec: LossSpec, reduction: str) -> None:
    logits, targets = elements()
    formula = spec.module.formula
    known = inspect.signature(formula).parameters
    arguments = {p.name: p.default for p in spec.parameters if p.name in known}
    if "mean_iou" in known:
        arguments["mean_iou"] = 1.0 if spec.name == "ema_slide" else MEAN_IOU
    if "pos_neg_ratio" in known:
        arguments["pos_neg_ratio"] = torch.ones(5)  # as before the first step
    weight = torch.rand(len(logits), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        make(spec, reduction)(logits, targets, weight),
        formula(logits, targets, **arguments, weight=weight, reduction=reduction),
        rtol=1e-12,
        atol=0,
    )


@every_loss
def test_default_reduction_is_the_mean_of_a_module_and_none_of_a_named_loss(spec: LossSpec) -> None:
    logits, targets = elements()
    value = make_cls_loss(spec.name).eval()(logits, targets)
    assert value.shape == logits.shape
    torch.testing.assert_close(spec.module().eval()(logits, targets), value.mean())
    torch.testing.assert_close(spec.module(loss_weight=3.0).eval()(logits, targets), 3 * value.mean())


def survivors(loss: ClassificationLoss) -> dict[str, ClassificationLoss]:
    file = io.BytesIO()
    torch.save(loss, file)
    file.seek(0)
    return {
        "deepcopy": copy.deepcopy(loss),
        "pickle": pickle.loads(pickle.dumps(loss)),
        "torch.save": torch.load(file, weights_only=False),
    }


@every_loss
def test_module_survives_copy_and_pickle_with_its_state(spec: LossSpec) -> None:
    loss = make_cls_loss(spec.name, **variants(spec)[-1]).train()
    for seed in range(3):
        loss(*elements(seed=seed), mean_iou=MEAN_IOU)
    value = loss.eval()(*elements(seed=9))
    for how, other in survivors(loss).items():
        assert repr(other) == repr(loss), how
        assert other.eval()(*elements(seed=9)).equal(value), how


@every_loss
def test_validation_leaves_the_state_alone(spec: LossSpec) -> None:
    loss = make_cls_loss(spec.name).eval()
    before = copy.deepcopy(loss.state_dict())
    loss(*elements(), mean_iou=MEAN_IOU)
    after = loss.state_dict()
    assert before.keys() == after.keys()
    assert all(value.equal(after[name]) for name, value in before.items())


def compiled_is_the_loss(spec: LossSpec, **options: Any) -> None:
    torch._dynamo.reset()
    loss = make_cls_loss(spec.name).eval()
    logits, targets = elements(dtype=torch.float32)
    plain = loss(logits, targets)
    compiled = torch.compile(loss, **options)(logits, targets)
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope_of(compiled, logits), slope_of(plain, logits), rtol=1e-5, atol=1e-6)


def test_traced_loss_is_the_loss() -> None:
    compiled_is_the_loss(SPECS[0], backend="aot_eager")


@pytest.mark.slow
@every_loss
def test_compiled_loss_is_the_loss(spec: LossSpec) -> None:
    compiled_is_the_loss(spec)


@every_loss
def test_parameters_out_of_range_are_refused_by_the_name_that_they_were_given_by(spec: LossSpec) -> None:
    for parameter in spec.parameters:
        limits = parameter.limits
        wrong: list[Any] = ["abc", "", math.nan, math.inf, [1], "1e999"]
        wrong += [limits.low - 1e-3] if limits.low > -math.inf else []
        wrong += [limits.high + 1e-3] if limits.high < math.inf else []
        wrong += [limits.above] if limits.above > -math.inf else []
        wrong += [2] if parameter.type is bool else [True]
        wrong += [1.5] if parameter.type is int else []
        for value in wrong:
            for build, name in (
                (functools.partial(make_cls_loss, spec.name), parameter.key),
                (spec.module, parameter.name),
            ):
                with pytest.raises(ValueError, match=f"'{name}=") as refusal:
                    build(**{name: value})
                assert "\n" not in str(refusal.value)
                assert "allowed" in str(refusal.value)


@every_loss
def test_parameters_arrive_as_numbers_or_text(spec: LossSpec) -> None:
    for parameter in spec.parameters:
        for value in (parameter.default, str(parameter.default), None, "none"):
            loss = make_cls_loss(spec.name, **{parameter.key: value})
            assert getattr(loss, parameter.name) == parameter.default


@every_loss
def test_unknown_parameters_are_refused(spec: LossSpec) -> None:
    with pytest.raises(ValueError, match=f"'{spec.name}_gama' is not a parameter of '{spec.name}'"):
        make_cls_loss(spec.name, **{f"{spec.name}_gama": 1})
    with pytest.raises(TypeError, match="gama"):
        spec.module(gama=1)


@every_loss
def test_names_and_aliases_lead_to_the_loss(spec: LossSpec) -> None:
    for name in (spec.name, *spec.aliases):
        for spelled in (name, name.upper(), name.replace("_", "-"), f" {name.title()} "):
            assert registry.find("cls", spelled) is spec
            assert isinstance(make_cls_loss(spelled), spec.module)


# What is known of the built-in ones


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("varifocal", "vfl"),
        ("VarifocalLoss", "vfl"),
        ("qualityfocal", "qfl"),
        ("quality_focal", "qfl"),
        ("Quality-Focal", "qfl"),
        ("emaslide", "ema_slide"),
        ("ema-slide", "ema_slide"),
        ("EMASlideLoss", "ema_slide"),
        ("Slide", "slide"),
        ("FOCAL", "focal"),
        ("FocalLoss", "focal"),
        ("asymmetric", "asl"),
        ("polyloss", "poly"),
        ("matchability", "mal"),
        ("GHMC", "ghm"),
        ("binary_cross_entropy", "bce"),
    ],
)
def test_known_spellings_are_understood(spelled: str, name: str) -> None:
    found = registry.find("cls", spelled)
    assert found is not None
    assert found.name == name


def test_unknown_names_are_refused_with_the_nearest() -> None:
    for wrong, near in (("slid", "slide"), ("focl", "focal"), ("ema_slid", "ema_slide")):
        with pytest.raises(ValueError, match=f"'cls_loss={wrong}' is not valid: .*Did you mean '{near}'"):
            make_cls_loss(wrong)
    for wrong in (None, 3, "", "stock"):
        with pytest.raises(ValueError, match="is not valid: allowed are"):
            make_cls_loss(wrong)  # type: ignore[arg-type]


def test_defaults_are_the_documented_ones() -> None:
    documented = {
        "bce": {},
        "focal": {"focal_gamma": 1.5, "focal_alpha": 0.25},
        "vfl": {"vfl_alpha": 0.75, "vfl_gamma": 2.0, "vfl_iou_weighted": True, "vfl_detach_weight": False},
        "qfl": {"qfl_beta": 2.0, "qfl_alpha": -1},
        "slide": {"slide_delta": 0.1, "slide_min_iou": 0.2},
        "ema_slide": {
            "ema_slide_delta": 0.1,
            "ema_slide_min_iou": 0.2,
            "ema_slide_decay": 0.999,
            "ema_slide_tau": 2000,
        },
        "poly": {"poly_epsilon": 1.0, "poly_gamma": 2.0, "poly_alpha": 0.25},
        "asl": {"asl_gamma_pos": 1.0, "asl_gamma_neg": 4.0, "asl_shift": 0.05, "asl_detach_weight": True},
        "mal": {"mal_gamma": 1.5},
        "ghm": {"ghm_bins": 10, "ghm_momentum": 0.75},
    }
    declared = {spec.name: {p.key: p.default for p in spec.parameters} for spec in SPECS}
    assert {name: declared[name] for name in documented} == documented


def test_slide_refuses_a_band_that_reaches_the_background() -> None:
    for name in ("slide", "ema_slide"):
        for delta, least in ((0.2, 0.2), (0.3, 0.2), (0.1, 0.05)):
            with pytest.raises(ValueError, match=f"{name}_delta={delta}' and '{name}_min_iou={least}' do not go"):
                make_cls_loss(name, **{f"{name}_delta": delta, f"{name}_min_iou": least})


def test_slide_weighs_by_the_bands_of_the_paper() -> None:
    targets = torch.tensor([0.0, 0.39, 0.4, 0.41, 0.49, 0.5, 0.7, 1.0], dtype=torch.float64)
    logits = torch.zeros_like(targets)
    weight = functional.slide_loss(logits, targets, 0.5) / math.log(2)
    e = math.e
    expected = [1, 1, 1, e**0.5, e**0.5, e**0.5, e**0.3, 1]
    torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=0)


def test_slide_of_hard_targets_is_bce() -> None:
    logits, targets = elements()
    hard = (targets > 0.5).double()
    assert functional.slide_loss(logits, hard, 0.6).equal(functional.bce_loss(logits, hard))


def test_slide_takes_no_mean_below_the_least() -> None:
    logits, targets = elements()
    at = functools.partial(functional.slide_loss, logits, targets)
    assert at(0.0).equal(at(0.2))
    assert at(torch.tensor(0.05)).equal(at(0.2))
    assert not at(0.3).equal(at(0.2))


def test_slide_by_hand_takes_the_mean_of_the_positive_targets() -> None:
    logits, targets = elements()
    mean = targets[targets > 0].mean()
    by_hand = yolo_losses.SlideLoss(reduction="none")(logits, targets)
    torch.testing.assert_close(by_hand, functional.slide_loss(logits, targets, mean))


def test_ema_slide_averages_with_a_decay_that_warms_up() -> None:
    loss = make_cls_loss("ema_slide", ema_slide_decay=0.9, ema_slide_tau=10)
    logits, targets = elements()
    mean = 1.0
    for n, iou in enumerate((0.3, 0.6, 0.2), 1):
        keep = 0.9 * (1 - math.exp(-n / 10))
        mean = keep * mean + (1 - keep) * iou
        torch.testing.assert_close(
            loss(logits, targets, mean_iou=iou), functional.slide_loss(logits, targets, mean), rtol=1e-7, atol=0
        )
    before = loss.state_dict()["average"].clone()
    loss.prepare(Step(torch.zeros(0), None, training=True))  # no positives
    assert loss.state_dict()["average"].equal(before)
    assert abs(before.item() - mean) < 1e-12


def test_ema_slide_without_a_mean_iou_averages_the_mean_of_the_positive_targets() -> None:
    given, alone = make_cls_loss("ema_slide"), make_cls_loss("ema_slide")
    logits, targets = elements()
    for _ in range(2):
        mean = targets[targets > 0].mean()
        torch.testing.assert_close(alone(logits, targets), given(logits, targets, mean_iou=mean))
    before = alone.state_dict()["average"].clone()
    assert before < 1
    alone(logits, torch.zeros_like(targets))
    alone.eval()(logits, targets)
    assert alone.state_dict()["average"].equal(before)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("logit", [-100.0, -30.0, 30.0, 100.0])
def test_focal_has_a_finite_gradient_at_fractional_gammas_where_others_have_none(gamma: float, logit: float) -> None:
    for target in (0.0, 1.0):
        z = torch.tensor([logit], requires_grad=True)
        slope = slope_of(functional.focal_loss(z, torch.tensor([target]), gamma), z)
        assert slope.isfinite().all()
        # far wrong, it is the slope of BCE times the balance
        if (logit > 0) == (target == 0):
            assert slope.item() == pytest.approx(math.copysign(0.75 if target == 0 else 0.25, logit), rel=1e-5)


def test_alpha_off_is_the_same_in_every_spelling() -> None:
    logits, targets = elements()
    plain = functional.focal_loss(logits, targets, 2.0, -1)
    for off in (None, -1, -0.5):
        assert functional.focal_loss(logits, targets, 2.0, off).equal(plain)
        assert yolo_losses.FocalLoss(gamma=2.0, alpha=off, reduction="none")(logits, targets).equal(plain)
    assert make_cls_loss("focal", focal_gamma=2.0, focal_alpha=-1)(logits, targets).equal(plain)
    assert not functional.focal_loss(logits, targets, 2.0).equal(plain)


def test_losses_without_focus_are_bce() -> None:
    logits, targets = elements()
    plain = functional.bce_loss(logits, targets)
    assert functional.focal_loss(logits, targets, 0.0, None).equal(plain)
    assert functional.quality_focal_loss(logits, targets, 0.0).equal(plain)
    assert functional.poly_focal_loss(logits, targets, 0.0, 0.0, None).equal(plain)
    torch.testing.assert_close(functional.asymmetric_loss(logits, targets, 0.0, 0.0, 0.0), plain, rtol=1e-12, atol=0)
    unweighted = functional.varifocal_loss(logits, targets, 1.0, 0.0, iou_weighted=False)
    assert unweighted.equal(plain)
    torch.testing.assert_close(functional.ghm_loss(logits, targets, bins=1), plain, rtol=1e-12, atol=0)


def test_a_positive_without_quality_stays_a_positive_where_it_is_marked() -> None:
    logits = torch.tensor([1.0, 1.0])
    targets, marked = torch.zeros(2), torch.tensor([True, False])
    vfl = functional.varifocal_loss(logits, targets, positive_mask=marked, iou_weighted=False)
    mal = functional.matchability_loss(logits, targets, positive_mask=marked)
    full = functional.bce_loss(logits, targets)
    for value in (vfl, mal):
        assert value[0] == full[0]
        assert value[1] < full[1]
    assert functional.varifocal_loss(logits, targets, positive_mask=marked)[0] == 0


def test_ghm_averages_its_counts_over_the_training_steps() -> None:
    loss = make_cls_loss("ghm", ghm_bins=2, ghm_momentum=0.5)
    # three elements of gap 0.1 and one of gap 0.9, then two of each
    gaps = [torch.tensor([0.1, 0.1, 0.1, 0.9]), torch.tensor([0.1, 0.1, 0.9, 0.9])]
    averages = torch.zeros(2, dtype=torch.float64)
    for gap, counts in zip(gaps, ([3.0, 1.0], [2.0, 2.0]), strict=True):
        logits = gap.double().logit()
        averages = 0.5 * averages + 0.5 * torch.tensor(counts, dtype=torch.float64)
        weights = (4 / averages / 2)[(gap > 0.5).long()]
        wanted = weights * functional.bce_loss(logits, torch.zeros(4))
        torch.testing.assert_close(loss(logits, torch.zeros(4)), wanted, rtol=1e-6, atol=0)


def test_ghm_counts_only_elements_of_a_weight() -> None:
    logits, targets = elements()
    weight = (torch.rand(len(logits), generator=torch.Generator().manual_seed(0)) > 0.5).double()
    chosen = weight > 0
    alone = functional.ghm_loss(logits[chosen], targets[chosen])
    among = functional.ghm_loss(logits, targets, weight=weight)
    torch.testing.assert_close(among[chosen], alone)
    assert among[~chosen].count_nonzero() == 0
    torch.testing.assert_close(
        functional.ghm_loss(logits, targets, weight=weight, reduction="mean"), alone.mean(), rtol=1e-12, atol=0
    )
