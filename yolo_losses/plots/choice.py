"""The losses that a picture shows: their modules, built from names and keys as typed."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from yolo_losses import registry
from yolo_losses.losses._module import LossModule
from yolo_losses.losses.build import build_box_loss
from yolo_losses.registry import LossSpec
from yolo_losses.registry.parameters import Value, format_value

REFERENCES = {
    "class": "bce",
    "box": "iou",
    "rotated": "rotated_iou",
    "mask": "seg_bce",
    "classify": "classify_ce",
    "pixel": "ce_ce",
    "region": "dice_dice",
    "l1": "l1_l1",
    "angle": "angle_sin2",
    "auxiliary": "sem_bce_dice",
    "keypoint": "pose_oks",
    "visibility": "kobj_bce",
}


@dataclass(frozen=True)
class Choice:
    """A loss that can be drawn.

    Attributes:
        specs: the modifiers of a box loss in canonical order, then the loss.
    """

    specs: tuple[LossSpec, ...]

    @property
    def kind(self) -> str:
        """The kind of picture: the group that the losses are listed in."""
        return self.specs[-1].group

    @property
    def name(self) -> str:
        """The name, with that of its kind in front where it needs one: `seg_dice`, `classify_focal`."""
        return registry.page_name(self.specs[-1].kind, "_".join(spec.name for spec in self.specs))

    @property
    def keys(self) -> list[str]:
        """The keys of its parameters."""
        return [p.key for spec in self.specs for p in spec.parameters]

    def curve(self, given: Mapping[str, Any]) -> Curve:
        """Return the curve with some keys given, the others at their defaults.

        Raises:
            ValueError: if a value is out of range.
        """
        values = registry.parse_keys(self.specs, given)
        *modifiers, base = self.specs
        module: LossModule
        if self.kind in ("box", "rotated"):
            module = build_box_loss(modifiers, base, values, reduction="none")
        else:
            module = base.build(values, reduction="none")
        words = [f"{key.removeprefix(self.name + '_')}={_text(values[key])}" for key in given]
        return Curve(" ".join([self.name, *words]), self, module.eval(), values, tuple(given))


@dataclass(frozen=True)
class Curve:
    """A loss with values of its parameters.

    Attributes:
        label: its name and the keys that were given.
        choice: the loss.
        module: the loss module, in `eval` mode, without reduction.
        values: the values of all its parameters, by key.
        given: the keys that were given, which the label names.
        supplied: arguments that a criterion would supply, if they differ from those of other curves.
    """

    label: str
    choice: Choice
    module: LossModule
    values: Mapping[str, Value]
    given: Collection[str] = ()
    supplied: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> str:
        """All parameters as training keys."""
        return " ".join(f"{key}={_text(value)}" for key, value in self.values.items())

    @property
    def defaults(self) -> str:
        """The parameters that were not given, as training keys."""
        return " ".join(f"{key}={_text(value)}" for key, value in self.values.items() if key not in self.given)


@dataclass(frozen=True)
class Selection:
    """The losses of a picture.

    Attributes:
        curves: the curves, at least one.
        reference: the loss that they are drawn against, `None` if it is one of them.
    """

    curves: tuple[Curve, ...]
    reference: Curve | None

    @property
    def kind(self) -> str:
        """The kind of picture."""
        return self.curves[0].choice.kind

    @property
    def title(self) -> str:
        """The names of the losses."""
        return ", ".join(dict.fromkeys(curve.choice.name for curve in self.curves))

    @property
    def parameters(self) -> str:
        """The parameters that the labels leave out: all of a single loss, else those at defaults by loss."""
        if len(self.curves) == 1:
            return self.curves[0].parameters
        lines = dict.fromkeys(f"{curve.choice.name}: {rest}" for curve in self.curves if (rest := curve.defaults))
        return "\n".join(lines)

    @property
    def all(self) -> list[Curve]:
        """The reference, if there is one, and the curves."""
        return [*([self.reference] if self.reference else []), *self.curves]


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def choose(names: Sequence[str], keys: Mapping[str, Sequence[Any]]) -> Selection:
    """Return the curves of a picture of these losses, one for every combination of values of a loss.

    Args:
        names: names or aliases of losses of one kind; a mask loss may have `seg_` in front, and a modifier alone stands
            for itself in front of a base.
        keys: training keys of the losses, each with its values.

    Raises:
        ValueError: if a name or key is unknown, a value is out of range, or the losses are of several kinds.
    """
    choices = list({choice.name: choice for choice in map(find, names)}.values())
    kinds = {choice.kind: choice for choice in choices}
    if len(kinds) > 1:
        words = " and ".join(f"'{choice.name}' ({kind})" for kind, choice in kinds.items())
        raise ValueError(f"one picture shows losses of one kind, not {words}")
    known = [key for choice in choices for key in choice.keys]
    for key in keys:
        if key not in known:
            of = ", ".join(choice.name for choice in choices)
            hint = registry.did_you_mean(key, known)
            raise ValueError(
                f"'{format_value(key)}' is not a parameter of {of}; allowed are: {', '.join(known) or 'none'}.{hint}"
            )
    curves = [choice.curve(given) for choice in choices for given in _combinations(choice, keys)]
    reference = _reference(choices, keys)
    others = [c for c in curves if (c.choice, c.values) != (reference.choice, reference.values)]
    return Selection(tuple(others), reference) if others else Selection(tuple(curves), None)


def _combinations(choice: Choice, keys: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    own = [key for key in choice.keys if key in keys]
    for values in itertools.product(*(keys[key] for key in own)):
        yield dict(zip(own, values, strict=True))


def _reference(choices: Sequence[Choice], keys: Mapping[str, Sequence[Any]]) -> Curve:
    """Return the base loss of modified ones, else the plainest loss of the kind."""
    bases = {choice.specs[-1].name for choice in choices if len(choice.specs) > 1}
    if len(bases) == 1 and all(len(choice.specs) > 1 for choice in choices):
        base = Choice(choices[0].specs[-1:])
        return base.curve({key: keys[key][0] for key in base.keys if len(keys.get(key, ())) == 1})
    return find(REFERENCES[choices[0].kind]).curve({})


def find(name: str) -> Choice:
    """Return the loss of this name.

    Raises:
        ValueError: if the name is unknown; the message has the nearest one.
    """
    words = registry.normalize_name(name)
    for kind in registry.KINDS:
        prefix = registry.page_name(kind, "")
        spec = registry.find(kind, words.removeprefix(prefix)) if words.startswith(prefix) or kind == "seg" else None
        if spec is not None and spec.kind == "modifier":
            return find(f"{spec.name}_{registry.example_base(spec)}")
        if spec is not None:
            return Choice((spec,))
    try:
        modifiers, base = registry.split_box_name(name)
    except ValueError:
        if any(words.startswith(f"{spec.name}_") for spec in registry.specs("modifier")):
            raise  # a modifier is known: that message names the unknown rest
        known = [registry.page_name(spec.kind, spec.name) for spec in registry.specs()]
        hint = registry.did_you_mean(name, known) or " `yolo-losses list` prints them all."
        raise ValueError(f"'{format_value(name)}' is not a loss.{hint}") from None
    return Choice((*modifiers, base))
