"""Names of box losses with modifiers, and parsing of the parameters of chosen losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yolo_losses.registry.parameters import InvalidValueError, Value, did_you_mean, normalize_name
from yolo_losses.registry.specification import LossSpec, key_prefix
from yolo_losses.registry.suggestions import unknown_box_loss
from yolo_losses.registry.table import find, specs


def split_box_name(name: str) -> tuple[list[LossSpec], LossSpec]:
    """Split the name of a box loss into its modifiers, in canonical order, and its base.

    Raises:
        ValueError: if a part is unknown, or if a modifier is repeated or does not apply to the base.
    """
    modifiers: list[LossSpec] = []
    rest = normalize_name(name)
    while (base := find("box", rest)) is None:
        prefix = next((s for s in specs("modifier") for n in (s.name, *s.aliases) if rest.startswith(f"{n}_")), None)
        if prefix is None:
            raise unknown_box_loss(name)
        if prefix in modifiers:
            raise InvalidValueError("box_loss", name, f"is not valid: the modifier '{prefix.name}_' is repeated")
        modifiers.append(prefix)
        rest = next(rest[len(n) + 1 :] for n in (prefix.name, *prefix.aliases) if rest.startswith(f"{n}_"))
    for spec in modifiers:
        allowed = [s.name for s in specs("box") if spec.module.fits(s.name, s.rotated)]
        if base.name not in allowed:
            reason = f"is not valid: the modifier '{spec.name}_' applies to {', '.join(allowed)}"
            raise InvalidValueError("box_loss", name, reason)
    return sorted(modifiers, key=lambda s: s.module.position), base


def box_name(modifiers: list[LossSpec], base: LossSpec) -> str:
    """Return the canonical name of a box loss with modifiers."""
    return "_".join(spec.name for spec in [*modifiers, base])


def parse_keys(losses: Sequence[LossSpec], keys: Mapping[str, Any]) -> dict[str, Value]:
    """Return all parameters of the losses by key, parsed from `keys` or at their defaults.

    Raises:
        ValueError: if a key is unknown or a value is out of range.
    """
    parameters = {p.key: p for spec in losses for p in spec.parameters}
    for key in keys:
        if key not in parameters:
            allowed = ", ".join(parameters) or "none"
            names = "_".join(spec.name for spec in losses)
            raise ValueError(
                f"'{key}' is not a parameter of '{names}'; its parameters are: {allowed}."
                f"{did_you_mean(key, list(parameters))}"
            )
    values = {key: p.parse(keys[key]) if key in keys else p.default for key, p in parameters.items()}
    for spec in losses:
        check = getattr(spec.module, "check_parameters", None)
        if check is not None:
            check({p.name: values[p.key] for p in spec.parameters}, key_prefix(spec.kind, spec.name))
    return values
