"""The training keys, parsed once into a frozen `LossSettings` and refused early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from yolo_losses import registry
from yolo_losses.config import class_weights
from yolo_losses.config.class_weights import Weights
from yolo_losses.registry import Kind, LossSpec, unknown_loss, unknown_name
from yolo_losses.registry.parameters import Parameter, Value, parse_value, shown

CHOICES: Mapping[str, Value] = MappingProxyType(
    {
        "cls_loss": "stock",
        "box_loss": "stock",
        "dfl_loss": "stock",
        "cls_target": "auto",
        "cls_scale": 1.0,
        "cls_weights": "none",
        "seg_loss": "stock",
        "seg_scale": 1.0,
        "loss_stats": False,
        "loss_branches": "both",
    }
)
DFL_VALUES = ("stock", "dfl", "off")
TARGETS = ("auto", "tal", "iou", "ciou", "hard")
BRANCHES = ("both", "one2many", "one2one")
ONLY_STOCK_MASKS = "allowed are seg_loss=stock and seg_scale=1.0"
TASKS = ("detect", "segment", "pose", "obb")

RENAMED_PREFIX = "yl_"
_renamed: set[str] = set()


def default_keys() -> dict[str, Value]:
    """Return every key with its default: the choices, then each loss's parameters."""
    return {**CHOICES, **{key: p.default for key, p in declared_parameters().items()}}


def declared_parameters() -> dict[str, Parameter]:
    """Return the parameters of the losses and of `cls_weights=balanced`, by key."""
    declared = {p.key: p for spec in registry.specs() for p in spec.parameters}
    return {class_weights.BETA.key: class_weights.BETA, **declared}


def rename(keys: set[str]) -> None:
    """Reach these keys as `yl_` + name among a trainer's arguments, where Ultralytics has a key of that name."""
    _renamed.clear()
    _renamed.update(keys)


def renamed() -> list[str]:
    """Return the keys that are reached as `yl_` + name among a trainer's arguments."""
    return sorted(_renamed)


def argument(key: str) -> str:
    """Return what a key is called among a trainer's arguments."""
    return f"{RENAMED_PREFIX}{key}" if key in _renamed else key


