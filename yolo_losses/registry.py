"""The losses by name: what each is called, which parameters it declares, where it comes from.

A loss declares itself where it is written, with `register_cls_loss` or `register_box_loss`. Its parameters are read
from that one declaration (the annotated arguments of its formula and the annotated attributes of its module);
validation, training keys, banner, `yolo-losses list` and the docs all read them from here.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import numbers
import os
import re
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from yolo_losses.boxes._base import BoxLoss, BoxModifier
    from yolo_losses.classification._base import ClassificationLoss

Kind = Literal["cls", "box", "modifier"]
Value = float | int | bool

ENTRY_POINT_GROUP = "yolo_losses.losses"
PLUGINS_VARIABLE = "YOLO_LOSSES_PLUGINS"
BUILT_IN_PACKAGES = ("yolo_losses.classification", "yolo_losses.boxes")

# Arguments of a formula that the criterion supplies from the step at hand; all other arguments are parameters.
SUPPLIED_ARGUMENTS = frozenset(
    {"positive_mask", "mean_iou", "image_wh", "mean_loss", "stride", "pos_weight", "eps", "floor"}
)


@dataclass(frozen=True)
class Param:
    """What a parameter's annotation says beside its type: `gamma: Annotated[float, Param("exponent", low=0)] = 2.0`.

    Args:
        help: what the parameter does, in a few words.
        low: smallest allowed value.
        high: largest allowed value.
        above: bound that the value must exceed.
        off: value of the training key that stands for `None`, where `None` is allowed.
    """

    help: str = ""
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    off: float | None = None


@dataclass(frozen=True)
class Parameter:
    """One declared parameter of one loss.

    Attributes:
        key: the training key, such as `focal_gamma`.
        name: the argument's name, such as `gamma`.
        type: `float`, `int` or `bool`.
        default: the key's default.
        limits: range and help.
    """

    key: str
    name: str
    type: type
    default: Value
    limits: Param

    @property
    def allowed(self) -> str:
        """The allowed values in words, for messages and listings."""
        if self.type is bool:
            return "True or False"
        kind = "an integer" if self.type is int else "a number"
        low, high, above = self.limits.low, self.limits.high, self.limits.above
        bounds = []
        if above > -math.inf:
            bounds.append(f"> {above:g}")
        if low > -math.inf:
            bounds.append(f">= {low:g}")
        if high < math.inf:
            bounds.append(f"<= {high:g}")
        return " ".join([kind, " and ".join(bounds)]).strip()

    def parse(self, value: Any) -> Value:
        """Return `value` as the declared type, or raise a `ValueError` of one line that names key and range.

        Strings that spell a number or a truth value are understood (YAML reads `1e-1` as a string); integers may
        arrive as whole floats (a tuner's do); `None` and `none` mean the default.
        """
        number = parse_value(value, self.type, self.default)
        limits = self.limits
        if number is None or not (limits.low <= number <= limits.high and number > limits.above):
            raise ValueError(
                f"'{self.key}={shown(value)}' is not valid: allowed is {self.allowed} (default {self.default})"
            )
        return number


def shown(value: Any) -> str:
    """Return `value` for a message: on one line, printable, and not longer than a person reads."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # a stranger's __repr__ must not replace our message by its own
        text = f"<{type(value).__name__}>"
    text = text[:200].encode("unicode_escape", "replace").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= 60 else text[:57] + "..."


def parse_value(value: Any, kind: type, default: Value) -> Value | None:
    """Return `value` as a finite `kind`, the default where it is `None` or `none`, and `None` where it is no `kind`."""
    if isinstance(value, str):
        value = value.strip()
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return default
    if kind is bool:
        if isinstance(value, str):
            return {
                "true": True,
                "1": True,
                "yes": True,
                "on": True,
                "false": False,
                "0": False,
                "no": False,
                "off": False,
            }.get(value.lower())
        return bool(value) if isinstance(value, numbers.Real) and value in (0, 1) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if len(value) > 40 or not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", value, re.ASCII):
            return None
        value = float(value)
    if not isinstance(value, numbers.Real):  # NumPy's scalars are, and a sweep over an array hands them over
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number) or (kind is int and number != int(number)):
        return None
    return int(number) if kind is int else number


