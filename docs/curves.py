"""The sliders of a loss's page, whose curves `curves.js` draws."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from yolo_losses.registry import LossSpec
from yolo_losses.registry.parameters import Parameter

SCRIPT = Path(__file__).with_name("curves.js")
IN_PIXELS = {"nwd": 8, "sdiou": 8, "mpdiou": 60}  # which depend on the size of the object: its width at first


def names(table: str) -> list[str]:
    """Return the losses of a table in `curves.js`: `CLASS`, `BOX`, `PENALTIES` or `MODIFIER`."""
    text = re.search(rf"^const {table} = \{{\n(.*?)^\}};", SCRIPT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert text is not None
    return re.findall(r"^  (\w+): ", text[1], flags=re.MULTILINE)


def sliders(spec: LossSpec) -> list[dict[str, Any]] | None:
    """Return the sliders of a loss: its parameters, then the target; `None` where no curves are drawn."""
    tables = {"cls": ["CLASS"], "box": ["PENALTIES", "BOX"], "modifier": ["MODIFIER"]}.get(spec.kind, [])
    if spec.rotated or spec.name not in [name for table in tables for name in names(table)]:
        return None
    found = [_slider(p) for p in spec.parameters if p.name not in ("momentum", "decay", "tau")]
    if spec.kind != "cls":
        size = IN_PIXELS.get(spec.name)
        return [*found, _range("object", "object, px", size, 2, 100, 1)] if size else found
    if "slide" in spec.name:
        found.append(_range("mean_iou", "mean IoU", 0.5, 0, 1, 0.01))
    if spec.name in ("efl", "eqfl"):
        found.append(_range("q", "ratio q of the class", 0.5, 0, 1, 0.01))
    target = 0.8 if spec.name in ("vfl", "qfl", "mal", "eqfl", "slide", "ema_slide") else 1.0
    return [*found, _range("t", "target t", target, 0, 1, 0.01)]


def _slider(parameter: Parameter) -> dict[str, Any]:
    limits, default = parameter.limits, parameter.default
    if isinstance(default, bool):
        return {"name": parameter.name, "label": parameter.key, "value": default}
    whole = isinstance(default, int)
    value = float(default) if default is not None else -1.0
    low = max(limits.low, limits.above + 0.05)  # infinite where there is no such end
    low = low if math.isfinite(low) else 0.0
    high = min(limits.high, limits.below - 0.05)
    high = high if math.isfinite(high) else max(3 * value, 2.0)
    step = 1 if whole else 0.1 if high - low > 10 else 0.01
    return _range(parameter.name, parameter.key, int(value) if whole else value, low, high, step)


def _range(name: str, label: str, value: float, low: float, high: float, step: float) -> dict[str, Any]:
    return {"name": name, "label": label, "value": value, "low": low, "high": high, "step": step}
