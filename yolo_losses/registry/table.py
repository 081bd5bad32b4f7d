"""The registered losses: registration, listeners, and look-up by name.

Losses register themselves in their own files. This module imports none of them: `plugins` sets a loader, which is
called before the first look-up.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from yolo_losses.registry.parameters import shown
from yolo_losses.registry.specification import RESERVED, Kind, LossSpec, normal


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
