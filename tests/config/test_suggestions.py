"""Hints for unknown names and keys: names of other code bases come before similar spellings."""

from __future__ import annotations

import re
from typing import Any

import pytest

from yolo_losses import registry
from yolo_losses.config.settings import LossSettings, hint_for_unknown_key
from yolo_losses.config.suggestions import LOSS_KEYS, PARAMETERS
from yolo_losses.registry import other_names


@pytest.mark.parametrize("name", other_names.CHOICES)
def test_what_a_name_means_elsewhere_is_a_valid_choice_here(name: str) -> None:
    for choice in other_names.CHOICES[name]:
        key, _, value = choice.partition("=")
        assert LossSettings.from_mapping({key: value}).to_config()[key] == value
    assert all(registry.find(kind, name) is None for kind in registry.TERM_KEYS)


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("cls_loss", "gfl", "'cls_loss=qfl'"),
        ("cls_loss", "sigmoid_focal", "'cls_loss=focal'"),
        ("cls_loss", "DFL", "'dfl_loss=dfl'"),
        ("cls_loss", "BCEWithLogitsLoss", "'cls_loss=bce'"),
        ("cls_loss", "ClassBalanced", "'cls_weights=balanced'"),
        ("box_loss", "GDLoss", "'box_loss=gwd' or 'box_loss=kld'"),
        ("box_loss", "GDLoss_v1", "'box_loss=gwd' or 'box_loss=kld'"),
        ("cls_loss", "KFLoss", "'box_loss=kfiou'"),
        ("box_loss", "SIoU_inner", "'inner_siou'"),
        ("box_loss", "ciou_inner_focaler", "'inner_focaler_ciou'"),
        ("cls_loss", "slid", "'slide'"),
    ],
)
def test_an_unknown_loss_is_answered_with_what_it_means(key: str, value: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"^'{key}={value}' is not valid: .*{re.escape(f' Did you mean {meant}?')}$"):
        LossSettings.from_mapping({key: value})


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        ({"fl_gamma": 1.5}, " Did you mean 'cls_loss=focal focal_gamma=1.5'?"),
        ({"iou_type": "siou"}, " Did you mean 'box_loss=siou'?"),
        ({"loss": "SIoU"}, " Did you mean 'box_loss=siou'?"),
        ({"loss": "focal"}, " Did you mean 'cls_loss=focal'?"),
        ({"loss": "gfl"}, " Did you mean 'cls_loss=qfl'?"),
        ({"loss": "inner-siou"}, " Did you mean 'box_loss=inner_siou'?"),
        ({"loss": "mine"}, " The loss is chosen by cls_loss, box_loss or seg_loss."),
        ({"gamma": 2, "cls_loss": "focal"}, " Did you mean 'focal_gamma=2'?"),
        ({"ratio": 0.8, "box_loss": "inner_siou"}, " Did you mean 'inner_ratio=0.8'?"),
        (
            {"ratio": 0.8, "cls_loss": "nonsense"},
            " The key of a parameter includes the name of its loss: inner_ratio, nwd_ratio, seg_bce_dice_ratio,"
            " sem_bce_dice_ratio.",
        ),
        ({"pos_weight": 2}, " Did you mean 'cls_weights'?"),
        ({"class_weights": [1, 2]}, " Did you mean 'cls_weights'?"),
        ({"siou": True}, " Did you mean 'box_loss=siou'?"),
        ({"slide": ""}, " Did you mean 'cls_loss=slide'?"),
        ({"cls_los": "slide"}, " Did you mean 'cls_loss'?"),
        ({"slide_width": 3}, " The parameters of 'slide' are slide_delta, slide_min_iou."),
        ({"epocs": 3}, ""),
        ({"flipping": 0.5}, ""),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_an_unknown_key_is_answered_with_what_it_means(keys: dict[str, Any], hint: str) -> None:
    from ultralytics.utils import DEFAULT_CFG_DICT

    found = hint_for_unknown_key(next(iter(keys)), keys, DEFAULT_CFG_DICT)
    assert found == hint or set(re.findall(r"\w+", found)) == set(re.findall(r"\w+", hint))


def test_no_key_of_others_is_one_of_ours() -> None:
    from ultralytics.cfg import DEFAULT_CFG_DICT  # loaded by now, and with it this package's keys

    assert not (LOSS_KEYS | PARAMETERS.keys()) & DEFAULT_CFG_DICT.keys()
    assert {registry.key_prefix("cls", "focal") + "gamma", *PARAMETERS.values()} <= DEFAULT_CFG_DICT.keys()