def own_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return this package's keys among a trainer's arguments, by their own names."""
    return {key: arguments[argument(key)] for key in default_keys() if argument(key) in arguments}


@dataclass(frozen=True)
class LossSettings:
    """The parsed training keys.

    Attributes:
        cls_loss: `stock` or the registered name of a classification loss.
        box_loss: `stock` or the canonical name of a box loss with its modifiers.
        dfl_loss: `stock`, `dfl` or `off`.
        cls_target: `auto`, `tal`, `iou`, `ciou` or `hard`.
        cls_scale: a factor on the class term, above 0; or `auto`.
        cls_weights: `none`, `balanced`, weights of the classes in their order, or by their names.
        seg_loss: `stock` or the registered name of a mask loss.
        seg_scale: a factor on the mask term, above 0.
        loss_stats: whether statistics of the losses are written.
        loss_branches: `both`, `one2many` or `one2one`.
        parameters: every parameter of the chosen losses, and of `cls_weights=balanced`, by key.
        unused: keys that were set but that no chosen loss has, or that it only accepts.
    """

    cls_loss: str = "stock"
    box_loss: str = "stock"
    dfl_loss: str = "stock"
    cls_target: str = "auto"
    cls_scale: float | str = 1.0
    cls_weights: Weights = field(default=class_weights.NONE, hash=False)
    seg_loss: str = "stock"
    seg_scale: float = 1.0
    loss_stats: bool = False
    loss_branches: str = "both"
    parameters: Mapping[str, Value] = field(default_factory=dict, hash=False)
    unused: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "parameters": dict(self.parameters)}  # its read-only view cannot be copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, parameters=MappingProxyType(state["parameters"]))

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> LossSettings:
        """Return the settings among a trainer's arguments, whose other keys are Ultralytics'.

        Raises:
            ValueError: on an invalid value; one line with the key, its value, what is allowed and the nearest name.
        """
        try:
            return cls.from_mapping(own_arguments(arguments))
        except ValueError as error:
            key = str(error).lstrip("'").partition("=")[0]
            if key not in _renamed:
                raise
            raise ValueError(str(error).replace(f"'{key}=", f"'{argument(key)}=", 1)) from None

    @classmethod
    def from_mapping(cls, keys: Mapping[str, Any]) -> LossSettings:
        """Return the settings in a mapping of this package's keys.

        Raises:
            ValueError: on an invalid value; one line with the key, its value, what is allowed and the nearest name.
        """
        declared = declared_parameters()
        for key in keys:
            if key not in CHOICES and key not in declared:
                hint = registry.did_you_mean(str(key), [*CHOICES, *declared])
                raise ValueError(f"'{shown(key)}' is not a key of yolo_losses.{hint}")
        cls_spec = _registered("cls", keys.get("cls_loss"))
        seg_spec = _registered("seg", keys.get("seg_loss"))
        modifiers, base = _box_loss(keys.get("box_loss"))
        chosen = [spec for spec in (cls_spec, *modifiers, base, seg_spec) if spec is not None]
        own = {p.key for spec in chosen for p in spec.parameters}
        used = registry.parse_keys(chosen, {key: keys[key] for key in declared if key in keys and key in own})
        weights = class_weights.parse(keys.get("cls_weights"))
        others = {key: declared[key].parse(keys[key]) for key in declared if key in keys and key not in own}
        others |= {key: value for key, value in used.items() if not declared[key].limits.used}
        if weights == class_weights.BALANCED:
            beta = class_weights.BETA
            used[beta.key] = others.pop(beta.key, beta.default)
        settings = cls(
            cls_spec.name if cls_spec else "stock",
            registry.box_name(modifiers, base) if base else "stock",
            _dfl_loss(keys.get("dfl_loss", "stock")),
            _choice("cls_target", keys.get("cls_target"), TARGETS),
            _class_scale(keys.get("cls_scale")),
            weights,
            seg_spec.name if seg_spec else "stock",
            _scale("seg_scale", keys.get("seg_scale")),
            _switch("loss_stats", keys.get("loss_stats")),
            _choice("loss_branches", keys.get("loss_branches"), BRANCHES),
            MappingProxyType(used),
            tuple(key for key, value in others.items() if value != declared[key].default),
        )
        if settings.swaps_nothing and (settings.unused or settings.loss_branches != "both"):
            key = settings.unused[0] if settings.unused else "loss_branches"
            raise ValueError(
                f"'{key}={shown(keys[key])}' would change nothing: every term is 'stock'."
                f" Choose the loss as well{_owner(key)}"
            )
        return settings

    @property
    def swaps_cls(self) -> bool:
        """Whether the class term is this package's."""
        chosen = (self.cls_loss, self.cls_target, self.cls_scale, self.cls_weights)
        return chosen != ("stock", "auto", 1.0, class_weights.NONE)

    @property
    def swaps_box(self) -> bool:
        """Whether the box term is this package's."""
        return self.box_loss != "stock"

    @property
    def swaps_seg(self) -> bool:
        """Whether the mask term is this package's."""
        return (self.seg_loss, self.seg_scale) != ("stock", 1.0)

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms that are not stock: of `class`, `box`, `distribution` and `mask`."""
        swapped = {
            "class": self.swaps_cls,
            "box": self.swaps_box,
            "distribution": self.dfl_loss != "stock",
            "mask": self.swaps_seg,
        }
        return tuple(term for term, chosen in swapped.items() if chosen)

    @property
    def swaps_nothing(self) -> bool:
        """Whether every term is stock."""
        return not self.terms

    @property
    def is_default(self) -> bool:
        """Whether there is nothing to do: every term is stock, and no statistics are written."""
        return self.swaps_nothing and not self.loss_stats

    @property
    def cls_spec(self) -> LossSpec:
        """The loss of the class term where it is swapped: a stock loss with a target, scale or weights is BCE."""
        spec = registry.find("cls", "bce" if self.cls_loss == "stock" else self.cls_loss)
        assert spec is not None
        return spec

    @property
    def seg_spec(self) -> LossSpec:
        """The loss of the mask term where it is swapped: a stock loss with a scale of its own is BCE."""
        spec = registry.find("seg", "bce" if self.seg_loss == "stock" else self.seg_loss)
        assert spec is not None
        return spec

    @property
    def target(self) -> str:
        """What a positive is trained toward, with `auto` resolved for the chosen loss."""
        return str(self.cls_spec.module.default_target) if self.cls_target == "auto" else self.cls_target

    def weighted_by(self, weights: Weights) -> LossSettings:
        """Return these settings with other class weights, such as those that `balanced` means for a training set."""
        parameters = {key: value for key, value in self.parameters.items() if key != class_weights.BETA.key}
        return replace(self, cls_weights=weights, parameters=MappingProxyType(parameters))

    def non_default(self) -> dict[str, Any]:
        """Return the keys that are not at their default, in canonical form."""
        defaults = default_keys()
        return {key: value for key, value in self.pinned().items() if value != defaults[key]}

    def pinned(self) -> dict[str, Any]:
        """Return the keys that define this run: the choices that are not at their default, every loss's parameters.

        A later change of a parameter's default then changes no resumed run. `from_mapping` of them gives this again.
        """
        choices = {key: getattr(self, key) for key in CHOICES if getattr(self, key) != CHOICES[key]}
        if "cls_weights" in choices:
            choices["cls_weights"] = class_weights.plain(self.cls_weights)
        return {**choices, **self.parameters}

    def check_task(self, task: str) -> None:
        """Raise a `ValueError` where a chosen loss cannot be used in an Ultralytics task."""
        if self.is_default:
            return
        if task not in TASKS:
            key, value = next(iter(self.non_default().items()))
            raise ValueError(f"'{key}={value}' cannot be used in the task '{task}': allowed are {', '.join(TASKS)}")
        self.check_boxes(rotated=task == "obb")
        if self.swaps_seg and task != "segment":
            key = "seg_loss" if self.seg_loss != "stock" else "seg_scale"
            raise ValueError(f"'{key}={getattr(self, key)}' is for the task segment, not '{task}': {ONLY_STOCK_MASKS}")

    def check_boxes(self, rotated: bool) -> None:
        """Raise a `ValueError` where what is chosen is for the other kind of boxes."""
        kind = "rotated (task obb)" if rotated else "axis-aligned"
        if rotated and self.target == "ciou":
            raise ValueError(f"'cls_target=ciou' is not for {kind} boxes: allowed are auto, tal, iou, hard")
        if not self.swaps_box:
            return
        base = registry.split_box_name(self.box_loss)[1]
        if base.rotated != rotated:
            fitting = ", ".join(["stock", *(s.name for s in registry.specs("box") if s.rotated == rotated)])
            raise ValueError(f"'box_loss={self.box_loss}' is not for {kind} boxes: allowed are {fitting}")

    def describe(self) -> str:
        """Return the terms with their parameters, on one line."""
        extra = {"target": self.target} if self.swaps_cls else {}
        if self.cls_scale != 1:
            extra["scale"] = shown_scale(self.cls_scale)
        if self.cls_weights != class_weights.NONE:
            extra["weights"] = shown(class_weights.plain(self.cls_weights))
        box = registry.split_box_name(self.box_loss) if self.swaps_box else ([], None)
        scale = {"scale": f"{self.seg_scale:g}"} if self.seg_scale != 1 else {}
        mask = [f"seg={self.seg_spec.name}" + self._with([self.seg_spec], scale)] if self.swaps_seg else []
        return " ".join(
            (
                f"cls={self.cls_spec.name if self.swaps_cls else 'stock'}"
                + self._with(([self.cls_spec] if self.swaps_cls else []), extra),
                f"box={self.box_loss}" + self._with([spec for spec in (*box[0], box[1]) if spec], {}),
                f"dfl={self.dfl_loss}",
                *mask,
            )
        )

    def _with(self, specs: list[LossSpec], extra: Mapping[str, str]) -> str:
        declared = [p for spec in specs for p in spec.parameters if p.limits.used]
        values = {p.key: self.parameters.get(p.key, p.default) for p in declared}
        words = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in {**values, **extra}.items()]
        return f"({', '.join(words)})" if words else ""


def _is_default(value: Any, default: str = "stock") -> bool:
    """Return whether a value means the default: nothing, `None`, `none`, or the default's own name."""
    return value is None or (isinstance(value, str) and registry.normal(value) in ("none", default))


