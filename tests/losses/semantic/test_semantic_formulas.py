"""The losses of semantic segmentation: values by hand and by loops, and what is particular to each."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from yolo_losses.losses.semantic.dice import softmax_dice_loss
from yolo_losses.losses.semantic.lovasz import lovasz_softmax_loss
from yolo_losses.losses.semantic.ohem import ohem_cross_entropy_loss
from yolo_losses.losses.semantic.tversky import softmax_tversky_loss

REGIONS: list[Callable[..., Tensor]] = [softmax_dice_loss, softmax_tversky_loss, lovasz_softmax_loss]


def made_up(pixels: int = 40, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(pixels, classes, generator=generator, dtype=torch.float64) * 2
    return logits.requires_grad_(), torch.randint(
        classes - 1, (pixels,), generator=generator
    )  # the last class is absent


def test_dice_by_loops() -> None:
    logits, targets = made_up()
    p = logits.softmax(-1)
    for c, value in enumerate(softmax_dice_loss(logits, targets)):
        hit = sum(float(p[i, c]) for i in range(40) if int(targets[i]) == c)
        both = float(p[:, c].sum()) + int((targets == c).sum())
        assert float(value) == pytest.approx(1 - (2 * hit + 1) / (both + 1))


def test_tversky_of_equal_weights_is_dice_with_half_its_smoothing() -> None:
    logits, targets = made_up()
    torch.testing.assert_close(
        softmax_tversky_loss(logits, targets, 0.5, 0.5, smooth=0.5), softmax_dice_loss(logits, targets, smooth=1.0)
    )


def test_focal_tversky_is_tverskys_root() -> None:
    logits, targets = made_up()
    plain = softmax_tversky_loss(logits, targets)
    torch.testing.assert_close(softmax_tversky_loss(logits, targets, gamma=4 / 3), plain**0.75)


def test_focal_tversky_of_a_perfect_prediction_has_a_finite_gradient() -> None:
    logits = (torch.eye(3).repeat(4, 1) * 200).requires_grad_()
    loss = softmax_tversky_loss(logits, torch.arange(3).repeat(4), gamma=2.0)
    assert torch.autograd.grad(loss.sum(), logits)[0].isfinite().all()


def test_lovasz_softmax_by_adding_one_pixel_after_another() -> None:
    logits, targets = made_up()
    p = logits.softmax(-1).detach()
    for c, value in enumerate(lovasz_softmax_loss(logits, targets)):
        foreground = targets == c
        if not foreground.any():
            assert float(value) == 0
            continue
        errors = torch.where(foreground, 1 - p[:, c], p[:, c])
        total, before, wrong = 0.0, 0.0, torch.zeros_like(foreground)
        for i in errors.argsort(descending=True):
            wrong[i] = True
            jaccard = 1 - int((foreground & ~wrong).sum()) / int((foreground | wrong).sum())
            total += float(errors[i]) * (jaccard - before)
            before = jaccard
        assert float(value) == pytest.approx(total)


def test_ohem_keeps_the_pixels_below_the_threshold() -> None:
    logits, targets = made_up()
    p = logits.softmax(-1).gather(1, targets[:, None]).squeeze(1)
    loss = ohem_cross_entropy_loss(logits, targets, threshold=0.7, keep=0.0)
    wanted = torch.where(p < 0.7, -p.log(), 0)
    torch.testing.assert_close(loss, wanted)


def test_ohem_keeps_at_least_its_share_of_easy_pixels() -> None:
    logits = torch.tensor([[9.0, 0], [8.0, 0], [7.0, 0], [6.0, 0], [9.0, 0]])
    targets = torch.zeros(5, dtype=torch.long)
    loss = ohem_cross_entropy_loss(logits, targets, keep=0.4)
    assert (loss > 0).tolist() == [False, False, True, True, False]
    assert float(loss[3]) == pytest.approx(math.log1p(math.exp(-6)), rel=1e-4)


def test_ohem_that_keeps_all_is_cross_entropy() -> None:
    logits, targets = made_up()
    weights = torch.tensor([1.0, 2, 0.5, 1], dtype=torch.float64)
    wanted = nn.functional.cross_entropy(logits, targets, weights, reduction="none")
    torch.testing.assert_close(ohem_cross_entropy_loss(logits, targets, keep=1.0, class_weights=weights), wanted)


@pytest.mark.parametrize("loss", REGIONS)
def test_gradient_equals_finite_differences(loss: Callable[..., Tensor]) -> None:
    logits, targets = made_up(pixels=12)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), logits)


@pytest.mark.parametrize("loss", [*REGIONS, ohem_cross_entropy_loss])
def test_no_pixels_give_finite_losses_in_the_graph(loss: Callable[..., Tensor]) -> None:
    logits = torch.zeros(0, 3, requires_grad=True)
    value = loss(logits, torch.zeros(0, dtype=torch.long)).sum()
    value.backward()
    assert value.isfinite()


@pytest.mark.parametrize("loss", [*REGIONS, ohem_cross_entropy_loss])
def test_masks_that_do_not_fit_are_refused(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="fit"):
        loss(torch.zeros(4, 3), torch.zeros(5, dtype=torch.long))


def test_regions_have_the_numbers_of_segmentation_models_pytorch() -> None:
    """Of `DiceLoss(smooth=0.5)`, `TverskyLoss(gamma=0.75, smooth=1)` of one class at a time, and `LovaszLoss`, 0.6.0.

    Its dice has half the smoothing of this one's, its gamma is the exponent, its Lovasz loss computes in float32.
    """
    logits = (torch.arange(24, dtype=torch.float64) * 1.7).sin().view(6, 4) * 3
    targets = torch.tensor([0, 3, 1, 2, 2, 0])
    dice = [0.7387136390545486, 0.6416243915957333, 0.6683547365380006, 0.6974905702437073]
    tversky = [0.6122043645542082, 0.47224373825309507, 0.5834223728531247, 0.5216758477586785]
    focal = [0.6921055248716698, 0.5696717142067842, 0.6675553939879912, 0.6138334455390271]
    assert softmax_dice_loss(logits, targets).tolist() == pytest.approx(dice, rel=1e-10)
    assert softmax_tversky_loss(logits, targets).tolist() == pytest.approx(tversky, rel=1e-10)
    assert softmax_tversky_loss(logits, targets, gamma=4 / 3).tolist() == pytest.approx(focal, rel=1e-10)
    assert float(lovasz_softmax_loss(logits, targets).mean()) == pytest.approx(0.9346494078636169, rel=1e-6)
