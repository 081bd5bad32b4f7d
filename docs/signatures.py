"""What an editor and a type checker see of the public names: imports and signatures, from the declarations.

`yolo_losses` and `yolo_losses.functional` import each name from where it is defined, so that an editor finds source and
docstring. The signatures, which a decorator and a base class make at run time, are written to stub files.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yolo_losses
from yolo_losses import registry
from yolo_losses.config.class_weights import class_balanced_weights
from yolo_losses.losses.distribution.dfl import DistributionFocalLoss, distribution_focal_loss

PACKAGE = Path(__file__).resolve().parents[1] / "yolo_losses"
WIDTH = 120
HEAD = "# Written by `make tables` from the declarations of the losses.\n\n"


def signatures() -> dict[Path, str]:
    """Return the text of the two modules with public names and of their stubs, by path."""
    specs = [spec for spec in registry.specs() if spec.built_in and spec.kind != "modifier"]
    functions = by_name(spec.module.formula for spec in specs) | by_name([distribution_focal_loss])
    modules = by_name(spec.module for spec in specs) | by_name([DistributionFocalLoss])
    return {
        PACKAGE / "functional.py": with_imports("functional.py", functions),
        PACKAGE / "functional.pyi": functional_stub(functions),
        PACKAGE / "__init__.py": package(modules),
        PACKAGE / "__init__.pyi": package_stub(modules),
    }


def by_name(objects: Iterable[Any]) -> dict[str, Any]:
    """Return functions or classes by their names."""
    return {some.__name__: some for some in objects if some is not None}


def import_line(what: Any, alias: str = "") -> str:
    """Return the import of a function or a class, as a name that is re-exported."""
    return f"from {what.__module__} import {what.__name__} as {alias or what.__name__}\n"


def with_imports(file: str, functions: Mapping[str, Any]) -> str:
    """Return a module whose imports are those of the public functions."""
    imports = sorted(import_line(function) for function in [class_balanced_weights, *functions.values()])
    text = re.sub(r"^from yolo_losses\..*\n", "", (PACKAGE / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
    first = "from yolo_losses import registry\n"
    return text.replace(first, first + "".join(imports), 1)


def functional_stub(functions: Mapping[str, Any]) -> str:
    """Return the stub of `yolo_losses.functional`."""
    imports = f"from torch import Tensor\n\n{import_line(class_balanced_weights)}\n"
    return HEAD + imports + "".join(stub(name, functions[name]) for name in sorted(functions))


def package(modules: Mapping[str, Any]) -> str:
    """Return the package's `__init__` with the imports that an editor reads."""
    text = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    lines = {*map(import_line, modules.values()), *tools(modules)}
    imports = "".join(f"    {line}" for line in sorted(lines, key=order))
    return re.sub(
        r"(?<=^if TYPE_CHECKING:  # written by `make tables`\n)(?:    .*\n)+", imports, text, flags=re.MULTILINE
    )


def package_stub(modules: Mapping[str, Any]) -> str:
    """Return the stub of `yolo_losses`."""
    bases = [import_line(module, f"_{name}") for name, module in modules.items()]
    functional = "from yolo_losses import functional as functional\n"
    lines = ["from torch import Tensor\n\n", functional, *sorted([*tools(modules), *bases], key=order)]
    classes = (f"class {name}(_{name}):\n    {stub('__init__', modules[name], 4)}\n" for name in sorted(modules))
    return f"{HEAD}{''.join(lines)}\n__version__: str\n\n{''.join(classes).rstrip()}\n"


def tools(modules: Mapping[str, Any]) -> list[str]:
    """Return the imports of those public names of the package that are no loss."""
    return [import_line(getattr(yolo_losses, name)) for name in vars(yolo_losses)["_HOMES"] if name not in modules]


def order(line: str) -> tuple[str, str]:
    """Return the key by which imports are sorted: module, then name."""
    _, module, _, name, *_ = line.split()
    return module, name


def stub(name: str, what: Callable[..., Any], indent: int = 0) -> str:
    """Return the signature of a function, or of a class's `__init__`, as a stub file has it."""
    own = inspect.signature(what)
    parameters = ["self"] if name == "__init__" else []
    star = False
    for p in own.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not star:
            parameters.append("*")
            star = True
        default = "" if p.default is p.empty else f" = {literal(p.default)}"
        parameters.append(f"{p.name}: {annotation(p.annotation)}{default}")
    margin = " " * indent
    result = f") -> {annotation(own.return_annotation)}: ...\n"
    line = f"def {name}({', '.join(parameters)}{result}"
    if indent + len(line) <= WIDTH + 1:
        return line
    inner = f"{margin}    {', '.join(parameters)}"
    if len(inner) > WIDTH:
        inner = ",\n".join(f"{margin}    {parameter}" for parameter in parameters) + ","
    return f"def {name}(\n{inner}\n{margin}{result}"


def annotation(hint: Any) -> str:
    """Return a type as it is written in a stub file."""
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(annotation(part) for part in get_args(hint))
    if hint in (None, NoneType):
        return "None"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def literal(value: Any) -> str:
    """Return a default as it is written in a stub file."""
    return f'"{value}"' if isinstance(value, str) else repr(value)
