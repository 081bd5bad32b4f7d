"""The modifier `wise_`: WIoU's focusing in front of any axis-aligned loss."""

from __future__ import annotations

import copy
import functools
import pickle

import pytest
import torch
from conftest import TIED, golden, gradient
from torch import Tensor

from yolo_losses import make_box_loss, registry
from yolo_losses.losses._step import Step

IMAGE = torch.tensor([640.0, 480.0], dtype=torch.float64)
AXIS_ALIGNED = [spec.name for spec in registry.specs("box") if spec.built_in and not spec.rotated]
MASTER = {"wise_alpha": 1.7, "wise_delta": 2.7, "wise_momentum": 0.01}


def boxes(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=g, dtype=torch.float64) * 100 + 50
    size = torch.rand(count, 2, generator=g, dtype=torch.float64) * 40 + 5
    moved = centre + torch.randn(count, 2, generator=g, dtype=torch.float64) * 8
    grown = size * torch.exp(torch.randn(count, 2, generator=g, dtype=torch.float64) * 0.3)
    return torch.cat((moved - grown / 2, moved + grown / 2), 1), torch.cat((centre - size / 2, centre + size / 2), 1)


def against(case: str, loss) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arrays, cases, _ = golden("wise")
    result = cases[case]["results"]["float64"]
    pred, target = (arrays[f"inputs/{k}"].double() for k in ("pred60", "target60"))
    out, slope = (arrays[result[k]].reshape(60, -1) for k in ("out", "grad"))
    return *gradient(loss, pred, target), out[:, 0], slope


def second_call(name: str, **keys) -> object:
    def loss(pred: Tensor, target: Tensor) -> Tensor:
        module = make_box_loss(name, **keys).to(pred.dtype)
        module(pred, target)
        return module(pred, target)

    return loss


