"""Whether the head that is to be trained has the chosen terms, asked before anything is written.

A trainer builds its model after it has written `args.yaml`. Where the training began with `YOLO(...).train()`, as by
the `yolo` command, there is a model of the same head by then: a criterion of it is built, equipped and thrown away.
Elsewhere, as in the workers of a distributed training, whose parent has asked, the head is checked as the trainer's
set-up ends.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from yolo_losses.config import class_weights
from yolo_losses.config.settings import own_arguments
from yolo_losses.integration import arguments, criteria, guard
from yolo_losses.integration.criteria import anchors
from yolo_losses.integration.equipment import Equipment

_engine: ContextVar[Any] = ContextVar("yolo_losses_engine", default=None)


def remember(original: Callable[..., Any], engine: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand around `Model.train`: the trainer that it builds is for this model's head."""
    token = _engine.set(engine)
    try:
        return original(engine, *args, **kwargs)
    finally:
        _engine.reset(token)


def check(trainer: Any) -> None:
    """Raise where the head has no chosen term, or another number of keypoints than there are `pose_weights`.

    Args:
        trainer: whose arguments are checked, and which has no model yet.

    Raises:
        ValueError: as equipping the criterion would.
    """
    chosen, engine = arguments.of(trainer), _engine.get()
    model = getattr(engine, "model", None)
    resumed = bool(getattr(trainer, "resume", False))  # the head was checked as the run began
    if chosen.swaps_nothing or resumed or not hasattr(model, "init_criterion") or guard.chooses_by_batch(model):
        return
    if not _builds_the_head_of(engine, trainer):
        return
    criterion = _stock_criterion(model, vars(trainer.args))
    if criteria.kind_of(criterion) is None:
        return
    keypoints = (arguments.described_data(vars(trainer.args)) or {}).get("kpt_shape")
    for _, leaf in anchors.leaves(criterion):
        if keypoints is not None and hasattr(leaf, "kpt_shape"):
            leaf.kpt_shape = keypoints
    # The classes are those of the data set, which is read later.
    checked = replace(chosen, cls_weights=class_weights.NONE)
    with arguments.one_line_on_the_command_line():
        Equipment(model, checked, (), trainer.args.imgsz).equip("training", criterion)


def _builds_the_head_of(engine: Any, trainer: Any) -> bool:
    """Return whether a trainer builds its model from what that of an engine was built from, by Ultralytics' method."""
    method = getattr(type(trainer), "get_model", None)
    upstream = str(getattr(method, "__module__", "")).startswith("ultralytics.")
    return upstream and str(trainer.args.model) == str(engine.overrides.get("model"))


def _stock_criterion(model: Any, given: dict[str, Any]) -> Any:
    """Return a criterion of a model as it would be with a trainer's arguments and without this package's keys."""
    own, kept = own_arguments(given), model.args
    model.args = SimpleNamespace(**{key: value for key, value in given.items() if key not in own})
    try:
        return model.init_criterion()
    finally:
        model.args = kept