@dataclass(frozen=True)
class LossSpec:
    """A registered loss.

    Attributes:
        name: the name that selects it.
        kind: `cls`, `box` or `modifier` (written in front of a box loss's name).
        module: its `nn.Module` class.
        aliases: other spellings that are understood.
        source: paper or code whose numbers it matches.
        summary: one line on what it does.
        parameters: the parameters, in order of declaration.
        rotated: for boxes, whether it takes rotated boxes (xywhr) rather than axis-aligned ones.
    """

    name: str
    kind: Kind
    module: type[Any]
    aliases: tuple[str, ...]
    source: str
    summary: str
    parameters: tuple[Parameter, ...]
    rotated: bool = False

    @property
    def built_in(self) -> bool:
        """Whether it is one of this package's own."""
        return _is_built_in(self.module)

    def build(self, values: Mapping[str, Value] = MappingProxyType({}), **options: Any) -> Any:
        """Return the module, its parameters taken from training keys: `spec.build({"focal_gamma": 2.0})`."""
        chosen: dict[str, Any] = {p.name: values.get(p.key, p.default) for p in self.parameters}
        return self.module(**chosen, **options)


def normal(name: Any) -> str:
    """Return a name as it is compared: lower case, `-` and blanks as `_`."""
    return re.sub(r"[-\s]+", "_", str(name).strip().lower())


def did_you_mean(name: str, names: list[str]) -> str:
    """Return ` Did you mean 'x'?`, or nothing where no name is near."""
    near = difflib.get_close_matches(normal(name)[:100], names, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


@dataclass
class _Table:
    specs: dict[tuple[Kind, str], LossSpec] = field(default_factory=dict)
    listeners: list[Callable[[LossSpec], None]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    built_in_loaded: bool = False
    loaded: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)


_table = _Table()


def register_cls_loss(
    name: str, *, aliases: tuple[str, ...] = (), source: str = "", summary: str = ""
) -> Callable[[Any], Any]:
    """Register a classification loss under `name`; a decorator for a formula or for a `ClassificationLoss`.

    A formula is a function `(logits, targets, ...) -> loss an element`, all of one shape. Its further arguments are
    the loss's parameters and become the training keys `{name}_{argument}`; `mean_iou` and `positive_mask` are
    supplied by the criterion. The decorated formula also takes `weight`, `reduction` and `avg_factor`.

    Raises:
        ValueError: if the name is taken, is not an identifier, or a parameter's declaration is not usable.
    """
    return functools.partial(_register, "cls", name, aliases, source, summary)


def register_box_loss(
    name: str, *, aliases: tuple[str, ...] = (), source: str = "", summary: str = ""
) -> Callable[[Any], Any]:
    """Register a box loss under `name`; a decorator for a formula or for a `BoxLoss`.

    A formula is a function `(pred, target, ...) -> loss a pair` of boxes `xyxy`, shape `(..., 4)`. Its further
    arguments are the loss's parameters and become the training keys `{name}_{argument}`; `image_wh`, `stride` and
    `mean_loss` are supplied by the criterion.

    Raises:
        ValueError: if the name is taken, is not an identifier, or a parameter's declaration is not usable.
    """
    return functools.partial(_register, "box", name, aliases, source, summary)


def register_modifier(
    name: str, *, aliases: tuple[str, ...] = (), source: str = "", summary: str = ""
) -> Callable[[Any], Any]:
    """Register a `BoxModifier` class under `name`: it is written in front of a box loss's name, `{name}_ciou`."""
    return functools.partial(_register, "modifier", name, aliases, source, summary)


def _register(kind: Kind, name: str, aliases: tuple[str, ...], source: str, summary: str, declared: Any) -> Any:
    module, public = declared, declared
    if not inspect.isclass(declared):
        module, public = _base(kind).from_formula(declared)
        # The class stands beside its formula, where a pickle looks for it.
        vars(sys.modules[module.__module__]).setdefault(module.__name__, module)
    if not _is_built_in(module):
        _load_built_in()  # so that a taken name is refused here rather than found out by the built-in one
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"a loss's name is lower-case letters, digits and '_', not '{shown(name)}'")
    spec = LossSpec(
        name=name,
        kind=kind,
        module=module,
        aliases=tuple(normal(alias) for alias in aliases),
        source=source,
        summary=summary or (inspect.getdoc(declared) or "").partition("\n")[0],
        parameters=tuple(declared_parameters(name, module)),
        rotated=bool(getattr(module, "rotated", False)),
    )
    _add(spec)
    module.registered_name = name
    return public


