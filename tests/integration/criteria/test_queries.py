"""RT-DETR: the terms of the chosen losses in its criterion, on the pairs that it matches itself."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_detr import CLASSES, equipped, given, stock_criterion
from torch import Tensor

from yolo_losses import equip, functional, make_box_loss, make_cls_loss


def gradients(terms: dict[str, Tensor], leaves: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(sum(terms.values()), leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


def recorded(call: Callable[[Any], dict[str, Tensor]]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return what a stock criterion hands its class and its box term, layer by layer."""
    criterion = stock_criterion()
    calls: tuple[list[Any], list[Any]] = ([], [])
    for name, seen in zip(("_get_loss_class", "_get_loss_bbox"), calls, strict=True):

        def listen(stock: Any, seen: list[Any], *args: Any) -> Any:
            seen.append(args)
            return stock(*args)

        setattr(criterion, name, functools.partial(listen, getattr(criterion, name), seen))
    call(criterion)
    return calls


def totals(values: list[Tensor], postfixes: list[str], kind: str) -> dict[str, Tensor]:
    """Return layers' values under the names of the criterion's terms: the main layer, the others summed."""
    terms: dict[str, Tensor] = {}
    for value, postfix in zip(values, postfixes, strict=True):
        name = f"loss_{kind}{postfix}"
        if name in terms:
            name = f"loss_{kind}_aux{postfix}"
        terms[name] = terms.get(name, 0) + value
    return terms


def test_varifocal_with_stock_parameters_is_the_stock_class_term() -> None:
    leaves, call = given()
    stock = stock_criterion()
    own = {"vfl_gamma": getattr(stock.vfl, "gamma", 2.0), "vfl_alpha": getattr(stock.vfl, "alpha", 0.75)}
    if hasattr(stock.vfl, "gamma"):
        assert own == {"vfl_gamma": 1.5, "vfl_alpha": 0.25}
    expected = call(stock)
    for detach in (False, True):
        terms = call(equipped(cls_loss="vfl", vfl_detach_weight=detach, **own))
        assert terms.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(terms[name], value, rtol=1e-5, atol=1e-6)
        same = [
            torch.allclose(a, b, rtol=1e-4, atol=1e-6)
            for a, b in zip(gradients(terms, leaves), gradients(expected, leaves), strict=True)
        ]
        assert all(same) is not detach  # stock's gradient flows through the weight


def test_giou_is_the_stock_box_term() -> None:
    leaves, call = given()
    expected, terms = call(stock_criterion()), call(equipped(box_loss="giou"))
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-5, atol=1e-6)
    for a, b in zip(gradients(terms, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["bce", "focal", "vfl", "qfl", "mal", "poly", "asl"])
def test_class_term_of_every_layer_is_the_loss_on_matched_iou_over_the_objects(name: str) -> None:
    _, call = given()
    expected = []
    for scores, labels, iou, count, _ in recorded(call)[0]:
        one_hot = torch.nn.functional.one_hot(labels, CLASSES + 1)[..., :-1]
        target = iou.unsqueeze(-1) * one_hot
        extra = {"positive_mask": one_hot > 0} if name in ("vfl", "mal") else {}
        loss = make_cls_loss(name).elementwise(scores.double(), target.double(), **extra)
        expected.append(0.5 * loss.sum().float() / count)
    postfixes = [args[4] for args in recorded(call)[0]]
    stock, terms = call(stock_criterion()), call(equipped(cls_loss=name, cls_scale=0.5))
    for term, value in {**stock, **totals(expected, postfixes, "class")}.items():
        torch.testing.assert_close(terms[term], value, rtol=1e-5, atol=1e-6)
    assert {"loss_class", "loss_class_aux", "loss_class_dn", "loss_class_aux_dn"} <= terms.keys()


@pytest.mark.parametrize(
    "name", ["iou", "ciou", "eiou", "siou", "mpdiou", "shape_iou", "piou2", "nwd", "inner_ciou", "focal_eiou"]
)
def test_box_term_of_every_layer_is_the_loss_of_the_matched_pairs(name: str) -> None:
    _, call = given()
    calls = recorded(call)[1]
    expected = []
    loss = make_box_loss(name)
    for pred, target, _ in calls:
        corners = [torch.cat((b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2), 1) for b in (pred, target)]
        if name == "nwd":
            corners = [640 * box for box in corners]
        expected.append(2 * loss.pairs(*corners, image_wh=(1, 1)).sum() / len(target))
    stock, terms = call(stock_criterion()), call(equipped(box_loss=name, image_size=640))
    # nwd's CIoU half is taken in parts of the image, where eps weighs a little more.
    rtol = 1e-3 if name == "nwd" else 1e-5
    for term, value in {**stock, **totals(expected, [args[2] for args in calls], "giou")}.items():
        torch.testing.assert_close(terms[term], value, rtol=rtol, atol=1e-6)


def test_stock_class_term_can_be_scaled() -> None:
    _, call = given()
    expected, terms = call(stock_criterion()), call(equipped(cls_scale=2.0))
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value * (2 if "class" in name else 1))


