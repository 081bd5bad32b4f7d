"""The L1 term of heads without a distribution: equal to stock for `l1`, of the named loss for the others."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anchor_criteria import assert_same_run
from conftest import TINY, criterion_of, logged, made_up_batch, predictions, run, tensors
from torch import Tensor
from ultralytics.utils import loss as upstream
from ultralytics.utils.loss import BboxLoss

from yolo_losses import equip, registry
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria.box_part import BoxPart
from yolo_losses.integration.criteria.ledger import UnprovenError

HEADS = ("26", "26-seg", "26-pose", "26-obb")
LOSSES = [spec.name for spec in registry.specs("l1")]


def result(name: str, keys: dict[str, Any], dfl: float | None = None) -> tuple[dict[str, float], list[Tensor]]:
    """The logged terms and the gradients of a criterion with the chosen losses."""
    criterion = criterion_of(name)
    equip(criterion, keys)
    if dfl is not None:
        for one in (criterion.one2many, criterion.one2one):
            one.hyp = copy.copy(one.hyp)
            one.hyp.dfl = dfl
    items, _, gradients = run(criterion, predictions(name), made_up_batch(name))
    return items, [g for g in gradients if g is not None]


@pytest.mark.parametrize("more", [{}, {"cls_loss": "bce"}, {"box_loss": "ciou"}], ids=["alone", "class", "box"])
@pytest.mark.parametrize("name", HEADS)
def test_l1_is_the_stock_term_in_the_whole_criterion(name: str, more: dict[str, str]) -> None:
    if name == "26-obb" and "box_loss" in more:
        more = {"box_loss": "probiou"}
    assert_same_run(result(name, {"l1_loss": "l1", **more}), result(name, more))


@pytest.mark.parametrize("beta", [0.01, 0.3])
@pytest.mark.parametrize("name", HEADS)
def test_smooth_l1_is_torch_s_in_the_place_of_l1(name: str, beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    functional = upstream.F

    def smooth(pred: Tensor, target: Tensor, reduction: str) -> Tensor:
        return functional.smooth_l1_loss(pred, target, reduction=reduction, beta=beta)

    ours = result(name, {"l1_loss": "smooth_l1", "l1_smooth_l1_beta": beta})
    stock = result(name, {})
    monkeypatch.setattr(upstream, "F", SimpleNamespace(**{**vars(functional), "l1_loss": smooth}))
    assert_same_run(ours, result(name, {}))
    changed = {term for term in stock[0] if ours[0][term] != pytest.approx(stock[0][term], rel=1e-4)}
    assert changed in ({"l1_loss"}, {"dfl_loss"})  # as it is logged before 8.4.104


@pytest.mark.parametrize("name", HEADS)
def test_off_is_the_run_with_a_gain_of_0(name: str) -> None:
    assert_same_run(result(name, {"l1_loss": "off"}), result(name, {}, dfl=0.0))


@pytest.mark.parametrize("loss", [*LOSSES, "off"])
def test_it_is_finite_in_half_precision_and_without_objects(loss: str) -> None:
    criterion = criterion_of("26")
    branches = equip(criterion, {"l1_loss": loss})
    for each in (3, 0):
        outputs, batch = predictions("26"), made_up_batch("26", each=each)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value, _ = criterion(outputs, batch)
        gradients = torch.autograd.grad(value.sum(), tensors(outputs), allow_unused=True)
        assert value.isfinite().all()
        assert all(g.isfinite().all() for g in gradients if g is not None)
    assert all(branch.calls == 1 for branch in branches.values())  # a batch without objects proves nothing


def test_off_is_0_whatever_was_predicted() -> None:
    part = criterion_of("26").one2many
    equip(part, {"l1_loss": "off"})
    pred = torch.full((3, 4), torch.inf, requires_grad=True)
    zero = part.bbox_loss._distance(pred, torch.zeros(3, 4), reduction="none")
    assert torch.equal(zero, torch.zeros(3, 4))
    (gradient,) = torch.autograd.grad(zero.sum(), pred)
    assert torch.equal(gradient, torch.zeros(3, 4))


def test_a_box_part_that_does_not_run_is_an_error() -> None:
    criterion = criterion_of("26")
    equip(criterion, {"l1_loss": "smooth_l1"})
    criterion.one2one.bbox_loss = criterion.one2one.bbox_loss.stock
    with pytest.raises(UnprovenError, match=r"computed its l1 term without the part for l1_loss=smooth_l1"):
        run(criterion, predictions("26"), made_up_batch("26"))


def test_copies_hold_the_part_and_pickles_the_stock_one() -> None:
    wanted = result("26", {"l1_loss": "smooth_l1"})[0]
    criterion = criterion_of("26")
    equip(criterion, {"l1_loss": "smooth_l1"})
    again = copy.deepcopy(criterion)
    assert isinstance(again.one2one.bbox_loss, BoxPart)
    assert run(again, predictions("26"), made_up_batch("26"))[0] == wanted
    text = pickle.dumps(criterion)
    assert b"yolo_losses" not in text
    assert run(pickle.loads(text), predictions("26"), made_up_batch("26"))[0] == result("26", {})[0]
    equip(criterion, {})
    assert type(criterion.one2one.bbox_loss) is BboxLoss


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("v8", {"l1_loss": "l1"}, r"'l1_loss=l1' is not valid: this head predicts a [^\n]*; its term is dfl_loss$"),
        (
            "v8-obb",
            {"l1_loss": "off"},
            r"'l1_loss=off' is not valid: this head predicts a [^\n]*; its term is dfl_loss$",
        ),
        ("26", {"dfl_loss": "off"}, r"'dfl_loss=off' is not valid: this head predicts no distribution, [^\n]*l1_loss$"),
    ],
)
def test_a_head_refuses_the_other_kind_s_key_and_names_its_own(name: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        equip(criterion_of(name), keys)


class WithoutL1(BboxLoss):
    """As in releases before YOLO26: 0 where no distribution is predicted."""

    def forward(self, pred_dist: Tensor, *args: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return pred_dist.sum(), pred_dist.new_zeros(())


def test_a_release_without_the_term_refuses_it() -> None:
    criterion = criterion_of("26").one2many
    criterion.bbox_loss = WithoutL1(1)
    with pytest.raises(ValueError, match=r"^'l1_loss=l1' is not valid: this Ultralytics computes no L1 term"):
        equip(criterion, {"l1_loss": "l1"})


def test_a_release_without_the_term_refuses_it_before_anything_is_written(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics import YOLO

    monkeypatch.setattr(BboxLoss, "forward", WithoutL1.forward)
    with pytest.raises(ValueError, match=r"^'l1_loss=l1' is not valid: this Ultralytics computes no L1 term"):
        YOLO("yolo26n.yaml").train(**TINY, data="nowhere.yaml", project=str(tmp_path / "runs"), l1_loss="l1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"l1_loss": "none"}, "'l1_loss=none' is ambiguous: use l1_loss=off"),
        ({"l1_loss": "smoothl2"}, r"'l1_loss=smoothl2' is not valid: .*Did you mean 'smooth_l1'"),
        (
            {"l1_loss": "smooth_l1", "l1_smooth_l1_beta": 0},
            "'l1_smooth_l1_beta=0' is not valid: allowed is a num",
        ),
        ({"l1_smooth_l1_beta": 0.1}, "'l1_smooth_l1_beta=0.1' would change nothing"),
    ],
)
def test_what_cannot_be_is_refused_early(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LossSettings.from_mapping(keys)


def test_settings_are_described() -> None:
    settings = LossSettings.from_mapping({"l1_loss": "Smooth-L1"})
    assert settings.to_config() == {"l1_loss": "smooth_l1", "l1_smooth_l1_beta": 0.01}
    assert settings.describe() == "cls=stock box=stock dfl=stock l1=smooth_l1(l1_smooth_l1_beta=0.01)"
    assert LossSettings.from_mapping({"l1_loss": False}).l1_loss == "off"


def test_a_training_logs_that_the_term_ran(data: Any, tmp_path: Any) -> None:
    from ultralytics import YOLO

    with logged() as messages:
        YOLO("yolo26n.yaml").train(**TINY, data=str(data), project=str(tmp_path), name="run", l1_loss="smooth_l1")
    text = "\n".join(messages)
    assert "l1_loss=smooth_l1 SmoothL1DistanceLoss(beta=0.01); equipped for training and validation" in text
    assert "ran in the first batch with objects: one2many l1; one2one l1" in text
    assert "l1_smooth_l1_beta: 0.01" in (tmp_path / "run" / "args.yaml").read_text()
