"""The training keys, parsed and checked once, as a frozen `LossSettings`."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from yolo_losses import registry
from yolo_losses.config import class_weights, suggestions
from yolo_losses.config.class_weights import Weights
from yolo_losses.config.keys import (
    ALL_TASKS,
    BOX_TASKS,
    CLASS_TASKS,
    BoxLossKey,
    ClassWeightsKey,
    Key,
    KeypointWeightsKey,
    LossKey,
    OverlapKey,
)
from yolo_losses.config.renaming import argument, named_as_arguments
from yolo_losses.registry import InvalidValueError, LossSpec, format_value
from yolo_losses.registry.parameters import Param, Parameter, Value

AXIS_ALIGNED = ("detect", "segment", "pose")
STOCK = ("stock",)


def own_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return this package's keys among a trainer's arguments, by their original names."""
    return {key: arguments[argument(key)] for key in default_keys() if argument(key) in arguments}


def _key(declared: Key, **options: Any) -> Any:
    """Return the field of a training key."""
    return field(default=declared.default, metadata={"key": declared}, **options)


@dataclass(frozen=True)
class LossSettings:
    """The parsed training keys. Each field declares a key: its type, default, allowed values and tasks.

    Attributes:
        cls_loss: `stock` or the registered name of a classification loss.
        box_loss: `stock` or the canonical name of a box loss with its modifiers.
        dfl_loss: `stock`, `dfl` or `off`.
        cls_target: `auto`, `tal`, `iou`, `ciou` or `hard`.
        cls_scale: a factor on the class term, above 0; or `auto`.
        cls_weights: `none`, `balanced`, weights of the classes by index, or by name.
        cls_smoothing: the part of each label that is distributed over all classes, in [0, 1), in the task classify.
        seg_loss: `stock` or the registered name of a mask loss.
        seg_scale: a factor on the mask term, above 0.
        ce_loss: `stock` or the registered name of a loss per pixel, in the task semantic.
        dice_loss: `stock`, `off` or the registered name of a loss per class, in the task semantic.
        l1_loss: `stock`, the registered name of a loss of box distances, or `off`.
        angle_loss: `stock`, the registered name of an angle loss, or `off`.
        angle_lambda: how slowly an angle's weight falls with the aspect ratio of its box, above 0.
        o2m_start: the weight of the one-to-many branch in the first epoch, in [0, 1]; or `stock`.
        o2m_end: its weight in the last epoch, in [0, 1]; or `stock`.
        sem_loss: `stock`, `off` or the registered name of a loss of the auxiliary masks.
        sem_scale: a factor on the term of the auxiliary masks, above 0.
        pose_loss: `stock` or the registered name of a keypoint loss.
        pose_weights: `none`, or one weight per keypoint, at least 0.
        kobj_loss: `stock` or the registered name of a loss of the keypoints' visibility.
        tal_topk: candidates per object of the task-aligned assigner, at least 1; or `stock`.
        tal_alpha: its exponent of the score, at least 0; or `stock`.
        tal_beta: its exponent of the overlap, at least 0; or `stock`.
        tal_overlap: the overlap that it ranks by: `iou`, `giou`, `diou`, `ciou`, `nwd`; or `stock`.
        tal_min_side: the side in pixels to which it enlarges smaller objects, at least 0; or `stock`.
        loss_stats: whether statistics of the losses are written.
        loss_branches: `both`, `one2many` or `one2one`.
        parameters: all parameters of the chosen losses, and of `cls_weights=balanced`, by key.
        unused: keys that were set but have no effect.
        resumed_weights: the class weights that a resumed run was started with, if it is given `balanced` again.
        task: the Ultralytics task that the keys are for; `""` for any task with boxes.
    """

    cls_loss: str = _key(LossKey("class", kind="cls", tasks=CLASS_TASKS, classify_kind="classify"))
    box_loss: str = _key(BoxLossKey("box"))
    dfl_loss: str = _key(LossKey("distribution", words=("dfl", "off")))
    cls_target: str = _key(Key("class", str, "auto", Param(words=("auto", "tal", "iou", "ciou", "hard"))))
    cls_scale: float | str = _key(Key("class", float, 1.0, Param(above=0, words=("auto",)), CLASS_TASKS))
    cls_weights: Weights = _key(ClassWeightsKey("class", tasks=ALL_TASKS), hash=False)  # noqa: RUF009
    cls_smoothing: float = _key(Key("class", float, 0.0, Param(low=0, below=1), ("classify",)))
    seg_loss: str = _key(LossKey("mask", kind="seg", tasks=("segment",)))
    seg_scale: float = _key(Key("mask", float, 1.0, Param(above=0), tasks=("segment",)))
    ce_loss: str = _key(LossKey("class", kind="ce", tasks=("semantic",)))
    dice_loss: str = _key(LossKey("dice", kind="dice", words=("off",), tasks=("semantic",)))
    l1_loss: str = _key(LossKey("l1", kind="l1", words=("off",)))
    angle_loss: str = _key(LossKey("angle", kind="angle", words=("off",), tasks=("obb",)))
    angle_lambda: float = _key(Key("angle", float, 3.0, Param(above=0), tasks=("obb",)))
    o2m_start: float | str = _key(Key("schedule", float, "stock", Param(low=0, high=1, words=("stock",))))
    o2m_end: float | str = _key(Key("schedule", float, "stock", Param(low=0, high=1, words=("stock",))))
    sem_loss: str = _key(LossKey("sem", kind="sem", words=("off",), tasks=("segment",)))
    sem_scale: float = _key(Key("sem", float, 1.0, Param(above=0), tasks=("segment",)))
    pose_loss: str = _key(LossKey("pose", kind="pose", tasks=("pose",)))
    pose_weights: str | tuple[float, ...] = _key(KeypointWeightsKey("pose", tasks=("pose",)))
    kobj_loss: str = _key(LossKey("kobj", kind="kobj", tasks=("pose",)))
    tal_topk: int | str = _key(Key("assigner", int, "stock", Param(low=1, words=STOCK)))
    tal_alpha: float | str = _key(Key("assigner", float, "stock", Param(low=0, words=STOCK)))
    tal_beta: float | str = _key(Key("assigner", float, "stock", Param(low=0, words=STOCK)))
    tal_overlap: str = _key(OverlapKey("assigner", tasks=AXIS_ALIGNED))
    tal_min_side: float | str = _key(Key("assigner", float, "stock", Param(low=0, words=STOCK)))
    loss_stats: bool = _key(Key("", bool, False, tasks=ALL_TASKS))
    loss_branches: str = _key(Key("", str, "both", Param(words=("both", "one2many", "one2one"))))
    parameters: Mapping[str, Value] = field(default_factory=dict, hash=False)
    unused: tuple[str, ...] = ()
    resumed_weights: tuple[float, ...] = field(default=(), compare=False)
    task: str = field(default="", compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "parameters": dict(self.parameters)}  # a MappingProxyType cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, parameters=MappingProxyType(state["parameters"]))

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> LossSettings:
        """Return the settings in a trainer's arguments.

        Raises:
            ValueError: if a value is invalid; the message has the key, its value, what is allowed and the nearest name.
        """
        with named_as_arguments():
            return cls.from_mapping(own_arguments(arguments), str(arguments.get("task") or ""))

    @classmethod
    def from_mapping(cls, keys: Mapping[str, Any], task: str = "") -> LossSettings:
        """Return the settings in a mapping of this package's keys.

        Args:
            keys: the keys; missing ones have their default.
            task: the Ultralytics task, which determines the losses that `cls_loss` can select; `""` for any task with
                boxes.

        Raises:
            ValueError: if a value is invalid; the message has the key, its value, what is allowed and the nearest name.
        """
        declared = declared_parameters()
        for key in keys:
            if key not in KEYS and key not in declared:
                raise ValueError(f"'{format_value(key)}' is not a key of yolo_losses.{hint_for_unknown_key(key, keys)}")
        choices = {name: key.parse(name, keys[name], task) for name, key in KEYS.items() if name in keys}
        chosen = [spec for name, value in choices.items() for spec in KEYS[name].losses(value, task)]
        of_chosen = {p.key for spec in chosen for p in spec.parameters}
        used = registry.parse_keys(chosen, {key: keys[key] for key in declared if key in keys and key in of_chosen})
        others = {key: declared[key].parse(keys[key]) for key in declared if key in keys and key not in of_chosen}
        others |= {key: value for key, value in used.items() if not declared[key].limits.used}
        for parameter in (p for name, value in choices.items() for p in KEYS[name].parameters(value)):
            used.setdefault(parameter.key, others.pop(parameter.key, parameter.default))
        unused = tuple(key for key, value in others.items() if value != declared[key].default)
        settings = cls(**choices, parameters=MappingProxyType(used), unused=unused, task=task)
        ineffective = "loss_branches" if settings.loss_branches != "both" and not settings.swaps_loss else ""
        if settings.swaps_nothing and unused:
            ineffective = unused[0]
        if ineffective:
            raise InvalidValueError(
                ineffective,
                keys[ineffective],
                f"would change nothing: every term is 'stock'. Choose the loss as well{_example_choice(ineffective)}",
            )
        if settings.loss_branches == "one2one" and "sem" in settings.terms:
            reason = "leaves no gradient to the term of sem_loss and sem_scale: allowed are both, one2many"
            raise InvalidValueError("loss_branches", "one2one", reason)
        return settings

    @property
    def terms(self) -> tuple[str, ...]:
        """What differs from stock: terms of the loss, `assigner`, `schedule`."""
        swapped = {key.term: None for name, key in KEYS.items() if key.term and getattr(self, name) != key.default}
        return tuple(swapped)

    @property
    def parts(self) -> tuple[str, ...]:
        """The terms for which a criterion calls a part of this package in every batch: all but `schedule`."""
        return tuple(term for term in self.terms if term != "schedule")

    @property
    def swaps_cls(self) -> bool:
        """Whether the class term is this package's."""
        return "class" in self.terms

    @property
    def swaps_box(self) -> bool:
        """Whether the box term is this package's."""
        return "box" in self.terms

    @property
    def swaps_loss(self) -> bool:
        """Whether some term of the loss is this package's."""
        return any(term not in ("assigner", "schedule") for term in self.terms)

    @property
    def swaps_assigner(self) -> bool:
        """Whether the assigner has other values than the stock ones."""
        return "assigner" in self.terms

    @property
    def swaps_nothing(self) -> bool:
        """Whether every term, and the assigner, is stock."""
        return not self.terms

    @property
    def is_default(self) -> bool:
        """Whether every term is stock and no statistics are written."""
        return self.swaps_nothing and not self.loss_stats

    @property
    def cls_spec(self) -> LossSpec:
        """The loss of a swapped class term; a stock loss with a target, a scale or weights is BCE."""
        spec = registry.find("cls", "bce" if self.cls_loss == "stock" else self.cls_loss)
        assert spec is not None
        return spec

    @property
    def target(self) -> str:
        """The target of a positive, with `auto` resolved for the chosen loss."""
        return str(self.cls_spec.module.default_target) if self.cls_target == "auto" else self.cls_target

    def without_losses(self) -> LossSettings:
        """Return the settings of a branch that `loss_branches` leaves stock: only those of assigner and statistics."""
        kept = {n: getattr(self, n) for n, key in KEYS.items() if key.term == "assigner" or n == "loss_stats"}
        own = {p.key: self.parameters[p.key] for n, value in kept.items() for p in KEYS[n].parameters(value)}
        return LossSettings(**kept, parameters=MappingProxyType(own), task=self.task)

    def weighted_by(self, weights: Weights) -> LossSettings:
        """Return these settings with other class weights, such as those of `balanced` for a training set."""
        parameters = {key: value for key, value in self.parameters.items() if key != class_weights.BETA.key}
        return replace(self, cls_weights=weights, parameters=MappingProxyType(parameters))

    def non_default(self) -> dict[str, Any]:
        """Return the keys that are not at their default, in canonical form."""
        defaults = default_keys()
        return {key: value for key, value in self.to_config().items() if value != defaults[key]}

    def to_config(self) -> dict[str, Any]:
        """Return the keys that define the settings: keys that are not at their default, and all parameters of losses.

        They include parameters at their default, so that a later change of a default does not affect a resumed run.
        """
        choices = {name: (key, getattr(self, name)) for name, key in KEYS.items()}
        chosen = {name: key.to_config(value) for name, (key, value) in choices.items() if value != key.default}
        return {**chosen, **self.parameters}

    def check_task(self, task: str) -> None:
        """Raise a `ValueError` if a chosen loss cannot be used in an Ultralytics task."""
        self.check_keys((task,))
        if task == "classify":
            self._check_classify()
        if task == "semantic" and self.cls_weights == class_weights.BALANCED:
            reason = (
                "cannot be used in the task 'semantic', where each class has millions of pixels: allowed are numbers;"
                " Ultralytics' cls_pw weights by the frequency of pixels"
            )
            raise InvalidValueError("cls_weights", class_weights.BALANCED, reason)
        self.check_boxes(rotated=task == "obb")

    def check_keys(self, tasks: Sequence[str]) -> None:
        """Raise a `ValueError` if a key that is not at its default applies to none of the tasks."""
        where = f"the task '{tasks[0]}'" if len(tasks) == 1 else f"the tasks {', '.join(tasks)}"
        for name, key in KEYS.items():
            value = getattr(self, name)
            if value != key.default and not set(tasks).intersection(key.tasks):
                allowed = f"{'is' if len(key.tasks) == 1 else 'are'} {', '.join(key.tasks)}"
                raise InvalidValueError(name, key.to_config(value), f"cannot be used in {where}: allowed {allowed}")

    def _check_classify(self) -> None:
        """Raise a `ValueError` if keys cannot be combined in the task classify."""
        if self.cls_scale == "auto":
            reason = "cannot be used in the task 'classify': allowed is a number > 0"
            raise InvalidValueError("cls_scale", "auto", reason)
        if self.cls_smoothing and self.cls_loss == "gce":
            reason = "cannot be used with cls_loss=gce, which needs one label per image: allowed is 0"
            raise InvalidValueError("cls_smoothing", self.cls_smoothing, reason)

    def check_boxes(self, rotated: bool) -> None:
        """Raise a `ValueError` if a key is for the other kind of boxes."""
        kind = "rotated (task obb)" if rotated else "axis-aligned"
        if rotated and self.cls_target == "ciou":
            reason = f"is not for {kind} boxes: allowed are auto, tal, iou, hard"
            raise InvalidValueError("cls_target", "ciou", reason)
        if rotated and self.tal_overlap != "stock":
            raise InvalidValueError("tal_overlap", self.tal_overlap, f"is not for {kind} boxes: allowed is stock")
        if not self.swaps_box:
            return
        base = registry.split_box_name(self.box_loss)[1]
        if base.rotated != rotated:
            fitting = ", ".join(["stock", *(s.name for s in registry.specs("box") if s.rotated == rotated)])
            raise InvalidValueError("box_loss", self.box_loss, f"is not for {kind} boxes: allowed are {fitting}")

    def describe(self) -> str:
        """Return the terms with their parameters as text: `cls=focal(focal_gamma=1.5, ...) box=stock dfl=stock`."""
        groups: dict[str, list[str]] = {}
        for name, key in KEYS.items():
            if key.term:
                groups.setdefault(name.partition("_")[0], []).append(name)
        return " ".join(
            self._describe_term(names) for prefix, names in groups.items() if self._is_described(prefix, names)
        )

    def _is_described(self, prefix: str, names: Sequence[str]) -> bool:
        """Return whether to describe the keys of a prefix: main terms of the task, or keys not at their default."""
        tasks = KEYS[f"{prefix}_loss"].tasks if f"{prefix}_loss" in KEYS else ()
        always = self.task in tasks if self.task not in ("", *BOX_TASKS) else prefix in ("cls", "box", "dfl")
        return always or any(getattr(self, name) != KEYS[name].default for name in names)

    def _describe_term(self, names: Sequence[str]) -> str:
        """Return the term with the keys `names` as text: `cls=focal(focal_gamma=1.5, scale=2)`."""
        prefix = names[0].partition("_")[0]
        loss = f"{prefix}_loss"
        words: dict[str, Any] = {}
        value = getattr(self, loss, "")
        if loss in names and self.task not in ("", *KEYS[loss].tasks):
            value = ""  # the class term of the task has another key; only `cls_weights` applies
        elif loss in names:
            specs = KEYS[loss].losses(value, self.task)
            words = {p.key: self.parameters.get(p.key, p.default) for s in specs for p in s.parameters if p.limits.used}
        for name in names:
            option = getattr(self, name)
            if name != loss and option != KEYS[name].default:
                words[name.removeprefix(f"{prefix}_")] = KEYS[name].to_config(option)
        inside = ", ".join(f"{key}={format_number(word)}" for key, word in words.items())
        return (f"{prefix}={value}" if value else prefix) + (f"({inside})" if inside else "")


