"""Patches Ultralytics: adds the training keys, and makes its engines call this package.

`PATCHES` lists what is patched in which module; `patching` applies it, and undoes it in `uninstall`. No other module
changes Ultralytics' global state. Keys are checked when `BaseTrainer.check_resume` returns, before anything is read or
written. `callbacks.CALLBACKS` are added to every trainer: the criterion is equipped at `on_pretrain_routine_end`, the
last event of the set-up, and every batch, epoch and validation is checked. Models and criteria are wrapped where they
compute a loss (`guard`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

from yolo_losses import registry
from yolo_losses._log import log
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration import arguments
from yolo_losses.integration.autoload import yolo_losses_autoload as autoload
from yolo_losses.integration.context import CLASSIFY_CALL
from yolo_losses.integration.patching import UpstreamKeys, add_training_keys, replace, uninstall, wrap, wrap_around


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
    if add_training_keys():
        for problem in registry.problems():
            log(f"plugin left out: {problem}", warn=True)
    if hasattr(module, "check_dict_alignment"):
        wrap(module, "check_dict_alignment", before=lambda known, given, *_, **__: arguments.check_names(known, given))


def patch_trainer(module: Any) -> None:
    """Make every trainer check the keys and call this package."""
    from ultralytics.utils import DEFAULT_CFG_DICT, torch_utils

    trainer = module.BaseTrainer
    needed = ("train", "check_resume", "_setup_train", "validate", "save_model")
    for owner, name in (*((trainer, name) for name in needed), (torch_utils, "DEFAULT_CFG_DICT")):
        if not hasattr(owner, name):
            raise RuntimeError(f"this Ultralytics has no {owner.__name__}.{name}")
    wrap(trainer, "__init__", after=lambda self, _, *args, **kwargs: _add_callbacks(self))
    # Again, since the callbacks may have been replaced after the trainer was built.
    wrap_around(trainer, "train", _train)
    wrap(trainer, "check_resume", after=_check)
    wrap(trainer, "_setup_train", after=lambda self, _, *args, **kwargs: _callbacks().check_started(self))
    # Also at `on_val_start`, since a trainer may override this method, and a validator may call no callbacks.
    wrap(trainer, "validate", before=lambda self, *args, **kwargs: _callbacks().begin_validation(self))
    wrap(trainer, "save_model", before=lambda self, *args, **kwargs: _callbacks().check_before_saving(self))
    if hasattr(module, "MultiTrainer"):
        wrap(module.MultiTrainer, "__init__", before=lambda self, trainer, args, *_, **__: arguments.check_shared(args))
    # strip_optimizer adds all defaults to a checkpoint. It must not see this package's, so that the checkpoint of a
    # default run does not contain them.
    if not isinstance(torch_utils.DEFAULT_CFG_DICT, UpstreamKeys):
        replace(torch_utils, "DEFAULT_CFG_DICT", UpstreamKeys(DEFAULT_CFG_DICT))


def _check(trainer: Any, _: None, overrides: Any = None, *args: Any, **kwargs: Any) -> None:
    arguments.check(trainer, overrides)
    _head().check(trainer)


def patch_engine_model(module: Any) -> None:
    """Remember whose model a training begins with, so that its head is checked before anything is written."""
    wrap_around(module.Model, "train", lambda *args, **kwargs: _head().remember(*args, **kwargs))


def patch_tuner(module: Any) -> None:
    """Check the keys once in the process of the tuner, and round integers after a mutation."""

    def rounded(self: Any, mutated: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        # The tuner only rounds Ultralytics' own integers; a run with `ghm_bins=12.3` would fail.
        whole = arguments.whole_numbers()
        return {key: round(value) if key in whole else value for key, value in mutated.items()}

    wrap(module.Tuner, "__init__", before=lambda self, args, *rest, **kwargs: arguments.check_tuner(args))
    wrap(module.Tuner, "_mutate", after=rounded)


def patch_models(module: Any) -> None:
    """Wrap the methods of models that build the criterion and compute the loss."""
    for kind in list(vars(module).values()):
        if isinstance(kind, type) and kind.__module__ == module.__name__ and hasattr(kind, "init_criterion"):
            if "loss" in vars(kind):
                wrap_around(kind, "loss", lambda *args, **kwargs: _guard().compute_loss(*args, **kwargs))
            if "init_criterion" in vars(kind):
                wrap(kind, "init_criterion", after=lambda model, made: _guard().guard_criterion(model, made))


def patch_assigners(module: Any) -> None:
    """Wrap the assigners, so that a stock one that is called during training is equipped."""
    wrap_around(module.TaskAlignedAssigner, "forward", _call_assigner)


def patch_criteria(module: Any) -> None:
    """Wrap the calls of the criteria with anchors and of the tasks classify and semantic."""
    for kind in list(vars(module).values()):
        if isinstance(kind, type) and issubclass(kind, module.v8DetectionLoss):
            name = "loss" if "loss" in vars(kind) else "" if hasattr(kind, "loss") else "__call__"
            if name in vars(kind):
                wrap(
                    kind,
                    name,
                    before=lambda criterion, *args, **kwargs: _guard().check_criterion(criterion),
                    after=lambda *args, **kwargs: _guard().end_call(*args, **kwargs),
                )
    for name in ("E2ELoss", "E2EDetectLoss"):  # by release
        if hasattr(module, name):
            kind = getattr(module, name)
            wrap(kind, "__call__", before=lambda criterion, *args, **kwargs: _guard().check_branches(criterion))
    _patch_classify(module.v8ClassificationLoss)
    if hasattr(module, "SemanticSegmentationLoss"):
        wrap_around(module.SemanticSegmentationLoss, "forward", _call_assigner)


def _patch_classify(kind: Any) -> None:
    """Store the call of the criterion of the task classify as a method of its class, so that it can be replaced."""
    if hasattr(kind, CLASSIFY_CALL):
        return
    replace(kind, CLASSIFY_CALL, kind.__call__)

    def call(criterion: Any, *args: Any, **kwargs: Any) -> Any:
        part = vars(criterion).get(CLASSIFY_CALL)
        # A pickle of an equipped criterion has its own `__call__` there, which would end here again.
        if part is None or isinstance(part, MethodType):
            part = MethodType(getattr(kind, CLASSIFY_CALL), criterion)
        return part(*args, **kwargs)

    wrap_around(kind, "__call__", lambda _, *args, **kwargs: _call_assigner(call, *args, **kwargs))


def patch_queries(module: Any) -> None:
    """Wrap RT-DETR's criterion, so that a stock one that is called during training is equipped."""
    wrap_around(module.RTDETRDetectionLoss, "forward", _call_assigner)


