"""The term of YOLO26's auxiliary masks: `bce_dice` is stock, the others by hand; refused where there is none."""

from __future__ import annotations

import copy
import csv
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from anchor_criteria import assert_equal, terms_and_gradients
from conftest import TINY, criterion_of, head, logged, made_up_batch, predictions, tensors
from torch import Tensor

from yolo_losses import registry
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria import equip
from yolo_losses.integration.criteria.semantic_mask_part import SemanticMaskPart, check_head
from yolo_losses.integration.equipment import Equipment

upstream = pytest.importorskip("ultralytics.utils.loss")
pytestmark = pytest.mark.skipif(not hasattr(upstream, "BCEDiceLoss"), reason="this Ultralytics has no auxiliary masks")
every_loss = pytest.mark.parametrize("loss", [*(spec.name for spec in registry.specs("sem")), "off"])


def outputs() -> dict[str, Any]:
    """The outputs of a head, its auxiliary masks trained by the one-to-many branch alone."""
    found = predictions("26-seg")
    for name, branch in found.items():
        proto, semantic = branch["proto"]
        generator = torch.Generator().manual_seed(5)
        semantic = torch.randn(semantic.shape, generator=generator)
        if name == "one2many":
            branch["semantic"] = semantic.requires_grad_()  # where `tensors` finds it
        branch["proto"] = (proto, semantic)
    return found


def batch_of(side: int = 16) -> dict[str, Any]:
    batch = made_up_batch("26-seg")
    generator = torch.Generator().manual_seed(2)
    batch["masks"] = (torch.rand(6, side, side, generator=generator) > 0.6).float()
    batch["sem_masks"] = torch.randint(3, (2, side, side), generator=generator)
    return batch


def run(criterion: Any, batch: dict[str, Any] | None = None) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Return the logged terms in their order, the loss, and its gradients by the head's outputs."""
    return terms_and_gradients(criterion, outputs(), batch or batch_of())


def run_with(keys: dict[str, Any], batch: dict[str, Any] | None = None) -> Any:
    criterion = criterion_of("26-seg")
    equip(criterion, keys)
    return run(criterion, batch)


@pytest.mark.parametrize("side", [16, 8, 12])  # 16 is that of the predictions
def test_bce_dice_is_the_stock_term_in_the_whole_criterion(side: int) -> None:
    assert_equal(run_with({"sem_loss": "bce_dice"}, batch_of(side)), run_with({}, batch_of(side)))


def test_the_stock_term_is_trained_here() -> None:
    given = outputs()
    index = next(i for i, leaf in enumerate(tensors(given)) if leaf is given["one2many"]["semantic"])
    assert run_with({})[2][index].abs().sum() > 0
    assert run_with({"sem_loss": "off"})[2][index].abs().sum() == 0


def by_hand(loss: str, z: Tensor, t: Tensor) -> float:
    """The mean of a loss over the masks of images and classes, one at a time."""
    found = []
    for image in range(len(z)):
        for label in range(z.shape[1]):
            logit, target = z[image, label].double(), t[image, label].double()
            step = len(target) // len(logit)  # upstream's targets may be larger
            target = target[::step, ::step]
            p = logit.sigmoid()
            p_t = p * target + (1 - p) * (1 - target)
            bce = -p_t.log()
            tp, fp, fn = (p * target).sum(), (p * (1 - target)).sum(), ((1 - p) * target).sum()
            value = {
                "bce": bce.mean(),
                "dice": 1 - (2 * tp + 1) / (2 * tp + fp + fn + 1),
                "focal": ((0.25 * target + 0.75 * (1 - target)) * (1 - p_t) ** 1.5 * bce).mean(),
                "tversky": 1 - (tp + 1) / (tp + 0.3 * fp + 0.7 * fn + 1),
            }[loss]
            found.append(float(value))
    return sum(found) / len(found)


