"""A training key is declared once: parsing, defaults, messages and the tasks that it is for follow from it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from yolo_losses import registry
from yolo_losses.config import renaming, settings
from yolo_losses.config.keys import Key, LossKey
from yolo_losses.config.settings import KEYS, LossSettings
from yolo_losses.registry import KINDS, InvalidValueError, LossSpec
from yolo_losses.registry.parameters import Param, Parameter
from yolo_losses.registry.specification import TERM_PREFIXES


def declared(key: Key) -> Any:
    return field(default=key.default, metadata={"key": key})


@dataclass(frozen=True)
class MoreSettings(LossSettings):
    """Settings with keys of three terms more."""

    depth_loss: str = declared(LossKey("depth", words=("sin2", "cos2", "off"), tasks=("obb",)))
    tal_topk: int | str = declared(Key("assigner", int, "stock", Param(low=1, words=("stock",))))
    tal_overlap: str = declared(Key("assigner", str, "stock", Param(words=("stock", "iou", "nwd"))))
    cls_smoothing: float = declared(Key("class", float, 0.0, Param(low=0, below=1), tasks=("classify",)))


@pytest.fixture
def more(monkeypatch: pytest.MonkeyPatch) -> type[MoreSettings]:
    keys = MappingProxyType({f.name: f.metadata["key"] for f in fields(MoreSettings) if "key" in f.metadata})
    monkeypatch.setattr(settings, "KEYS", keys)
    return MoreSettings


@pytest.mark.parametrize("name", KEYS)
def test_the_default_parses_to_itself_and_changes_nothing(name: str) -> None:
    key = KEYS[name]
    assert key.parse(name, key.default, "") == key.default
    assert LossSettings.from_mapping({name: key.default}) == LossSettings()
    assert name in LossSettings.__annotations__


@pytest.mark.parametrize("name", KEYS)
def test_a_refusal_names_key_value_and_what_is_allowed(name: str) -> None:
    with pytest.raises(InvalidValueError, match=rf"^'{name}=nonsense' is not valid: allowed (is|are) ") as error:
        LossSettings.from_mapping({name: "nonsense"})
    assert error.value.key == name


@pytest.mark.parametrize("name", KEYS)
def test_none_is_the_default_unless_off_may_be_meant(name: str) -> None:
    for none in (None, "none", " NONE "):
        if "off" in getattr(KEYS[name], "words", ()):
            with pytest.raises(InvalidValueError, match=f"^'{name}=none' is ambiguous: use {name}=off for no "):
                LossSettings.from_mapping({name: none})
        else:
            assert LossSettings.from_mapping({name: none}) == LossSettings()


def test_every_key_starts_with_a_reserved_prefix() -> None:
    assert all(name.startswith(TERM_PREFIXES) for name in KEYS)
    assert all(kind.prefix in ("", *TERM_PREFIXES) for kind in KINDS.values())


def test_a_new_term_follows_from_its_declaration(more: type[MoreSettings]) -> None:
    chosen = more.from_mapping({"depth_loss": "COS2", "tal_topk": 13.0, "tal_beta": 2})
    assert set(chosen.terms) == {"depth", "assigner"}
    assert chosen.to_config() == {"depth_loss": "cos2", "tal_topk": 13, "tal_beta": 2}
    assert chosen.describe() == "cls=stock box=stock dfl=stock tal(topk=13, beta=2) depth=cos2"
    chosen.check_task("obb")
    with pytest.raises(ValueError, match=r"^'depth_loss=cos2' cannot be used in the task 'detect': allowed is obb$"):
        chosen.check_task("detect")
    assert more.from_mapping({"depth_loss": False}).depth_loss == "off"
    assert more.from_mapping({"tal_topk": None}).swaps_nothing


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"depth_loss": "none"}, "'depth_loss=none' is ambiguous: use depth_loss=off for no depth term, or "),
        (
            {"depth_loss": "cos"},
            "'depth_loss=cos' is not valid: allowed are stock, sin2, cos2, off. Did you mean 'cos2'?",
        ),
        ({"tal_topk": 0}, "'tal_topk=0' is not valid: allowed is an integer >= 1, or stock (default stock)"),
        ({"tal_topk": 1.5}, "'tal_topk=1.5' is not valid: allowed is an integer >= 1, or stock"),
        ({"tal_overlap": "nwdd"}, "'tal_overlap=nwdd' is not valid: allowed are stock, iou, nwd (default stock)"),
        ({"cls_smoothing": 1}, "'cls_smoothing=1' is not valid: allowed is a number >= 0 and < 1 (default 0.0)"),
    ],
)
def test_the_values_of_a_new_term_are_checked(more: type[MoreSettings], keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match="^" + re.escape(message)):
        more.from_mapping(keys)


# ------------------------------------------------------------------------------------------------ the task classify

GAMMA = Parameter("focal_gamma", "gamma", float, 1.5, Param())


def classify_loss(name: str, *parameters: Parameter) -> LossSpec:
    return LossSpec(name, "classify", torch.nn.Module, (), "", "a loss for tests", parameters)


@pytest.mark.parametrize(("keys", "words"), [({}, ""), ({"cls_target": "hard"}, ", target=hard")])
def test_a_target_is_described_where_it_is_chosen(keys: dict[str, str], words: str) -> None:
    # That of `auto` is the head's: RT-DETR's is the IoU.
    settings = LossSettings.from_mapping({"cls_loss": "vfl", **keys})
    assert settings.describe().endswith(f"vfl_detach_weight=False{words}) box=stock dfl=stock")


def test_the_loss_of_a_name_is_that_of_the_task() -> None:
    of_boxes = LossSettings.from_arguments({"cls_loss": "focal", "task": "detect"})
    of_images = LossSettings.from_arguments({"cls_loss": "focal", "task": "classify", "focal_gamma": 3})
    assert of_boxes.to_config() == {"cls_loss": "focal", "focal_gamma": 1.5, "focal_alpha": 0.25}
    assert of_images.to_config() == {"cls_loss": "focal", "focal_gamma": 3.0}
    assert of_images.describe() == "cls=focal(focal_gamma=3)"
    of_images.check_task("classify")
    assert LossSettings.from_mapping({"cls_loss": "ce"}, "classify").cls_loss == "ce"
    with pytest.raises(ValueError, match=r"^'cls_loss=ce' is not valid: 'ce' is a loss of the task classify"):
        LossSettings.from_mapping({"cls_loss": "ce"})
    with pytest.raises(ValueError, match=r"^'cls_loss=slide' is not valid: 'slide' is a class loss"):
        LossSettings.from_mapping({"cls_loss": "slide"}, "classify")


def test_a_shared_key_stays_as_long_as_one_of_its_losses() -> None:
    before = registry.snapshot()
    registry.remove("classify", "focal")
    try:
        assert "focal_gamma" in settings.default_keys()
    finally:
        registry.restore(before)


def test_a_key_is_shared_only_with_the_same_declaration_under_the_same_training_key() -> None:
    with pytest.raises(ValueError, match="registered as 'focal_gamma'"):
        registry.add(classify_loss("wave", GAMMA))
    slide = registry.find("cls", "slide")
    assert slide is not None
    box = LossSpec("slide", "box", torch.nn.Module, (), "", "a loss for tests", slide.parameters)
    with pytest.raises(ValueError, match="registered as 'slide_delta'"):
        registry.add(box)


@pytest.mark.parametrize("name", ["seg_wave", "pose_wave", "tal_wave"])
def test_a_loss_of_a_third_party_does_not_start_like_the_keys_of_a_term(name: str) -> None:
    for kind in ("cls", "box"):
        spec = LossSpec(name, kind, torch.nn.Module, (), "", "a loss for tests", (), built_in=False)
        with pytest.raises(ValueError, match=f"^the loss '{name}' cannot be registered: '{name}' starts with '"):
            registry.add(spec)
        parameter = Parameter("dice_wave", "wave", float, 1.0, Param())
        spec = LossSpec("dice", kind, torch.nn.Module, (), "", "a loss for tests", (parameter,), built_in=False)
        with pytest.raises(ValueError, match="'dice_wave' starts with 'dice_'"):
            registry.add(spec)


# ------------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ({"cls_loss": "focal", "focal_gamma": 1e39}, "1e+39"),
        ({"cls_scale": 1e39}, "1e+39"),
        ({"cls_scale": 1e-46}, "1e-46"),
        ({"cls_weights": [1e-46, 1, 1]}, "[1e-46, 1, 1]"),
        ({"cls_weights": {"a": 1e39}}, "{'a': 1e+39}"),
    ],
)
def test_numbers_are_checked_in_the_float32_in_which_they_are_used(keys: dict[str, Any], shown: str) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(f"={shown}' is not valid: allowed ")):
        LossSettings.from_mapping(keys)


@pytest.mark.parametrize("number", [np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2), torch.tensor(2.0)])
def test_scalars_of_numpy_and_torch_are_numbers(number: Any) -> None:
    assert LossSettings.from_mapping({"cls_scale": number}).cls_scale == 2
    assert LossSettings.from_mapping({"cls_weights": [number, 1]}).cls_weights == (2, 1)


@pytest.mark.parametrize("true", [np.bool_(True), torch.tensor(True), np.array(1), "yes", 1.0])
def test_scalars_of_numpy_and_torch_are_booleans(true: Any) -> None:
    assert LossSettings.from_mapping({"loss_stats": true}).loss_stats is True


def test_a_refusal_names_the_key_as_the_trainer_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renaming, "_renamed", {"cls_loss", "slide_delta"})
    for key, value in (("cls_loss", "slid"), ("slide_delta", 5)):
        arguments = {"yl_cls_loss": "slide", f"yl_{key}": value}
        with pytest.raises(InvalidValueError, match=f"^'yl_{key}={value}' is not valid: allowed"):
            LossSettings.from_arguments(arguments)