FIXED = functools.partial(make_box_loss("wise_iou"), mean_loss=0.5)
CASES = {
    "wiou_master_WIoU_monoFalse": second_call("wise_iou", **MASTER),
    "wiou_master_WIoU_monoTrue": second_call("wise_iou", **MASTER, wise_version=2),
    "wiou_master_WIoU_monoNone": second_call("wise_iou", **MASTER, wise_version=1),
    "wiou_master_GIoU_monoTrue": second_call("wise_giou", **MASTER, wise_version=2),
    "wiou_v1_WIoU_monoTrue": second_call("wise_iou", wise_version=2, wise_momentum=1 - 0.05 ** (1 / (890 * 34))),
    "wiou_master_WIoU_monoFalse_eval_mean0.5_a1.9_d3.0": FIXED,
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_authors_focus(case: str) -> None:
    value, grad, out, slope = against(case, CASES[case])
    assert value.isfinite().all()
    assert grad.isfinite().all()
    groups = golden("wise")[2]
    known = torch.ones(60, dtype=torch.bool)
    if "GIoU" in case:  # its eps: 1 - I of identical boxes, and of boxes of 1e-3
        for group in ("identical", "tiny"):
            known[slice(*groups[group])] = False
    torch.testing.assert_close(value[known], out[known], rtol=1e-6, atol=1e-12)
    for group in TIED:
        known[slice(*groups[group])] = False
    scale = slope.abs().amax(-1, keepdim=True).clamp_min(1e-3)
    torch.testing.assert_close((grad / scale)[known], (slope / scale)[known], rtol=0, atol=1e-6)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_wise_iou_is_wiou(version: int) -> None:
    ours = make_box_loss("wise_iou", wise_version=version, wise_momentum=0.3).double()
    theirs = make_box_loss("wiou", wiou_version=version, wiou_momentum=0.3).double()
    for seed in range(3):
        pred, target = boxes(50, seed)
        for a, b in zip(gradient(ours, pred, target), gradient(theirs, pred, target), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
        assert ours.modifiers[0].mean_loss == theirs.mean_loss < 1


@pytest.mark.parametrize("name", [n for n in AXIS_ALIGNED if n not in ("iou", "wiou")])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_focus_multiplies_the_loss_and_has_no_gradient(name: str, version: int) -> None:
    pred, target = boxes(50)
    plain = functools.partial(make_box_loss(name), image_wh=IMAGE)
    wise = functools.partial(make_box_loss(f"wise_{name}", wise_version=version), image_wh=IMAGE, mean_loss=0.4)
    outlier = make_box_loss("iou")(pred, target) / 0.4
    focus = {1: torch.ones_like(outlier), 2: outlier.sqrt(), 3: outlier / (3 * 1.9 ** (outlier - 3))}[version]
    (value, grad), (base, slope) = gradient(wise, pred, target), gradient(plain, pred, target)
    torch.testing.assert_close(value, focus * base, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(grad, focus[:, None] * slope, rtol=1e-6, atol=1e-8)


def test_the_focus_is_by_the_plain_iou_whatever_other_modifiers_do() -> None:
    pred, target = boxes(50)
    outlier = make_box_loss("iou")(pred, target) / 0.4
    focus = outlier / (3 * 1.9 ** (outlier - 3))
    for name in ("inner_siou", "focaler_ciou", "alpha_giou", "focal_eiou"):
        wise = make_box_loss(f"wise_{name}")(pred, target, mean_loss=0.4)
        torch.testing.assert_close(wise, focus * make_box_loss(name)(pred, target), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("wise_iou", "wise_iou"),
        ("wiseiou", "wiou"),
        ("WiseIoU-Inner-SIoU", "wise_inner_siou"),
        ("wiseiou_inner_siou", "wise_inner_siou"),
        ("inner_wise_mpdiou", "wise_inner_mpdiou"),
        ("wise_inner_mpdiou", "wise_inner_mpdiou"),
        ("wiseiou_ciou", "wise_ciou"),
        ("focal_wise_eiou", "wise_focal_eiou"),
    ],
)
def test_spellings_that_circulate_are_understood(spelling: str, name: str) -> None:
    assert registry.box_name(*registry.split_box_name(spelling)) == name


@pytest.mark.parametrize("name", ["wise_wiou", "WiseIoU-WIoU", "inner_wise_wiou", "wise_wiseiou"])
def test_wiou_which_has_that_focus_is_refused_by_name(name: str) -> None:
    """Base and modifier are supplied with one `mean_loss`, so a criterion could not tell their running means apart."""
    with pytest.raises(ValueError, match=r"the modifier 'wise_' applies to (?!.*\bwiou\b)"):
        registry.split_box_name(name)
    with pytest.raises(ValueError, match="'wise_' applies to"):
        make_box_loss(name)


# The running mean


def step(*ious: float, training: bool = True) -> Step:
    return Step(torch.tensor(ious), None, training)


def test_the_mean_starts_at_1_and_moves_in_training_alone() -> None:
    pred, target = boxes(30)
    module = make_box_loss("wise_ciou", wise_momentum=0.25).double()
    wise = module.modifiers[0]
    assert wise.mean_loss == 1
    batch = make_box_loss("iou")(pred, target).mean()
    module(pred, target)
    torch.testing.assert_close(wise.mean_loss, 0.75 + 0.25 * batch, rtol=1e-7, atol=0)
    kept = wise.mean_loss.clone()
    module(pred[:0], target[:0])
    module(pred, target, mean_loss=0.3)
    module.eval()(pred, target)
    assert wise.mean_loss == kept


def test_the_mean_is_updated_by_the_step_once_and_before_use() -> None:
    module = make_box_loss("wise_ciou", wise_momentum=0.5)
    wise = module.modifiers[0]
    supplied = module.prepare(step(0.2, 0.6))
    assert wise.mean_loss == pytest.approx(0.8)
    pred, target = boxes(10)
    value = module.pairs(pred, target, **supplied)
    assert wise.mean_loss == pytest.approx(0.8)
    torch.testing.assert_close(value, make_box_loss("wise_ciou")(pred, target, mean_loss=wise.mean_loss))
    assert module.prepare(step(0.9, training=False))["mean_loss"] == pytest.approx(0.8)
    assert module.prepare(step())["mean_loss"] == pytest.approx(0.8)  # a batch without positives
    assert module.prepare(step(0.9))["mean_loss"] == pytest.approx(0.45)


def test_the_mean_is_state_that_is_saved_and_copied() -> None:
    module = make_box_loss("wise_inner_siou")
    module(*boxes(20))
    (mean,) = module.buffers()
    other = make_box_loss("wise_inner_siou")
    other.load_state_dict(module.state_dict())
    for again in (other, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert [float(buffer) for buffer in again.buffers()] == [float(mean)]
    assert float(mean) < 1


def test_pairs_of_no_area_leave_the_mean_finite() -> None:
    module = make_box_loss("wise_siou")
    flat = torch.tensor([[1.0, 1, 1, 1], [0, 0, 4, 4]])
    value = module(flat, flat.flip(0))
    assert value.isfinite().all()
    assert module.modifiers[0].mean_loss.isfinite()
