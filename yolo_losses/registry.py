"""Registry of losses: specifications, look-up by name, and the errors for unknown names.

Losses register themselves in their own files. This module imports none of them: `plugins` sets a loader, which is
called before the first look-up.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from yolo_losses import traps
from yolo_losses.parameters import Parameter, Value, shown

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


@dataclass
class _Table:
    specs: dict[tuple[Kind, str], LossSpec] = field(default_factory=dict)
    added: list[Callable[[LossSpec], None]] = field(default_factory=list)
    removed: list[Callable[[LossSpec], None]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    loader: Callable[[], None] | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)


_table = _Table()


def set_loader(loader: Callable[[], None]) -> None:
    """Set the function that registers built-in losses and plugins; it is called once, before the first look-up."""
    _table.loader = loader


def load() -> None:
    """Call the loader unless it was called before."""
    with _table.lock:
        loader, _table.loader = _table.loader, None
        if loader is not None:
            loader()


def add(spec: LossSpec) -> None:
    """Register a loss; a repeated declaration of the same loss, as by a notebook cell, replaces the earlier one.

    Raises:
        ValueError: if the name is not an identifier, if a name or key is taken, or if a listener rejects the loss.
    """
    with _table.lock:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", spec.name):
            raise ValueError(
                f"the name of a loss must consist of lower-case letters, digits and '_', not '{shown(spec.name)}'"
            )
        before = _table.specs.get((spec.kind, spec.name))
        again = before is not None and _declared_at(before.module) == _declared_at(spec.module)
        others = [s for s in _table.specs.values() if not (again and s is before)]
        taken = {other for s in others if s.kind == spec.kind for other in (s.name, *s.aliases)}
        clash = taken.intersection((spec.name, *spec.aliases)) or {
            p.key for s in others for p in s.parameters
        }.intersection(p.key for p in spec.parameters)
        clash |= RESERVED.intersection({spec.name})
        if clash:
            raise ValueError(f"a {spec.kind} loss or key is already registered as '{sorted(clash)[0]}'")
        if before is not None:
            remove(spec.kind, spec.name)
        try:
            for listener in _table.added:
                listener(spec)
        except ValueError:
            if before is not None:
                add(before)
            raise
        _table.specs[spec.kind, spec.name] = spec


def remove(kind: Kind, name: str) -> None:
    """Remove a loss and its training keys."""
    with _table.lock:
        spec = _table.specs.pop((kind, name), None)
        if spec is not None:
            for listener in _table.removed:
                listener(spec)


def _declared_at(module: type) -> tuple[str, str]:
    """Return file (or else module) and qualified name of a loss's declaration."""
    file = getattr(sys.modules.get(module.__module__), "__file__", None)
    return (os.path.realpath(file) if file else module.__module__), module.__qualname__


def listen(added: Callable[[LossSpec], None], removed: Callable[[LossSpec], None]) -> None:
    """Call `added` with every registered loss, now and later, and `removed` with every removed one.

    A `ValueError` raised by `added` rejects the loss; one that is already registered is removed and reported by
    `problems()`.
    """
    with _table.lock:
        load()
        _table.added.append(added)
        _table.removed.append(removed)
        for spec in list(_table.specs.values()):
            try:
                added(spec)
            except ValueError as error:
                _table.specs.pop((spec.kind, spec.name))
                add_problem(f"{spec.name}: {error}")


def forget(added: Callable[[LossSpec], None], removed: Callable[[LossSpec], None]) -> None:
    """Remove these listeners."""
    with _table.lock:
        _table.added[:] = [other for other in _table.added if other is not added]
        _table.removed[:] = [other for other in _table.removed if other is not removed]


def snapshot() -> dict[tuple[Kind, str], LossSpec]:
    """Return the currently registered losses, without loading any, for `restore`."""
    return dict(_table.specs)


