"""The mask term in the criteria of segment heads: equal to stock for BCE, scaled, proven, refused elsewhere."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, criterion_of, head, logged, made_up_batch, predictions, run
from torch import Tensor
from ultralytics.utils.loss import v8SegmentationLoss

from yolo_losses import registry
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria import equip
from yolo_losses.integration.criteria.masks import METHOD, MaskPart

LOSSES = [spec.name for spec in registry.specs("seg")]
every_loss = pytest.mark.parametrize("loss", LOSSES)


heads = pytest.mark.parametrize("name", ["v8-seg", "26-seg"])


# Real criteria
def terms(name: str, keys: dict[str, Any], criterion: Any = None, **batch: Any) -> Any:
    criterion = criterion or criterion_of(name)
    equip(criterion, keys)
    return run(criterion, predictions(name), made_up_batch(name, **batch))


@heads
@pytest.mark.parametrize("overlap", [False, True])
def test_bce_by_name_gives_the_stock_terms_and_gradients(name: str, overlap: bool) -> None:
    def criterion() -> Any:
        found = criterion_of(name)
        for each in (found, getattr(found, "one2many", None), getattr(found, "one2one", None)):
            if hasattr(each, "overlap"):
                each.overlap = overlap
        return found

    batch = made_up_batch(name)
    if overlap:  # one map for each image, in which the k-th object has the number k
        order = torch.arange(1, 4).repeat(2)[:, None, None]
        batch["masks"] = (batch["masks"] * order).view(2, 3, *batch["masks"].shape[1:]).amax(1)
    swapped = criterion()
    equip(swapped, {"seg_loss": "bce"})
    stock, ours = (run(each, predictions(name), batch) for each in (criterion(), swapped))
    assert stock[0]["seg_loss"] > 0
    for key, value in stock[0].items():
        assert ours[0][key] == pytest.approx(value, rel=1e-5), key
    torch.testing.assert_close(ours[1], stock[1], rtol=1e-5, atol=1e-6)
    for one, other in zip(ours[2], stock[2], strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * max(other.abs().max().item(), 1e-3))


@heads
@every_loss
def test_the_mask_term_alone_is_another_one(name: str, loss: str) -> None:
    stock, ours = terms(name, {})[0], terms(name, {"seg_loss": loss})[0]
    assert {key for key in stock if ours[key] != pytest.approx(stock[key], rel=1e-5)} <= {"seg_loss"}
    if loss != "bce":
        assert ours["seg_loss"] != pytest.approx(stock["seg_loss"], rel=1e-2)


@heads
@pytest.mark.parametrize("loss", ["stock", "dice"])
def test_seg_scale_multiplies_the_mask_term_alone(name: str, loss: str) -> None:
    plain, scaled = terms(name, {"seg_loss": loss})[0], terms(name, {"seg_loss": loss, "seg_scale": 3})[0]
    assert scaled.pop("seg_loss") == pytest.approx(3 * plain.pop("seg_loss"), rel=1e-5)
    assert scaled == pytest.approx(plain, rel=1e-6)


def test_the_term_is_the_mean_over_the_positives_times_the_gain() -> None:
    """As the module's docstring says: what upstream does with what the part returns."""
    criterion = criterion_of("v8-seg")
    returned: list[Tensor] = []
    equip(criterion, {"seg_loss": "dice"})
    part = criterion.single_mask_loss

    class Looking(MaskPart):
        def __call__(self, *args: Any) -> Tensor:
            returned.append(part(*args))
            return returned[-1]

    criterion.single_mask_loss = Looking(part.stock, part.branch)
    positives: list[int] = []
    assigner = criterion.assigner.stock.forward

    def looking(*args: Any, **kwargs: Any) -> Any:
        assigned = assigner(*args, **kwargs)
        positives.append(int(assigned[3].sum()))
        return assigned

    criterion.assigner.stock.forward = looking
    items, _, _ = run(criterion, predictions("v8-seg"), made_up_batch("v8-seg"))
    mean = sum(float(each.detach()) for each in returned) / positives[0]
    assert 0 < mean < 1
    assert items["seg_loss"] == pytest.approx(criterion.hyp.box * mean, rel=1e-5)


@heads
def test_batches_without_objects_go_on(name: str) -> None:
    criterion = criterion_of(name)
    equip(criterion, {"seg_loss": "dice"})
    batch = made_up_batch(name)
    empty = {k: v[:0] if k in ("batch_idx", "cls", "bboxes", "masks") else v for k, v in batch.items()}
    stock = run(criterion_of(name), predictions(name), empty)[0]
    assert run(criterion, predictions(name), empty)[0] == pytest.approx(stock)


@heads
def test_a_criterion_that_computes_its_masks_by_other_means_is_noticed_in_the_batch(name: str) -> None:
    criterion = criterion_of(name)
    branches = equip(criterion, {"seg_loss": "dice"})
    assert all(branch.expected == ("mask",) for branch in branches.values())
    leaf = getattr(criterion, "one2many", criterion)
    leaf.calculate_segmentation_loss = lambda *args, **kwargs: args[5].sum() * 0
    with pytest.raises(RuntimeError, match=r"computed its mask term without the part for seg_loss=dice"):
        run(criterion, predictions(name), made_up_batch(name))


def test_a_part_that_is_replaced_after_set_up_is_noticed() -> None:
    criterion = criterion_of("v8-seg")
    equip(criterion, {"seg_loss": "dice"})
    criterion.single_mask_loss = v8SegmentationLoss.single_mask_loss
    with pytest.raises(RuntimeError, match=r"computed its mask term without the part for seg_loss=dice"):
        run(criterion, predictions("v8-seg"), made_up_batch("v8-seg"))


