"""Activate the plugin in every new interpreter.

The start-up file next to this module calls :func:`install`, which adds a finder to the front of ``sys.meta_path``. When
one of the patched modules of Ultralytics has been loaded, the finder passes it to
:mod:`yolo_losses.integration.hook`. This activates the plugin in the ``yolo`` command, in DDP workers and in the
subprocesses of a tuner.

This file is installed at the root of site-packages, next to the package, because importing the package at every start
of an interpreter would take too long. For the same reason, it only imports modules that are always loaded.
``YOLO_LOSSES_DISABLE=1`` switches it off.
"""

import os
import sys
from _thread import get_ident  # a built-in module; importing `threading` would take longer than this whole file

TYPE_CHECKING = False  # known to type checkers, without importing `typing`
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

# The modules to wait for: those that `yolo_losses.integration.hook` patches.
TARGETS = (
    "ultralytics.cfg",
    "ultralytics.engine.model",
    "ultralytics.engine.trainer",
    "ultralytics.engine.tuner",
    "ultralytics.engine.validator",
    "ultralytics.engine.predictor",
    "ultralytics.engine.exporter",
    "ultralytics.nn.tasks",
    "ultralytics.utils.tal",
    "ultralytics.utils.loss",
    "ultralytics.models.utils.loss",
)

_failure_reported = False


class AutoloadFinder:
    """Lets the other finders find a target module, and makes its loader call the hook."""

    def __init__(self) -> None:
        self._searching: set[tuple[int, str]] = set()

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return the spec of a target whose loader calls the hook, None for any other module."""
        if fullname not in TARGETS:
            return None
        # Another finder may use the whole import system, including this finder.
        search = (get_ident(), fullname)
        if search in self._searching:
            return None
        self._searching.add(search)
        try:
            spec = self._find_behind(fullname, path, target)
        finally:
            self._searching.discard(search)
        if spec is not None:
            _hook_loader(spec)
        return spec

    def _find_behind(
        self, fullname: str, path: "Sequence[str] | None", target: "ModuleType | None"
    ) -> "ModuleSpec | None":
        finders = list(sys.meta_path)
        behind = finders[finders.index(self) + 1 :] if self in finders else finders
        for finder in behind:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(fullname, path, target) if find_spec else None
            if spec is not None:
                return spec
        return None


def _hook_loader(spec: "ModuleSpec") -> None:
    """Make the loader of a spec call the hook after it has executed the module.

    The loader keeps its class and its other methods, which ``inspect.getsource`` and others rely on.
    """
    name = spec.name
    loader = spec.loader
    try:
        run_body = loader.exec_module  # type: ignore[union-attr]

        def exec_module(module: "ModuleType") -> None:
            run_body(module)
            if module.__name__ == name:  # some loaders, such as that of a zip file, load many modules
                _call_hook(name, module)

        loader.exec_module = exec_module  # type: ignore[union-attr, method-assign]
    except AttributeError as error:
        _report(error)


def _call_hook(name: str, module: "ModuleType") -> None:
    """Pass a target to the plugin. An error in the plugin must not break the import of Ultralytics."""
    try:
        # Not an import statement, so that type checkers do not follow it.
        from importlib import import_module

        import_module("yolo_losses.integration.hook").patch(module)
    except Exception as error:
        # While yolo_losses itself is being imported, its modules may be incomplete; that import patches the target.
        package_spec = getattr(sys.modules.get("yolo_losses"), "__spec__", None)
        if not getattr(package_spec, "_initializing", False):
            _report(error)


def _report(error: BaseException) -> None:
    """Print one line to stderr that the plugin is not active, and why; only once per process."""
    global _failure_reported
    if _failure_reported or sys.stderr is None:
        return
    _failure_reported = True
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"yolo_losses: not active: {reason}", file=sys.stderr)


def is_disabled() -> bool:
    """Return whether ``YOLO_LOSSES_DISABLE`` switches the plugin off; unset, empty, 0, false, no and off do not."""
    return os.environ.get("YOLO_LOSSES_DISABLE", "").strip().lower() not in {"", "0", "false", "no", "off"}


def is_installed() -> bool:
    """Return whether the finder is installed."""
    return any(_is_ours(finder) for finder in sys.meta_path)


def _is_ours(finder: object) -> bool:
    # By name, since this module may be loaded twice: from site-packages and from a source tree.
    home = type(finder).__module__.rpartition(".")[2]
    return (home, type(finder).__name__) == ("yolo_losses_autoload", AutoloadFinder.__name__)


def install() -> None:
    """Install the finder, once.

    Does nothing if the plugin is disabled or if all targets have been imported; ``import yolo_losses`` patches modules
    that have been imported.
    """
    if is_disabled() or is_installed() or all(name in sys.modules for name in TARGETS):
        return
    sys.meta_path.insert(0, AutoloadFinder())


def uninstall() -> None:
    """Remove the finder. Loaders that it has changed stay changed."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not _is_ours(finder)]
