"""`cls_scale=auto`: one factor on all elements, that keeps the class term at the strength of the stock loss."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TINY, Model, criterion_of, logged, made_up_batch, predictions, run
from torch.nn.functional import binary_cross_entropy_with_logits

from yolo_losses import registry
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration import messages
from yolo_losses.integration.criteria import equip
from yolo_losses.integration.criteria.scale import LARGEST_STEP, LIMIT, ClassScale
from yolo_losses.integration.run import Run
from yolo_losses.losses.classification import _batch

CLS_LOSSES = [spec.name for spec in registry.specs("cls")]
STATELESS = [name for name in CLS_LOSSES if name not in ("ema_slide", "ghm", "efl", "eqfl")]
TARGETS = ["tal", "iou", "hard"]


def term_gradient(keys: dict[str, Any], steps: int = 1, scale: float | None = None, head: str = "v8") -> Any:
    """Return a criterion's branch after some steps on the same batch, and the class gradient of the last one."""
    criterion = criterion_of(head)
    criterion.hyp = copy.copy(criterion.hyp)  # which the model's criteria share
    criterion.hyp.box = criterion.hyp.dfl = 0.0
    (branch,) = equip(criterion, keys).values() if keys else [None]
    if scale is not None:
        branch.scale.log_factor.fill_(math.log(scale))
    outputs = predictions(head)
    for _ in range(steps):
        run(criterion, outputs, made_up_batch(head))
    loss, _ = criterion(outputs, made_up_batch(head))
    return branch, torch.autograd.grad(loss.sum(), outputs["scores"])[0]