@pytest.mark.parametrize("each", [3, 0], ids=["objects", "no objects"])
@pytest.mark.parametrize("name", ["stock", "bce", "focal", "vfl", "qfl", "mal", "poly", "asl"])
def test_class_weights_multiply_the_loss_of_each_class(name: str, each: int) -> None:
    """In value and gradient; a class's own term is that of a criterion whose other classes have next to no weight."""
    leaves, call = given(each)
    weights = [0.5, 1.0, 3.0]

    def of(weights: list[float]) -> tuple[dict[str, Tensor], list[Tensor]]:
        terms = call(equipped(cls_loss=name, cls_weights=weights, cls_scale=2.0))
        return {k: v for k, v in terms.items() if "class" in k}, gradients(terms, leaves)

    tiny = 1e-12
    alone = [of([1.0 if i == k else tiny for i in range(CLASSES)])[0] for k in range(CLASSES)]
    terms, slopes = of(weights)
    for term, value in terms.items():
        expected = sum(w * own[term] for w, own in zip(weights, alone, strict=True))
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
    plain_terms = call(equipped(cls_loss=name, cls_scale=2.0))
    ones, slopes_of_ones = of([1.0, 1.0, 1.0])
    for term, value in ones.items():
        torch.testing.assert_close(value, plain_terms[term], rtol=1e-5, atol=1e-7)
    for leaf, weighted, plain, same in zip(leaves, slopes, gradients(plain_terms, leaves), slopes_of_ones, strict=True):
        torch.testing.assert_close(same, plain, rtol=1e-4, atol=1e-7)
        if leaf.shape[-1] == CLASSES:
            plain = plain * torch.tensor(weights)
        torch.testing.assert_close(weighted, plain, rtol=1e-4, atol=1e-7)


def test_matched_query_without_overlap_stays_positive() -> None:
    criterion = equipped(cls_loss="mal")
    logits = torch.zeros(1, 4, CLASSES, requires_grad=True)
    labels = torch.tensor([[0, CLASSES, CLASSES, CLASSES]])
    term = criterion._get_loss_class(logits, labels, torch.zeros(1, 4), 1)["loss_class"]
    negative = 0.5**1.5 * math.log(2)
    assert float(term.detach()) == pytest.approx(math.log(2) + 11 * negative, rel=1e-5)


@pytest.mark.parametrize(
    "keys", [{"cls_loss": "mal", "box_loss": "wiou"}, {"cls_loss": "focal"}, {"box_loss": "inner_siou"}]
)
def test_batch_without_objects(keys: dict[str, Any]) -> None:
    leaves, call = given(0)
    criterion = equipped(**keys)
    terms = call(criterion)
    assert all(torch.isfinite(value) for value in terms.values())
    assert terms["loss_giou"].item() == 0
    for gradient in gradients(terms, leaves):
        assert torch.isfinite(gradient).all()
    if "box_loss" in keys and "cls_loss" in keys:
        assert float(criterion.branches[""].box.mean_loss) == 1


