"""Check that the head of a model has the chosen terms, before a run writes anything.

A trainer builds its model after it has written `args.yaml`. If training starts with `YOLO(...).train()`, as with the
`yolo` command, a model with the same head exists already: a criterion of it is built, equipped and discarded. In other
cases, such as the workers of a distributed training, the head is checked at the end of the trainer's set-up.
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
    """Call `Model.train`, and remember the model for the trainer that it builds."""
    token = _engine.set(engine)
    try:
        return original(engine, *args, **kwargs)
    finally:
        _engine.reset(token)


def check(trainer: Any) -> None:
    """Check the chosen losses of a trainer, which has no model yet, against the head of the model to train.

    Raises:
        ValueError: if the head lacks a chosen term, or its number of keypoints is not that of `pose_weights`.
    """
    chosen, engine = arguments.of(trainer), _engine.get()
    model = getattr(engine, "model", None)
    resumed = bool(getattr(trainer, "resume", False))  # the head was checked when the run was started
    if chosen.swaps_nothing or resumed or not hasattr(model, "init_criterion") or guard.chooses_by_batch(model):
        return
    if not _builds_the_head_of(engine, trainer):
        return
    criterion = _stock_criterion(model, vars(trainer.args))
    if criteria.kind_of(criterion) is None:
        return
    keypoints = (arguments.described_data(vars(trainer.args)) or {}).get("kpt_shape")
    if keypoints is None:  # only the data set, which is read later, knows how many the head will have
        chosen = replace(chosen, pose_weights=class_weights.NONE)
    for _, leaf in anchors.leaves(criterion):
        if keypoints is not None and hasattr(leaf, "kpt_shape"):
            leaf.kpt_shape = keypoints
    # The classes are those of the data set, which is read later.
    checked = replace(chosen, cls_weights=class_weights.NONE)
    with arguments.one_line_on_the_command_line():
        Equipment(model, checked, (), trainer.args.imgsz).equip("training", criterion)


def _builds_the_head_of(engine: Any, trainer: Any) -> bool:
    """Return whether a trainer builds its model as the engine did, with Ultralytics' own method."""
    method = getattr(type(trainer), "get_model", None)
    upstream = str(getattr(method, "__module__", "")).startswith("ultralytics.")
    return upstream and str(trainer.args.model) == str(engine.overrides.get("model"))


def _stock_criterion(model: Any, given: dict[str, Any]) -> Any:
    """Return the stock criterion of a model for a trainer's arguments, without the keys of this package."""
    own, kept = own_arguments(given), model.args
    model.args = SimpleNamespace(**{key: value for key, value in given.items() if key not in own})
    lacks_classes = not hasattr(model, "nc")  # which a trainer sets; the criterion of RT-DETR reads it
    if lacks_classes:
        model.nc = getattr(model.model[-1], "nc", None)
    try:
        return model.init_criterion()
    except Exception:  # a criterion of a user's own that needs what a trainer sets; the head is checked again later
        return None
    finally:
        model.args = kept
        if lacks_classes:
            del model.nc
