"""What is declared of a loss: its name, kind, module and parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from yolo_losses.registry.parameters import Parameter, Value

Kind = Literal["cls", "box", "modifier", "seg"]

# The training key of each kind, and names that no loss may have.
TERM_KEYS: Mapping[Kind, str] = MappingProxyType({"cls": "cls_loss", "box": "box_loss", "seg": "seg_loss"})
RESERVED = frozenset({"stock", "none", "off", "auto"})


@dataclass(frozen=True)
class LossSpec:
    """A registered loss.

    Attributes:
        name: the name that selects it.
        kind: `cls`, `box`, `seg` (mask losses), or `modifier` (a prefix of a box loss's name).
        module: its `nn.Module` class.
        aliases: other spellings that are understood.
        source: paper, and the code whose values it reproduces.
        summary: one-line description.
        parameters: declared parameters, in order.
        rotated: whether a box loss takes rotated boxes (`xywhr`) rather than axis-aligned ones.
        built_in: whether it is part of this package.
    """

    name: str
    kind: Kind
    module: type[Any]
    aliases: tuple[str, ...]
    source: str
    summary: str
    parameters: tuple[Parameter, ...]
    rotated: bool = False
    built_in: bool = True

    def build(self, values: Mapping[str, Value] = MappingProxyType({}), **options: Any) -> Any:
        """Return the module with parameters from parsed training keys: `spec.build({"focal_gamma": 2.0})`."""
        chosen: dict[str, Any] = {p.name: values.get(p.key, p.default) for p in self.parameters}
        return self.module(**chosen, **options)


def normal(name: Any) -> str:
    """Return the normal form of a name: lower case, with `_` for `-` and white space."""
    return re.sub(r"[-\s]+", "_", str(name).strip().lower())