def test_half_precision_and_extreme_logits() -> None:
    leaves, call = given()
    with torch.no_grad():
        leaves[1][..., 0, :] = 100
        leaves[1][..., 1, :] = -100
    for name in ("bce", "focal", "vfl", "qfl", "mal"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = call(equipped(cls_loss=name, box_loss="siou"))
        assert all(torch.isfinite(value) for value in terms.values())
        assert all(torch.isfinite(gradient).all() for gradient in gradients(terms, leaves))


def test_a_first_batch_that_overflowed_is_no_proof_and_the_next_one_is_compared() -> None:
    model = equipped(cls_loss="focal", box_loss="siou")
    branch = model.branches[""]
    leaves, call = given()
    with torch.no_grad():
        leaves[1][-1, 0, 0, 0] = torch.inf
    call(model)
    assert not branch.ratios
    assert not branch.proven
    leaves, call = given()
    gradients(call(model), leaves)
    assert branch.proven


def test_wiou_state_moves_once_a_training_step_by_the_last_layer() -> None:
    _, call = given()
    pred, target, _ = recorded(call)[1][0]
    corners = [torch.cat((b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2), 1) for b in (pred, target)]
    mean = float(functional.iou_loss(*corners).mean().detach())
    model = equipped(box_loss="wiou", cls_loss="vfl")
    ema = stock_criterion()
    equip(ema, {"box_loss": "wiou", "cls_loss": "vfl"}, model.branches)
    state = model.branches[""].box
    call(model)
    first = float(state.mean_loss)
    assert first == pytest.approx(0.99 + 0.01 * mean, rel=1e-4)
    with torch.no_grad():
        call(ema)
    assert float(state.mean_loss) == first
    call(copy.deepcopy(model))
    assert float(state.mean_loss) == pytest.approx(0.99 * first + 0.01 * mean, rel=1e-4)
    alone = equipped(box_loss="wiou")
    call(alone)
    assert float(alone.branches[""].box.mean_loss) == pytest.approx(first, rel=1e-4)


# The L1 term
@pytest.mark.parametrize("box", ["stock", "giou"])
def test_l1_is_the_stock_term(box: str) -> None:
    leaves, call = given()
    expected, terms = call(stock_criterion()), call(equipped(l1_loss="l1", box_loss=box))
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-6, atol=1e-6)
    for a, b in zip(gradients(terms, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4 if box == "giou" else 1e-6, atol=1e-6)


@pytest.mark.parametrize("loss", ["smooth_l1", "off"])
def test_l1_term_of_every_layer_is_the_sum_over_the_sides_and_the_mean_over_the_pairs(loss: str) -> None:
    _, call = given()
    calls = recorded(call)[1]
    smooth = functools.partial(torch.nn.functional.smooth_l1_loss, reduction="sum", beta=0.05)
    expected = [5 * smooth(pred, target) / len(target) * (loss != "off") for pred, target, _ in calls]
    keys = {"l1_smooth_l1_beta": 0.05} if loss == "smooth_l1" else {}
    model = equipped(l1_loss=loss, **keys)
    stock, terms = call(stock_criterion()), call(model)
    for term, value in {**stock, **totals(expected, [args[2] for args in calls], "bbox")}.items():
        torch.testing.assert_close(terms[term], value, rtol=1e-5, atol=1e-6)
    assert model.branches[""].expected == ("l1",)


@pytest.mark.parametrize("loss", ["smooth_l1", "off"])
def test_l1_term_without_objects_and_in_half_precision(loss: str) -> None:
    for each in (0, 3):
        leaves, call = given(each)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = call(equipped(l1_loss=loss))
        assert all(torch.isfinite(value) for value in terms.values())
        assert all(torch.isfinite(gradient).all() for gradient in gradients(terms, leaves))
