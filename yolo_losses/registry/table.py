"""The registered losses: registration, listeners, and look-up by name.

Losses register themselves when their files are imported. `plugins` sets a loader that imports them, which is called
before the first look-up.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from yolo_losses.registry.parameters import format_value, normalize_name
from yolo_losses.registry.specification import KINDS, RESERVED, TERM_KEYS, TERM_PREFIXES, Kind, LossSpec


@dataclass
class _Table:
    specs: dict[tuple[Kind, str], LossSpec] = field(default_factory=dict)
    add_listeners: list[Callable[[LossSpec], None]] = field(default_factory=list)
    remove_listeners: list[Callable[[LossSpec], None]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    loader: Callable[[], None] | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)


_table = _Table()


def set_loader(loader: Callable[[], None]) -> None:
    """Set the function that registers built-in losses and plugins, which is called once before the first look-up."""
    _table.loader = loader


def load() -> None:
    """Call the loader if it has not been called yet."""
    with _table.lock:
        loader, _table.loader = _table.loader, None
        if loader is not None:
            loader()


def add(spec: LossSpec) -> None:
    """Register a loss. Repeating the same declaration, as in a notebook cell, replaces the earlier one.

    Raises:
        ValueError: if the name is not an identifier, if a name or key is taken, or if a listener rejects the loss.
    """
    with _table.lock:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", spec.name):
            raise ValueError(
                "the name of a loss must consist of lower-case letters, digits and '_', not"
                f" '{format_value(spec.name)}'"
            )
        before = _table.specs.get((spec.kind, spec.name))
        is_redeclared = before is not None and _declared_at(before.module) == _declared_at(spec.module)
        others = [s for s in _table.specs.values() if not (is_redeclared and s is before)]
        taken = {name for s in others if s.kind == spec.kind for name in (s.name, *s.aliases)} | RESERVED
        if clash := taken.intersection((spec.name, *spec.aliases)) | _taken_keys(spec, others):
            raise ValueError(f"a {spec.kind} loss or key is already registered as '{min(clash)}'")
        if not spec.built_in:
            _check_prefix(spec)
        if before is not None:
            remove(spec.kind, spec.name)
        try:
            for listener in _table.add_listeners:
                listener(spec)
        except ValueError:
            if before is not None:
                add(before)
            raise
        _table.specs[spec.kind, spec.name] = spec


def _taken_keys(spec: LossSpec, others: Iterable[LossSpec]) -> set[str]:
    """Return the keys of a loss that are already those of another loss.

    Two losses that are selected by the same training key may share a parameter: the same key with the same declaration.
    """
    own = {p.key: p for p in spec.parameters}
    return {
        p.key
        for other in others
        for p in other.parameters
        if p.key in own
        and not (p == own[p.key] and spec.kind in TERM_KEYS and TERM_KEYS.get(other.kind) == TERM_KEYS[spec.kind])
    }


def _check_prefix(spec: LossSpec) -> None:
    """Raise a `ValueError` if the name or a key of a third-party loss looks like the key of a term."""
    if KINDS[spec.kind].prefix:
        return
    for name in (spec.name, *(p.key for p in spec.parameters)):
        prefix = next((prefix for prefix in TERM_PREFIXES if name.startswith(prefix)), None)
        if prefix is not None:
            raise ValueError(
                f"the loss '{spec.name}' cannot be registered: '{name}' starts with '{prefix}', as the keys of a"
                " term do; give the loss another name"
            )


def remove(kind: Kind, name: str) -> None:
    """Remove a loss and its training keys."""
    with _table.lock:
        spec = _table.specs.pop((kind, name), None)
        if spec is not None:
            for listener in _table.remove_listeners:
                listener(spec)


def _declared_at(module: type) -> tuple[str, str]:
    """Return the file (or the module) and the qualified name of the declaration of a loss."""
    file = getattr(sys.modules.get(module.__module__), "__file__", None)
    return (os.path.realpath(file) if file else module.__module__), module.__qualname__


def listen(added: Callable[[LossSpec], None], removed: Callable[[LossSpec], None]) -> None:
    """Call `added` for every registered loss, now and in future, and `removed` for every removed one.

    If `added` raises a `ValueError`, the loss is rejected; if it was already registered, it is removed and reported by
    `problems()`.
    """
    with _table.lock:
        load()
        _table.add_listeners.append(added)
        _table.remove_listeners.append(removed)
        for spec in list(_table.specs.values()):
            try:
                added(spec)
            except ValueError as error:
                _table.specs.pop((spec.kind, spec.name))
                add_problem(f"{spec.name}: {error}")


def forget(added: Callable[[LossSpec], None], removed: Callable[[LossSpec], None]) -> None:
    """Remove these listeners."""
    with _table.lock:
        _table.add_listeners[:] = [other for other in _table.add_listeners if other is not added]
        _table.remove_listeners[:] = [other for other in _table.remove_listeners if other is not removed]


def snapshot() -> dict[tuple[Kind, str], LossSpec]:
    """Return the currently registered losses for `restore`, without calling the loader."""
    return dict(_table.specs)


def restore(specs: Mapping[tuple[Kind, str], LossSpec]) -> None:
    """Restore the losses of a `snapshot`."""
    with _table.lock:
        for kind, name in _table.specs.keys() - specs.keys():
            remove(kind, name)
        missing = [spec for key, spec in specs.items() if key not in _table.specs]
        _table.specs = dict(specs)
        for spec in missing:
            for listener in _table.add_listeners:
                listener(spec)


def add_problem(problem: str) -> None:
    """Add a one-line description of a plugin that could not be loaded."""
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
    wanted = normalize_name(name)
    if (kind, wanted) in _table.specs:
        return _table.specs[kind, wanted]
    return next((spec for spec in specs(kind) if wanted in spec.aliases), None)
