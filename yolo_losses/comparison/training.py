"""Models of a comparison, and the checks of its trainings before the first one starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from yolo_losses.comparison.words import errors_in_one_line
from yolo_losses.config.keys import BOX_TASKS


def load_model(model: str, task: Any = None) -> Any:
    """Return a model built as by `yolo train`."""
    import ultralytics

    if "rtdetr" in Path(model).stem.lower():
        return ultralytics.RTDETR(model)
    return ultralytics.YOLO(model, task=task)


def check_trainings(trainings: Sequence[Mapping[str, Any]], seeds: Sequence[Any]) -> None:
    """Check all keys of each training with its model, so that no run is rejected later.

    Args:
        trainings: the keys of each training, without the seed.
        seeds: the seeds of all trainings.

    Raises:
        ValueError: if a value is invalid; the message names the key, its value and the allowed values.
    """
    from ultralytics.cfg import get_cfg

    for seed in seeds:
        with errors_in_one_line():
            get_cfg(overrides={"seed": seed})
    models: dict[str, Any] = {}
    for settings in trainings:
        for key, value in settings.items():
            try:
                json.dumps(value)
            except TypeError:
                raise ValueError(f"'{key}': a {type(value).__name__} cannot be passed to another process") from None
        name, task = str(settings["model"]), settings.get("task")
        if name not in models:
            with errors_in_one_line(f"'model={name}'"):
                models[name] = load_model(name, task)
            if models[name].task not in BOX_TASKS:
                refused = f"'model={name}' is of the task '{models[name].task}'"
                raise ValueError(f"{refused}: compare trains {', '.join(BOX_TASKS)}")
        with errors_in_one_line():
            _check_training(
                models[name], {key: value for key, value in settings.items() if key not in ("model", "task")}
            )


class _CheckedError(Exception):
    """Raised to end a training once its keys have been checked."""


def _check_training(model: Any, settings: Mapping[str, Any]) -> None:
    """Start a training and end it once its keys have been checked, before it reads or writes anything."""

    class CheckOnly(model._smart_load("trainer")):  # type: ignore[misc]
        """A trainer that only checks its keys."""

        def check_resume(self, overrides: Any) -> None:
            super().check_resume(overrides)
            raise _CheckedError

    with suppress(_CheckedError), _no_update_check():
        model.train(trainer=CheckOnly, **settings)


@contextmanager
def _no_update_check() -> Iterator[None]:
    """Keep Ultralytics from asking the package index for a newer version, as it does when a training begins."""
    from ultralytics.utils import checks

    online = checks.ONLINE
    checks.ONLINE = False
    try:
        yield
    finally:
        checks.ONLINE = online
