"""Patches Ultralytics: adds the training keys, and makes its engines call this package.

No other module changes Ultralytics' global state. Keys are checked when `BaseTrainer.check_resume` returns, before
anything is read or written. `callbacks.CALLBACKS` are added to every trainer: the criterion is equipped at
`on_pretrain_routine_end`, the last event of the set-up, and every batch, epoch and validation is checked. Models and
criteria are wrapped where they compute a loss (`guard`). `uninstall` undoes everything.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any

from yolo_losses import registry
from yolo_losses._log import log
from yolo_losses.config import class_weights, renaming, settings
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration import arguments
from yolo_losses.integration.autoload import yolo_losses_autoload as autoload
from yolo_losses.integration.context import CLASSIFY_CALL
from yolo_losses.registry.parameters import Value

_originals: list[tuple[Any, str, Any]] = []
_own_keys: set[str] = set()  # this package's, including those that a patched Ultralytics has in its default.yaml
_added_keys: set[str] = set()


def install() -> None:
    """Patch the modules of Ultralytics that are loaded, and all others when they are loaded. Idempotent."""
    if autoload.is_disabled():
        return
    _uninstall_other_copy()
    autoload.set_finders(_finder)
    for name in PATCHES:
        module = sys.modules.get(name)
        # A module that is still being loaded is left to the finder.
        if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
            patch(module)


def uninstall() -> None:
    """Undo everything that `install` changed; existing trainers keep their callbacks."""
    autoload.set_finders()
    if "yolo_losses.integration.guard" in sys.modules:
        _guard().release()
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


def _uninstall_other_copy() -> None:
    """Undo what another copy of this package changed, such as one that was imported before an upgrade."""
    trainer = sys.modules.get("ultralytics.engine.trainer")
    wrapper = getattr(getattr(trainer, "BaseTrainer", None), "__init__", None)
    other = getattr(wrapper, "yolo_losses_uninstall", None)
    if other is not None and other is not uninstall:
        other()
    elif other is None and hasattr(wrapper, "yolo_losses_original"):
        log("an older copy of this package is active: restart the interpreter to use this one", warn=True)


def is_active() -> bool:
    """Return whether Ultralytics' trainers in this interpreter call this package."""
    trainer = sys.modules.get("ultralytics.engine.trainer")
    return trainer is not None and hasattr(trainer.BaseTrainer.__init__, "yolo_losses_original")


def require_active(args: Any) -> None:
    """Raise if a chosen loss would train as stock. Called by an Ultralytics whose files are patched to have the keys.

    Args:
        args: the `args` of a trainer.

    Raises:
        RuntimeError: if a key is not at its default and this package is not active.
    """
    chosen = LossSettings.from_arguments(vars(args))
    if not is_active() and not chosen.is_default:
        key, value = next(iter(chosen.non_default().items()))
        raise RuntimeError(f"'{key}={value}' needs yolo_losses, not active here: `yolo-losses doctor` tells why")


def patch_cfg(module: Any) -> None:
    """Add the training keys to Ultralytics' defaults."""
    if not _added_keys:
        _add_keys({**settings.CHOICES, class_weights.BETA.key: class_weights.BETA.default})
        registry.listen(_on_register, _on_remove)
        for problem in registry.problems():
            log(f"plugin left out: {problem}", warn=True)
    if hasattr(module, "check_dict_alignment"):
        _wrap(module, "check_dict_alignment", before=_check_names)


def _check_names(known: Any, given: Any, *args: Any, **kwargs: Any) -> None:
    arguments.check_names(known, given)