def _registered(kind: Kind, value: Any) -> LossSpec | None:
    if _is_default(value):
        return None
    spec = registry.find(kind, value) if isinstance(value, str) else None
    if spec is None:
        raise unknown_loss(kind, value)
    return spec


def _box_loss(value: Any) -> tuple[list[LossSpec], LossSpec | None]:
    if _is_default(value):
        return [], None
    if not isinstance(value, str):
        raise unknown_loss("box", value)
    return registry.split_box_name(value)


def _dfl_loss(value: Any) -> str:
    if value is False:  # YAML reads a bare `off` as a truth value
        return "off"
    if value is None or (isinstance(value, str) and registry.normal(value) == "none"):
        raise ValueError("'dfl_loss=none' is ambiguous: use dfl_loss=off for no distribution term, or dfl_loss=stock")
    return _choice("dfl_loss", value, DFL_VALUES)


def _choice(key: str, value: Any, allowed: tuple[str, ...]) -> str:
    if _is_default(value, str(CHOICES[key])):
        return str(CHOICES[key])
    word = registry.normal(value) if isinstance(value, str) else ""
    if word not in allowed:
        raise unknown_name(key, value, list(allowed))
    return word


def _scale(key: str, value: Any) -> float:
    number = parse_value(value, float, CHOICES[key])
    if not isinstance(number, float) or number <= 0:
        raise ValueError(f"'{key}={shown(value)}' is not valid: allowed is a number > 0 (default 1.0)")
    return number


def _switch(key: str, value: Any) -> bool:
    truth = parse_value(value, bool, CHOICES[key])
    if not isinstance(truth, bool):
        raise ValueError(f"'{key}={shown(value)}' is not valid: allowed are True, False (default {CHOICES[key]})")
    return truth


def _class_scale(value: Any) -> float | str:
    if isinstance(value, str) and registry.normal(value) == "auto":
        return "auto"
    try:
        return _scale("cls_scale", value)
    except ValueError:
        allowed = "allowed is a number > 0 (default 1.0), or auto"
        raise ValueError(f"'cls_scale={shown(value)}' is not valid: {allowed}") from None


def shown_scale(scale: float | str) -> str:
    """Return a scale as it is written on a command line."""
    return scale if isinstance(scale, str) else f"{scale:g}"


def _owner(key: str) -> str:
    if key == class_weights.BETA.key:
        return ", such as cls_weights=balanced."
    spec = next((s for s in registry.specs() for p in s.parameters if p.key == key), None)
    if spec is None:
        return "."
    if spec.kind == "modifier":
        return f", such as box_loss={spec.name}_ciou."
    return f", such as {spec.kind}_loss={spec.name}."
