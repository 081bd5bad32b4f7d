"""Equalized focal losses: the authors' numbers, and the state that sets the exponent of each class."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, criterion_of, golden, logged, made_up_batch, predictions, run
from torch import Tensor

import yolo_losses
from yolo_losses import functional
from yolo_losses.integration.criteria import equip
from yolo_losses.losses._step import Step
from yolo_losses.losses.build import make_cls_loss
from yolo_losses.losses.classification._batch import Batch

ARRAYS, CASES, _ = golden("longtail2")
LABELS = ARRAYS["inputs/labels_up"].long()  # 0 is the background
TARGETS = torch.nn.functional.one_hot(LABELS, 6)[:, 1:].double()
QUALITY = TARGETS * ARRAYS["inputs/quality"].double()[:, None]

both = pytest.mark.parametrize("name", ["efl", "eqfl"])


def given(key: str) -> Tensor:
    return ARRAYS[f"inputs/{key}"].double()


def original(case: str) -> tuple[Tensor, Tensor]:
    result = CASES[case]["results"]["float64"]
    return ARRAYS[result["out"]], ARRAYS[result["grad"]]


efl, eqfl = functional.equalized_focal_loss, functional.equalized_quality_focal_loss
ONES = torch.ones(5)
ORIGINALS: dict[str, Callable[[Tensor], Tensor]] = {
    "efl_start_g2_a0.25_s8": lambda z: efl(z, TARGETS, ONES),
    "efl_posneg_g2_a0.25_s8": lambda z: efl(z, TARGETS, given("pos_neg")),
    "efl_ends_g2_a0.25_s8": lambda z: efl(z, TARGETS, given("pos_neg_ends")),
    "efl_posneg_mean_norm17": lambda z: efl(z, TARGETS, given("pos_neg"), reduction="mean", avg_factor=17),
    "eqfl_start_sum_s8": lambda z: eqfl(z, QUALITY, ONES, reduction="sum"),
    "eqfl_posneg_sum_s8": lambda z: eqfl(z, QUALITY, given("pos_neg"), reduction="sum"),
}


@pytest.mark.parametrize("case", ORIGINALS)
def test_value_and_gradient_are_the_authors(case: str) -> None:
    logits = given(CASES[case]["inputs"]["pred"]).requires_grad_()
    value = ORIGINALS[case](logits)
    (slope,) = torch.autograd.grad(value.sum(), logits)
    wanted, wanted_slope = original(case)
    torch.testing.assert_close(slope, wanted_slope, rtol=1e-7, atol=1e-16)
    # Their logarithm of 1 - p has five digits where a logit of +-30 is on the wrong side.
    digits = logits.abs() < 20 if value.dim() else torch.tensor(True)
    torch.testing.assert_close(value[digits], wanted[digits], rtol=1e-7, atol=1e-16)
    torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-16)


def test_two_steps_accumulate_the_authors_ratio() -> None:
    wanted, _ = original("efl_after2_posneg")
    module = yolo_losses.EqualizedFocalLoss(reduction="sum").double()
    logits = given("logits_mid").requires_grad_()
    for _ in range(2):
        module(logits, TARGETS)
    torch.testing.assert_close(module.pos_neg_ratio(5), wanted, rtol=1e-6, atol=0)


def test_every_case_of_these_losses_is_compared() -> None:
    assert {case for case in CASES if case.startswith(("efl", "eqfl"))} == {*ORIGINALS, "efl_after2_posneg"}


def scene(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and which elements are positive; one of the positives has target 0."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 40, 5, generator=generator, dtype=torch.float64) * 2 - 2
    index = torch.arange(80)[::4] * 5 + torch.randint(5, (20,), generator=generator)
    mask = torch.zeros(400, dtype=torch.bool).index_fill(0, index, True).view(2, 40, 5)
    targets = torch.rand(2, 40, 5, generator=generator, dtype=torch.float64) * mask
    targets.view(-1)[index[0]] = 0
    return logits.to(dtype).requires_grad_(), targets.to(dtype), mask


def batch_of(logits: Tensor, targets: Tensor, mask: Tensor, selected: bool = True) -> Batch:
    """Return the batch, in whole or with the rows of its positives selected."""
    if not selected:
        return Batch(logits, targets, mask)
    classes = logits.shape[-1]
    rows = mask.view(-1, classes).any(-1).nonzero().squeeze(1)
    return Batch(logits, targets.view(-1, classes)[rows], mask.view(-1, classes)[rows], rows)


def step_of(training: bool = True) -> Step:
    return Step(torch.full((20,), 0.5), None, training)


def trained(name: str, **keys: float) -> Any:
    """A module with a state, which is not 1 in any class."""
    loss = make_cls_loss(name, **keys).double()
    loss.positive_gradient = torch.tensor([5.0, 3.0, 1.0, 0.2, 0.0]).double()  # type: ignore[assignment]
    loss.negative_gradient = torch.tensor([6.0, 9.0, 4.0, 2.0, 1.0]).double()  # type: ignore[assignment]
    return loss


@both
@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize("keys", [{}, {"scale": 4.0}, {"gamma": 0.5, "scale": 0.0}, {"gamma": 1.5}], ids=str)
def test_loss_and_state_of_the_criterion_are_those_of_the_module(
    name: str, selected: bool, keys: dict[str, float]
) -> None:
    logits, targets, mask = scene()
    keys = {f"{name}_{key}": value for key, value in keys.items()}
    fast, slow = trained(name, **keys), trained(name, **keys)
    for _ in range(3):  # the state of one step sets the exponents of the next
        term, _ = fast.per_element(batch_of(logits, targets, mask, selected), step_of())
        elements = slow(logits, targets, positive_mask=mask, reduction_override="none")
        torch.testing.assert_close(term, elements)
        gradients = [torch.autograd.grad(each.sum(), logits)[0] for each in (term, elements)]
        torch.testing.assert_close(*gradients)
        for (_, ours), (_, theirs) in zip(fast.named_buffers(), slow.named_buffers(), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert not torch.equal(fast.positive_gradient, trained(name).positive_gradient)


@both
@pytest.mark.parametrize("selected", [False, True])
def test_state_is_the_absolute_gradient_of_the_sum_by_class(name: str, selected: bool) -> None:
    """That of a positive whose target is 0 is among the positives'."""
    logits, targets, mask = scene()
    loss = make_cls_loss(name).double()
    term, _ = loss.per_element(batch_of(logits, targets, mask, selected), step_of())
    size = torch.autograd.grad(term.sum(), logits)[0].abs()
    torch.testing.assert_close(loss.positive_gradient, (size * mask).sum((0, 1)))
    torch.testing.assert_close(loss.negative_gradient, (size * ~mask).sum((0, 1)))