def restore(specs: Mapping[tuple[Kind, str], LossSpec]) -> None:
    """Restore the losses of a `snapshot`."""
    with _table.lock:
        for kind, name in _table.specs.keys() - specs.keys():
            remove(kind, name)
        missing = [spec for key, spec in specs.items() if key not in _table.specs]
        _table.specs = dict(specs)
        for spec in missing:
            for listener in _table.added:
                listener(spec)


def add_problem(problem: str) -> None:
    """Record a plugin that could not be loaded, in one line."""
    _table.problems.append(problem)


def problems() -> list[str]:
    """Return one line for each plugin that could not be loaded."""
    load()
    return list(_table.problems)


def specs(kind: Kind | None = None) -> list[LossSpec]:
    """Return the registered losses, optionally of one kind, in order of registration."""
    load()
    return [spec for spec in _table.specs.values() if kind in (None, spec.kind)]


def find(kind: Kind, name: str) -> LossSpec | None:
    """Return the loss with this name or alias, ignoring case and hyphens, or `None`."""
    load()
    wanted = normal(name)
    if (kind, wanted) in _table.specs:
        return _table.specs[kind, wanted]
    return next((spec for spec in specs(kind) if wanted in spec.aliases), None)


def split_box_name(name: str) -> tuple[list[LossSpec], LossSpec]:
    """Split the name of a box loss into its modifiers, in canonical order, and its base.

    Raises:
        ValueError: if a part is unknown, or if a modifier is repeated or does not apply to the base.
    """
    modifiers: list[LossSpec] = []
    rest = normal(name)
    while (base := find("box", rest)) is None:
        prefix = next((s for s in specs("modifier") for n in (s.name, *s.aliases) if rest.startswith(f"{n}_")), None)
        if prefix is None:
            raise unknown_box_loss(name)
        if prefix in modifiers:
            raise ValueError(f"'box_loss={shown(name)}' is not valid: the modifier '{prefix.name}_' is repeated")
        modifiers.append(prefix)
        rest = next(rest[len(n) + 1 :] for n in (prefix.name, *prefix.aliases) if rest.startswith(f"{n}_"))
    for spec in modifiers:
        allowed = [s.name for s in specs("box") if spec.module.fits(s.name, s.rotated)]
        if base.name not in allowed:
            raise ValueError(
                f"'box_loss={shown(name)}' is not valid: the modifier '{spec.name}_' applies to {', '.join(allowed)}"
            )
    return sorted(modifiers, key=lambda s: s.module.position), base


def box_name(modifiers: list[LossSpec], base: LossSpec) -> str:
    """Return the canonical name of a box loss with modifiers."""
    return "_".join(spec.name for spec in [*modifiers, base])


def parse_keys(of: Sequence[LossSpec], keys: Mapping[str, Any]) -> dict[str, Value]:
    """Return all parameters of the losses `of` by key, parsed from `keys` or at their defaults.

    Raises:
        ValueError: on a key that is not theirs, or a value out of range.
    """
    parameters = {p.key: p for spec in of for p in spec.parameters}
    for key in keys:
        if key not in parameters:
            own = ", ".join(parameters) or "none"
            names = "_".join(spec.name for spec in of)
            raise ValueError(
                f"'{key}' is not a parameter of '{names}'; its parameters are: {own}."
                f"{did_you_mean(key, list(parameters))}"
            )
    values = {key: p.parse(keys[key]) if key in keys else p.default for key, p in parameters.items()}
    for spec in of:
        check = getattr(spec.module, "check_parameters", None)
        if check is not None:
            check(values)
    return values


def normal(name: Any) -> str:
    """Return the normal form of a name: lower case, with `_` for `-` and white space."""
    return re.sub(r"[-\s]+", "_", str(name).strip().lower())


