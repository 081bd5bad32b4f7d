"""The losses, one per file; pure torch, without Ultralytics."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from types import ModuleType


def alias(name: str, package: ModuleType) -> None:
    """Make a package and its modules importable under another name, as the same objects."""
    sys.modules[name] = package
    for found in pkgutil.iter_modules(package.__path__):
        sys.modules[f"{name}.{found.name}"] = importlib.import_module(f"{package.__name__}.{found.name}")