@both
def test_the_first_step_is_focal_loss(name: str) -> None:
    logits, targets, _ = scene()
    plain = (
        functional.focal_loss(logits, targets, 2.0) if name == "efl" else functional.quality_focal_loss(logits, targets)
    )
    torch.testing.assert_close(make_cls_loss(name)(logits, targets), plain)


@both
def test_a_rare_class_has_the_larger_exponent_so_that_its_easy_negatives_count_less(name: str) -> None:
    logits = torch.full((1, 2), -2.0)
    value = functional.equalized_focal_loss if name == "efl" else functional.equalized_quality_focal_loss
    common, rare = value(logits, torch.zeros(1, 2), torch.tensor([1.0, 0.0]))[0]
    assert rare < 0.01 * common


@both
def test_a_ratio_above_one_counts_as_one(name: str) -> None:
    logits, targets, _ = scene()
    formula = make_cls_loss(name).formula
    assert torch.equal(formula(logits, targets, torch.full((5,), 3.0)), formula(logits, targets, ONES))


def test_the_target_of_what_is_not_positive_is_zero() -> None:
    logits, targets, mask = scene()
    soft = torch.where(mask, targets, 0.3)
    assert torch.equal(eqfl(logits, soft, ONES, positive_mask=mask), eqfl(logits, targets, ONES))
    assert not torch.equal(eqfl(logits, soft, ONES), eqfl(logits, targets, ONES))


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_saturated_logits_are_finite_in_value_gradient_and_state(name: str, dtype: torch.dtype) -> None:
    levels = torch.tensor([-1e4, -100, -88, -30, 0, 30, 88, 100, 1e4])
    for ratio in ([6.0, 0.0], [0.0, 6.0]):
        logits = levels[:, None, None].expand(-1, 2, 2).to(dtype).clone().requires_grad_()
        mask = torch.zeros_like(logits, dtype=torch.bool)
        mask[:, 0, 0] = True
        loss = make_cls_loss(name)
        loss.set_classes(2)
        loss.positive_gradient += torch.tensor(ratio)  # type: ignore[operator]
        loss.negative_gradient += 6  # type: ignore[operator]
        for target in (0.0, 0.5, 1.0):
            targets = torch.where(mask, target, 0.0)
            value, _ = loss.per_element(batch_of(logits, targets, mask), step_of())
            (slope,) = torch.autograd.grad(value.sum(), logits)
            assert value.dtype == torch.float32
            assert value.isfinite().all()
            assert slope.isfinite().all()
        assert all(buffer.isfinite().all() for buffer in loss.buffers())


