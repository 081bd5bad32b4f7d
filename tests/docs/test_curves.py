"""The curves with sliders on the pages of losses: JavaScript that computes what the package computes."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from typing import Any

import curves
import pytest
import torch
from torch import Tensor

import yolo_losses
from yolo_losses import registry
from yolo_losses.plots import stem
from yolo_losses.registry import LossSpec
from yolo_losses.registry.parameters import Param, Parameter

DRAWN = [spec for spec in registry.specs() if spec.built_in and curves.sliders(spec) is not None]
LOGITS = (-5.0, -1.2, 0.0, 0.4, 3.0)
TARGETS = (0.0, 0.3, 0.45, 0.8, 1.0)
BOXES = [  # moved and scaled, in units of the object's sides
    *(((x, y), (1.0, 1.0)) for x, y in ((0.0, 0.0), (0.1, 0.1), (0.3, -0.2), (1.2, 1.2), (-0.4, 0.9))),
    *(((0.1, 0.0), (w, h)) for w, h in ((0.5, 1.0), (2.0, 1.5), (0.25, 4.0))),
]


def javascript(call: str, arguments: list[Any]) -> list[Any]:
    """Return what a function of the script returns for each list of arguments."""
    if shutil.which("node") is None:
        pytest.skip("needs Node.js")
    program = f"""const {{ {call} }} = require({json.dumps(str(curves.SCRIPT))});
        const calls = JSON.parse(require("fs").readFileSync(0, "utf8"));
        console.log(JSON.stringify(calls.map((each) => {call}(...each))));"""
    done = subprocess.run(
        ["node", "-e", program], input=json.dumps(arguments), capture_output=True, text=True, check=True
    )
    found: list[Any] = json.loads(done.stdout)
    return found


def settings(spec: LossSpec) -> list[dict[str, Any]]:
    """Return values of the sliders: as they stand at first, and others."""
    sliders = curves.sliders(spec) or []
    first = {s["name"]: s["value"] for s in sliders}
    other = {s["name"]: s["value"] if isinstance(s["value"], bool) else _between(s) for s in sliders}
    switched = [{**first, s["name"]: not s["value"]} for s in sliders if isinstance(s["value"], bool)]
    whole = [{**first, s["name"]: v} for s in sliders if s.get("step") == 1 and s["name"] != "object" for v in (1, 2)]
    return [first, other, *switched, *whole]


def _between(slider: dict[str, Any]) -> float:
    if slider["step"] == 1 and slider["name"] != "object":
        return int(slider["value"])
    value = 0.7 * slider["value"] + 0.3 * slider["low"]
    return float(value)


def parameters(spec: LossSpec, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a loss at these values."""
    return {p.key: chosen[p.name] for p in spec.parameters if p.name in chosen}


@pytest.mark.parametrize("spec", [s for s in DRAWN if s.kind == "cls"], ids=stem)
def test_class_losses_and_their_gradients_are_the_package_s(spec: LossSpec) -> None:
    for chosen in settings(spec):
        loss = yolo_losses.make_cls_loss(spec.name, **parameters(spec, chosen))
        grid = list(itertools.product(LOGITS, TARGETS))
        z = torch.tensor([z for z, _ in grid], dtype=torch.float64)[:, None].requires_grad_()
        t = torch.tensor([t for _, t in grid], dtype=torch.float64)[:, None]
        supplied: dict[str, Any] = {"mean_iou": torch.tensor(chosen.get("mean_iou", 0.5), dtype=torch.float64)}
        ratio = torch.tensor([chosen.get("q", 0.5)], dtype=torch.float64)
        value = loss.elementwise(z, t, **supplied, positive_mask=t > 0, pos_neg_ratio=ratio)
        (gradient,) = torch.autograd.grad(value.sum(), z)
        found = torch.tensor(javascript("classPoint", [[spec.name, *point, chosen] for point in grid]))
        torch.testing.assert_close(found[:, 0], value.detach()[:, 0].float(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[:, 1], gradient[:, 0].float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("spec", [s for s in DRAWN if s.kind != "cls"], ids=stem)
def test_box_losses_are_the_package_s(spec: LossSpec) -> None:
    modifier = spec.kind == "modifier"
    name = f"{spec.name}_ciou" if modifier else spec.name
    for chosen in settings(spec):
        loss = yolo_losses.make_box_loss(name, **parameters(spec, chosen))
        side = torch.tensor([chosen.get("object", 60.0), chosen.get("object", 60.0) * 2 / 3], dtype=torch.float64)
        moved, scaled = (torch.tensor([box[i] for box in BOXES], dtype=torch.float64) for i in (0, 1))
        value = loss(
            _corners(320 + moved * side, scaled * side),
            _corners(320 + 0 * moved, side.expand_as(moved)),
            image_wh=torch.tensor((640.0, 640.0)),
            stride=torch.ones(1),
            mean_loss=torch.tensor(0.5),
        )
        shown = f"{spec.name}_" if modifier else spec.name
        found = torch.tensor(javascript("boxPoint", [[shown, *box, chosen] for box in BOXES]))
        torch.testing.assert_close(found, value.float(), rtol=1e-3, atol=5e-4)


def _corners(centre: Tensor, sides: Tensor) -> Tensor:
    return torch.cat((centre - sides / 2, centre + sides / 2), -1)


@pytest.mark.parametrize(("low", "high"), [({"low": 1}, {"high": 3}), ({"above": 1}, {"below": 3})])
def test_a_slider_keeps_to_the_range_of_its_parameter(low: dict[str, float], high: dict[str, float]) -> None:
    slider = curves._slider(Parameter("a_x", "x", float, 2.0, Param("", **low, **high)))
    assert 1 + 0.05 * ("above" in low) == slider["low"]
    assert 3 - 0.05 * ("below" in high) == slider["high"]


def test_sliders_have_a_range_around_their_default() -> None:
    for spec in DRAWN:
        for slider in curves.sliders(spec) or []:
            if not isinstance(slider["value"], bool):
                assert slider["low"] <= slider["value"] <= slider["high"], (spec.name, slider)


def test_the_script_is_small() -> None:
    assert curves.SCRIPT.stat().st_size < 20_000