def _head() -> Any:
    from yolo_losses.integration import head  # imports Ultralytics' losses

    return head


def _guard() -> Any:
    from yolo_losses.integration import guard  # imports Ultralytics' losses, which a model has loaded already

    return guard


def _call_assigner(*args: Any, **kwargs: Any) -> Any:
    return _guard().call_assigner(*args, **kwargs)


def _train(original: Callable[..., Any], trainer: Any, *args: Any, **kwargs: Any) -> Any:
    _add_callbacks(trainer)
    try:
        return original(trainer, *args, **kwargs)
    finally:
        _callbacks().leave(trainer)  # also if training ends with an error


def _patch_engine(module: Any, kind: str, mode: str) -> None:
    def check(self: Any, _: None, *args: Any, **kwargs: Any) -> None:
        arguments.check_without_training(self.args, mode)

    wrap(getattr(module, kind), "__init__", after=check)


def _callbacks() -> Any:
    from yolo_losses.integration import callbacks  # imports Ultralytics' losses, which a trainer has loaded already

    return callbacks


def _add_callbacks(trainer: Any) -> None:
    for event, callback in _callbacks().CALLBACKS.items():
        listed = trainer.callbacks.setdefault(event, [])
        if callback not in listed:
            listed.append(callback)


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

_finder = autoload.PostImportFinder(PATCHES, patch)