@both
@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_gradient_is_the_derivative(name: str, gamma: float) -> None:
    logits, targets, _ = scene()
    formula = functools.partial(make_cls_loss(name).formula, gamma=gamma)
    rows, ratio = targets[0, :6].clamp(0, 0.9), torch.tensor([1.0, 0.5, 0.1, 0.0, 0.9])
    assert torch.autograd.gradcheck(lambda z: formula(z, rows, ratio), logits[0, :6].detach().requires_grad_())


@both
def test_state_moves_in_training_alone(name: str) -> None:
    logits, targets, mask = scene(torch.float32)
    loss = make_cls_loss(name)
    loss.per_element(batch_of(logits, targets, mask), step_of(training=False))
    loss.eval()(logits, targets)
    assert not loss.positive_gradient.any()
    loss.train()(logits, targets)
    once = loss.positive_gradient.clone()
    assert (once > 0).all()
    loss.per_element(batch_of(logits, targets, mask), step_of())
    assert loss.positive_gradient.sum() > once.sum()


@both
def test_an_overflowed_batch_does_not_reach_the_state(name: str) -> None:
    logits, targets, mask = scene(torch.float32)
    loss = make_cls_loss(name)
    loss.per_element(batch_of(logits, targets, mask), step_of())
    before = copy.deepcopy(loss.state_dict())
    with torch.no_grad():
        logits[0, 0, 0] = torch.nan
    loss.per_element(batch_of(logits, targets, mask), step_of())
    loss.per_element(batch_of(logits, targets, mask, selected=False), step_of())
    for name_, buffer in loss.state_dict().items():
        assert torch.equal(buffer, before[name_])


@both
def test_elements_of_weight_zero_are_not_collected(name: str) -> None:
    logits, targets, _ = scene(torch.float32)
    whole, some = make_cls_loss(name), make_cls_loss(name)
    weight = torch.zeros(2, 40)
    weight[0] = 1
    whole(logits[:1], targets[:1])
    some(logits, targets, weight)
    torch.testing.assert_close(some.positive_gradient, whole.positive_gradient)
    torch.testing.assert_close(some.negative_gradient, whole.negative_gradient)


@both
def test_a_saved_state_is_taken_up_by_a_new_module(name: str) -> None:
    logits, targets, _ = scene(torch.float32)
    loss, other = make_cls_loss(name), make_cls_loss(name)
    loss(logits, targets)
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(logits, targets), loss(logits, targets))
    again = pickle.loads(pickle.dumps(loss))
    assert torch.equal(again.pos_neg_ratio(5), loss.pos_neg_ratio(5))
    assert (loss.pos_neg_ratio(5) < 1).any()


def test_another_number_of_classes_starts_afresh() -> None:
    loss = make_cls_loss("efl")
    for classes in (3, 4):
        loss(torch.zeros(2, classes, requires_grad=True), torch.tensor([0, classes]))
        assert loss.negative_gradient.shape == (classes,)


