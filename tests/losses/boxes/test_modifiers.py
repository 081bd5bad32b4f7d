"""Modifiers of box losses: what each changes, their order, and what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from box_pairs import AXIS_ALIGNED, boxes, formula, loss_of
from conftest import gradient

from yolo_losses import registry
from yolo_losses.losses.boxes._base import ModifiedBoxLoss
from yolo_losses.losses.boxes._geometry import overlap_and_union
from yolo_losses.losses.boxes.inner import scaled
from yolo_losses.losses.build import make_box_loss


@pytest.mark.parametrize("name", AXIS_ALIGNED)
def test_inner_ratio_1_is_the_loss_itself(name: str) -> None:
    pred, target = boxes(50)
    assert torch.equal(loss_of(f"inner_{name}", inner_ratio=1.0)(pred, target), loss_of(name)(pred, target))


@pytest.mark.parametrize("name", [n for n in AXIS_ALIGNED if n != "nwd"])
def test_inner_and_focaler_change_the_iou_alone(name: str) -> None:
    pred, target = boxes(50)
    iou = 1 - formula("iou")(pred, target)
    inner = overlap_and_union(scaled(pred, 0.7), scaled(target, 0.7))[0]
    plain = loss_of(name)(pred, target)
    torch.testing.assert_close(loss_of(f"inner_{name}")(pred, target), plain + iou - inner, rtol=1e-6, atol=1e-7)
    keys = {"focaler_d": 0.2, "focaler_u": 0.8}
    stretched = ((iou - 0.2) / 0.6).clamp(0, 1)
    torch.testing.assert_close(
        loss_of(f"focaler_{name}", **keys)(pred, target), plain + iou - stretched, rtol=1e-6, atol=1e-7
    )
    both = ((inner - 0.2) / 0.6).clamp(0, 1)
    torch.testing.assert_close(
        loss_of(f"inner_focaler_{name}", **keys)(pred, target), plain + iou - both, rtol=1e-6, atol=1e-7
    )


def test_inner_above_1_lets_boxes_overlap_that_do_not_meet() -> None:
    pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[11.0, 0, 21, 10]])
    assert loss_of("inner_iou", inner_ratio=1.5)(pred, target) < loss_of("iou")(pred, target)


def test_focaler_gives_no_gradient_outside_its_interval() -> None:
    pred, target = boxes(300, seed=2)
    iou = 1 - formula("iou")(pred, target)
    _, grad = gradient(make_box_loss("focaler_iou", focaler_d=0.3, focaler_u=0.6), pred, target)
    outside = (iou < 0.3) | (iou > 0.6)
    assert outside.any()
    assert (grad[outside] == 0).all()
    assert (grad[~outside] != 0).any(-1).all()


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 2.3, 3.0, 5.0])
def test_alpha_powers_the_iou_and_each_penalty(power: float) -> None:
    pred, target = boxes(50)
    iou, giou, diou, ciou = (formula(n)(pred, target) for n in ("iou", "giou", "diou", "ciou"))
    parts = {"iou": [], "giou": [giou - iou], "diou": [diou - iou], "ciou": [diou - iou, ciou - diou]}
    for name, penalties in parts.items():
        expected = 1 - (1 - iou) ** power + sum(p.clamp_min(0) ** power for p in penalties)
        value = make_box_loss(f"alpha_{name}", alpha_power=power)(pred, target)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4 if power < 1 else 1e-6)


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
def test_alpha_of_power_1_is_the_loss_itself(name: str) -> None:
    pred, target = boxes(50)
    value, grad = gradient(make_box_loss(f"alpha_{name}", alpha_power=1.0), pred, target)
    expected, slope = gradient(make_box_loss(name), pred, target)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, slope)


def test_alpha_powers_what_stands_in_for_the_iou() -> None:
    pred, target = boxes(50)
    inner = overlap_and_union(scaled(pred, 0.7), scaled(target, 0.7))[0]
    torch.testing.assert_close(make_box_loss("alpha_inner_iou")(pred, target), 1 - inner**3)


@pytest.mark.parametrize("name", [*AXIS_ALIGNED, "focaler_inner_ciou"])
def test_focal_weighs_by_the_plain_iou_and_keeps_the_gradients_direction(name: str) -> None:
    pred, target = boxes(50)
    weight = (1 - formula("iou")(pred, target)).sqrt()
    value, grad = gradient(loss_of(name), pred, target)
    focal, slope = gradient(loss_of(f"focal_{name}"), pred, target)
    torch.testing.assert_close(focal, weight * value, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(slope, weight[:, None] * grad, rtol=1e-6, atol=1e-7)


def test_modifiers_in_any_order_have_one_name_and_one_value() -> None:
    pred, target = boxes(20)
    value = make_box_loss("focal_alpha_focaler_inner_ciou")(pred, target)
    for order in itertools.permutations(("focal", "alpha", "focaler", "inner")):
        name = "_".join((*order, "ciou"))
        assert registry.box_name(*registry.split_box_name(name)) == "focal_alpha_focaler_inner_ciou"
        assert torch.equal(make_box_loss(name.upper().replace("_", "-"))(pred, target), value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("inner_inner_ciou", "repeated"),
        ("focaler_inner_focaler_ciou", "repeated"),
        ("alpha_siou", "ciou, diou, giou, iou"),
        ("inner_probiou", "inner_"),
        ("wise_wise_ciou", "repeated"),
        ("wise_rotated_iou", "wise_"),
        ("inner_rotated_diou", "rotated_iou"),
        ("focaler_kld", "rotated_iou"),
        ("alpha_gwd", "rotated_iou"),
        ("focal_kfiou", "rotated_iou"),
        ("inner_nosuch", "nosuch"),
    ],
)
def test_modifiers_that_do_not_fit_are_refused_by_name(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_box_loss(name)


@pytest.mark.parametrize(
    ("base", "modifiers"),
    [("siou", ["alpha"]), ("ciou", ["inner", "inner"]), ("probiou", ["inner"]), ("gwd", ["wise"]), ("wiou", ["wise"])],
)
def test_modifiers_that_do_not_fit_are_refused_by_hand_too(base: str, modifiers: list[str]) -> None:
    parts = [spec.build() for m in modifiers for spec in registry.specs("modifier") if spec.name == m]
    with pytest.raises(ValueError, match=modifiers[0]):
        ModifiedBoxLoss(make_box_loss(base), parts)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("focaler_ciou", {"focaler_d": 0.5, "focaler_u": 0.5}),
        ("focaler_ciou", {"focaler_u": 1.5}),
        ("inner_ciou", {"inner_ratio": 0}),
        ("alpha_ciou", {"alpha_power": 0}),
        ("focal_ciou", {"focal_iou_gamma": -1}),
        ("wiou", {"wiou_version": 4}),
        ("wiou", {"wiou_momentum": 2}),
        ("nwd", {"nwd_ratio": 1.1}),
        ("nwd", {"nwd_constant": 0}),
        ("sdiou", {"sdiou_delta": 1.5}),
        ("gwd", {"gwd_fun": "sine"}),
        ("kld", {"kld_alpha": 0}),
        ("kfiou", {"kfiou_centre": "pixels"}),
        ("wise_ciou", {"wise_version": 0}),
    ],
)
def test_parameters_out_of_range_are_refused_by_their_key(name: str, keys: dict) -> None:
    with pytest.raises(ValueError, match=list(keys)[-1]):
        make_box_loss(name, **keys)
