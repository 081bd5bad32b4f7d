"""The losses that treat rotated boxes as Gaussians: GWD, KLD and KFIoU."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from conftest import golden, gradient
from torch import Tensor

from yolo_losses import make_box_loss
from yolo_losses.losses.boxes.gwd import gwd_loss
from yolo_losses.losses.boxes.kfiou import kfiou_loss
from yolo_losses.losses.boxes.kld import kld_loss

VARIANTS = {
    "gwd": gwd_loss,
    "gwd_sqrt": functools.partial(gwd_loss, fun="sqrt", tau=2.0),
    "gwd_none": functools.partial(gwd_loss, fun="none", tau=0.0, alpha=2.0, normalize=False),
    "kld": kld_loss,
    "kld_sqrt": functools.partial(kld_loss, sqrt=True, alpha=0.5),
    "kld_none": functools.partial(kld_loss, fun="none", tau=0.0),
    "kfiou": kfiou_loss,
    "kfiou_ln": functools.partial(kfiou_loss, fun="ln", centre="unit"),
    "kfiou_exp": functools.partial(kfiou_loss, fun="exp", centre="off"),
}
every_variant = pytest.mark.parametrize("loss", VARIANTS.values(), ids=VARIANTS.keys())


def pairs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=g, dtype=torch.float64) * 80
    size = torch.rand(count, 2, generator=g, dtype=torch.float64) * 20 + 2
    moved = centre + torch.randn(count, 2, generator=g, dtype=torch.float64) * 5
    grown = size * (torch.randn(count, 2, generator=g, dtype=torch.float64) * 0.4).exp()
    angles = torch.rand(2, count, 1, generator=g, dtype=torch.float64) * 7 - 3
    return torch.cat((moved, grown, angles[0]), 1), torch.cat((centre, size, angles[1]), 1)


CASES = {
    "mmrotate_gwd_funlog1p_tau0.0_alpha1.0_normalizeTrue": functools.partial(gwd_loss, tau=0.0),
    "mmrotate_gwd_funlog1p_tau1.0_alpha1.0_normalizeTrue": gwd_loss,
    "mmrotate_kld_funlog1p_tau1.0_alpha1.0_sqrtFalse": kld_loss,
    "mmrotate_kld_funlog1p_tau1.0_alpha1.0_sqrtTrue": functools.partial(kld_loss, sqrt=True),
    "mmrotate_kld_funnone_tau0.0_alpha1.0_sqrtFalse": functools.partial(kld_loss, fun="none", tau=0.0),
    "mmrotate_kfiou_none": functools.partial(kfiou_loss, centre="unit"),
    "mmrotate_kfiou_ln": functools.partial(kfiou_loss, fun="ln", centre="unit"),
    "mmrotate_kfiou_none_nocentre": functools.partial(kfiou_loss, centre="off"),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_mmrotate(case: str, dtype: torch.dtype) -> None:
    arrays, cases, groups = golden("rotated")
    result = cases[case]["results"]["float64"]
    pred, target = (arrays[f"inputs/{k}"].to(dtype) for k in ("pred", "target"))
    out, slope = (arrays[result[k]].to(dtype) for k in ("out", "grad"))
    value, grad = gradient(CASES[case], pred, target)
    alive = torch.ones(64, dtype=torch.bool)
    if "gwd" in case:
        alive[slice(*groups["gwd_clamped"])] = False  # a clamp of the original's, which leaves no gradient there
        assert (slope[~alive].abs() < 1e-9).all()
        assert (grad[~alive].abs().amax(-1) > 1e-3).all()
    exact = dtype == torch.float64
    torch.testing.assert_close(
        value[alive], out.reshape(-1)[alive], rtol=1e-6 if exact else 3e-5, atol=1e-12 if exact else 3e-7
    )
    scale = slope.abs().amax(-1, keepdim=True).clamp_min(1e-6 if exact else 1e-2)
    torch.testing.assert_close((grad / scale)[alive], (slope / scale)[alive], rtol=0, atol=1e-6 if exact else 3e-5)


def covariance(boxes: Tensor) -> Tensor:
    w, h, r = boxes[:, 2:].unbind(-1)
    turn = torch.stack((r.cos(), -r.sin(), r.sin(), r.cos()), -1).view(-1, 2, 2)
    return turn @ torch.diag_embed(torch.stack((w, h), -1).square() / 4) @ turn.mT


def root_of(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag_embed(values.clamp_min(0).sqrt()) @ vectors.mT


def test_closed_forms_are_the_distances_of_the_gaussians() -> None:
    pred, target = pairs(200)
    s, t = covariance(pred), covariance(target)
    way = (pred - target)[:, :2, None]
    r2 = way.square().sum((1, 2))

    def trace(matrix: Tensor) -> Tensor:
        return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)

    mixed = trace(root_of(root_of(s) @ t @ root_of(s)))
    g = (r2 + 4 * (trace(s) + trace(t) - 2 * mixed)).sqrt()
    torch.testing.assert_close(VARIANTS["gwd_none"](pred, target), g)
    size = (pred[:, 2:4].prod(-1) * target[:, 2:4].prod(-1)) ** 0.25
    g = (r2 + trace(s) + trace(t) - 2 * mixed).sqrt() / size
    torch.testing.assert_close(gwd_loss(pred, target), 1 - 1 / (1 + g.log1p()))

    inverse = torch.linalg.inv(s)
    quadratic = (way.mT @ inverse @ way).squeeze()
    divergence = (quadratic + trace(inverse @ t) + (torch.linalg.det(s) / torch.linalg.det(t)).log() - 2) / 2
    torch.testing.assert_close(VARIANTS["kld_none"](pred, target), divergence)

    v = 4 * (torch.linalg.det(s) * torch.linalg.det(t) / torch.linalg.det(s + t)).sqrt()
    k = v / (pred[:, 2:4].prod(-1) + target[:, 2:4].prod(-1) - v)
    torch.testing.assert_close(kfiou_loss(pred, target, centre="off"), 1 - k, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(kfiou_loss(pred, target, "ln", "off"), -k.log(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(kfiou_loss(pred, target, "exp", "off"), (1 - k).exp() - 1, rtol=1e-6, atol=1e-8)


@every_variant
def test_gradient_passes_gradcheck_in_both_boxes(loss) -> None:
    pred, target = pairs(20, seed=5)
    assert torch.autograd.gradcheck(loss, (pred.requires_grad_(), target.requires_grad_()), atol=1e-6)


@every_variant
@pytest.mark.parametrize("turns", [-3, -2, -1, 1, 2, 3])
def test_the_same_box_by_another_convention_has_the_same_loss_and_gradient(loss, turns: int) -> None:
    pred, target = pairs(300, seed=4)
    value, grad = gradient(loss, pred, target)
    for both in (False, True):
        again, other = pred.clone(), target.clone()
        for boxes in (again, other) if both else (again,):
            boxes[:, 4] += turns * math.pi / 2
            if turns % 2:
                boxes[:, 2:4] = boxes[:, 2:4].flip(1)
        turned, slope = gradient(loss, again, other)
        if turns % 2:
            slope[:, 2:4] = slope[:, 2:4].flip(1)
        torch.testing.assert_close(turned, value, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(slope, grad, rtol=1e-6, atol=1e-9)


@every_variant
def test_value_and_gradient_are_finite_for_degenerate_boxes(loss) -> None:
    odd = [
        [0.0, 0, 0, 0, 0],
        [0, 0, 1e4, 0, 0.3],
        [0, 0, 1e4, 1e-7, 2],
        [0, 0, 1e-7, 1e-7, 0],
        [0, 0, 1e4, 1e4, 1],
        [1e4, -1e4, 3, 1, 0.2],
        [1e4, -1e4, 0, 5, 0.2],
        [0, 0, 5, 5, 0],
        [0, 0, -5, 5, 0],
        [0, 0, 1e-3, 1e3, 1.57],
    ]
    boxes = torch.tensor(odd)
    pred, target = boxes.repeat(len(odd), 1), boxes.repeat_interleave(len(odd), 0)
    for dtype in (torch.float64, torch.float32):
        value, grad = gradient(loss, pred.to(dtype), target.to(dtype))
        assert value.isfinite().all()
        assert grad.isfinite().all()
    for dtype in (torch.float16, torch.bfloat16):
        assert loss(pred.to(dtype), target.to(dtype)).isfinite().all()


@every_variant
def test_a_gaussian_does_not_see_the_angle_of_a_square(loss) -> None:
    _, target = pairs(50)
    pred = target.clone()
    pred[:, 3] = pred[:, 2]
    pred[:, :2] += 1
    for a, b in ((pred, target), (target, pred)):
        moved = a.clone()
        moved[:, 4] += 0.5
        value, grad = gradient(loss, a, b)
        if a is pred:
            torch.testing.assert_close(loss(moved, b), value, rtol=1e-9, atol=1e-12)
            assert grad[:, 4].abs().max() < 1e-9


@every_variant
def test_no_operation_depends_on_the_data(loss) -> None:
    pred, target = (boxes.to("meta") for boxes in pairs(8))
    value, grad = gradient(loss, pred, target)  # a tensor without data: `nonzero`, masks and `item` would raise
    assert value.shape == (8,)
    assert grad.shape == (8, 5)


def test_kld_is_right_in_float32_near_a_match() -> None:
    _, target = pairs(200)
    target = target.float().double()
    pred = (target * (1 + 1e-3)).float().double()
    exact, slope = gradient(VARIANTS["kld_none"], pred, target)
    value, grad = gradient(VARIANTS["kld_none"], pred.float(), target.float())
    torch.testing.assert_close(value.double(), exact, rtol=2e-3, atol=1e-9)
    scale = slope.abs().amax(-1, keepdim=True)
    torch.testing.assert_close(grad.double() / scale, slope / scale, rtol=0, atol=2e-3)


def test_gwd_and_kld_draw_boxes_that_are_far_apart() -> None:
    pred, target = torch.tensor([[200.0, 0, 5, 5, 0]]), torch.tensor([[0.0, 0, 4, 9, 1]])
    for loss in (gwd_loss, kld_loss, kfiou_loss):
        assert gradient(loss, pred, target)[1][0, 0] > 0


def test_only_the_losses_without_a_unit_are_scale_invariant() -> None:
    pred, target = pairs(50)
    factor = torch.tensor([8.0, 8, 8, 8, 1], dtype=torch.float64)
    for name, loss in VARIANTS.items():
        same = torch.allclose(loss(pred * factor, target * factor), loss(pred, target), rtol=1e-5)
        assert same == (name not in ("gwd_none", "kfiou_ln")), name


def test_kfiou_draws_the_centres_by_the_targets_sides() -> None:
    target = torch.tensor([[0.0, 0, 40, 4, 0.5]], dtype=torch.float64)
    way = torch.tensor([[math.cos(0.5), math.sin(0.5), 0, 0, 0]], dtype=torch.float64)  # along the width
    still = kfiou_loss(target, target)
    torch.testing.assert_close(kfiou_loss(target + 2 * way, target) - still, torch.tensor([0.05**2 * 4.5]).double())
    torch.testing.assert_close(kfiou_loss(target + 40 * way, target) - still, torch.tensor([1 - 1 / 18]).double())
    unit = kfiou_loss(target + 2 * way, target, centre="unit") - still
    dx, dy = 2 * math.cos(0.5), 2 * math.sin(0.5)
    torch.testing.assert_close(unit, torch.tensor([dx + dy - 1 / 9]).double())
    assert kfiou_loss(target + 2 * way, target, centre="off") == still


def test_the_word_none_is_a_function_and_not_the_default() -> None:
    pred, target = pairs(10)
    for fun in ("log1p", "sqrt", "none"):
        expected = gwd_loss(pred, target, fun=fun, tau=2.0)
        assert torch.equal(make_box_loss("gwd", gwd_fun=fun, gwd_tau=2)(pred, target), expected)
    assert not torch.equal(make_box_loss("gwd", gwd_fun="none")(pred, target), make_box_loss("gwd")(pred, target))
    with pytest.raises(ValueError, match="log1p, sqrt, none"):
        gwd_loss(pred, target, fun="exp")
    # YAML's `off` arrives as a truth value, and the command line's `none` as None.
    assert make_box_loss("kfiou", kfiou_centre=False).centre == "off"
    assert make_box_loss("gwd", gwd_fun=None).fun == "none"
    for value in (True, 1, [1]):
        with pytest.raises(ValueError, match="kfiou_centre"):
            make_box_loss("kfiou", kfiou_centre=value)
    with pytest.raises(ValueError, match="size, unit, off"):
        kfiou_loss(pred, target, centre="middle")


def test_tau_below_1_leaves_the_loss_unbounded_and_2_gives_a_match_one_half() -> None:
    pred, target = pairs(10)
    far = pred + torch.tensor([1e6, 0, 0, 0, 0])
    assert gwd_loss(far, target, tau=0.5).min() > 5
    assert gwd_loss(far, target, tau=1.0).max() < 1
    torch.testing.assert_close(kld_loss(pred, pred, tau=2.0), torch.full((10,), 0.5).double())
