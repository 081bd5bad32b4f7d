"""A declared parameter is parsed once, where the training keys are read."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import criterion_of

import yolo_losses
from yolo_losses import registry
from yolo_losses.config.settings import LossSettings
from yolo_losses.registry.parameters import Parameter


def test_a_key_is_parsed_once_on_its_way_to_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.load()
    parsed: list[tuple[str, Any]] = []
    parse = Parameter.parse

    def recording(self: Parameter, value: Any) -> Any:
        parsed.append((self.key, value))
        return parse(self, value)

    monkeypatch.setattr(Parameter, "parse", recording)
    chosen = LossSettings.from_arguments({"cls_loss": "slide", "slide_delta": "0.15", "imgsz": 64})
    (branch,) = yolo_losses.equip(criterion_of("v8"), chosen).values()
    assert branch.cls is not None
    assert branch.cls.delta == 0.15
    assert [entry for entry in parsed if entry[1] in ("0.15", 0.15)] == [("slide_delta", "0.15")]


@pytest.mark.parametrize("parameter", [p for s in registry.specs() for p in s.parameters], ids=lambda p: p.key)
def test_is_valid_agrees_with_parse(parameter: Parameter) -> None:
    value = parameter.parse(parameter.default)
    assert parameter.is_valid(value)
    assert parameter.parse(value) == value
    assert not parameter.is_valid([value])
    if parameter.type is float:
        assert not parameter.is_valid(float("nan"))
        assert not parameter.is_valid(str(value))