def _base(kind: Kind) -> Any:
    from yolo_losses.boxes._base import BoxLoss
    from yolo_losses.classification._base import ClassificationLoss

    bases: dict[Kind, type[ClassificationLoss] | type[BoxLoss]] = {"cls": ClassificationLoss, "box": BoxLoss}
    return bases[kind]


def _add(spec: LossSpec) -> None:
    with _table.lock:
        # A notebook's cell that runs again, or a script that is read as a plugin too, declares its own loss anew.
        others = [s for s in _table.specs.values() if (s.kind, s.name) != (spec.kind, spec.name)]
        before = _table.specs.get((spec.kind, spec.name))
        if before is not None and _declared_at(before.module) != _declared_at(spec.module):
            others.append(before)
        taken = {other for s in others if s.kind == spec.kind for other in (s.name, *s.aliases)}
        clash = taken.intersection((spec.name, *spec.aliases)) or {
            p.key for s in others for p in s.parameters
        }.intersection(p.key for p in spec.parameters)
        clash |= {spec.name}.intersection(("stock", "none", "off", "auto"))
        if clash:
            raise ValueError(f"a {spec.kind} loss or key is already registered as '{sorted(clash)[0]}'")
        for listener in _table.listeners:
            listener(spec)
        _table.specs[spec.kind, spec.name] = spec


def _is_built_in(module: type) -> bool:
    return module.__module__.startswith(tuple(f"{package}." for package in BUILT_IN_PACKAGES))


def _declared_at(module: type) -> tuple[str, str]:
    """Return the file of a loss's declaration, or where there is none its module, and its name there."""
    file = getattr(sys.modules.get(module.__module__), "__file__", None)
    return (os.path.realpath(file) if file else module.__module__), module.__qualname__


def unregister(kind: Kind, name: str) -> None:
    """Forget a loss that was registered at run time."""
    with _table.lock:
        _table.specs.pop((kind, name), None)


def declared_parameters(loss: str, module: type) -> Iterator[Parameter]:
    """Yield the declared parameters of a module: its formula's arguments, then its own annotated attributes."""
    formula = getattr(module, "formula", None)
    if formula is not None:
        hints = get_type_hints(inspect.unwrap(formula), include_extras=True)
        arguments = list(inspect.signature(inspect.unwrap(formula)).parameters.values())
        for argument in arguments[2:]:
            if argument.name in SUPPLIED_ARGUMENTS:
                continue
            if argument.default is argument.empty or argument.kind in (argument.VAR_KEYWORD, argument.VAR_POSITIONAL):
                raise ValueError(f"the parameter '{argument.name}' of the loss '{loss}' needs a default")
            yield _parameter(loss, argument.name, hints.get(argument.name, type(argument.default)), argument.default)
    for name, hint in get_type_hints(module, include_extras=True).items():
        if get_origin(hint) is Annotated and any(isinstance(extra, Param) for extra in get_args(hint)):
            yield _parameter(loss, name, hint, getattr(module, name))


