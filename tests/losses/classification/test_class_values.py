"""What single classification losses are known for: their names, defaults, parameters and state."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from class_elements import SPECS, elements, gradient_of

import yolo_losses
from yolo_losses import functional, registry
from yolo_losses.losses._step import Step
from yolo_losses.losses.build import make_cls_loss


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
        slope = gradient_of(functional.focal_loss(z, torch.tensor([target]), gamma), z)
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
