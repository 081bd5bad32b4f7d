"""The one room that touches Ultralytics' global state.

`install` makes Ultralytics know the training keys and has every trainer call this package: keys are checked as
`BaseTrainer.check_resume` returns, before anything is read or written; the criteria of the model and of its EMA are
equipped at `on_pretrain_routine_end`, the last event of the set-up; the first batch proves that the swapped parts
ran. `uninstall` puts everything back.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from yolo_losses import registry, settings
from yolo_losses.autoload import yolo_losses_autoload as autoload
from yolo_losses.settings import LossSettings

PREFIX = "yolo_losses: "

_originals: list[tuple[Any, str, Any]] = []
_own_keys: set[str] = set()  # this package's, those that a patched Ultralytics has in its default.yaml too
_added_keys: set[str] = set()


def install() -> None:
    """Patch those of Ultralytics' modules that are loaded, and the others as soon as they are. Idempotent."""
    if autoload.is_disabled():
        return
    autoload.install()
    for name, patch in PATCHES.items():
        module = sys.modules.get(name)
        # A module that is still running its body is left to the import hook.
        if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
            patch(module)


def uninstall() -> None:
    """Put everything back that `install` changed; trainers that exist already keep their callbacks."""
    autoload.uninstall()
    while _originals:
        owner, name, original = _originals.pop()
        setattr(owner, name, original)
    utils = sys.modules.get("ultralytics.utils")
    if utils is not None:
        for key in _added_keys:
            utils.DEFAULT_CFG_DICT.pop(key, None)
            utils.DEFAULT_CFG.__dict__.pop(key, None)
    _added_keys.clear()
    registry.forget_listener(_on_register)


def is_active() -> bool:
    """Return whether Ultralytics' trainers in this interpreter call this package."""
    trainer = sys.modules.get("ultralytics.engine.trainer")
    return trainer is not None and hasattr(trainer.BaseTrainer.__init__, "yolo_losses_original")


def require_active(arguments: Any) -> None:
    """Refuse to train a chosen loss as stock: called by an Ultralytics that is patched to know the keys by itself.

    Args:
        arguments: a trainer's `args`.

    Raises:
        RuntimeError: where a term is not stock and this package is not active.
    """
    chosen = LossSettings.from_mapping(vars(arguments))
    if not is_active() and not chosen.swaps_nothing:
        key, value = next(iter(chosen.non_default().items()))
        raise RuntimeError(f"'{key}={value}' needs yolo_losses, not active here: `yolo-losses doctor` tells why")


def patch_cfg(module: Any) -> None:
    """Make the training keys known: on the command line, in YAML, in Python and in subprocesses."""
    if not _added_keys:
        _add_keys(settings.CHOICES)
        registry.load()
        registry.on_register(_on_register)
        for problem in registry.problems():
            _log().warning(f"{PREFIX}plugin left out: {problem}")


def patch_trainer(module: Any) -> None:
    """Have every trainer check the keys and call this package, whatever callbacks it is given."""
    from ultralytics.utils import DEFAULT_CFG_DICT, torch_utils

    trainer = module.BaseTrainer
    for owner, name in ((trainer, "train"), (trainer, "check_resume"), (torch_utils, "DEFAULT_CFG_DICT")):
        if not hasattr(owner, name):
            uninstall()  # the keys too: a trainer that takes them and never asks would train the stock loss
            raise RuntimeError(f"this Ultralytics has no {owner.__name__}.{name}")
    _replace(trainer, "__init__", _init)
    _replace(trainer, "train", _train)
    _replace(trainer, "check_resume", _check_resume)
    if hasattr(module, "MultiTrainer"):
        _replace(module.MultiTrainer, "__init__", _multi_init)
    # strip_optimizer fills a checkpoint up with every default; it is to see those of Ultralytics alone, so that the
    # checkpoint of a default run does not mention this package.
    if not isinstance(torch_utils.DEFAULT_CFG_DICT, _UpstreamKeys):
        _originals.append((torch_utils, "DEFAULT_CFG_DICT", torch_utils.DEFAULT_CFG_DICT))
        torch_utils.DEFAULT_CFG_DICT = _UpstreamKeys(DEFAULT_CFG_DICT)


