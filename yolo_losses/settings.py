"""The training keys, parsed once into a frozen `LossSettings` and refused early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from yolo_losses import registry
from yolo_losses.registry import LossSpec, Value, shown, unknown_name

CHOICES: Mapping[str, str | float] = MappingProxyType(
    {
        "cls_loss": "stock",
        "box_loss": "stock",
        "dfl_loss": "stock",
        "cls_target": "auto",
        "cls_scale": 1.0,
        "loss_branches": "both",
    }
)
DFL_VALUES = ("stock", "dfl", "off")
TARGETS = ("auto", "tal", "iou")
BRANCHES = ("both", "one2many", "one2one")
TASKS = ("detect", "segment", "pose", "obb")


def default_keys() -> dict[str, str | Value]:
    """Return every training key with its default: the choices, then each loss's parameters."""
    return {**CHOICES, **{p.key: p.default for spec in registry.specs() for p in spec.parameters}}


@dataclass(frozen=True)
class LossSettings:
    """The parsed training keys.

    Attributes:
        cls_loss: `stock` or the registered name of a classification loss.
        box_loss: `stock` or the canonical name of a box loss with its modifiers.
        dfl_loss: `stock`, `dfl` or `off`.
        cls_target: `auto`, `tal` or `iou`.
        cls_scale: a factor on the class term, above 0.
        loss_branches: `both`, `one2many` or `one2one`.
        parameters: every parameter of the chosen losses, by key.
        unused: keys that were set but that no chosen loss has.
    """

    cls_loss: str = "stock"
    box_loss: str = "stock"
    dfl_loss: str = "stock"
    cls_target: str = "auto"
    cls_scale: float = 1.0
    loss_branches: str = "both"
    parameters: Mapping[str, Value] = field(default_factory=dict, hash=False)
    unused: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "parameters": dict(self.parameters)}  # its read-only view cannot be copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, parameters=MappingProxyType(state["parameters"]))

    @classmethod
    def from_mapping(cls, keys: Mapping[str, Any]) -> LossSettings:
        """Return the settings in a mapping, whose keys that are not this package's are left alone.

        Raises:
            ValueError: of one line, that names the key, its value, what is allowed and the nearest name.
        """
        chosen: list[LossSpec] = []
        cls_loss = _word(keys, "cls_loss")
        if cls_loss != "stock":
            spec = registry.find("cls", cls_loss)
            if spec is None:
                names = ["stock", *(s.name for s in registry.specs("cls"))]
                spellings = names + [a for s in registry.specs("cls") for a in s.aliases]
                raise unknown_name("cls_loss", keys["cls_loss"], names, spellings)
            cls_loss = spec.name
            chosen.append(spec)
        box_loss = _word(keys, "box_loss")
        if box_loss != "stock":
            modifiers, base = registry.split_box_name(box_loss)
            box_loss = registry.box_name(modifiers, base)
            chosen += [*modifiers, base]
        dfl_loss = _choice(keys, "dfl_loss", DFL_VALUES)
        cls_target = _choice(keys, "cls_target", TARGETS)
        branches = _choice(keys, "loss_branches", BRANCHES)
        scale = _scale(keys.get("cls_scale"))

        all_parameters = {p.key: p for spec in registry.specs() for p in spec.parameters}
        parsed = {key: p.parse(keys[key]) for key, p in all_parameters.items() if key in keys}
        used = registry.parse_keys(
            chosen, {k: v for k, v in parsed.items() if any(k == p.key for s in chosen for p in s.parameters)}
        )
        unused = tuple(k for k, v in parsed.items() if k not in used and v != all_parameters[k].default)
        settings = cls(cls_loss, box_loss, dfl_loss, cls_target, scale, branches, MappingProxyType(used), unused)
        if settings.swaps_nothing and (unused or branches != "both"):
            key = unused[0] if unused else "loss_branches"
            raise ValueError(
                f"'{key}={shown(keys[key])}' would change nothing: cls_loss, box_loss and dfl_loss are all 'stock'."
                f" Choose the loss as well{_owner(key)}"
            )
        return settings

    @property
    def swaps_cls(self) -> bool:
        """Whether the class term is this package's."""
        return (self.cls_loss, self.cls_target, self.cls_scale) != ("stock", "auto", 1.0)

    @property
    def swaps_nothing(self) -> bool:
        """Whether every term is stock."""
        return not self.swaps_cls and self.box_loss == "stock" and self.dfl_loss == "stock"

    @property
    def cls_name(self) -> str:
        """The loss of the class term where it is swapped: a stock loss with a target or a scale of its own is BCE."""
        return "bce" if self.cls_loss == "stock" else self.cls_loss

    @property
    def target(self) -> str:
        """What a positive anchor is trained toward, `tal` or `iou`, with `auto` resolved for the chosen loss."""
        if self.cls_target != "auto":
            return self.cls_target
        spec = registry.find("cls", self.cls_name)
        assert spec is not None
        return str(spec.module.default_target)

    def non_default(self) -> dict[str, str | Value]:
        """Return the keys that are not at their default, in canonical form; `from_mapping` of them gives this again."""
        defaults = default_keys()
        mine: dict[str, str | Value] = {key: getattr(self, key) for key in CHOICES}
        return {k: v for k, v in {**mine, **self.parameters}.items() if v != defaults[k]}

    def check_task(self, task: str) -> None:
        """Raise a `ValueError` where a chosen loss cannot be used in an Ultralytics task."""
        if self.swaps_nothing:
            return
        key, value = next(iter(self.non_default().items()))
        if task not in TASKS:
            raise ValueError(f"'{key}={value}' cannot be used in the task '{task}': allowed are {', '.join(TASKS)}")
        self.check_boxes(rotated=task == "obb")

    def check_boxes(self, rotated: bool) -> None:
        """Raise a `ValueError` where the chosen box loss is for the other kind of boxes."""
        if self.box_loss == "stock":
            return
        base = registry.split_box_name(self.box_loss)[1]
        if base.rotated != rotated:
            fitting = ", ".join(["stock", *(s.name for s in registry.specs("box") if s.rotated == rotated)])
            kind = "rotated (task obb)" if rotated else "axis-aligned"
            raise ValueError(f"'box_loss={self.box_loss}' is not for {kind} boxes: allowed are {fitting}")

    def describe(self) -> str:
        """Return the terms with their parameters, as the start line shows them."""
        terms = []
        if self.swaps_cls:
            own = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self._of("cls")]
            extra = [f"target={self.target}"] + ([f"scale={self.cls_scale:g}"] if self.cls_scale != 1 else [])
            terms.append(f"cls={self.cls_name}({', '.join(own + extra)})")
        else:
            terms.append("cls=stock")
        own = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self._of("box")]
        terms.append(f"box={self.box_loss}" + (f"({', '.join(own)})" if own else ""))
        terms.append(f"dfl={self.dfl_loss}")
        return " ".join(terms)

    def _of(self, term: str) -> list[tuple[str, Value]]:
        if term == "cls":
            spec = registry.find("cls", self.cls_name)
            specs = [spec] if spec else []
        elif self.box_loss == "stock":
            specs = []
        else:
            modifiers, base = registry.split_box_name(self.box_loss)
            specs = [*modifiers, base]
        return [(p.key, self.parameters.get(p.key, p.default)) for spec in specs for p in spec.parameters]


