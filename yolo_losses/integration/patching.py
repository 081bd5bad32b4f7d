"""Changes Ultralytics' global state, and changes it back: wrapped methods, and keys among the defaults."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from yolo_losses import registry
from yolo_losses.config import class_weights, renaming, settings
from yolo_losses.integration.autoload import yolo_losses_autoload as autoload
from yolo_losses.registry.parameters import Value

_originals: list[tuple[Any, str, Any]] = []
_own_keys: set[str] = set()  # this package's, including those that a patched Ultralytics has in its default.yaml
_added_keys: set[str] = set()


def uninstall() -> None:
    """Undo everything that `install` changed; existing trainers keep their callbacks."""
    autoload.set_finders()
    if (guard := sys.modules.get("yolo_losses.integration.guard")) is not None:
        guard.release()
    while _originals:
        owner, name, original = _originals.pop()
        if original is None:
            delattr(owner, name)
        else:
            setattr(owner, name, original)
    _remove_keys(set(_added_keys))
    _own_keys.clear()
    renaming.rename(set())
    registry.forget(_on_register, _on_remove)


def wrap(
    owner: Any, name: str, before: Callable[..., None] | None = None, after: Callable[..., Any] | None = None
) -> None:
    """Wrap a method with functions that are called before and after it, once.

    Args:
        owner: the class.
        name: name of the method.
        before: called with the arguments of the method.
        after: called with `self`, the result of the method and its other arguments. Unless it returns `None`, its
            result replaces that of the method.
    """

    def around(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(self, *args, **kwargs)
        result = original(self, *args, **kwargs)
        instead = None if after is None else after(self, result, *args, **kwargs)
        return result if instead is None else instead

    wrap_around(owner, name, around)


def wrap_around(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a method by a function that is called with the original method, `self` and its arguments, once."""
    original = getattr(owner, name)
    if hasattr(original, "yolo_losses_original"):
        return

    @functools.wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(original, self, *args, **kwargs)

    wrapper.yolo_losses_original = original  # type: ignore[attr-defined]
    wrapper.yolo_losses_uninstall = uninstall  # type: ignore[attr-defined]
    replace(owner, name, wrapper)


def replace(owner: Any, name: str, value: Any) -> None:
    """Set an attribute, whose value `uninstall` restores; an attribute that is new is removed then."""
    _originals.append((owner, name, getattr(owner, name, None)))
    setattr(owner, name, value)


def add_training_keys() -> bool:
    """Add this package's keys to Ultralytics' defaults, and those of losses that are registered later.

    Returns `False` if they had been added before.
    """
    if _own_keys:
        return False
    _add_keys({**settings.CHOICES, class_weights.BETA.key: class_weights.BETA.default})
    registry.listen(_on_register, _on_remove)
    return True


class UpstreamKeys(Mapping[str, Any]):
    """A view of a dictionary of defaults without this package's keys."""

    def __init__(self, defaults: dict[str, Any]) -> None:
        self.defaults = defaults

    def __getitem__(self, key: str) -> Any:
        if key in _own_keys:
            raise KeyError(key)
        return self.defaults[key]

    def __iter__(self) -> Iterator[str]:
        return (key for key in self.defaults if key not in _own_keys)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _add_keys(keys: Mapping[str, Value]) -> None:
    """Add keys to Ultralytics' defaults, as `yl_` + name if Ultralytics has another key of that name."""
    from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT

    # The patch kit writes keys into default.yaml, in all versions at least these three.
    patched = all(DEFAULT_CFG_DICT.get(key) == "stock" for key in ("cls_loss", "box_loss", "dfl_loss"))
    taken = {key for key in keys if key in DEFAULT_CFG_DICT and key not in _own_keys and not patched}
    renaming.rename({*renaming.renamed(), *taken})
    for key, default in keys.items():
        name = renaming.argument(key)
        _own_keys.add(name)
        if name not in DEFAULT_CFG_DICT or name in _added_keys:
            DEFAULT_CFG_DICT[name] = default
            setattr(DEFAULT_CFG, name, default)
            _added_keys.add(name)


def _remove_keys(names: set[str]) -> None:
    utils = sys.modules.get("ultralytics.utils")
    for name in names & _added_keys:
        if utils is not None:
            utils.DEFAULT_CFG_DICT.pop(name, None)
            utils.DEFAULT_CFG.__dict__.pop(name, None)
        _added_keys.discard(name)
        _own_keys.discard(name)


def _on_register(spec: registry.LossSpec) -> None:
    from ultralytics.utils import DEFAULT_CFG_DICT

    keys = {p.key: p.default for p in spec.parameters}
    taken = keys.keys() & (DEFAULT_CFG_DICT.keys() - _own_keys)
    if taken and not spec.built_in:
        raise ValueError(f"the key '{min(taken)}' is Ultralytics' own: give the parameter or the loss another name")
    _add_keys(keys)


def _on_remove(spec: registry.LossSpec) -> None:
    # Another loss may have the same parameter.
    _remove_keys({renaming.argument(p.key) for p in spec.parameters if p.key not in settings.declared_parameters()})
