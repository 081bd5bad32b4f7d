"""The losses of image classification: torch's numbers, values worked out by hand, finite gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from yolo_losses.losses.classify.bce import one_vs_all_loss
from yolo_losses.losses.classify.ce import softmax_cross_entropy_loss
from yolo_losses.losses.classify.focal import softmax_focal_loss
from yolo_losses.losses.classify.gce import generalized_cross_entropy_loss
from yolo_losses.losses.classify.poly import softmax_poly_loss

LOSSES: list[Callable[..., Tensor]] = [
    softmax_cross_entropy_loss,
    softmax_focal_loss,
    softmax_poly_loss,
    one_vs_all_loss,
    generalized_cross_entropy_loss,
]
SMOOTHED = LOSSES[:-1]
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.1, 1.4], dtype=torch.float64)


def made_up(images: int = 64, classes: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, classes, generator=generator, dtype=torch.float64) * 3
    return logits.requires_grad_(), torch.randint(classes, (images,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_that_of_torch(smoothing: float, weights: Tensor | None) -> None:
    logits, targets = made_up()
    divisor = None if weights is None else weights[targets].sum()
    ours = softmax_cross_entropy_loss(logits, targets, smoothing, weights, reduction="mean", avg_factor=divisor)
    theirs = nn.functional.cross_entropy(logits, targets, weights, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=0)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_and_poly_without_their_parameter_are_cross_entropy(smoothing: float) -> None:
    logits, targets = made_up()
    wanted = softmax_cross_entropy_loss(logits, targets, smoothing)
    torch.testing.assert_close(softmax_focal_loss(logits, targets, 0.0, smoothing), wanted)
    torch.testing.assert_close(softmax_poly_loss(logits, targets, 0.0, smoothing), wanted)


def test_focal_by_hand() -> None:
    logits, p = torch.tensor([[math.log(4.0), 0.0, 0.0]], dtype=torch.float64), 4 / 6
    loss = softmax_focal_loss(logits, torch.tensor([0]), gamma=2.0)
    assert float(loss) == pytest.approx(-((1 - p) ** 2) * math.log(p))


def test_poly_by_hand() -> None:
    logits, p = torch.tensor([[math.log(4.0), 0.0, 0.0]], dtype=torch.float64), 4 / 6
    assert float(softmax_poly_loss(logits, torch.tensor([0]), epsilon=2.0)) == pytest.approx(-math.log(p) + 2 * (1 - p))


def test_generalized_cross_entropy_by_hand_and_toward_its_limits() -> None:
    logits, p = torch.tensor([[math.log(4.0), 0.0, 0.0]], dtype=torch.float64), 4 / 6
    target = torch.tensor([0])
    assert float(generalized_cross_entropy_loss(logits, target, q=0.7)) == pytest.approx((1 - p**0.7) / 0.7)
    assert float(generalized_cross_entropy_loss(logits, target, q=1.0)) == pytest.approx(1 - p)
    assert float(generalized_cross_entropy_loss(logits, target, q=1e-6)) == pytest.approx(-math.log(p), rel=1e-5)


def test_one_against_all_is_the_mean_of_bce_over_classes_and_images() -> None:
    logits, targets = made_up()
    hot = nn.functional.one_hot(targets, 5).double()
    wanted = nn.functional.binary_cross_entropy_with_logits(logits, hot)
    torch.testing.assert_close(one_vs_all_loss(logits, targets, reduction="mean"), wanted)


@pytest.mark.parametrize("loss", SMOOTHED)
def test_smoothed_labels_are_the_soft_targets(loss: Callable[..., Tensor]) -> None:
    logits, targets = made_up()
    soft = nn.functional.one_hot(targets, 5) * 0.8 + 0.2 / 5
    torch.testing.assert_close(loss(logits, targets, smoothing=0.2), loss(logits, soft))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_class_of_weight_0_counts_for_nothing(loss: Callable[..., Tensor]) -> None:
    logits, targets = made_up()
    weights = torch.tensor([1.0, 1, 0, 1, 1], dtype=torch.float64)
    only = loss(logits, targets, class_weights=weights)[targets == 2]
    if loss is not one_vs_all_loss:  # in which the other classes are still to be rejected
        assert (only == 0).all()
    doubled = loss(logits, targets, class_weights=2 * weights)
    torch.testing.assert_close(doubled, 2 * loss(logits, targets, class_weights=weights))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_equals_finite_differences(loss: Callable[..., Tensor]) -> None:
    logits, targets = made_up(images=6)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets, class_weights=WEIGHTS), logits)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_saturated_logits_have_finite_losses_and_gradients(loss: Callable[..., Tensor], size: float) -> None:
    logits = (torch.eye(3) * size).requires_grad_()
    value = loss(logits, torch.tensor([0, 0, 2]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_float32(loss: Callable[..., Tensor]) -> None:
    logits, targets = made_up()
    half = logits.detach().half()
    torch.testing.assert_close(loss(half, targets), loss(half.float(), targets))


@pytest.mark.parametrize("loss", LOSSES)
def test_targets_that_do_not_fit_are_refused(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="fit"):
        loss(torch.zeros(4, 3), torch.zeros(5, dtype=torch.long))


# The logits of the numbers below; every label occurs.
WAVE = (torch.arange(24, dtype=torch.float64) * 1.7).sin().view(6, 4) * 3
LABELS = torch.tensor([0, 3, 1, 2, 2, 0])


def test_focal_is_that_of_kornia() -> None:
    """Numbers of `kornia.losses.focal_loss(..., alpha=None, gamma=1.5)`, kornia 0.9.0, summed over the classes."""
    plain = [2.835969957256175, 4.536335449841691, 1.2001510856438649, 6.063692444592154, 5.344336670527203]
    plain.append(1.1588106671698546)
    weighted = [1.4179849786280876, 0.45363354498416913, 2.4003021712877297, 6.063692444592154, 5.344336670527203]
    weighted.append(0.5794053335849273)
    weights = torch.tensor([0.5, 2.0, 1.0, 0.1], dtype=torch.float64)
    assert softmax_focal_loss(WAVE, LABELS, gamma=1.5).tolist() == pytest.approx(plain, rel=1e-12)
    assert softmax_focal_loss(WAVE, LABELS, gamma=1.5, class_weights=weights).tolist() == pytest.approx(
        weighted, rel=1e-12
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_poly_and_generalized_cross_entropy_are_their_formulas_in_value_and_gradient(smoothing: float) -> None:
    logits, targets = made_up()
    soft = nn.functional.one_hot(targets, 5) * (1 - smoothing) + smoothing / 5
    p = logits.softmax(-1)
    cross_entropy = nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    pairs = [(softmax_poly_loss(logits, targets, 0.7, smoothing), cross_entropy + 0.7 * (1 - (soft * p).sum(-1)))]
    if not smoothing:
        own = p.gather(1, targets[:, None]).squeeze(1)
        pairs.append((generalized_cross_entropy_loss(logits, targets, q=0.4), (1 - own**0.4) / 0.4))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)
        gradients = [torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (ours, theirs)]
        torch.testing.assert_close(*gradients)