def _word(keys: Mapping[str, Any], key: str) -> str:
    """Return a key's value as a normal name; nothing, `None` and `none` mean the default."""
    value = keys.get(key)
    if value is None:
        return str(CHOICES[key])
    if not isinstance(value, str):
        names = ["stock", *(s.name for s in registry.specs("box" if key == "box_loss" else "cls"))]
        raise unknown_name(key, value, names)
    word = registry.normal(value)
    return str(CHOICES[key]) if word == "none" else word


def _choice(keys: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    value = keys.get(key)
    if key == "dfl_loss" and value is False:  # YAML reads a bare `off` as a truth value
        return "off"
    word = "none" if value is None else registry.normal(value) if isinstance(value, str) else ""
    if word == "none":
        return str(CHOICES[key])
    if word not in allowed:
        raise unknown_name(key, value, list(allowed))
    return word


def _scale(value: Any) -> float:
    if isinstance(value, str) and registry.normal(value) == "auto":
        raise ValueError("'cls_scale=auto' is not available yet: allowed is a number > 0 (default 1.0)")
    number = registry.parse_value(value, float, CHOICES["cls_scale"])  # type: ignore[arg-type]
    if number is None or number <= 0:
        raise ValueError(f"'cls_scale={shown(value)}' is not valid: allowed is a number > 0 (default 1.0)")
    return float(number)


def _owner(key: str) -> str:
    spec = next((s for s in registry.specs() for p in s.parameters if p.key == key), None)
    if spec is None:
        return "."
    if spec.kind == "modifier":
        return f", such as box_loss={spec.name}_ciou."
    return f", such as {spec.kind}_loss={spec.name}."
