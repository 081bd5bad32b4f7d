"""Properties that hold for whatever is thrown at a loss; hypothesis looks for what breaks them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from yolo_losses import functional, registry
from yolo_losses.losses.build import make_box_loss, make_cls_loss
from yolo_losses.registry import LossSpec

CLASSES = registry.specs("cls")
BOXES = [spec for spec in registry.specs("box") if not spec.rotated]
ROTATED = [spec.name for spec in registry.specs("box") if spec.rotated]
MODIFIED = [
    "wise_ciou",
    "inner_siou",
    "focaler_inner_ciou",
    "alpha_giou",
    "focal_eiou",
    "focal_alpha_focaler_inner_diou",
]
NAMES = [*(spec.name for spec in BOXES), *MODIFIED]
SIDE = 640.0

# The same examples on every machine and in every run, none written to disk; a busy machine is no failure.
settings.register_profile(
    "losses",
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("losses")

every_class_loss = pytest.mark.parametrize("spec", CLASSES, ids=lambda spec: spec.name)
every_box_loss = pytest.mark.parametrize("name", NAMES)

single = functools.partial(st.floats, width=32, allow_nan=False, allow_infinity=False)
LOGITS = st.lists(single(-100, 100), min_size=1, max_size=12)
TARGETS = st.lists(st.one_of(st.just(0.0), st.just(1.0), single(0, 1)), min_size=12, max_size=12)


def class_loss(spec: LossSpec) -> Callable[..., Tensor]:
    return functools.partial(make_cls_loss(spec.name).eval(), mean_iou=0.45)


def box_loss(name: str) -> Callable[..., Tensor]:
    return functools.partial(make_box_loss(name).eval(), image_wh=(SIDE, SIDE))


def slopes(value: Tensor, *by: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value.sum(), by)


# Class losses


@every_class_loss
@given(logits=LOGITS, targets=TARGETS)
def test_class_loss_is_finite_and_never_negative(spec: LossSpec, logits: list[float], targets: list[float]) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        z = torch.tensor(logits, dtype=dtype, requires_grad=True)
        value = class_loss(spec)(z, torch.tensor(targets[: len(logits)], dtype=dtype))
        assert value.isfinite().all()
        assert (value >= 0).all()
        assert slopes(value, z)[0].isfinite().all()


@every_class_loss
@given(logit=single(16, 100))
def test_class_loss_of_a_sure_and_right_answer_is_nothing(spec: LossSpec, logit: float) -> None:
    value = class_loss(spec)(torch.tensor([logit, -logit]), torch.tensor([1.0, 0.0]))
    assert value.max() < 1e-5


@every_class_loss
@given(low=single(-20, 20), step=single(0.125, 20), target=st.sampled_from([0.0, 1.0]))
def test_class_loss_of_a_hard_target_rises_with_the_logits_distance(
    spec: LossSpec, low: float, step: float, target: float
) -> None:
    if spec.name == "ghm":
        return  # its weights are of the company, not of the element
    z = torch.tensor([low, low + step], dtype=torch.float64)
    near, far = class_loss(spec)(z if target == 0 else -z, torch.full((2,), target, dtype=torch.float64))
    assert near <= far * (1 + 1e-12)


@given(target=single(2**-10, 1 - 2**-10), away=st.one_of(single(-5, -0.25), single(0.25, 5)))
def test_class_losses_of_a_soft_target_are_least_where_theory_says(target: float, away: float) -> None:
    t = torch.tensor([target], dtype=torch.float64)
    at = t.logit().requires_grad_()
    qfl = functional.quality_focal_loss(at, t)
    assert qfl.item() < 1e-20
    assert functional.quality_focal_loss(at + away, t).item() > qfl.item()
    for loss, best in (
        (functional.bce_loss, t),
        (functional.varifocal_loss, t),
        (functools.partial(functional.slide_loss, mean_iou=0.45), t),
        (functional.matchability_loss, t**1.5),
    ):
        z = best.logit().requires_grad_()
        value = loss(z, t)
        assert slopes(value, z)[0].abs().item() < 1e-12
        assert loss(z + away, t).item() > value.item()


@every_class_loss
@given(logits=LOGITS, targets=TARGETS, seed=st.integers(0, 100))
def test_class_loss_does_not_mind_the_order(
    spec: LossSpec, logits: list[float], targets: list[float], seed: int
) -> None:
    z, t = torch.tensor(logits, dtype=torch.float64), torch.tensor(targets[: len(logits)], dtype=torch.float64)
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))
    value = class_loss(spec)(z, t)[order]
    torch.testing.assert_close(class_loss(spec)(z[order], t[order]), value, rtol=1e-10, atol=1e-300)


@given(logits=LOGITS, targets=TARGETS, gamma=single(0, 1 - 2**-10), alpha=single(-1, 1))
def test_fractional_exponents_have_finite_gradients(
    logits: list[float], targets: list[float], gamma: float, alpha: float
) -> None:
    z, t = torch.tensor(logits, requires_grad=True), torch.tensor(targets[: len(logits)])
    values = (
        functional.focal_loss(z, t, gamma, alpha),
        functional.quality_focal_loss(z, t, gamma, alpha),
        functional.varifocal_loss(z, t, abs(alpha), gamma),
        functional.poly_focal_loss(z, t, 1.0, gamma, alpha),
        functional.asymmetric_loss(z, t, gamma, gamma, abs(alpha), detach_weight=False),
        functional.matchability_loss(z, t, gamma),
    )
    for value in values:
        assert value.isfinite().all()
        assert slopes(value, z)[0].isfinite().all()


@given(
    logits=LOGITS,
    targets=TARGETS,
    weights=st.lists(single(0, 10), min_size=12, max_size=12),
    factor=single(0.125, 100),
)
def test_reductions_are_sums_of_the_weighted_elements(
    logits: list[float], targets: list[float], weights: list[float], factor: float
) -> None:
    z, t, w = (torch.tensor(x[: len(logits)], dtype=torch.float64) for x in (logits, targets, weights))
    elements = functional.focal_loss(z, t) * w
    loss = functools.partial(functional.focal_loss, z, t, weight=w)
    torch.testing.assert_close(loss(), elements)
    torch.testing.assert_close(loss(reduction="sum"), elements.sum())
    torch.testing.assert_close(loss(reduction="mean"), elements.mean())
    torch.testing.assert_close(loss(reduction="mean", avg_factor=factor), elements.sum() / factor, rtol=1e-6, atol=0)


# Box losses

coordinate = st.one_of(
    single(-1e4, 1e4),
    st.sampled_from([0.0, 1.0, -1.0, 1e-3, 1e4, -1e4, 1e-30]),
)
BOX = st.tuples(coordinate, coordinate, coordinate, coordinate)
ANY_BOXES = st.lists(st.tuples(BOX, BOX), min_size=1, max_size=6)


@st.composite
def proper_boxes(draw: st.DrawFn) -> Tensor:
    """Two boxes inside an image, of sides between 4 and 200 pixels."""
    rows = []
    for _ in range(2):
        w, h = draw(single(4, 200)), draw(single(4, 200))
        x, y = draw(single(0, 1)) * (SIDE - w), draw(single(0, 1)) * (SIDE - h)
        rows.append([x, y, x + w, y + h])
    return torch.tensor(rows, dtype=torch.float64)


@every_box_loss
@given(boxes=ANY_BOXES, same=st.sampled_from(["", "corner", "box", "inverted", "flat"]))
def test_box_loss_is_finite_for_boxes_of_any_kind(name: str, boxes: list[Any], same: str) -> None:
    a, b = torch.tensor(boxes).unbind(1)
    b = {
        "corner": torch.cat((a[:, :2], b[:, 2:]), 1),
        "box": a.clone(),
        "inverted": a.roll(2, 1),
        "flat": torch.cat((a[:, :1], b[:, 1:2], a[:, :1], b[:, 3:]), 1),
    }.get(same, b)
    for pred, target in ((a, b), (b, a)):
        pred = pred.clone().requires_grad_()
        value = box_loss(name)(pred, target)
        assert value.isfinite().all()
        assert slopes(value, pred)[0].isfinite().all()


@every_box_loss
@given(boxes=proper_boxes())
def test_box_loss_is_never_negative_and_nothing_where_the_boxes_are_one(name: str, boxes: Tensor) -> None:
    loss = box_loss(name)
    pred, target = boxes.unbind()
    assert loss(pred, target) >= -1e-6  # eps makes the IoU of equal boxes a little more or less than 1
    assert abs(loss(target, target).item()) < 2e-5  # of which NWD's root of eps is the most
    assert loss(pred, target) >= loss(target, target) - 1e-6


@every_box_loss
@given(boxes=proper_boxes(), dx=single(-1000, 1000), dy=single(-1000, 1000))
def test_box_loss_does_not_mind_where_the_boxes_are(name: str, boxes: Tensor, dx: float, dy: float) -> None:
    moved = boxes + torch.tensor([dx, dy, dx, dy], dtype=torch.float64)
    loss = box_loss(name)
    torch.testing.assert_close(loss(*moved), loss(*boxes), rtol=1e-9, atol=1e-9)


# Three are of a length, the image's sides or a number of pixels; of a stranger's loss nothing is known.
UNITLESS = [spec.name for spec in BOXES if spec.module.__module__.startswith("yolo_losses.losses.boxes.")] + MODIFIED


@pytest.mark.parametrize("name", [name for name in UNITLESS if name not in ("mpdiou", "nwd", "sdiou")])
@given(boxes=proper_boxes(), factor=single(0.25, 8))
def test_box_loss_does_not_mind_the_unit(name: str, boxes: Tensor, factor: float) -> None:
    loss = box_loss(name)
    torch.testing.assert_close(loss(*boxes * factor), loss(*boxes), rtol=1e-5, atol=1e-6)


@given(boxes=proper_boxes(), factor=single(0.25, 8))
def test_losses_of_a_length_do_not_mind_the_unit_where_their_length_has_it_too(boxes: Tensor, factor: float) -> None:
    a, b = boxes
    torch.testing.assert_close(
        functional.mpdiou_loss(a * factor, b * factor, (SIDE * factor, SIDE * factor)),
        functional.mpdiou_loss(a, b, (SIDE, SIDE)),
        rtol=1e-5,
        atol=1e-6,
    )
    torch.testing.assert_close(
        functional.nwd_loss(a * factor, b * factor, 12.8 * factor),
        functional.nwd_loss(a, b, 12.8),
        rtol=1e-5,
        atol=1e-4,  # a root of eps
    )
    torch.testing.assert_close(
        functional.sdiou_loss(a * factor, b * factor, stride=1 / factor),
        functional.sdiou_loss(a, b),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", NAMES)
@given(boxes=proper_boxes(), way=st.tuples(single(-200, 200), single(-200, 200)))
def test_box_loss_falls_as_a_box_moves_onto_its_object(name: str, boxes: Tensor, way: tuple[float, float]) -> None:
    if name.endswith("siou"):
        way = (way[0], 0.0)  # its cost of the angle is made to let a box take a detour along an axis
    target = boxes[1]
    shift = torch.tensor([*way, *way], dtype=torch.float64)
    steps = [target + shift * share for share in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)]
    values = [box_loss(name)(pred, target).item() for pred in steps]
    if name in ("piou2", "wiou", "d_interp_iou") or name.startswith(("focal_", "wise_")):
        # Their attention falls off for boxes far away, or their share changes; near the object they fall as the others.
        values = [
            value for pred, value in zip(steps, values, strict=True) if functional.iou_loss(pred, target).item() < 0.2
        ]
    assert all(near <= far + 1e-9 for far, near in itertools.pairwise(values))


@pytest.mark.parametrize("name", [name for name in NAMES if "piou2" not in name and "wiou" not in name])
@given(boxes=proper_boxes())
def test_box_loss_of_pairs_is_that_of_each_pair(name: str, boxes: Tensor) -> None:
    both = box_loss(name)(boxes, boxes.flip(0))
    alone = torch.stack([box_loss(name)(boxes[0], boxes[1]), box_loss(name)(boxes[1], boxes[0])])
    torch.testing.assert_close(both, alone, rtol=1e-12, atol=1e-14)


# Rotated boxes

every_rotated_loss = pytest.mark.parametrize("name", ROTATED)
TURNED_BOX = st.tuples(coordinate, coordinate, coordinate, coordinate, single(-10, 10))


@st.composite
def turned_boxes(draw: st.DrawFn) -> Tensor:
    """Two rotated boxes of sides between 4 and 200 pixels."""
    rows = [[*(draw(single(0, 640)) for _ in "xy"), *(draw(single(4, 200)) for _ in "wh"), draw(single(-3, 3))]]
    rows.append([*(draw(single(0, 640)) for _ in "xy"), *(draw(single(4, 200)) for _ in "wh"), draw(single(-3, 3))])
    return torch.tensor(rows, dtype=torch.float64)


@every_rotated_loss
@given(
    boxes=st.lists(st.tuples(TURNED_BOX, TURNED_BOX), min_size=1, max_size=6),
    same=st.sampled_from(["", "centre", "box", "sides", "swapped", "flat", "touching"]),
)
def test_rotated_loss_is_finite_for_boxes_of_any_kind(name: str, boxes: list[Any], same: str) -> None:
    a, b = torch.tensor(boxes).unbind(1)
    b = {
        "centre": torch.cat((a[:, :2], b[:, 2:]), 1),
        "box": a.clone(),
        "sides": torch.cat((b[:, :2], a[:, 2:]), 1),
        "swapped": torch.stack((*a[:, [0, 1, 3, 2]].unbind(1), a[:, 4] + torch.pi / 2), 1),
        "flat": torch.cat((b[:, :2], b[:, 2:3], 0 * b[:, 3:4], a[:, 4:]), 1),
        "touching": torch.cat((a[:, :1] + (a[:, 2:3] + b[:, 2:3]) / 2, a[:, 1:2], b[:, 2:4], a[:, 4:] * 0), 1),
    }.get(same, b)
    for pred, target in ((a, b), (b, a)):
        for dtype in (torch.float64, torch.float32):
            boxes_ = pred.to(dtype).requires_grad_()
            value = box_loss(name)(boxes_, target.to(dtype))
            assert value.isfinite().all()
            assert slopes(value, boxes_)[0].isfinite().all()
        for dtype in (torch.float16, torch.bfloat16):
            assert box_loss(name)(pred.to(dtype), target.to(dtype)).isfinite().all()


@every_rotated_loss
@given(boxes=turned_boxes())
def test_rotated_loss_is_least_where_the_boxes_are_one(name: str, boxes: Tensor) -> None:
    loss = box_loss(name)
    pred, target = boxes
    floor = {"probiou": 5e-4, "gwd": 1e-4, "kfiou": 2 / 3 + 1e-6}.get(name, 1e-12)
    assert -1e-12 <= loss(target, target) <= floor
    assert loss(pred, target) >= loss(target, target) - 1e-12


@every_rotated_loss
@given(boxes=turned_boxes(), turns=st.integers(-5, 5), which=st.integers(0, 1))
def test_rotated_loss_does_not_mind_how_the_angle_is_written(name: str, boxes: Tensor, turns: int, which: int) -> None:
    again = boxes.clone()
    again[which, 4] += turns * torch.pi / 2
    if turns % 2:
        again[which, 2:4] = again[which, 2:4].flip(0)
    torch.testing.assert_close(box_loss(name)(*again), box_loss(name)(*boxes), rtol=1e-9, atol=1e-9)


@every_rotated_loss
@given(boxes=turned_boxes(), dx=single(-1000, 1000), dy=single(-1000, 1000))
def test_rotated_loss_does_not_mind_where_the_boxes_are(name: str, boxes: Tensor, dx: float, dy: float) -> None:
    moved = boxes + torch.tensor([dx, dy, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(box_loss(name)(*moved), box_loss(name)(*boxes), rtol=1e-7, atol=1e-9)


@every_rotated_loss
@given(boxes=turned_boxes(), way=st.tuples(single(-200, 200), single(-200, 200)))
def test_rotated_loss_falls_as_a_box_moves_onto_its_object(name: str, boxes: Tensor, way: tuple[float, float]) -> None:
    target = boxes[1]
    shift = torch.tensor([*way, 0, 0, 0], dtype=torch.float64)
    values = [box_loss(name)(target + shift * share, target).item() for share in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)]
    assert all(near <= far + 1e-9 for far, near in itertools.pairwise(values))


@given(
    logits=st.lists(single(-100, 100), min_size=16, max_size=16),
    target=single(0, 15),
)
def test_distribution_loss_is_finite_and_at_least_the_entropy_of_its_weights(
    logits: list[float], target: float
) -> None:
    z = torch.tensor([logits], requires_grad=True)
    value = functional.distribution_focal_loss(z, torch.tensor([target]))
    assert value.isfinite().all()
    assert slopes(value, z)[0].isfinite().all()
    share = torch.tensor([target % 1, 1 - target % 1])
    assert value.item() >= -torch.special.xlogy(share, share).sum().item() - 1e-4