@pytest.mark.parametrize("loss", ["bce", "dice", "focal", "tversky"])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_other_losses_are_worked_out_by_hand(loss: str, scale: float) -> None:
    criterion, seen = criterion_of("26-seg"), []
    stock = criterion.one2one.bcedice_loss
    criterion.one2one.bcedice_loss = lambda z, t: seen.append((z.detach(), t)) or stock(z, t)
    run(criterion)
    terms = run_with({"sem_loss": loss, "sem_scale": scale})[0]
    assert float(terms[4]) == pytest.approx(criterion.one2one.hyp.box * scale * by_hand(loss, *seen[0]), rel=1e-5)


@every_loss
def test_its_own_term_alone_is_another_one(loss: str) -> None:
    stock, ours = run_with({})[0], run_with({"sem_loss": loss})[0]
    changed = (~torch.isclose(ours, stock, rtol=1e-5)).nonzero().view(-1).tolist()
    assert changed == ([] if loss == "bce_dice" else [4])


def test_scale_multiplies_the_stock_term() -> None:
    stock, scaled = run_with({})[0], run_with({"sem_scale": 3})[0]
    assert float(scaled[4]) == pytest.approx(3 * float(stock[4]), rel=1e-6)


@every_loss
def test_images_without_masks_and_batches_without_objects_are_finite(loss: str) -> None:
    batch = batch_of()
    batch["masks"].zero_()
    empty = {k: v[:0] if k in ("batch_idx", "cls", "bboxes", "masks") else v for k, v in batch.items()}
    for each in (batch, empty):
        terms, value, gradients = run_with({"sem_loss": loss, "sem_scale": 2}, each)
        assert terms.isfinite().all()
        assert value.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)


@every_loss
def test_the_term_is_proven_and_the_branch_without_gradient_says_so(loss: str) -> None:
    criterion = criterion_of("26-seg")
    branches = equip(criterion, {"sem_loss": loss})
    run(criterion)
    assert {path: branch.calls for path, branch in branches.items()} == {"one2many": 1, "one2one": 1}
    assert branches["one2many"].ledger.untrained == ()
    assert branches["one2one"].ledger.untrained == ("sem",)


def test_copies_hold_the_part_and_pickles_the_stock_one() -> None:
    criterion = criterion_of("26-seg")
    equip(criterion, {"sem_loss": "dice"})
    wanted = run(criterion)
    again = copy.deepcopy(criterion)
    assert isinstance(again.one2many.bcedice_loss, SemanticMaskPart)
    assert_equal(run(again), wanted)
    text = pickle.dumps(criterion)
    assert b"yolo_losses" not in text
    assert_equal(run(pickle.loads(text)), run_with({}))


def test_stock_puts_the_stock_part_back() -> None:
    criterion = criterion_of("26-seg")
    before = [dict(vars(leaf)) for leaf in (criterion.one2many, criterion.one2one)]
    equip(criterion, {"sem_loss": "dice"})
    equip(criterion, {})
    assert [dict(vars(leaf)) for leaf in (criterion.one2many, criterion.one2one)] == before


def test_a_part_that_is_replaced_after_set_up_is_noticed() -> None:
    criterion = criterion_of("26-seg")
    equip(criterion, {"sem_loss": "dice"})
    criterion.one2many.bcedice_loss = upstream.BCEDiceLoss()
    with pytest.raises(RuntimeError, match="computed its sem term without the part for sem_loss=dice"):
        run(criterion)