def _parameter(loss: str, name: str, hint: Any, default: Any) -> Parameter:
    limits = Param()
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        limits = next((extra for extra in extras if isinstance(extra, Param)), limits)
    if get_origin(hint) in (Union, UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if hint not in (float, int, bool):
        raise ValueError(f"the parameter '{name}' of the loss '{loss}' must be a float, an int or a bool")
    if default is None:
        default = limits.off
    key = f"{loss}_{name.rstrip('_')}"
    parameter = Parameter(key, name, hint, hint(default), limits)
    parameter.parse(default)
    return parameter


def on_register(listener: Callable[[LossSpec], None]) -> None:
    """Call `listener` with every loss registered so far and with every later one, before it is registered.

    A `ValueError` of its refuses the loss; one that is registered already is left out and kept in `problems()`.
    """
    with _table.lock:
        _table.listeners.append(listener)
        for spec in list(_table.specs.values()):
            try:
                listener(spec)
            except ValueError as error:
                unregister(spec.kind, spec.name)
                _table.problems.append(f"{spec.name}: {error}")


def forget_listener(listener: Callable[[LossSpec], None]) -> None:
    """Call `listener` no more."""
    with _table.lock:
        _table.listeners[:] = [other for other in _table.listeners if other is not listener]


def load() -> None:
    """Register the built-in losses, those of installed entry points and those of `YOLO_LOSSES_PLUGINS`, once.

    A plugin that fails to import is left out and kept in `problems()`: someone else's mistake takes down neither this
    package nor its host.
    """
    with _table.lock:
        if _table.loaded:
            return
        _table.loaded = True
        _load_built_in()
        for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            _try_plugin(f"entry point {point.name} ({point.value})", point.load)
        for path in filter(None, os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep)):
            _try_plugin(path, functools.partial(_run_file, path))


def _load_built_in() -> None:
    with _table.lock:
        if not _table.built_in_loaded:
            _table.built_in_loaded = True
            for package in BUILT_IN_PACKAGES:
                importlib.import_module(package)


def _try_plugin(what: str, load_it: Callable[[], Any]) -> None:
    before = dict(_table.specs)
    try:
        load_it()
    except (Exception, SystemExit) as error:  # a script that reads its command line as it is imported exits
        _table.specs = before
        _table.problems.append(f"{what}: {type(error).__name__}: {error}".replace("\n", " "))


