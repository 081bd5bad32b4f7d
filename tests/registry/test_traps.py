"""Losses that are left out are refused by name, with a choice that exists and a page that has a section on them."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

from yolo_losses import registry
from yolo_losses.config.settings import LossSettings
from yolo_losses.registry.left_out import PAGE, TRAPS, Trap

SECTIONS = re.findall(r"^## (\w+)$", (ROOT / "docs" / "traps.md").read_text(), flags=re.MULTILINE)

every_trap = pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)


@every_trap
def test_the_choice_in_its_place_is_one_that_can_be_made(trap: Trap) -> None:
    key, _, value = trap.instead.partition("=")
    assert LossSettings.from_mapping({key: value}).non_default()[key] == value


@every_trap
def test_no_loss_has_its_name(trap: Trap) -> None:
    for name in (trap.name, *trap.aliases):
        for kind in ("cls", "box", "seg"):
            assert registry.find(kind, name) is None  # type: ignore[arg-type]


def test_the_page_has_a_section_on_each() -> None:
    assert sorted(SECTIONS) == sorted(trap.name for trap in TRAPS)


@every_trap
@pytest.mark.parametrize("key", ["cls_loss", "box_loss", "seg_loss"])
def test_every_spelling_is_refused_on_one_line_that_names_choice_and_page(trap: Trap, key: str) -> None:
    for name in (trap.name, *trap.aliases):
        kind = key.partition("_")[0]
        error = registry.unknown_box_loss(name) if kind == "box" else registry.unknown_loss(kind, name)  # type: ignore[arg-type]
        line = str(error)
        assert line.startswith(f"'{key}={name}' is not valid: ")
        assert "\n" not in line
        assert trap.reason in line
        assert f"{trap.instead}, see {PAGE}#{trap.name}" in line
        assert "allowed are stock, " in line


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("cls_loss", "atfl", "cls_loss=focal"),
        ("cls_loss", "EQLv2", "cls_loss=efl"),
        ("cls_loss", "slide_varifocal", "cls_loss=vfl"),
        ("cls_loss", "Slide-VariFocal", "cls_loss=vfl"),
        ("cls_loss", "ema_slide_varifocal", "cls_loss=vfl"),
        ("cls_loss", "seesaw", "cls_loss=efl"),
        ("box_loss", "ICIoU", "box_loss=eiou"),
        ("box_loss", "inner_iciou", "box_loss=eiou"),
        ("box_loss", "focaler-iciou", "box_loss=eiou"),
    ],
)
def test_a_setting_is_refused_with_the_choice(key: str, value: str, instead: str) -> None:
    with pytest.raises(ValueError, match=f"the nearest sound choice is {instead}, see "):
        LossSettings.from_mapping({key: value})


@pytest.mark.parametrize("name", ["focal", "slide", "vfl", "efl", "varifocal", "ema_slide"])
def test_names_that_are_offered_are_no_traps(name: str) -> None:
    assert LossSettings.from_mapping({"cls_loss": name}).cls_loss


def test_other_unknown_names_get_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="Did you mean 'focal'"):
        LossSettings.from_mapping({"cls_loss": "focall"})