def patch_trainer(module: Any) -> None:
    """Make every trainer check the keys and call this package."""
    from ultralytics.utils import DEFAULT_CFG_DICT, torch_utils

    trainer = module.BaseTrainer
    needed = ("train", "check_resume", "_setup_train", "save_model")
    for owner, name in (*((trainer, name) for name in needed), (torch_utils, "DEFAULT_CFG_DICT")):
        if not hasattr(owner, name):
            raise RuntimeError(f"this Ultralytics has no {owner.__name__}.{name}")
    _wrap(trainer, "__init__", after=lambda self, _, *args, **kwargs: _add_callbacks(self))
    # Again, since the callbacks may have been replaced after the trainer was built.
    _wrap_around(trainer, "train", _train)
    _wrap(trainer, "check_resume", after=_check)
    _wrap(trainer, "_setup_train", after=lambda self, _, *args, **kwargs: _callbacks().check_started(self))
    _wrap(trainer, "save_model", before=lambda self, *args, **kwargs: _callbacks().check_before_saving(self))
    if hasattr(module, "MultiTrainer"):
        _wrap(
            module.MultiTrainer,
            "__init__",
            before=lambda self, trainer, args, *_, **kwargs: arguments.check_shared(args),
        )
    # strip_optimizer adds all defaults to a checkpoint. It must not see this package's, so that the checkpoint of a
    # default run does not contain them.
    if not isinstance(torch_utils.DEFAULT_CFG_DICT, _UpstreamKeys):
        _originals.append((torch_utils, "DEFAULT_CFG_DICT", torch_utils.DEFAULT_CFG_DICT))
        torch_utils.DEFAULT_CFG_DICT = _UpstreamKeys(DEFAULT_CFG_DICT)


def _check(trainer: Any, _: None, overrides: Any = None, *args: Any, **kwargs: Any) -> None:
    arguments.check(trainer, overrides)
    _head().check(trainer)


def patch_engine_model(module: Any) -> None:
    """Remember whose model a training begins with, so that its head is checked before anything is written."""
    _wrap_around(module.Model, "train", lambda *args, **kwargs: _head().remember(*args, **kwargs))


