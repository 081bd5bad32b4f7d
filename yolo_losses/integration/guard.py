"""Makes sure that a model whose `args` choose a loss never trains a stock loss, whatever code trains it.

The `loss` methods of Ultralytics' models are wrapped. A model that was not set up by a trainer of Ultralytics, as in a
custom training loop or with a vendored trainer, gets its criterion equipped before the first call with gradients.
`init_criterion` puts a `Guard` in place of the part that a criterion calls first, in case the criterion is used
directly. Stock criteria and assigners that are called during training are equipped at their first call.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from yolo_losses._log import PREFIX, log
from yolo_losses.config.class_weights import class_names_by_index
from yolo_losses.config.settings import LossSettings, default_keys, own_arguments
from yolo_losses.integration import context, criteria, messages
from yolo_losses.integration.context import Context
from yolo_losses.integration.criteria import parts
from yolo_losses.integration.criteria.anchor_branch import AssignerPart
from yolo_losses.integration.criteria.ledger import UnprovenError
from yolo_losses.integration.criteria.parts import Part
from yolo_losses.integration.equipment import Equipment
from yolo_losses.monitor.gather import has_prompts, named_terms

_equipment: weakref.WeakKeyDictionary[Any, Equipment] = weakref.WeakKeyDictionary()  # by model
_in_runs: weakref.WeakSet[Any] = weakref.WeakSet()  # equipment that a trainer of Ultralytics settles and commits
_warned: weakref.WeakSet[Any] = weakref.WeakSet()  # models and criteria with a warning that `loss_stats` has no effect
_step_hook: Any = None
_zero_grad: Any = None  # the original `Optimizer.zero_grad`, while models are tracked
RECHECK_EVERY = 100  # steps between checks in a custom training loop, whose epochs are unknown


def register(model: Any, equipment: Equipment, *, in_run: bool) -> None:
    """Start to track a model.

    Args:
        model: the model.
        equipment: its losses.
        in_run: whether a `Run` logs what ran and commits the state of the losses.
    """
    global _step_hook, _zero_grad
    equipment.arguments = _own(model)
    _equipment[model] = equipment
    if in_run:
        _in_runs.add(equipment)
    if _step_hook is None:
        _step_hook = register_optimizer_step_pre_hook(_before_step)
        # Patched on the class, since a loop may set the gradients to zero before the first step.
        _zero_grad = _recording(torch.optim.Optimizer.zero_grad)
        torch.optim.Optimizer.zero_grad = _zero_grad  # type: ignore[method-assign]


def is_in_run(equipment: Equipment) -> bool:
    """Return whether the equipment of a run is tracked, which ends with `release`."""
    return equipment in _in_runs


def end_run(equipment: Equipment) -> None:
    """Track the model of a run that has ended like one that is not trained by a trainer of Ultralytics."""
    _in_runs.discard(equipment)


def release() -> None:
    """Stop to track all models."""
    global _step_hook, _zero_grad
    if _in_runs:
        log("uninstalled while a training with a chosen loss runs: it ends with an error at its next batch", warn=True)
    _in_runs.clear()
    _equipment.clear()
    if _step_hook is not None:
        _step_hook.remove()
        if torch.optim.Optimizer.zero_grad is _zero_grad:  # else another package has wrapped it
            torch.optim.Optimizer.zero_grad = _zero_grad.__wrapped__  # type: ignore[method-assign, attr-defined]
        _step_hook = _zero_grad = None


def chooses_by_batch(model: Any) -> bool:
    """Return whether a model chooses its criterion when it sees the first batch."""
    from ultralytics.nn import tasks

    kind = getattr(tasks, "YOLOEModel", None)
    return kind is not None and isinstance(model, kind)


# --------------------------------------------------------------------------- called by the patched classes


def compute_loss(original: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    """Wrap the `loss` method of a model.

    Raises:
        ValueError: if the head cannot use a chosen loss.
        UnprovenError: if the loss was computed without the equipped criterion.
    """
    running = context.current()
    if running is not None and running.model is model:
        return original(model, *args, **kwargs)  # a batch of a `Run`, or `super().loss()`
    equipment = _up_to_date(model) if torch.is_grad_enabled() else None
    if equipment is None:
        with context.running(Context(model, None)):
            return original(model, *args, **kwargs)
    for branch in equipment.branches.values():
        branch.ledger.discard_unused()
    before = equipment.calls_begun
    with context.running(Context(model, equipment)):
        try:
            result = original(model, *args, **kwargs)
        except BaseException:
            equipment.discard()
            raise
    equipment.check_called(before, result[0])
    return result


def _up_to_date(model: Any) -> Equipment | None:
    """Return the equipment that a model's `args` ask for, `None` if every term is stock."""
    equipment = _find(model)
    if equipment is not None and (equipment in _in_runs or equipment.arguments == _own(model)):
        return equipment
    if _own(model).get("loss_stats"):
        _warn_of_statistics(model)
    criterion = getattr(model, "criterion", None)
    # The keys have changed since, or the model is a copy of a tracked one and must not share its state.
    if any(branch.in_training for branch in criteria.branches_of(criterion).values()):
        criteria.equip(criterion, LossSettings())
    _equipment.pop(model, None)
    chosen = _chosen(model)
    if chosen is None or criteria.branches_of(criterion):  # equipped by hand
        return None
    return _equip(model, chosen)