def patch_tuner(module: Any) -> None:
    """Check the keys once in the tuner's own process, and keep whole numbers whole."""
    _replace(module.Tuner, "__init__", _tuner_init)
    _replace(module.Tuner, "_mutate", _tuner_mutate)


PATCHES: Mapping[str, Callable[[Any], None]] = {
    "ultralytics.cfg": patch_cfg,
    "ultralytics.engine.trainer": patch_trainer,
    "ultralytics.engine.tuner": patch_tuner,
}


class _UpstreamKeys(Mapping[str, Any]):
    """A live view of a dictionary of defaults without this package's keys."""

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


def _add_keys(keys: Mapping[str, Any]) -> None:
    from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT

    _own_keys.update(keys)
    for key, default in keys.items():
        if key in DEFAULT_CFG_DICT and key not in _added_keys:
            continue  # patched into Ultralytics' own default.yaml, or its own: leave it
        DEFAULT_CFG_DICT[key] = default
        setattr(DEFAULT_CFG, key, default)
        _added_keys.add(key)


def _on_register(spec: registry.LossSpec) -> None:
    from ultralytics.utils import DEFAULT_CFG_DICT

    keys = {p.key: p.default for p in spec.parameters}
    taken = keys.keys() & (DEFAULT_CFG_DICT.keys() - _own_keys)
    if taken and not spec.built_in:
        raise ValueError(f"the key '{min(taken)}' is Ultralytics' own: call the parameter or the loss otherwise")
    _add_keys(keys)


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    if hasattr(original, "yolo_losses_original"):
        return
    replacement: Any = functools.wraps(original)(make(original))
    replacement.yolo_losses_original = original
    setattr(owner, name, replacement)
    _originals.append((owner, name, original))


def _init(original: Any) -> Any:
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        _add_callbacks(self)

    return init


def _train(original: Any) -> Any:
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        _add_callbacks(self)  # once more: they may have been replaced since the trainer was built
        return original(self, *args, **kwargs)

    return train


def _add_callbacks(trainer: Any) -> None:
    for event, callback in CALLBACKS.items():
        listed = trainer.callbacks.setdefault(event, [])
        if callback not in listed:
            listed.append(callback)


def _check_resume(original: Any) -> Any:
    def check_resume(self: Any, overrides: Any = None, *args: Any, **kwargs: Any) -> Any:
        result = original(self, overrides, *args, **kwargs)
        check_arguments(self, overrides)
        return result

    return check_resume


def _tuner_init(original: Any) -> Any:
    def init(self: Any, args: Any, *rest: Any, **kwargs: Any) -> None:
        check_shared_arguments(args)
        original(self, args, *rest, **kwargs)

    return init


def _tuner_mutate(original: Any) -> Any:
    def mutate(self: Any, *args: Any, **kwargs: Any) -> Any:
        # The tuner rounds Ultralytics' own whole numbers alone; a run with `ghm_bins=12.3` would be refused.
        whole = {p.key for spec in registry.specs() for p in spec.parameters if p.type is not float}
        return {k: round(v) if k in whole else v for k, v in original(self, *args, **kwargs).items()}

    return mutate


def _multi_init(original: Any) -> Any:
    def init(self: Any, trainer: Any, args: Any, *rest: Any, **kwargs: Any) -> None:
        check_shared_arguments(args)
        original(self, trainer, args, *rest, **kwargs)

    return init


