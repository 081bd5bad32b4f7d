"""Properties of every registered classification loss."""

from __future__ import annotations

import copy
import functools
import inspect
import io
import math
import pickle
from typing import Any

import pytest
import torch
from class_elements import MEAN_IOU, SPECS, elements, gradient_of, make, variants

from yolo_losses import registry
from yolo_losses.losses.build import make_cls_loss
from yolo_losses.losses.classification._base import ClassificationLoss
from yolo_losses.registry import LossSpec

every_loss = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


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
        slope = gradient_of(loss(logits, targets), logits)
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
        slope = gradient_of(total, z)
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
        torch.testing.assert_close(gradient_of(a, single), gradient_of(b, double).float(), **tolerance)


@every_loss
def test_probabilities_of_0_and_1_have_finite_value_and_gradient(spec: LossSpec) -> None:
    p, t = torch.cartesian_prod(
        torch.tensor([0.0, 1e-45, 1e-38, 0.5, 1 - 2**-24, 1.0]), torch.tensor([0.0, 0.3, 1.0])
    ).unbind(1)
    p.requires_grad_()
    value = make_cls_loss(spec.name).eval()(p, t) * 0 + spec.build(reduction="none", activated=True).eval()(p, t)
    assert value.isfinite().all()
    assert gradient_of(value, p).isfinite().all()


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
    assert gradient_of(value, logits).isfinite().all()
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
        gradient_of(permuted, logits), gradient_of(make(spec)(logits, targets), logits), rtol=1e-12, atol=0
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
    torch.testing.assert_close(gradient_of(compiled, logits), gradient_of(plain, logits), rtol=1e-5, atol=1e-6)


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