def check_criterion(criterion: Any) -> None:
    """Raise an `UnprovenError` if a stock criterion with anchors is about to train while its `hyp` choose a loss."""
    running = context.current()
    followed = running is not None and running.equipment is not None
    if followed or not torch.is_grad_enabled() or isinstance(getattr(criterion, "assigner", None), Part):
        return
    chosen = _chosen(SimpleNamespace(args=getattr(criterion, "hyp", None)))
    if chosen is not None and chosen.loss_branches == "both":
        raise UnprovenError(_would_train_stock(criterion))


def check_branches(criterion: Any) -> None:
    """Raise an `UnprovenError` if both branches of an end-to-end criterion are stock while its `hyp` choose a loss."""
    kind = criteria.kind_of(criterion)
    running = context.current()
    followed = running is not None and running.equipment is not None
    if kind is None or followed or not torch.is_grad_enabled():
        return
    if any(isinstance(getattr(owner, name, None), Part) for _, owner, name in kind.first_parts(criterion)):
        return
    if _chosen(SimpleNamespace(args=getattr(criterion.one2many, "hyp", None))) is not None:
        raise UnprovenError(_would_train_stock(criterion))


def _would_train_stock(criterion: Any) -> str:
    return (
        f"{PREFIX}a {type(criterion).__name__} would train a stock loss, but its model's args choose another one:"
        " equip it with yolo_losses.equip(criterion, keys)"
    )


def guard_criterion(model: Any, criterion: Any) -> None:
    """Put a `Guard` into a criterion that a model has built, if the model's `args` choose a loss."""
    kind = criteria.kind_of(criterion)
    if kind is None or _chosen(model) is None:
        return
    for _, owner, name in kind.first_parts(criterion):
        part = getattr(owner, name, None)
        if part is not None and not isinstance(part, Part):
            parts.put(owner, name, Guard(part, _Guarded(weakref.ref(model), criterion)))


def call_assigner(original: Callable[..., Any], assigner: Any, *args: Any, **kwargs: Any) -> Any:
    """Wrap the call of an assigner, or of a criterion without one: equip a stock criterion when it is called."""
    running = context.current()
    if running is None or running.equipment is None or context.is_within_part():
        return original(assigner, *args, **kwargs)
    if not torch.is_grad_enabled() and running.role == "training":
        return original(assigner, *args, **kwargs)
    part = running.equipment.equip_called(running, assigner)
    return original(assigner, *args, **kwargs) if part is None else part(*args, **kwargs)


def end_call(criterion: Any, result: Any, *args: Any, **kwargs: Any) -> None:
    """End a call of a criterion with anchors, and add its terms to the statistics of `loss_stats`."""
    part = getattr(criterion, "assigner", None)
    if not isinstance(part, AssignerPart):
        return
    part.branch.end()
    statistics = part.branch.statistics
    if statistics is not None and statistics.measuring:
        statistics.end(named_terms(result[-1]), by_class=not has_prompts(*args, *kwargs.values()))
    elif statistics is not None and context.current() is None and torch.is_grad_enabled():
        _warn_of_statistics(criterion)


class _Guarded:
    """The model and the criterion of a `Guard`."""

    def __init__(self, model: weakref.ref[Any], criterion: Any) -> None:
        self.model = model
        self.criterion = criterion