def check_arguments(trainer: Any, overrides: Any = None) -> LossSettings:
    """Check a trainer's keys before anything is read or written, and leave on its `args` those not at their default.

    Raises:
        ValueError: on a value that is not valid, a loss that the task cannot use, or, on resume, a key that differs
            from the checkpoint's.
    """
    given = vars(trainer.args)
    chosen = LossSettings.from_mapping(given)
    unused = chosen.unused
    if getattr(trainer, "resume", trainer.args.resume) and isinstance(overrides, Mapping):
        unused = _check_same_on_resume(chosen, overrides)
    chosen.check_task(str(trainer.args.task))
    if any(kind.__name__ == "RTDETRTrainer" for kind in type(trainer).__mro__):
        from yolo_losses import detr  # brings Ultralytics' losses along, which a trainer has loaded already

        detr.check(chosen)
    for key in settings.default_keys():
        given.pop(key, None)
    given.update(chosen.non_default())
    if _is_first_rank():
        for key in unused:
            _log().warning(f"{PREFIX}'{key}' has no effect with {chosen.describe()}")
    return chosen


def _check_same_on_resume(kept: LossSettings, overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """Raise where a resumed run is asked for other losses than it was started with; return the keys of no effect."""
    defaults = settings.default_keys()
    asked = {key: value for key, value in overrides.items() if key in defaults and value is not None}
    now = {**defaults, **kept.non_default()}
    chosen = LossSettings.from_mapping({**now, **asked})
    wanted = {**defaults, **chosen.non_default()}
    for key in asked:
        if wanted[key] != now[key]:
            raise ValueError(
                f"resume keeps {key}={now[key]}; start a new run from last.pt to change it to {wanted[key]}"
            )
    return chosen.unused


def check_shared_arguments(arguments: Any) -> None:
    """Check the keys that a tuner, or a trainer of several data sets, hands to each of its runs.

    Of a tuner's search space both ends are checked. A run that is refused would otherwise count as one of bad score.

    Raises:
        ValueError: as a trainer with these keys would.
    """
    if not isinstance(arguments, Mapping):
        return
    space = arguments.get("space") or {}
    ends = [{k: bounds[i] for k, bounds in space.items() if k in settings.default_keys()} for i in (0, 1)]
    for end in ends:
        chosen = LossSettings.from_mapping({**arguments, **end})
        if arguments.get("task"):
            chosen.check_task(str(arguments["task"]))
    for key in chosen.unused:
        _log().warning(f"{PREFIX}'{key}' has no effect with {chosen.describe()}")


def equip_trainer(trainer: Any) -> None:
    """Equip the criteria of a trainer's model and of its EMA (the callback of `on_pretrain_routine_end`)."""
    chosen = LossSettings.from_mapping(vars(trainer.args))
    trainer.yolo_losses_run = None
    if chosen.swaps_nothing:
        return
    from yolo_losses import run

    trainer.yolo_losses_run = run.Run(trainer, chosen)


def prove_it_ran(trainer: Any) -> None:
    """Check after the first batch that the swapped parts were called (the callback of `on_train_batch_end`)."""
    if not hasattr(trainer, "yolo_losses_run"):
        # Someone replaced the callbacks of `on_pretrain_routine_end` after the trainer was built.
        equip_trainer(trainer)
        if trainer.yolo_losses_run is not None:
            raise RuntimeError(
                f"{PREFIX}the first batch ran with the stock loss: the trainer's callbacks of"
                " 'on_pretrain_routine_end' were replaced; add to them instead"
            )
    if trainer.yolo_losses_run is not None:
        trainer.yolo_losses_run.after_batch(trainer)


def save_state(trainer: Any) -> None:
    """Write the losses' state beside the checkpoint (the callback of `on_model_save`)."""
    current = getattr(trainer, "yolo_losses_run", None)
    if current is not None:
        current.save_state(trainer)


CALLBACKS: Mapping[str, Callable[[Any], None]] = {
    "on_pretrain_routine_end": equip_trainer,
    "on_train_batch_end": prove_it_ran,
    "on_model_save": save_state,
}


def _is_first_rank() -> bool:
    from ultralytics.utils import RANK

    return RANK in (-1, 0)


def _log() -> Any:
    from ultralytics.utils import LOGGER

    return LOGGER