KEYS: Mapping[str, Key] = MappingProxyType(
    {f.name: f.metadata["key"] for f in fields(LossSettings) if "key" in f.metadata}
)
CHOICES: Mapping[str, Value] = MappingProxyType({name: key.default for name, key in KEYS.items()})


def default_keys() -> dict[str, Value]:
    """Return all keys with their defaults: the choices, then the parameters of the losses."""
    return {**CHOICES, **{key: p.default for key, p in declared_parameters().items()}}


def declared_parameters() -> dict[str, Parameter]:
    """Return the parameters of the losses and of `cls_weights=balanced`, by key."""
    declared = {p.key: p for spec in registry.specs() for p in spec.parameters}
    return {class_weights.BETA.key: class_weights.BETA, **declared}


def hint_for_unknown_key(key: Any, given: Mapping[str, Any], known: Collection[str] = ()) -> str:
    """Return a hint for an unknown key that looks like one of this package's, else `""`.

    Args:
        key: the unknown key.
        given: all given keys with their values.
        known: the names of Ultralytics' keys.
    """
    chosen: list[LossSpec] = []
    for name, declared in KEYS.items():
        with contextlib.suppress(ValueError):
            value = declared.parse(name, given.get(argument(name), declared.default), "")
            chosen += declared.losses(value, "")
    return suggestions.unknown_key(str(key), given[key], chosen, [*KEYS, *declared_parameters()], known)


def format_number(value: Any) -> str:
    """Return a value as text, numbers with up to six significant digits."""
    return f"{value:g}" if isinstance(value, float) else format_value(value)


def _example_choice(key: str) -> str:
    """Return an example of a key with which a parameter has an effect."""
    if key == class_weights.BETA.key:
        return ", such as cls_weights=balanced."
    spec = next((s for s in registry.specs() for p in s.parameters if p.key == key), None)
    if spec is None:
        return "."
    if spec.kind == "modifier":
        return f", such as box_loss={spec.name}_{registry.example_base(spec)}."
    return f", such as {registry.TERM_KEYS[spec.kind]}={spec.name}."
