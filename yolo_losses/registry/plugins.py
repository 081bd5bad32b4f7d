"""Sources of losses: the built-in packages, entry points, and the files in `YOLO_LOSSES_PLUGINS`."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import sys
import zlib
from collections.abc import Callable
from typing import Any

from yolo_losses.registry import table as registry

ENTRY_POINT_GROUP = "yolo_losses.losses"
PLUGINS_VARIABLE = "YOLO_LOSSES_PLUGINS"


def load() -> None:
    """Register the losses of the built-in packages, of entry points, and of the files in `YOLO_LOSSES_PLUGINS`.

    A plugin that fails to import is skipped and reported by `registry.problems()`.
    """
    losses = importlib.import_module("yolo_losses.losses")
    for found in pkgutil.iter_modules(losses.__path__, f"{losses.__name__}."):
        if found.ispkg:
            importlib.import_module(found.name)
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        _load_plugin(f"entry point {point.name} ({point.value})", point.load)
    for path in filter(None, os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep)):
        _load_plugin(path, functools.partial(run_file, path))


def _load_plugin(what: str, load_it: Callable[[], Any]) -> None:
    before = registry.snapshot()
    try:
        load_it()
    except (Exception, SystemExit) as error:  # SystemExit: a script that parses its command line on import
        registry.restore(before)
        registry.add_problem(f"{what}: {type(error).__name__}: {error}".replace("\n", " "))


def run_file(path: str) -> None:
    """Run a Python file that registers losses; `~` is expanded.

    Raises:
        ValueError: if the file does not exist or is not a Python file.
    """
    file = os.path.abspath(os.path.expanduser(path))
    if not os.path.isfile(file):
        raise ValueError(f"there is no file {file}")
    # The name of the module must be the same in every process, since pickles refer to it.
    name = f"yolo_losses_plugin_{zlib.crc32(file.encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError("not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


registry.set_loader(load)
