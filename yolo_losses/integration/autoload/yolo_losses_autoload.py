"""Make every fresh interpreter know the plugin, at next to no cost.

The start-up file beside this module calls :func:`install`, which puts one finder in front of ``sys.meta_path``. It
waits for the Ultralytics modules that the plugin has to reach and hands each to :mod:`yolo_losses.integration.hook`
once its body has run. That is what teaches the stock ``yolo`` command, a DDP worker and a tuner's subprocess the
plugin's keys.

Installed, this file lies at the root of site-packages, beside the package: importing the package at every start of
every interpreter would cost more than it may. For the same reason nothing is imported here that a bare interpreter
has not loaded already. ``YOLO_LOSSES_DISABLE=1`` switches it off.
"""

import os
import sys
from _thread import get_ident  # built in; `threading` would cost more than all the rest of this file

TYPE_CHECKING = False  # the name that type checkers look for, without the import of `typing`
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
    """Finds nothing of its own: lets the finders behind it find a target, and adds the hook to what they found."""

    def __init__(self) -> None:
        self._searching: set[tuple[int, str]] = set()

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return the spec of a target with the hook added, None for every other module."""
        if fullname not in TARGETS:
            return None
        # A finder behind this one may ask the whole import system in its turn, and so come by here again.
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
    """Have the spec's loader call the hook after the module's body has run.

    The loader keeps its class and its other methods: ``inspect.getsource``, resources and the like find what they know.
    """
    name = spec.name
    loader = spec.loader
    try:
        run_body = loader.exec_module  # type: ignore[union-attr]

        def exec_module(module: "ModuleType") -> None:
            run_body(module)
            if module.__name__ == name:  # some loaders, a zip file's for one, serve many modules
                _call_hook(name, module)

        loader.exec_module = exec_module  # type: ignore[union-attr, method-assign]
    except AttributeError as error:
        _report(error)


def _call_hook(name: str, module: "ModuleType") -> None:
    """Hand a target to the plugin. Nothing that goes wrong in the plugin may break the import of Ultralytics."""
    try:
        # `import_module` and not an import statement: type checkers need not know the package from here.
        from importlib import import_module

        import_module("yolo_losses.integration.hook").patch(module)
    except Exception as error:
        # While `import yolo_losses` is itself under way its parts may be half there: that import finishes the job.
        package_spec = getattr(sys.modules.get("yolo_losses"), "__spec__", None)
        if not getattr(package_spec, "_initializing", False):
            _report(error)


def _report(error: BaseException) -> None:
    """Say on one line of stderr that the plugin is not active, and why; once, whatever else follows from it."""
    global _failure_reported
    if _failure_reported or sys.stderr is None:
        return
    _failure_reported = True
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"yolo_losses: not active: {reason}", file=sys.stderr)


def is_disabled() -> bool:
    """Tell whether ``YOLO_LOSSES_DISABLE`` switches the plugin off; unset, empty, 0, false, no and off do not."""
    return os.environ.get("YOLO_LOSSES_DISABLE", "").strip().lower() not in {"", "0", "false", "no", "off"}


def is_installed() -> bool:
    """Tell whether the finder is in place."""
    return any(_is_ours(finder) for finder in sys.meta_path)


def _is_ours(finder: object) -> bool:
    # By name: this module can be loaded twice, from beside the package and from a source tree.
    home = type(finder).__module__.rpartition(".")[2]
    return (home, type(finder).__name__) == ("yolo_losses_autoload", AutoloadFinder.__name__)


def install() -> None:
    """Put the finder in place, once.

    Nothing happens when the plugin is disabled, or when every target has been imported already: what is there already
    is the business of ``import yolo_losses``.
    """
    if is_disabled() or is_installed() or all(name in sys.modules for name in TARGETS):
        return
    sys.meta_path.insert(0, AutoloadFinder())


def uninstall() -> None:
    """Take the finder away. What it has hooked so far stays hooked."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not _is_ours(finder)]