class Guard(Part):
    """Replaces the part that a criterion calls first until the criterion is equipped."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the stock part if gradients are disabled; otherwise equip the criterion and call the new part.

        Raises:
            UnprovenError: if the criterion cannot be equipped.
        """
        model, criterion = self.branch.model(), self.branch.criterion
        if not torch.is_grad_enabled() or (model is not None and _chosen(model) is None):
            return self.stock(*args, **kwargs)
        equipment = _find(model)
        if model is not None and equipment is None:
            equipment = _equip(model, _chosen(model), criterion)
        elif model is not None and equipment is not None:
            equipment.equip("training", criterion)
        kind = criteria.kind_of(criterion)
        for _, owner, name in kind.first_parts(criterion) if kind is not None and model is not None else ():
            part = getattr(owner, name)
            own = part == self.stock or getattr(part, "stock", None) == self.stock
            if own and not isinstance(part, Guard):
                return part(*args, **kwargs)
        raise UnprovenError(_would_train_stock(criterion))


def _warn_of_statistics(owner: Any) -> None:
    """Warn once that `loss_stats` has no effect on a model, or a criterion, in a custom training loop."""
    if owner not in _warned:
        _warned.add(owner)
        log("loss_stats=True has no effect in this training loop: only a trainer of Ultralytics' writes it", warn=True)


def _arguments(model: Any) -> Mapping[str, Any]:
    """Return the `args` of a model; they are a dictionary until a trainer sets them."""
    arguments = getattr(model, "args", None)
    return arguments if isinstance(arguments, Mapping) else getattr(arguments, "__dict__", {})


def _own(model: Any) -> dict[str, Any]:
    """Return this package's keys among the `args` of a model."""
    return own_arguments(_arguments(model))


def _task(model: Any) -> str:
    """Return the task of a model, "" if it does not say. Its `args` may have Ultralytics' default, `detect`."""
    from ultralytics.nn.tasks import guess_model_task

    task, config = getattr(model, "task", None), getattr(model, "yaml", None)
    if task is None and isinstance(config, Mapping) and config.get("head"):
        task = guess_model_task(config)
    return str(task or "")


def _chosen(model: Any) -> LossSettings | None:
    """Return the settings in the `args` of a model, `None` if every term is stock."""
    given = _arguments(model)
    own = own_arguments(given)
    if not own or own.items() <= default_keys().items():
        return None
    settings = LossSettings.from_arguments({**given, "task": _task(model) or given.get("task")})
    return None if settings.swaps_nothing else settings


def _find(model: Any) -> Equipment | None:
    """Return the equipment of a model, or of the model that it shares its criterion with, as in distillation."""
    found = _equipment.get(model) if model is not None else None
    criterion = getattr(model, "criterion", None)
    if found is None and criterion is not None:
        own = (each for each in _equipment.values() if each.criteria.get("training") is criterion)
        found = next(own, None)
    return found


def _equip(model: Any, chosen: LossSettings | None, criterion: Any = None) -> Equipment:
    """Equip a model that was not set up by a trainer of Ultralytics, and log the start line."""
    assert chosen is not None
    if task := _task(model):
        chosen.check_task(task)
    size = _arguments(model).get("imgsz")
    names = getattr(model, "names", None)
    equipment = Equipment(model, chosen, class_names_by_index(names) if names else (), float(size or 640))
    if criterion is None and not chooses_by_batch(model):
        if getattr(model, "criterion", None) is None:
            model.criterion = model.init_criterion()
        criterion = model.criterion
    if criterion is not None:
        equipment.equip("training", criterion)
        messages.log_start(equipment, ("training",))
    register(model, equipment, in_run=False)
    return equipment


def _before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    """Settle the calls of a batch before the step of an optimizer (a hook of torch)."""
    for model, equipment in list(_equipment.items()):
        if not equipment.trains(optimizer):
            continue
        equipment.settle(stepping=True)
        if equipment not in _in_runs:
            equipment.commit(joined=False)
            equipment.steps += 1
            if equipment.steps % RECHECK_EVERY == 0:
                equipment.recheck()
            if equipment.newly_proven():
                messages.log_proof(equipment, equipment.criteria.get("training", getattr(model, "criterion", None)))


def _recording(zero_grad: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `Optimizer.zero_grad`: records that the gradients are set to zero."""

    @functools.wraps(zero_grad, updated=())
    def wrapper(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        for equipment in list(_equipment.values()):
            if equipment.trains(optimizer):
                equipment.clear()
        return zero_grad(optimizer, *args, **kwargs)

    return wrapper