def _run_file(path: str) -> None:
    # Known by a name that is the same in every process: annotations and pickles are looked up by it.
    name = f"yolo_losses_plugin_{zlib.crc32(os.path.abspath(path).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not os.path.isfile(path):
        raise ValueError("not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def problems() -> list[str]:
    """Return a line for each plugin that could not be loaded."""
    load()
    return list(_table.problems)


def specs(kind: Kind | None = None) -> list[LossSpec]:
    """Return the registered losses, of one kind if given, in order of registration."""
    load()
    return [spec for spec in _table.specs.values() if kind in (None, spec.kind)]


def find(kind: Kind, name: str) -> LossSpec | None:
    """Return the loss registered under `name` or one of its aliases, whatever its case and hyphens, or `None`."""
    load()
    wanted = normal(name)
    if (kind, wanted) in _table.specs:
        return _table.specs[kind, wanted]
    return next((spec for spec in specs(kind) if wanted in spec.aliases), None)


def make_cls_loss(name: str, *, reduction: str = "none", **keys: Any) -> ClassificationLoss:
    """Return the module of a classification loss by its registered name and keys.

    Args:
        name: such as `"focal"`.
        reduction: `none` (one value an element), `mean` or `sum`.
        **keys: the loss's training keys, such as `focal_gamma=2.0`.

    Raises:
        ValueError: on an unknown name, a key that is not this loss's, or a value out of range.
    """
    spec = find("cls", name)
    if spec is None:
        raise unknown_name("cls_loss", name, [s.name for s in specs("cls")])
    return spec.build(parse_keys([spec], keys), reduction=reduction)


def make_box_loss(name: str, *, reduction: str = "none", **keys: Any) -> BoxLoss:
    """Return the module of a box loss, with any modifiers, by its registered name and keys.

    Args:
        name: such as `"ciou"` or `"focaler_inner_ciou"`.
        reduction: `none` (one value a pair), `mean` or `sum`.
        **keys: the training keys of the loss and its modifiers, such as `inner_ratio=0.7`.

    Raises:
        ValueError: on an unknown name, a key that is not this loss's, or a value out of range.
    """
    modifiers, base = split_box_name(name)
    values = parse_keys([*modifiers, base], keys)
    module = base.build(values, reduction=reduction)
    if modifiers:
        from yolo_losses.boxes._base import ModifiedBoxLoss

        parts: list[BoxModifier] = [spec.build(values) for spec in modifiers]
        module = ModifiedBoxLoss(module, parts, reduction=reduction)
    return module


def split_box_name(name: str) -> tuple[list[LossSpec], LossSpec]:
    """Return the modifiers, in canonical order, and the base of a box loss's name.

    Raises:
        ValueError: if a part is unknown, a modifier is repeated, or a modifier does not fit the base.
    """
    load()
    modifiers: list[LossSpec] = []
    rest = normal(name)
    while (base := find("box", rest)) is None:
        prefix = next((s for s in specs("modifier") for n in (s.name, *s.aliases) if rest.startswith(f"{n}_")), None)
        if prefix is None:
            names = [s.name for s in specs("box")]
            prefixes = [s.name for s in specs("modifier")]
            combined = names + [f"{p}_{n}" for p in prefixes for n in names]
            raise unknown_name(
                "box_loss", name, names, combined, f", with any of {', '.join(p + '_' for p in prefixes)} in front"
            )
        if prefix in modifiers:
            raise ValueError(f"'box_loss={shown(name)}' is not valid: '{prefix.name}_' stands there twice")
        modifiers.append(prefix)
        rest = next(rest[len(n) + 1 :] for n in (prefix.name, *prefix.aliases) if rest.startswith(f"{n}_"))
    for spec in modifiers:
        allowed: tuple[str, ...] | None = spec.module.bases
        if base.rotated or (allowed is not None and base.name not in allowed):
            fitting = ", ".join(allowed or [s.name for s in specs("box") if not s.rotated])
            raise ValueError(f"'box_loss={shown(name)}' is not valid: '{spec.name}_' goes in front of {fitting}")
    order = [s.name for s in sorted(specs("modifier"), key=lambda s: s.module.position)]
    return sorted(modifiers, key=lambda s: order.index(s.name)), base


def box_name(modifiers: list[LossSpec], base: LossSpec) -> str:
    """Return the one canonical name of a box loss with modifiers."""
    return "_".join(spec.name for spec in [*modifiers, base])


def parse_keys(of: list[LossSpec], keys: Mapping[str, Any]) -> dict[str, Value]:
    """Return every parameter of the losses `of` by key: parsed from `keys`, or the default.

    Raises:
        ValueError: on a key that is none of theirs, or a value out of range.
    """
    parameters = {p.key: p for spec in of for p in spec.parameters}
    for key in keys:
        if key not in parameters:
            own = ", ".join(parameters) or "none"
            names = "_".join(spec.name for spec in of)
            raise ValueError(
                f"'{key}' is not a parameter of '{names}', whose own are: {own}.{did_you_mean(key, list(parameters))}"
            )
    values = {key: p.parse(keys.get(key)) for key, p in parameters.items()}
    for spec in of:
        check = getattr(spec.module, "check_parameters", None)
        if check is not None:
            check(values)
    return values


def unknown_name(key: str, name: Any, names: list[str], near: list[str] | None = None, more: str = "") -> ValueError:
    """Return the error for a value that names nothing: the value, what is allowed, and the nearest name."""
    hint = did_you_mean(name, near or names) if isinstance(name, str) else ""
    return ValueError(f"'{key}={shown(name)}' is not valid: allowed are {', '.join(names)}{more}.{hint}")