# Refusals


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"sem_loss": "lovasz"}, "'lovasz' is a mask loss, seg_loss=lovasz"),
        ({"sem_loss": "dise"}, r"Did you mean 'dice'\?$"),
        ({"sem_loss": "none"}, "^'sem_loss=none' is ambiguous: use sem_loss=off for no sem term, or sem_loss=stock"),
        ({"sem_scale": 0}, "^'sem_scale=0' is not valid: allowed is a number > 0"),
        (
            {"sem_loss": "tversky", "sem_tversky_gamma": 0},
            "^'sem_tversky_gamma=0' is not valid: allowed is a number > 0",
        ),
        ({"sem_focal_gamma": 2}, "would change nothing.*such as sem_loss=focal"),
        (
            {"sem_loss": "dice", "loss_branches": "one2one"},
            "^'loss_branches=one2one' leaves no gradient to the term of sem_loss and sem_scale: allowed are both",
        ),
    ],
)
def test_what_cannot_be_is_refused_early(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LossSettings.from_mapping(keys)


def test_yaml_writes_off_as_false() -> None:
    settings = LossSettings.from_mapping({"sem_loss": False})
    assert settings.to_config() == {"sem_loss": "off"}


KEYS = [("sem_loss", "dice"), ("sem_scale", 2.0)]


@pytest.mark.parametrize("task", ["detect", "pose", "obb", "classify"])
@pytest.mark.parametrize(("key", "value"), KEYS)
def test_other_tasks_refuse_it_by_name(task: str, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^'{key}={value}' cannot be used in the task '{task}': allowed is segment$"):
        LossSettings.from_mapping({key: value}).check_task(task)


@pytest.mark.parametrize("name", ["v8", "v8-pose", "26"])
@pytest.mark.parametrize(("key", "value"), KEYS)
def test_criteria_without_masks_refuse_it_by_name(name: str, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^'{key}={value}' cannot be used with \w+, which has no sem term: allowed"):
        equip(criterion_of(name), {key: value})


@pytest.mark.parametrize(("key", "value"), KEYS)
def test_segment_heads_without_auxiliary_masks_refuse_it_by_name(key: str, value: Any) -> None:
    """Their criterion has the part, and never calls it."""
    settings = LossSettings.from_mapping({key: value})
    words = rf"^'{key}={value}' cannot be used with Segment, which has no sem term: allowed are sem_loss=stock and"
    with pytest.raises(ValueError, match=words):
        Equipment(head("v8-seg"), settings, (), 64)
    Equipment(head("26-seg"), settings, (), 64)


def test_rt_detr_refuses_it_by_name() -> None:
    from ultralytics.models.utils.loss import RTDETRDetectionLoss

    with pytest.raises(ValueError, match="'sem_loss=off' cannot be used with RT-DETR, which predicts no masks"):
        equip(RTDETRDetectionLoss(nc=3), {"sem_loss": "off"})


def test_yoloe_leaves_the_layer_out() -> None:
    from ultralytics.nn.tasks import YOLOESegModel

    try:
        model = YOLOESegModel("yoloe-26n-seg.yaml", nc=3, verbose=False)
    except FileNotFoundError:
        pytest.skip("this Ultralytics has no YOLOE-26")
    with pytest.raises(ValueError, match=r"^'sem_loss=dice' cannot be used with \w+, which has no sem term"):
        check_head(model, LossSettings.from_mapping({"sem_loss": "dice"}))


# Trainings


@pytest.mark.slow
def test_a_training_says_that_the_term_ran(datasets: Any, tmp_path: Path) -> None:
    from ultralytics import YOLO

    keys = {"sem_loss": "tversky", "sem_scale": 0.5, "loss_stats": True}
    with logged() as messages:
        YOLO("yolo26n-seg.yaml").train(**TINY, data=datasets("segment"), project=tmp_path, name="run", **keys)
    start = next(message for message in messages if "equipped for" in message)
    assert "sem_loss=tversky AuxiliaryTverskyLoss(alpha=0.3, beta=0.7, smooth=1.0, gamma=1.0), times 0.5" in start
    proof = next(message for message in messages if "ran in the first batch with objects" in message)
    assert "one2many sem; one2one sem (not trained here)" in proof
    assert "sem_tversky_alpha: 0.3" in (tmp_path / "run" / "args.yaml").read_text()
    with (tmp_path / "run" / "loss_stats.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["one2many/share/sem"]) > 0


@pytest.mark.slow
def test_a_training_of_a_head_without_auxiliary_masks_is_refused(datasets: Any, tmp_path: Path) -> None:
    from ultralytics import YOLO

    with pytest.raises(ValueError, match=r"^'sem_loss=dice' cannot be used with Segment, which has no sem term"):
        YOLO("yolov8n-seg.yaml").train(**TINY, data=datasets("segment"), project=tmp_path, name="run", sem_loss="dice")
    assert not (tmp_path / "run" / "results.csv").exists()
