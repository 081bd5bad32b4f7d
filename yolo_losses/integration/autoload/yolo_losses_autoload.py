"""Activate the plugin in every interpreter that imports Ultralytics.

The start-up file next to this module calls :func:`install`, which adds a finder to the front of ``sys.meta_path``. When
the package ``ultralytics`` has been loaded, the finder calls :func:`yolo_losses.integration.hook.install`. This
activates the plugin in the ``yolo`` command, in DDP workers and in the subprocesses of a tuner.

This file is installed at the root of site-packages, next to the package, because importing the package at every start
of an interpreter would take too long. For the same reason, it only imports modules that are always loaded.
``YOLO_LOSSES_DISABLE=1`` switches it off.
"""

import os
import sys

TYPE_CHECKING = False  # known to type checkers, without importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_failure_reported = False


class PostImportFinder:
    """Lets the other finders find a module, and calls a function when the module has been loaded.

    Args:
        names: full names of the modules to wait for.
        call: called with each of them after its body has been executed, possibly more than once. An error in it is
            printed in one line, and does not break the import.
    """

    def __init__(self, names: "Container[str]", call: "Callable[[ModuleType], None]") -> None:
        self.names = names
        self.call = call
        self._searching: set[str] = set()

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return the spec of a module to wait for, None for any other module."""
        if fullname not in self.names:
            return None
        # Another finder may use the whole import system, including this finder. Another thread cannot be in here: the
        # import system holds its global lock while it calls a finder.
        if fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            spec = self._find_behind(fullname, path, target)
        finally:
            self._searching.discard(fullname)
        if spec is not None and spec.loader is not None:  # a namespace package has no loader, and no body
            self._wrap_loader(fullname, spec.loader)
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

    def _wrap_loader(self, name: str, loader: "Loader") -> None:
        """Make a loader call the function after it has executed the module.

        The loader keeps its class and its other methods, which ``inspect.getsource`` and others rely on.
        """
        try:
            run_body = loader.exec_module

            def exec_module(module: "ModuleType") -> None:
                run_body(module)
                if module.__name__ == name:  # some loaders, such as that of a zip file, load many modules
                    try:
                        self.call(module)
                    except Exception as error:
                        _report(error)

            loader.exec_module = exec_module  # type: ignore[method-assign]
        except AttributeError as error:
            _report(error)


def _report(error: Exception) -> None:
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


def set_finders(*finders: PostImportFinder) -> None:
    """Put finders at the front of ``sys.meta_path``, in place of those of this package and of its other copies."""
    sys.meta_path[:] = [*finders, *(finder for finder in sys.meta_path if not _is_ours(finder))]


def _is_ours(finder: object) -> bool:
    # By name, since this module may be loaded twice: from site-packages and from a source tree.
    return type(finder).__module__.rpartition(".")[2] == "yolo_losses_autoload"


def _activate(_: "ModuleType") -> None:
    from importlib import import_module  # with an import statement, type checkers would follow the import

    import_module("yolo_losses.integration.hook").install()


def install() -> None:
    """Add the finder that activates the plugin, once, and not if the plugin is disabled."""
    if not is_disabled() and not any(map(_is_ours, sys.meta_path)):
        set_finders(PostImportFinder({"ultralytics"}, _activate))