def patch_tuner(module: Any) -> None:
    """Check the keys once in the process of the tuner, and round integers after a mutation."""

    def rounded(self: Any, mutated: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        # The tuner only rounds Ultralytics' own integers; a run with `ghm_bins=12.3` would fail.
        whole = arguments.whole_numbers()
        return {key: round(value) if key in whole else value for key, value in mutated.items()}

    _wrap(module.Tuner, "__init__", before=lambda self, args, *rest, **kwargs: arguments.check_tuner(args))
    _wrap(module.Tuner, "_mutate", after=rounded)


def patch_models(module: Any) -> None:
    """Wrap the methods of models that build the criterion and compute the loss."""
    for kind in list(vars(module).values()):
        if isinstance(kind, type) and kind.__module__ == module.__name__ and hasattr(kind, "init_criterion"):
            if "loss" in vars(kind):
                _wrap_around(kind, "loss", lambda *args, **kwargs: _guard().compute_loss(*args, **kwargs))
            if "init_criterion" in vars(kind):
                _wrap(kind, "init_criterion", after=lambda model, made: _guard().guard_criterion(model, made))


def patch_assigners(module: Any) -> None:
    """Wrap the assigners, so that a stock one that is called during training is equipped."""
    kind = module.TaskAlignedAssigner
    _wrap_around(kind, "forward", lambda *args, **kwargs: _guard().call_assigner(*args, **kwargs))


def patch_criteria(module: Any) -> None:
    """Wrap the calls of the criteria with anchors and of the tasks classify and semantic."""
    for kind in list(vars(module).values()):
        if isinstance(kind, type) and issubclass(kind, module.v8DetectionLoss):
            name = "loss" if "loss" in vars(kind) else "" if hasattr(kind, "loss") else "__call__"
            if name in vars(kind):
                _wrap(
                    kind,
                    name,
                    before=lambda criterion, *args, **kwargs: _guard().check_criterion(criterion),
                    after=lambda *args, **kwargs: _guard().end_call(*args, **kwargs),
                )
    for name in ("E2ELoss", "E2EDetectLoss"):  # by release
        if hasattr(module, name):
            kind = getattr(module, name)
            _wrap(kind, "__call__", before=lambda criterion, *args, **kwargs: _guard().check_branches(criterion))
    _patch_classify(module.v8ClassificationLoss)
    if hasattr(module, "SemanticSegmentationLoss"):
        _wrap_around(
            module.SemanticSegmentationLoss,
            "forward",
            lambda *args, **kwargs: _guard().call_assigner(*args, **kwargs),
        )


def _patch_classify(kind: Any) -> None:
    """Store the call of the criterion of the task classify as a method of its class, so that it can be replaced."""
    if hasattr(kind, CLASSIFY_CALL):
        return
    setattr(kind, CLASSIFY_CALL, kind.__call__)
    _originals.append((kind, CLASSIFY_CALL, None))

    def call(criterion: Any, *args: Any, **kwargs: Any) -> Any:
        part = vars(criterion).get(CLASSIFY_CALL)
        # A pickle of an equipped criterion has its own `__call__` there, which would end here again.
        if part is None or isinstance(part, MethodType):
            part = MethodType(getattr(kind, CLASSIFY_CALL), criterion)
        return part(*args, **kwargs)

    _wrap_around(kind, "__call__", lambda _, *args, **kwargs: _guard().call_assigner(call, *args, **kwargs))


def patch_queries(module: Any) -> None:
    """Wrap RT-DETR's criterion, so that a stock one that is called during training is equipped."""
    kind = module.RTDETRDetectionLoss
    _wrap_around(kind, "forward", lambda *args, **kwargs: _guard().call_assigner(*args, **kwargs))


def _head() -> Any:
    from yolo_losses.integration import head  # imports Ultralytics' losses

    return head


def _guard() -> Any:
    from yolo_losses.integration import guard  # imports Ultralytics' losses, which a model has loaded already

    return guard


def _train(original: Callable[..., Any], trainer: Any, *args: Any, **kwargs: Any) -> Any:
    _add_callbacks(trainer)
    try:
        return original(trainer, *args, **kwargs)
    finally:
        _callbacks().leave(trainer)  # also if training ends with an error


def _patch_engine(module: Any, kind: str, mode: str) -> None:
    def check(self: Any, _: None, *args: Any, **kwargs: Any) -> None:
        arguments.check_without_training(self.args, mode)

    _wrap(getattr(module, kind), "__init__", after=check)


PATCHES: Mapping[str, Callable[[Any], None]] = {
    "ultralytics.cfg": patch_cfg,
    "ultralytics.engine.model": patch_engine_model,
    "ultralytics.engine.trainer": patch_trainer,
    "ultralytics.engine.tuner": patch_tuner,
    "ultralytics.engine.validator": functools.partial(_patch_engine, kind="BaseValidator", mode="val"),
    "ultralytics.engine.predictor": functools.partial(_patch_engine, kind="BasePredictor", mode="predict"),
    "ultralytics.engine.exporter": functools.partial(_patch_engine, kind="Exporter", mode="export"),
    "ultralytics.nn.tasks": patch_models,
    "ultralytics.utils.tal": patch_assigners,
    "ultralytics.utils.loss": patch_criteria,
    "ultralytics.models.utils.loss": patch_queries,
}


def patch(module: Any) -> None:
    """Patch a module of Ultralytics that has been loaded. If that fails, undo everything, and raise.

    With some of the patches only, keys could be accepted and a stock loss trained.
    """
    if _finder not in sys.meta_path:  # uninstalled while the module was being loaded
        return
    try:
        PATCHES[module.__name__](module)
    except Exception:
        uninstall()
        raise


_finder = autoload.PostImportFinder(PATCHES, patch)


def _wrap(
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

    _wrap_around(owner, name, around)


def _wrap_around(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a method by a function that is called with the original method, `self` and its arguments, once."""
    original = getattr(owner, name)
    if hasattr(original, "yolo_losses_original"):
        return

    @functools.wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(original, self, *args, **kwargs)

    wrapper.yolo_losses_original = original  # type: ignore[attr-defined]
    wrapper.yolo_losses_uninstall = uninstall  # type: ignore[attr-defined]
    setattr(owner, name, wrapper)
    _originals.append((owner, name, original))


class _UpstreamKeys(Mapping[str, Any]):
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


def _callbacks() -> Any:
    from yolo_losses.integration import callbacks  # imports Ultralytics' losses, which a trainer has loaded already

    return callbacks


def _add_callbacks(trainer: Any) -> None:
    for event, callback in _callbacks().CALLBACKS.items():
        listed = trainer.callbacks.setdefault(event, [])
        if callback not in listed:
            listed.append(callback)
