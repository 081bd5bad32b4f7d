"""The task semantic: each term has the value of a plain loop over pixels and classes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import ultralytics.utils.loss as upstream
from semantic_criteria import CHOICES, criterion_of, equipped, made_up, value_of
from torch import Tensor, nn

from yolo_losses import registry

if not hasattr(upstream, "SemanticSegmentationLoss"):
    pytest.skip("this Ultralytics has no task semantic", allow_module_level=True)


PARAMETERS = [p for spec in registry.specs() if spec.kind in ("ce", "dice") for p in spec.parameters]


def pixels(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probabilities, shape `(P, C)`, and the labels of the valid pixels, the head's size made the masks'."""
    z = nn.functional.interpolate(logits.detach(), size=masks.shape[1:], mode="bilinear", align_corners=False)
    p = z.sigmoid() if z.shape[1] == 1 else z.softmax(1)
    rows = [(p[b, :, y, x], int(masks[b, y, x])) for b in range(2) for y in range(8) for x in range(8)]
    valid = [(row, label) for row, label in rows if label != 255]
    return torch.stack([row for row, _ in valid]), torch.tensor([label for _, label in valid])


@pytest.mark.parametrize(("classes", "data"), [(1, ""), (2, ""), (5, ""), (19, "cityscapes8.yaml")])
@pytest.mark.parametrize("keys", [{"ce_loss": "ce"}, {"dice_loss": "dice"}, {"ce_loss": "ce", "dice_loss": "dice"}])
def test_ce_and_dice_equal_the_stock_terms(keys: dict[str, Any], classes: int, data: str) -> None:
    preds, batch = made_up(classes)
    value, gradients, items = value_of(equipped(keys, classes, data), preds, batch)
    stock, wanted, logged = value_of(criterion_of(classes, data), preds, batch)
    torch.testing.assert_close(value, stock, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients, wanted, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(items, logged)


def test_class_weights_replace_those_that_upstream_has() -> None:
    preds, batch = made_up(19)
    weights = torch.linspace(0.5, 2, 19)
    criterion = criterion_of(19)
    criterion.ce.register_buffer("weight", weights, persistent=False)
    wanted = value_of(criterion, preds, batch)
    keys = {"cls_weights": weights.tolist()}
    torch.testing.assert_close(value_of(equipped(keys, 19, "cityscapes8.yaml"), preds, batch), wanted)


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("head", [0, 1])
def test_focal_by_a_loop_over_the_pixels(classes: int, head: int) -> None:
    preds, batch = made_up(classes)
    items = value_of(equipped({"ce_loss": "focal", "ce_focal_gamma": 3}, classes), preds, batch)[2]
    total = 0.0
    p, labels = pixels(preds[head], batch["semantic_mask"])
    for row, label in zip(p, labels, strict=True):
        p_y = float(row[label]) if classes > 1 else float(row[0]) if label else 1 - float(row[0])
        total -= (1 - p_y) ** 3 * math.log(p_y) / len(labels)
    assert float(items[("ce_loss", "aux_loss")[head]]) == pytest.approx((1.0, 0.4)[head] * total, rel=1e-5)


@pytest.mark.parametrize("keep", [0.0, 0.9])
@pytest.mark.parametrize("weights", [None, [0.5, 1, 2, 4, 1]])
def test_ohem_by_a_loop_over_the_hard_pixels(keep: float, weights: list[float] | None) -> None:
    preds, batch = made_up(5)
    keys = {"ce_loss": "ohem", "ce_ohem_threshold": 0.2, "ce_ohem_keep": keep, "cls_weights": weights}
    items = value_of(equipped(keys, 5), preds, batch)[2]
    p, labels = pixels(preds[0], batch["semantic_mask"])
    found = sorted((float(row[label]), int(label)) for row, label in zip(p, labels, strict=True))
    least = math.ceil(keep * len(found))
    hard = [pair for number, pair in enumerate(found) if number < least or pair[0] < 0.2]
    assert least < len(hard) if keep == 0 else least == len(hard) < len(found)
    factors = [weights[label] if weights else 1.0 for _, label in hard]
    wanted = sum(-f * math.log(p_y) for f, (p_y, _) in zip(factors, hard, strict=True)) / sum(factors)
    assert float(items["ce_loss"]) == pytest.approx(wanted, rel=1e-5)


def test_ohem_takes_no_more_than_its_share_of_pixels_that_are_perfect() -> None:
    logits = torch.tensor([[60.0, 0.0]] * 15 + [[0.0, 1.0]])
    loss = registry.find("ce", "ohem").build({"ce_ohem_keep": 0.25})  # type: ignore[union-attr]
    labels = torch.zeros(16, dtype=torch.long)
    per_pixel = loss.pixels(logits, labels)
    assert float(loss.mean_over_pixels(per_pixel, labels)) == pytest.approx(float(per_pixel[-1]) / 4)


@pytest.mark.parametrize("classes", [1, 5])
def test_focal_tversky_by_a_loop_over_classes_and_pixels(classes: int) -> None:
    preds, batch = made_up(classes)
    keys = {"dice_loss": "tversky", "dice_tversky_alpha": 0.2, "dice_tversky_beta": 0.9, "dice_tversky_gamma": 4 / 3}
    items = value_of(equipped(keys, classes), preds, batch)[2]
    p, labels = pixels(preds[0], batch["semantic_mask"])
    losses = []
    for c in range(classes):
        of_class = [
            (float(row[c]), int(label) == (1 if classes == 1 else c)) for row, label in zip(p, labels, strict=True)
        ]
        hit = sum(q for q, inside in of_class if inside)
        more = sum(q for q, inside in of_class if not inside)
        missed = sum(1 - q for q, inside in of_class if inside)
        losses.append((1 - (hit + 1) / (hit + 0.2 * more + 0.9 * missed + 1)) ** 0.75)
    assert float(items["dice_loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("classes", [1, 5])
def test_lovasz_is_the_mean_over_the_classes_that_have_a_pixel(classes: int) -> None:
    preds, batch = made_up(classes)
    items = value_of(equipped({"dice_loss": "lovasz"}, classes), preds, batch)[2]
    p, labels = pixels(preds[0], batch["semantic_mask"])
    losses = []
    for c in [0] if classes == 1 else labels.unique().tolist():
        inside = labels == (1 if classes == 1 else c)
        errors = torch.where(inside, 1 - p[:, c], p[:, c])
        wrong, before, total = torch.zeros_like(inside), 0.0, 0.0
        for i in errors.argsort(descending=True):
            wrong[i] = True
            jaccard = 1 - int((inside & ~wrong).sum()) / int((inside | wrong).sum())
            total, before = total + float(errors[i]) * (jaccard - before), jaccard
        losses.append(total)
    assert len(losses) == max(classes - 1, 1)
    assert float(items["dice_loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_a_dice_term_that_is_off_is_0_and_leaves_the_others() -> None:
    preds, batch = made_up(5)
    value, _, items = value_of(equipped({"dice_loss": "off"}, 5), preds, batch)
    _, _, stock = value_of(criterion_of(5), preds, batch)
    assert float(items["dice_loss"]) == 0
    assert float(value.detach()) == pytest.approx(2 * float(stock["ce_loss"] + stock["aux_loss"]))


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("keys", CHOICES, ids=lambda keys: "=".join(*keys.items()))
def test_masks_that_are_255_everywhere_give_a_zero_in_the_graph(keys: dict[str, Any], classes: int) -> None:
    preds, batch = made_up(classes)
    batch["semantic_mask"].fill_(255)
    keys = {"ce_loss": "ce", "loss_stats": True, **keys}  # stock is NaN in older releases
    value, gradients, _ = value_of(equipped(keys, classes), preds, batch)
    assert float(value.detach()) == 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: p.key)
def test_the_ends_of_a_parameter_s_range_give_finite_numbers(parameter: Any, classes: int) -> None:
    (spec,) = (s for s in registry.specs() if parameter in s.parameters)
    limits = parameter.limits
    low = limits.low if math.isfinite(limits.low) else limits.above + 0.01
    for value in (low, limits.high if math.isfinite(limits.high) else 50.0):
        for size in (1.0, 100.0):
            preds, batch = made_up(classes)
            keys = {registry.TERM_KEYS[spec.kind]: spec.name, parameter.key: value}
            criterion = equipped(keys, classes)
            total, gradients, _ = value_of(
                criterion, tuple(p.detach().mul(size).requires_grad_() for p in preds), batch
            )
            assert total.isfinite()
            assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("keys", CHOICES, ids=lambda keys: "=".join(*keys.items()))
def test_half_precision_is_computed_in_single(keys: dict[str, Any]) -> None:
    preds, batch = made_up(5)
    rounded = tuple(p.detach().bfloat16().float().requires_grad_() for p in preds)
    wanted = value_of(equipped(keys, 5), rounded, batch)[2]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = value_of(equipped(keys, 5), rounded, batch)[2]
    (term,) = (key for key in keys)
    torch.testing.assert_close(found[term], wanted[term], rtol=1e-5, atol=1e-6)