@pytest.mark.parametrize("kind", ["v8", "26", "v10"])
@both
def test_the_criterion_has_a_state_per_branch_of_its_classes_before_the_first_batch(name: str, kind: str) -> None:
    branches = equip(criterion_of(kind), {"cls_loss": name})
    assert branches
    states = [branch.cls.positive_gradient for branch in branches.values()]  # type: ignore[union-attr]
    assert all(state.shape == (3,) for state in states)
    assert len({state.data_ptr() for state in states}) == len(states)


@both
def test_the_scale_of_mixed_precision_and_the_gain_have_no_part_in_the_state(name: str) -> None:
    states = []
    for gain in (0.5, 512.0):
        criterion = criterion_of("v8")
        criterion.hyp = copy.copy(criterion.hyp)
        criterion.hyp.cls = gain
        branches = equip(criterion, {"cls_loss": name})
        run(criterion, predictions("v8"), made_up_batch("v8"))
        states.append([*branches[""].cls.buffers()])  # type: ignore[union-attr]
    for one, other in zip(*states, strict=True):
        assert (one > 0).any()
        assert torch.equal(one, other)


@both
def test_a_batch_without_objects_counts_its_negatives(name: str) -> None:
    criterion = criterion_of("v8")
    branches = equip(criterion, {"cls_loss": name})
    batch = made_up_batch("v8")
    empty = {k: v[:0] if k in ("batch_idx", "cls", "bboxes") else v for k, v in batch.items()}
    run(criterion, predictions("v8"), empty)
    loss: Any = branches[""].cls
    assert (loss.negative_gradient > 0).all()
    assert not loss.positive_gradient.any()


@both
def test_rt_detr_refuses_it_by_name(name: str) -> None:
    from ultralytics.models.utils.loss import RTDETRDetectionLoss

    with pytest.raises(ValueError, match=f"'cls_loss={name}' cannot be used with RT-DETR: allowed are stock, "):
        equip(RTDETRDetectionLoss(nc=3), {"cls_loss": name})


@pytest.mark.slow
@both
def test_a_resumed_training_takes_up_the_state(name: str, data: Path, tmp_path: Path) -> None:
    from ultralytics import YOLO

    class Stopped(Exception):  # noqa: N818
        pass

    def stop(trainer: Any) -> None:
        if trainer.epoch == 2:
            raise Stopped

    model = YOLO("yolov8n.yaml")
    model.add_callback("on_train_epoch_start", stop)
    with pytest.raises(Stopped):
        model.train(**{**TINY, "epochs": 3}, data=data, project=tmp_path, name="run", cls_loss=name)
    folder = tmp_path / "run" / "weights"
    saved = torch.load(folder / "yolo_losses_state.pt", weights_only=True)["state"]["/cls"]
    assert saved["negative_gradient"].shape == (3,)
    at_start: list[Tensor] = []

    def look(trainer: Any) -> None:
        loss = trainer.yolo_losses_run.branches[""].cls
        at_start.append(loss.negative_gradient.clone())

    resumed = YOLO(folder / "last.pt")
    resumed.add_callback("on_train_start", look)
    with logged() as messages:
        resumed.train(resume=True)
    assert torch.equal(at_start[0], saved["negative_gradient"])
    assert any("state is that of epoch 2" in message for message in messages)
    after = torch.load(folder / "yolo_losses_state.pt", weights_only=True)["state"]["/cls"]
    assert (after["negative_gradient"] >= saved["negative_gradient"]).all()
    assert after["negative_gradient"].sum() > saved["negative_gradient"].sum()


@pytest.mark.parametrize(("name", "target"), [("efl", "cls_target=hard"), ("eqfl", "cls_target=iou")])
def test_the_assigner_s_scores_as_target_are_warned_of_at_the_start(
    name: str, target: str, data: Path, tmp_path: Path
) -> None:
    from ultralytics import YOLO

    def warnings(**keys: str) -> list[str]:
        with logged() as messages:
            YOLO("yolov8n.yaml").train(data=str(data), project=str(tmp_path), cls_loss=name, **keys, **TINY)
        return [message for message in messages if f"{name}'s authors train it" in message]

    (warning,) = warnings()
    assert f"{target}: toward the assigner's scores a rare class may learn next to nothing" in warning
    assert not warnings(cls_target=target.partition("=")[2])
