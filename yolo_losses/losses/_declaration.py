"""Registration of losses: what the decorators of all kinds of losses share."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from yolo_losses import registry
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses._module import DeclaredModule, LossModule
from yolo_losses.registry import Kind, LossSpec, key_prefix, normalize_name
from yolo_losses.registry.parameters import Parameter


def declares(
    kind: Kind, base: type[DeclaredModule], name: str, aliases: tuple[str, ...], source: str, summary: str
) -> Callable[[Any], Any]:
    """Return a decorator that registers a formula, or a subclass of `base`, under a name."""

    def register(declared: Any) -> Any:
        module, public = declared, declared
        if not inspect.isclass(declared):
            if not issubclass(base, LossModule):
                raise TypeError(f"'{name}' must be a class derived from {base.__name__}")
            public = loss_function(base.family)(declared)
            module = _module_of(base, declared, public)
            # In the module of its formula, where pickle looks for the class.
            vars(sys.modules[module.__module__]).setdefault(module.__name__, module)
        built_in = module.__module__.startswith("yolo_losses.")
        if not built_in:
            registry.load()  # so that a taken name is refused here
        module.registered_name = name
        parameters = module.declared(key_prefix(kind, name))
        _document(module, parameters)
        spec = LossSpec(
            name=name,
            kind=kind,
            module=module,
            aliases=tuple(normalize_name(alias) for alias in aliases),
            source=source,
            summary=summary or (inspect.getdoc(declared) or "").partition("\n")[0].rstrip("."),
            parameters=tuple(parameters),
            rotated=bool(getattr(module, "rotated", False)),
            built_in=built_in,
        )
        registry.add(spec)
        return public

    return register


OPTIONS = {
    "reduction": "`mean`, `sum` or `none`.",
    "loss_weight": "factor on the loss.",
    "activated": "whether predictions are probabilities rather than logits.",
}


def _document(module: type[DeclaredModule], parameters: Sequence[Parameter]) -> None:
    """Add a section `Args` to the docstring of a module class that has none, from its declared parameters."""
    doc = inspect.cleandoc(module.__doc__ or "")
    if re.search(r"^Args:$", doc, re.MULTILINE):
        return
    words = {p.name: f"{p.limits.help} ({p.allowed})." if p.limits.help else f"{p.allowed}." for p in parameters}
    inits = (vars(base).get("__init__") for base in reversed(module.__mro__))
    options = {name for init in inits for name in getattr(init, "__kwdefaults__", None) or ()}
    words |= {name: text for name, text in OPTIONS.items() if name in options}
    section = "Args:\n" + "".join(f"    {name}: {text}\n" for name, text in words.items())
    text, *after = re.split(r"^(?=(?:Raises|Source|See also|Example):$)", doc, maxsplit=1, flags=re.MULTILINE)
    module.__doc__ = "\n\n".join(part.strip() for part in (text, section, *after) if part.strip())


def _module_of(base: type[LossModule], formula: Formula, public: Formula) -> type[LossModule]:
    """Return a module class around a plain formula; its name ends in `Loss`, so that `yolo_losses` exports it."""
    name = "".join(part.capitalize() for part in formula.__name__.split("_"))
    if not name.endswith("Loss"):
        name += "Loss"
    attributes = {"formula": staticmethod(public), "__doc__": formula.__doc__, "__module__": formula.__module__}
    return type(name, (base,), attributes)