@pytest.mark.parametrize("large", [False, True], ids=["at once", "in chunks"])
@pytest.mark.parametrize("name", STATELESS)
def test_it_ends_at_the_ratio_of_the_gradient_norms(name: str, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch, "CHUNK", 64 if large else 2**40)
    _, stock = term_gradient({})
    _, own = term_gradient({"cls_loss": name})
    wanted = float(stock.norm() / own.norm())
    assert 1 / LIMIT < wanted < LIMIT
    branch, gradient = term_gradient({"cls_loss": name, "cls_scale": "auto"}, steps=100)
    assert float(branch.scale.factor) == pytest.approx(wanted, rel=1e-3)
    torch.testing.assert_close(gradient.norm(), stock.norm(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["focal", "ghm"])
def test_the_loss_own_divisor_counts(name: str, target: str) -> None:
    keys = {"cls_loss": name, "cls_target": target}
    _, stock = term_gradient({})
    _, gradient = term_gradient({**keys, "cls_scale": "auto"}, steps=100)
    torch.testing.assert_close(gradient.norm(), stock.norm(), rtol=0.05 if name == "ghm" else 1e-3, atol=0)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", STATELESS)
def test_every_element_is_multiplied_by_the_same_factor(
    name: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batch, "CHUNK", 64 if large else 2**40)
    _, plain = term_gradient({"cls_loss": name})
    branch, scaled = term_gradient({"cls_loss": name, "cls_scale": "auto"}, scale=7.0)
    torch.testing.assert_close(scaled, plain * float(branch.scale.factor), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("head", ["v8", "v8-seg", "v8-pose", "v8-obb", "v10", "26"])
def test_it_is_1_for_bce(head: str) -> None:
    criterion = criterion_of(head)
    branches = equip(criterion, {"cls_scale": "auto"})
    for seed in range(3):
        run(criterion, predictions(head, seed=seed), made_up_batch(head, seed=seed))
    for branch in branches.values():
        assert float(branch.scale.own) > 0
        assert float(branch.scale.factor) == pytest.approx(1, abs=1e-4)


def test_it_moves_by_a_twentieth_a_step_from_1() -> None:
    scale = ClassScale()
    for step in range(1, 200):
        scale.advance(torch.tensor([1.0, 16.0]), torch.tensor(True))
        assert float(scale.factor) == pytest.approx(min(1.05**step, 4), rel=1e-4)
    assert pytest.approx(math.log(1.05)) == LARGEST_STEP


@pytest.mark.parametrize("odd", [(1e4, 1.0), (1e6, 1e6), (1.0, 1e8), (1e-8, 1e-8)])
def test_one_odd_batch_hardly_moves_it(odd: tuple[float, float]) -> None:
    scale = ClassScale()
    for _ in range(300):
        scale.advance(torch.tensor([1.0, 16.0]), torch.tensor(True))
    scale.advance(torch.tensor(odd), torch.tensor(True))
    for _ in range(300):
        assert 3 < float(scale.factor) < 5
        scale.advance(torch.tensor([1.0, 16.0]), torch.tensor(True))
    assert float(scale.factor) == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("own", [1e-20, 1e20])
def test_it_is_bounded(own: float) -> None:
    scale = ClassScale()
    for _ in range(200):
        scale.advance(torch.tensor([own, 1.0]), torch.tensor(True))
    assert scale.bounded
    assert float(scale.factor) == pytest.approx(LIMIT if own < 1 else 1 / LIMIT, rel=1e-4)


@pytest.mark.parametrize(
    ("norms", "objects"),
    [((1.0, 9.0), False), ((math.nan, 9.0), True), ((1.0, math.inf), True), ((0.0, 0.0), True)],
    ids=["no objects", "not a number", "infinite", "no gradient"],
)
def test_a_batch_that_shows_nothing_changes_nothing(norms: tuple[float, float], objects: bool) -> None:
    scale = ClassScale()
    for first in (True, False):
        before = {key: value.clone() for key, value in scale.state_dict().items()}
        scale.advance(torch.tensor(norms), torch.tensor(objects))
        assert all(torch.equal(value, before[key]) for key, value in scale.state_dict().items())
        assert float(scale.factor) == 1 or not first
        scale.advance(torch.tensor([1.0, 4.0]), torch.tensor(True))


def test_a_first_batch_without_objects_is_finite() -> None:
    criterion = criterion_of("v8")
    (branch,) = equip(criterion, {"cls_loss": "focal", "cls_scale": "auto"}).values()
    terms, _, gradients = run(criterion, predictions("v8"), made_up_batch("v8", each=0))
    assert all(math.isfinite(value) for value in terms.values())
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
    assert float(branch.scale.factor) == 1


def test_validation_uses_it_and_never_moves_it() -> None:
    criterion, plain = criterion_of("v8"), criterion_of("v8")
    (branch,) = equip(criterion, {"cls_loss": "focal", "cls_scale": "auto"}).values()
    equip(plain, {"cls_loss": "focal"})
    branch.scale.log_factor.fill_(math.log(3))
    with torch.no_grad():
        terms, _, _ = run(criterion, predictions("v8"), made_up_batch("v8"))
        unscaled, _, _ = run(plain, predictions("v8"), made_up_batch("v8"))
    assert float(branch.scale.factor) == pytest.approx(3)
    assert terms["cls_loss"] == pytest.approx(3 * unscaled["cls_loss"], rel=1e-4)


def test_half_precision_logits_give_the_same_factor() -> None:
    factors = []
    for dtype in (torch.float32, torch.bfloat16):
        criterion = criterion_of("v8")
        (branch,) = equip(criterion, {"cls_loss": "focal", "cls_scale": "auto"}).values()
        outputs = predictions("v8")
        outputs["scores"] = outputs["scores"].detach().to(dtype).requires_grad_()
        run(criterion, outputs, made_up_batch("v8"))
        factors.append(float(branch.scale.stock / branch.scale.own))
    assert factors[1] == pytest.approx(factors[0], rel=0.02)


@pytest.mark.parametrize("value", ["auto", "AUTO", " auto"])
def test_it_is_a_key_that_survives_a_checkpoint(value: str) -> None:
    settings = LossSettings.from_mapping({"cls_loss": "focal", "cls_scale": value})
    assert settings.cls_scale == "auto"
    assert settings.to_config()["cls_scale"] == "auto"
    assert LossSettings.from_mapping(settings.to_config()) == settings


@pytest.mark.parametrize("value", ["aut", "0", -1, "nan", [1.0]])
def test_another_word_is_refused_with_what_is_allowed(value: Any) -> None:
    with pytest.raises(
        ValueError, match=r"'cls_scale=.*' is not valid: allowed is a number > 0, or auto \(default 1.0\)"
    ):
        LossSettings.from_mapping({"cls_loss": "focal", "cls_scale": value})


def trainer(head: str = "v8") -> Any:
    """Return what a `Run` asks of a trainer of 50 batches an epoch."""
    model = Model(criterion=criterion_of(head))
    return SimpleNamespace(
        model=model,
        ema=SimpleNamespace(ema=SimpleNamespace()),
        args=SimpleNamespace(imgsz=64, resume=False, warmup_epochs=3.0),
        train_loader=range(50),
        epoch=0,
        loss=torch.ones(()),
    )


def step_of(run_: Run, trainer: Any, head: str = "v8") -> None:
    trainer.loss = run(trainer.model.criterion, predictions(head), made_up_batch(head))[1]
    run_.after_batch(trainer)


@pytest.mark.parametrize("head", ["v8", "26"])
def test_the_log_tells_it_at_the_start_after_the_first_batch_after_warmup_and_at_the_end(head: str) -> None:
    with logged() as said:
        of = trainer(head)
        of.model.criterion = criterion_of(head)
        run_ = Run(of, LossSettings.from_mapping({"cls_loss": "focal", "cls_scale": "auto"}))
        assert "times auto" in said[-1]
        step_of(run_, of, head)
        assert ("cls_scale=auto is 1.05" if head == "v8" else "one2many 1.05, one2one 1.05") in said[-1]
        for of.epoch in range(5):
            run_.log_factor_after_warmup(of)
        run_.log_final_factor()
    factors = "1.05" if head == "v8" else "one2many 1.05, one2one 1.05"
    assert [line for line in said if "after warm-up" in line] == [
        f"yolo_losses: cls_scale=auto is {factors} after warm-up"
    ]
    fixed = "; cls_scale=1.05 fixes it there" if head == "v8" else ""
    assert said[-1] == f"yolo_losses: cls_scale=auto ended at {factors}{fixed}"


def test_warmup_is_over_where_ultralytics_ends_it() -> None:
    run_ = Run(trainer(), LossSettings.from_mapping({"cls_loss": "focal", "cls_scale": "auto"}))
    for epochs, batches, last in ((3.0, 50, 2), (1.0, 50, 1), (3.0, 10, 9), (0.0, 50, 0)):
        run_.warmed_up = False
        of = SimpleNamespace(args=SimpleNamespace(warmup_epochs=epochs), train_loader=range(batches), epoch=0)
        while not run_.warmed_up:
            run_.log_factor_after_warmup(of)
            of.epoch += 1
        assert of.epoch - 1 == last


def test_a_bound_is_said() -> None:
    run_ = Run(trainer(), LossSettings.from_mapping({"cls_loss": "focal", "cls_scale": "auto"}))
    (branch,) = run_.branches.values()
    assert branch.scale is not None
    branch.scale.log_factor.fill_(math.log(LIMIT))
    assert messages.format_factors(run_.branches) == "100 (its bound)"


@pytest.mark.parametrize(
    ("keys", "advised"),
    [
        ({"cls_loss": "focal"}, True),
        ({"cls_loss": "bce"}, False),
        ({"cls_loss": "focal", "cls_scale": 5.2}, False),
        ({"cls_loss": "focal", "cls_scale": "auto"}, False),
    ],
)
def test_the_proof_line_says_what_to_do_about_an_unusual_size(keys: dict[str, Any], advised: bool) -> None:
    with logged() as said:
        of = trainer()
        step_of(Run(of, LossSettings.from_mapping(keys)), of)
    assert (
        "the gains were tuned for BCE: cls_scale=auto keeps the class term as strong as BCE's" in said[-1]
    ) == advised


def test_rtdetr_is_kept_at_the_strength_of_its_own_stock_loss() -> None:
    from ultralytics.models.utils.loss import RTDETRDetectionLoss

    generator = torch.Generator().manual_seed(0)
    batch = {
        "cls": torch.tensor([0, 1]),
        "bboxes": torch.rand(2, 4, generator=generator) * 0.2 + 0.3,
        "gt_groups": [1, 1],
    }
    boxes = (torch.rand(3, 2, 20, 4, generator=generator) * 0.2 + 0.3).requires_grad_()
    scores = torch.randn(3, 2, 20, 3, generator=generator).requires_grad_()

    def gradient(keys: dict[str, Any], steps: int = 0) -> Any:
        criterion = RTDETRDetectionLoss(nc=3, use_vfl=True)
        branches = equip(criterion, keys) if keys else {}
        for _ in range(steps + 1):
            terms = criterion((boxes, scores), batch)
        return branches, torch.autograd.grad(terms["loss_class"], scores)[0][-1]

    _, stock = gradient({})
    branches, own = gradient({"cls_loss": "focal", "cls_scale": "auto"}, steps=150)
    torch.testing.assert_close(own.norm(), stock.norm(), rtol=0.01, atol=0)
    assert branches[""].scale is not None
    _, same = gradient({"cls_loss": "vfl", "vfl_alpha": 0.25, "vfl_gamma": 1.5, "cls_scale": "auto"}, steps=5)
    torch.testing.assert_close(same, stock, rtol=1e-3, atol=1e-7)


def test_bce_here_is_the_stock_loss_toward_the_assigners_scores() -> None:
    """The reference of the other tests, by hand: BCE's gradient is p - t."""
    logits = torch.randn(2, 5, 3).requires_grad_()
    targets = torch.rand(2, 5, 3)
    (gradient,) = torch.autograd.grad(binary_cross_entropy_with_logits(logits, targets, reduction="sum"), logits)
    from yolo_losses.integration.criteria.scale import squared_norms

    norms = squared_norms(gradient * 2, logits, targets)
    torch.testing.assert_close(norms, torch.stack((4 * gradient.square().sum(), gradient.square().sum())))
    assert logits.grad is None


@pytest.mark.slow
def test_a_training_says_and_keeps_it(tmp_path: Path, data: Path) -> None:
    import yaml
    from ultralytics import YOLO

    with logged() as said:
        model = YOLO("yolov8n.yaml")
        keys = {**TINY, "epochs": 2, "data": str(data), "cls_loss": "focal", "cls_scale": "auto"}
        model.train(**keys, project=str(tmp_path), name="run")
    text = "\n".join(said)
    for words in ("times auto", "cls_scale=auto is", "cls_scale=auto ended at"):
        assert words in text
    assert yaml.safe_load((tmp_path / "run" / "args.yaml").read_text(encoding="utf-8"))["cls_scale"] == "auto"
    state = torch.load(tmp_path / "run" / "weights" / "yolo_losses_state.pt")["state"]
    assert state["/scale"]["log_factor"] > 0
