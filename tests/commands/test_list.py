"""`yolo-losses list`."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from yolo_losses import commands, registry
from yolo_losses.config import settings

BUILT_IN = [spec for spec in registry.specs() if spec.built_in]


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert commands.main(["list", *words]) == 0
    return capsys.readouterr().out


def losses(capsys: pytest.CaptureFixture[str], *words: str) -> list[tuple[str, str]]:
    """The losses that a call lists, as pairs of group and name."""
    found = json.loads(listed(capsys, "--json", *words))["losses"]
    return [(loss["group"], loss["name"]) for loss in found]


def test_every_summary_is_listed() -> None:
    done = subprocess.run([sys.executable, "-m", "yolo_losses", "list"], capture_output=True, text=True, check=True)
    lines = {" ".join(line.split()) for line in done.stdout.splitlines()}
    for spec in BUILT_IN:
        assert spec.summary
        name = f"{spec.name}_" if spec.kind == "modifier" else spec.name
        assert f"{name} {spec.summary}" in lines


def test_summaries_are_one_line_without_a_full_stop() -> None:
    for spec in BUILT_IN:
        assert "\n" not in spec.summary
        assert not spec.summary.endswith("."), spec.name
        assert len(spec.summary) <= 110, spec.name


def test_parameters_sources_and_aliases_are_shown_with_v_or_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    short, long, named = listed(capsys), listed(capsys, "-v"), listed(capsys, "focal")
    for text in ("focal_gamma", "arXiv 1708.02002", "aliases: focalloss, focal_loss"):
        assert text not in short
        assert text in long
        assert text in named
    for spec in BUILT_IN:
        for parameter in spec.parameters:
            assert parameter.key in long
            assert parameter.limits.help in long


def test_every_other_key_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, others = listed(capsys).partition("\nother keys\n")
    assert set(settings.CHOICES) <= set(re.findall(r"\w+", others))


def test_names_are_names_aliases_wildcards_and_combinations(capsys: pytest.CaptureFixture[str]) -> None:
    assert losses(capsys, "siou") == [("box", "siou")]
    assert losses(capsys, "Varifocal-Loss") == [("class", "vfl")]
    assert sorted(losses(capsys, "focal")) == [
        (g, "focal") for g in ("auxiliary", "class", "classify", "mask", "modifiers", "pixel", "visibility")
    ]
    assert {"slide", "ema_slide"} == {name for _, name in losses(capsys, "*slide")}
    assert sorted(losses(capsys, "focaler_inner_ciou")) == [
        ("box", "ciou"),
        ("modifiers", "focaler"),
        ("modifiers", "inner"),
    ]
    assert len(losses(capsys)) == len(registry.specs())


def test_groups_are_those_of_the_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    groups = dict.fromkeys(group for group, _ in losses(capsys))
    assert set(groups) == {"rotated", *(kind.group for kind in registry.KINDS.values())}
    assert ("rotated", "probiou") in losses(capsys)


def test_keys_are_listed_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"^  cls_scale +a number > 0, or auto \(default 1.0\)$", listed(capsys, "cls_scale"), re.M)
    assert losses(capsys, "focal_gamma") == [("class", "focal"), ("classify", "focal")]
    text = listed(capsys, "slide", "cls_*")
    assert "slide_delta" in text
    assert "cls_target " in text
    assert list(json.loads(listed(capsys, "--json", "seg_scale"))["keys"]) == ["seg_scale"]
    assert set(json.loads(listed(capsys, "--json"))["keys"]) == {*settings.CHOICES, "cls_weights_beta"}


def test_a_name_of_another_code_base_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["list", "gfl"]) == 1
    assert capsys.readouterr().err == "no loss or key matches 'gfl'. Did you mean 'qfl'?\n"


def test_unknown_names_are_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["list", "slid"]) == 1
    assert capsys.readouterr().err == "no loss or key matches 'slid'. Did you mean 'slide'?\n"


def test_a_loss_that_is_left_out_is_answered_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["list", "atfl"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("no loss or key matches 'atfl': the ATFL that circulates")
    assert "docs/traps.md#atfl" in line


def test_json_holds_the_declarations(capsys: pytest.CaptureFixture[str]) -> None:
    (slide,) = json.loads(listed(capsys, "slide", "--json"))["losses"]
    spec = registry.find("cls", "slide")
    assert spec is not None
    assert (slide["summary"], slide["source"], tuple(slide["aliases"])) == (spec.summary, spec.source, spec.aliases)
    delta, min_iou = slide["parameters"]
    assert (delta["key"], delta["type"], delta["default"], delta["low"], delta["high"]) == (
        *("slide_delta", "float", 0.1),
        *(0, 1),
    )
    assert (min_iou["low"], min_iou["above"]) == (None, 0)