def did_you_mean(name: str, names: list[str]) -> str:
    """Return ` Did you mean 'x'?`, or an empty string if no name is similar."""
    near = difflib.get_close_matches(normal(name)[:100], names, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def unknown_name(key: str, name: Any, names: list[str], near: list[str] | None = None, more: str = "") -> ValueError:
    """Return the error for an unknown value: the value, the allowed ones, and the most similar one."""
    hint = did_you_mean(name, near or names) if isinstance(name, str) else ""
    return ValueError(f"'{key}={shown(name)}' is not valid: allowed are {', '.join(names)}{more}.{hint}")


def unknown_loss(kind: Kind, name: Any) -> ValueError:
    """Return the error for a name that is not a loss of this kind, with a hint that fits the name."""
    key = TERM_KEYS[kind]
    names = ["stock", *(s.name for s in specs(kind))]
    if not isinstance(name, str):
        return unknown_name(key, name, names)
    trap = traps.find(normal(name))
    if trap is not None:
        return ValueError(f"'{key}={shown(name)}' is not valid: {trap.advice}; allowed are {', '.join(names)}.")
    for other, other_key in TERM_KEYS.items():
        spec = find(other, name) if other != kind else None
        if spec is not None:
            what = {"cls": "class", "box": "box", "seg": "mask"}[other]
            return ValueError(
                f"'{key}={shown(name)}' is not valid: '{spec.name}' is a {what} loss, {other_key}={spec.name};"
                f" allowed are {', '.join(names)}."
            )
    # For a spelling similar to an alias the hint is the registered name.
    spellings = {word: s.name for s in specs(kind) for word in (*s.aliases, s.name)}
    near = difflib.get_close_matches(normal(name)[:100], [*spellings, "stock"], n=1)
    hint = f" Did you mean '{spellings.get(near[0], near[0])}'?" if near else ""
    return ValueError(f"'{key}={shown(name)}' is not valid: allowed are {', '.join(names)}.{hint}")


def unknown_box_loss(name: Any) -> ValueError:
    """Return the error for a box loss name with an unknown part."""
    words = normal(name)
    if traps.find(words) is not None:
        return unknown_loss("box", name)
    prefixes = [s.name for s in specs("modifier")]
    more = f", with any of {', '.join(p + '_' for p in prefixes)} in front"
    modifier = find("modifier", words)
    if modifier is not None:
        also = f" (the class loss is cls_loss={words})" if find("cls", words) else ""
        return ValueError(
            f"'box_loss={shown(name)}' is not valid: '{modifier.name}_' is a modifier, a prefix of box losses,"
            f" such as {modifier.name}_{example_base(modifier)}{also}"
        )
    version = re.fullmatch(r"(.+?)_?v(\d)", words)
    if version:
        spec = find("box", version[1])
        numbered = find("box", version[1] + version[2])
        key = f"{spec.name}_version" if spec else ""
        if numbered:
            return unknown_name("box_loss", name, _box_names(), [numbered.name], more)
        if spec and any(p.key == key for p in spec.parameters):
            return ValueError(
                f"'box_loss={shown(name)}' is not valid: the version is a parameter,"
                f" box_loss={spec.name} {key}={version[2]}"
            )
    if find("cls", words) or find("seg", words):
        return unknown_loss("box", name)
    near = difflib.get_close_matches(words[:100], [*_box_names(), *_combined()], n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return ValueError(f"'box_loss={shown(name)}' is not valid: allowed are {', '.join(_box_names())}{more}.{hint}")


def _box_names() -> list[str]:
    return ["stock", *(s.name for s in specs("box"))]


def _combined() -> list[str]:
    return [f"{m.name}_{s.name}" for m in specs("modifier") for s in specs("box") if m.module.fits(s.name, s.rotated)]


def example_base(modifier: LossSpec) -> str:
    """Return the name of a box loss that a modifier applies to, for examples."""
    names = [s.name for s in specs("box") if modifier.module.fits(s.name, s.rotated)]
    return "ciou" if "ciou" in names else names[0]