@heads
def test_stock_puts_the_stock_method_back(name: str) -> None:
    criterion = criterion_of(name)
    equip(criterion, {"seg_loss": "dice"})
    equip(criterion, {})
    for leaf in (criterion, getattr(criterion, "one2many", None), getattr(criterion, "one2one", None)):
        assert METHOD not in vars(leaf or criterion)
    assert run(criterion, predictions(name), made_up_batch(name))[0] == terms(name, {})[0]


def test_copies_hold_the_part_and_pickles_the_stock_method() -> None:
    criterion = criterion_of("v8-seg")
    equip(criterion, {"seg_loss": "lovasz"})
    wanted = run(criterion, predictions("v8-seg"), made_up_batch("v8-seg"))[0]
    again = copy.deepcopy(criterion)
    assert isinstance(again.single_mask_loss, MaskPart)
    assert run(again, predictions("v8-seg"), made_up_batch("v8-seg"))[0] == wanted
    text = pickle.dumps(criterion)
    assert b"yolo_losses" not in text
    stock = pickle.loads(text)
    assert stock.single_mask_loss is v8SegmentationLoss.single_mask_loss
    assert run(stock, predictions("v8-seg"), made_up_batch("v8-seg"))[0] == pytest.approx(terms("v8-seg", {})[0])


@pytest.mark.parametrize("kind", ["TVPSegmentLoss"])
def test_the_criterion_of_visual_prompts_has_the_part(kind: str) -> None:
    from ultralytics.utils import loss as upstream

    criterion = getattr(upstream, kind)(head("v8-seg"))
    branches = equip(criterion, {"seg_loss": "dice"})
    assert list(branches) == ["vp_criterion"]
    assert isinstance(criterion.vp_criterion.single_mask_loss, MaskPart)
    criterion.ori_nc = 5  # the predictions are of a prompt's classes
    outputs = predictions("v8-seg")
    value, _ = criterion(outputs, made_up_batch("v8-seg"))
    assert value.isfinite()
    assert branches["vp_criterion"].calls == 1


# Settings
@pytest.mark.parametrize("task", ["detect", "pose", "obb"])
@pytest.mark.parametrize(("key", "value"), [("seg_loss", "dice"), ("seg_scale", 2.0)])
def test_other_tasks_refuse_it_by_name(task: str, key: str, value: Any) -> None:
    settings = LossSettings.from_mapping({key: value})
    settings.check_task("segment")
    with pytest.raises(ValueError, match=f"^'{key}={value}' cannot be used in the task '{task}': allowed is segment$"):
        settings.check_task(task)


@pytest.mark.parametrize("name", ["v8", "v10", "v8-pose", "v8-obb"])
def test_criteria_without_masks_refuse_it_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"^'seg_loss=dice' cannot be used with \w+, which has no mask term"):
        equip(criterion_of(name), {"seg_loss": "dice"})


@pytest.mark.parametrize(("key", "value"), [("seg_loss", "dice"), ("seg_scale", 2.0)])
def test_rt_detr_refuses_it_by_name(key: str, value: Any) -> None:
    from ultralytics.models.utils.loss import RTDETRDetectionLoss

    with pytest.raises(ValueError, match=f"'{key}={value}' cannot be used with RT-DETR, which predicts no masks"):
        equip(RTDETRDetectionLoss(nc=3), {key: value})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"seg_loss": "dise"}, "Did you mean 'dice'"),
        ({"seg_loss": "ciou"}, "'ciou' is a box loss, box_loss=ciou"),
        ({"seg_loss": "vfl"}, "'vfl' is a class loss, cls_loss=vfl"),
        ({"cls_loss": "dice"}, "'dice' is a mask loss, seg_loss=dice"),
        ({"box_loss": "lovasz"}, "'lovasz' is a mask loss, seg_loss=lovasz"),
        ({"seg_loss": "dice", "seg_scale": 0}, "'seg_scale=0' is not valid: allowed is a number > 0"),
        ({"seg_loss": "dice", "seg_dice_smooth": -1}, "'seg_dice_smooth=-1' is not valid: allowed is a number >= 0"),
        ({"seg_dice_smooth": 2}, "would change nothing"),
    ],
)
def test_what_cannot_be_is_refused_early(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LossSettings.from_mapping(keys)


def test_settings_are_described_and_pinned() -> None:
    settings = LossSettings.from_mapping({"seg_loss": "Dice-Loss", "seg_scale": "2"})
    assert settings.non_default() == {"seg_loss": "dice", "seg_scale": 2.0}
    assert settings.to_config() == {"seg_loss": "dice", "seg_scale": 2.0, "seg_dice_smooth": 1.0}
    assert settings.describe() == "cls=stock box=stock dfl=stock seg=dice(seg_dice_smooth=1, scale=2)"
    assert LossSettings.from_mapping(settings.to_config()) == settings
    assert LossSettings.from_mapping({"seg_loss": "stock", "seg_scale": 1}).swaps_nothing


@pytest.mark.slow
@pytest.mark.parametrize("model", ["yolov8n-seg.yaml", "yolo26n-seg.yaml"])
def test_a_training_says_that_the_mask_term_ran(model: str, datasets: Any, tmp_path: Path) -> None:
    from ultralytics import YOLO

    with logged() as messages:
        YOLO(model).train(**TINY, data=datasets("segment"), project=tmp_path, name="run", seg_loss="tversky")
    words = "seg_loss=tversky TverskyLoss(alpha=0.3, beta=0.7, smooth=1.0, gamma=1.0)"
    assert any(words in message for message in messages)
    assert any("ran in the first batch with objects" in message and "mask" in message for message in messages)
    arguments = (tmp_path / "run" / "args.yaml").read_text()
    assert "seg_tversky_alpha: 0.3" in arguments
