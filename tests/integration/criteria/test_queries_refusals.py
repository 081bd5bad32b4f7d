"""RT-DETR: copies and pickles of its criterion, and what is refused."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import start_without_plugin
from tiny_detr import TRAIN, equipped, given, stock_criterion, write_model
from ultralytics.models.rtdetr.train import RTDETRTrainer

from yolo_losses import equip
from yolo_losses.integration.criteria.parts import Part


def test_class_weights_are_refused_where_they_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^'cls_weights=\[1.0, 2.0\]' is not valid: [^\n]*classes, 3$"):
        equipped(cls_weights=[1, 2])
    with pytest.raises(ValueError, match=r"^'cls_weights=balanced' needs the labels of the training set"):
        equipped(cls_weights="balanced")


def test_losses_are_no_part_of_the_model_s_weights() -> None:
    criterion = equipped(box_loss="wiou", cls_loss="mal")
    assert not criterion.state_dict()
    assert not list(criterion.parameters())


def test_deep_copy_is_equipped_and_its_own() -> None:
    _, call = given()
    criterion = equipped(cls_loss="mal", box_loss="siou")
    twin = copy.deepcopy(criterion)
    criterion.loss_gain["giou"] = 20
    torch.testing.assert_close(call(criterion)["loss_giou"], 10 * call(twin)["loss_giou"])
    assert call(twin)["loss_class"] == call(criterion)["loss_class"]
    assert twin.branches[""] is criterion.branches[""]


@pytest.mark.slow
def test_pickle_is_stock_and_loads_without_this_package(tmp_path: Path) -> None:
    _, call = given()
    expected = call(stock_criterion())
    criterion = equipped(cls_loss="mal", box_loss="wiou")
    del criterion.branches
    path = tmp_path / "criterion.pt"
    torch.save(criterion, path)
    pickled = io.BytesIO(pickle.dumps(criterion))
    loaded = pickle.load(pickled)
    assert not [part for part in vars(loaded).values() if isinstance(part, Part)]
    for again in (loaded, copy.deepcopy(loaded)):
        for name, value in call(again).items():
            assert torch.equal(value, expected[name])
    equip(loaded, {"cls_loss": "mal"})
    assert not torch.equal(call(loaded)["loss_class"], expected["loss_class"])
    code = "import torch; print(type(torch.load(sys.argv[1], weights_only=False).vfl).__module__)"
    assert "ultralytics.utils.loss" in start_without_plugin(code, str(path))().check().text


def test_default_keys_put_the_stock_parts_back() -> None:
    _, call = given()
    criterion = equipped(cls_loss="mal", box_loss="ciou")
    assert equip(criterion, {}) == {}
    assert "forward" not in vars(criterion)
    expected = call(stock_criterion())
    for name, value in call(criterion).items():
        assert torch.equal(value, expected[name])
    assert [name for name, _ in criterion.named_children()] == [n for n, _ in stock_criterion().named_children()]


REFUSED = [
    ({"cls_loss": "slide"}, "'cls_loss=slide'", "bce, "),
    ({"cls_loss": "emaslide"}, "'cls_loss=ema_slide'", "mal"),
    ({"cls_loss": "ghm"}, "'cls_loss=ghm'", "qfl"),
    ({"cls_loss": "mal", "cls_target": "tal"}, "'cls_target=tal'", "allowed are auto, iou"),
    ({"cls_target": "iou"}, "'cls_target=iou'", "change nothing"),
    ({"dfl_loss": "dfl"}, "'dfl_loss=dfl'", "allowed is stock"),
    ({"dfl_loss": "off"}, "'dfl_loss=off'", "allowed is stock"),
    ({"cls_loss": "mal", "loss_branches": "one2one"}, "'loss_branches=one2one'", "allowed is both"),
    ({"box_loss": "probiou"}, "'box_loss=probiou'", "axis-aligned"),
]


@pytest.mark.parametrize(("keys", "names", "allowed"), REFUSED)
def test_what_makes_no_sense_is_refused_by_name(keys: dict[str, Any], names: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=r"^'") as caught:
        equip(stock_criterion(), keys)
    message = str(caught.value)
    assert message.startswith(names)
    assert allowed in message
    assert "\n" not in message


@pytest.mark.parametrize(("keys", "names", "allowed"), REFUSED)
def test_trainer_refuses_before_anything_is_written(
    tmp_path: Path, data: Path, keys: dict[str, Any], names: str, allowed: str
) -> None:
    overrides = {
        **TRAIN,
        **keys,
        "model": str(write_model(tmp_path)),
        "data": str(data),
        "project": str(tmp_path / "runs"),
    }
    with pytest.raises(ValueError, match=r"^'") as caught:
        RTDETRTrainer(overrides=overrides)
    assert str(caught.value).startswith(names)
    assert allowed in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_loss_in_pixels_needs_the_image_s_size() -> None:
    with pytest.raises(ValueError, match=r"^'box_loss=inner_nwd' counts in pixels.*image_size"):
        equip(stock_criterion(), {"box_loss": "inner_nwd"})


def test_missing_part_is_named() -> None:
    criterion = stock_criterion()
    del criterion.vfl
    with pytest.raises(RuntimeError, match="RTDETRDetectionLoss has no 'vfl'"):
        equip(criterion, {"cls_loss": "mal"})


def test_part_that_is_never_called_is_an_error() -> None:
    _, call = given()
    criterion = equipped(cls_loss="mal")
    criterion._get_loss_class = lambda scores, labels, iou, count, postfix="": {f"loss_class{postfix}": scores.sum()}
    with pytest.raises(
        RuntimeError, match="RTDETRDetectionLoss computed its class term without the part for cls_loss=mal"
    ):
        call(criterion)


def test_rt_detr_refuses_an_angle_loss() -> None:
    with pytest.raises(ValueError, match=r"^'angle_loss=cos2' cannot be used with RT-DETR, which predicts no angles"):
        equipped(angle_loss="cos2")
