"""Declarations of training keys: default, allowed values, the term that a key changes, and its tasks.

`LossSettings` has one field per key. Parameters of losses are declared with the losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from yolo_losses import registry
from yolo_losses.config import class_weights, keypoint_weights
from yolo_losses.config.class_weights import Weights
from yolo_losses.registry import InvalidValueError, Kind, LossSpec, normalize_name
from yolo_losses.registry.parameters import Param, Parameter, Value

BOX_TASKS = ("detect", "segment", "pose", "obb")
CLASS_TASKS = (*BOX_TASKS, "classify")
ALL_TASKS = (*CLASS_TASKS, "semantic")
NO_LIMITS = Param()
OVERLAPS = Param(words=("stock", "iou", "giou", "diou", "ciou", "nwd"))


@dataclass(frozen=True)
class Key:
    """A key whose value is a number, a word or a bool.

    Attributes:
        term: the term that it changes, as in `LossSettings.terms`; `""` if it changes none.
        type: `float`, `int`, `bool` or `str`.
        default: the default.
        limits: the range, and the allowed words (besides numbers, if the type is `float` or `int`).
        tasks: the Ultralytics tasks that the key is for.
    """

    term: str
    type: type
    default: Value
    limits: Param = NO_LIMITS
    tasks: tuple[str, ...] = BOX_TASKS

    @property
    def allowed(self) -> str:
        """The allowed values as text, for listings."""
        return self._parameter("").allowed

    def parse(self, name: str, value: Any, task: str) -> Any:
        """Return a value of the key `name` in canonical form.

        Raises:
            InvalidValueError: if a value is invalid; the message has key, value, what is allowed and the nearest name.
        """
        return self._parameter(name).parse(value)

    def losses(self, value: Any, task: str) -> list[LossSpec]:
        """Return the losses that a canonical value selects."""
        return []

    def parameters(self, value: Any) -> list[Parameter]:
        """Return the parameters that a canonical value uses, besides those of its losses."""
        return []

    def to_config(self, value: Any) -> Any:
        """Return a canonical value for YAML files and checkpoints."""
        return value

    def _parameter(self, name: str) -> Parameter:
        return Parameter(name, name, self.type, self.default, self.limits)


@dataclass(frozen=True)
class LossKey(Key):
    """A key that selects the loss of a term by name.

    Attributes:
        kind: the kind of loss, `None` if only `words` are allowed.
        words: further values. If `off` is one of them, `none` is rejected as ambiguous.
        classify_kind: the kind of loss in the task classify.
    """

    type: type = str
    default: Value = "stock"
    kind: Kind | None = None
    words: tuple[str, ...] = ()
    classify_kind: Kind | None = None

    @property
    def allowed(self) -> str:
        """The allowed values as text, for listings."""
        names = ", or a name from above" if self.kind else ""
        return ", ".join(("stock", *self.words)) + names

    def parse(self, name: str, value: Any, task: str) -> str:
        """Return the registered name of the loss, `stock`, or one of the words."""
        if value is False and "off" in self.words:  # YAML reads a bare `off` as False
            return "off"
        word = normalize_name(value) if isinstance(value, str) else "none" if value is None else ""
        if word == "none":
            if "off" in self.words:
                reason = f"is ambiguous: use {name}=off for no {self.term} term, or {name}=stock"
                raise InvalidValueError(name, "none", reason)
            return "stock"
        if word in ("stock", *self.words):
            return word
        kind = self._kind(task)
        if kind is None:
            raise registry.unknown_name(name, value, ["stock", *self.words])
        spec = registry.find(kind, value) if isinstance(value, str) else None
        if spec is None:
            raise registry.unknown_loss(kind, value, self.words)
        return spec.name

    def losses(self, value: str, task: str) -> list[LossSpec]:
        """Return the loss with this name."""
        kind = self._kind(task)
        spec = registry.find(kind, value) if kind else None
        return [] if spec is None else [spec]

    def _kind(self, task: str) -> Kind | None:
        return self.classify_kind if task == "classify" and self.classify_kind else self.kind


@dataclass(frozen=True)
class BoxLossKey(LossKey):
    """The key that selects a box loss with modifiers."""

    kind: Kind | None = "box"

    def parse(self, name: str, value: Any, task: str) -> str:
        """Return the canonical name of the box loss with modifiers, or `stock`."""
        if not isinstance(value, str) or normalize_name(value) in ("stock", "none"):
            return super().parse(name, value, task)
        return registry.box_name(*registry.split_box_name(value))

    def losses(self, value: str, task: str) -> list[LossSpec]:
        """Return the modifiers and the loss that they modify."""
        if value == "stock":
            return []
        modifiers, base = registry.split_box_name(value)
        return [*modifiers, base]


@dataclass(frozen=True)
class ClassWeightsKey(Key):
    """The key `cls_weights`."""

    type: type = str
    default: Value = class_weights.NONE

    @property
    def allowed(self) -> str:
        """The allowed values as text, for listings."""
        return "numbers > 0: a list, one per class, or a mapping by class name; or balanced"

    def parse(self, name: str, value: Any, task: str) -> Weights:
        """Return the parsed weights; see `class_weights.parse`."""
        return class_weights.parse(value)

    def parameters(self, value: Weights) -> list[Parameter]:
        """Return the parameter of `balanced`."""
        return [class_weights.BETA] if value == class_weights.BALANCED else []

    def to_config(self, value: Weights) -> Any:
        """Return the weights as a list, a dictionary or a word."""
        return class_weights.plain(value)


@dataclass(frozen=True)
class OverlapKey(Key):
    """The key `tal_overlap`: the overlap of axis-aligned boxes that the assigner ranks by."""

    type: type = str
    default: Value = "stock"
    limits: Param = OVERLAPS

    def parameters(self, value: str) -> list[Parameter]:
        """Return the parameter `constant` of the box loss `nwd`."""
        spec = registry.find("box", value) if value == "nwd" else None
        return [] if spec is None else [p for p in spec.parameters if p.name == "constant"]


@dataclass(frozen=True)
class KeypointWeightsKey(Key):
    """The key `pose_weights`."""

    type: type = str
    default: Value = class_weights.NONE

    @property
    def allowed(self) -> str:
        """The allowed values as text, for listings."""
        return "numbers >= 0: a list, one per keypoint"

    def parse(self, name: str, value: Any, task: str) -> str | tuple[float, ...]:
        """Return the parsed weights; see `keypoint_weights.parse`."""
        return keypoint_weights.parse(value)

    def to_config(self, value: str | tuple[float, ...]) -> Any:
        """Return the weights as a list or a word."""
        return value if isinstance(value, str) else list(value)
