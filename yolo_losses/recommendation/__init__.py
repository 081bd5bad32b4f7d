"""Which losses are worth trying on a data set: its traits, candidates with their evidence, the comparison to run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolo_losses.recommendation.result import Recommendation


def recommend(
    data: str, model: str | None = None, imgsz: int | None = None, task: str | None = None, **keys: Any
) -> Recommendation:
    """Return which losses are worth trying on a data set, from its labels; nothing is trained.

    Args:
        data: the YAML file that describes the set, or the folder of a set for classification.
        model: as for `YOLO.train`; `None`: the default of `yolo train` for the task. Weights are not downloaded.
        imgsz: the longer side of a training image in pixels; `None`: that of the checkpoint, else Ultralytics' default.
        task: task of the labels; `None`: that of the model or, without a model, inferred from the labels.
        **keys: other keys of `YOLO.train`, such as `epochs` and `device`, for the recommended comparison.

    Returns:
        The recommendation. `print` shows it like the command; `as_dict()`, `write(path)` and `draw(path)` correspond to
        `--json`, `--write` and `--picture`.

    Raises:
        ValueError: if the data set cannot be read or has no labels, or a key is invalid.
    """
    from yolo_losses.config.keys import BOX_TASKS
    from yolo_losses.recommendation import candidates, network, plan, reader, rules, traits, verdicts
    from yolo_losses.recommendation.result import Recommendation

    settings = _settings(data, imgsz, task, keys)
    built = network.load(model, task or "detect") if model is not None else None
    if imgsz is None and built is not None and built.imgsz is not None:
        settings["imgsz"] = built.imgsz
    if task is not None and built is not None and built.task != task:
        raise ValueError(f"'task={task}' does not match 'model={model}', whose task is {built.task}")
    asked = task or (built.task if built is not None else None)
    train_size = math.ceil(settings["imgsz"] / 32) * 32  # rounded as by `yolo train`
    found = reader.read(data, asked, train_size)
    built = built or network.load(None, found.task)
    measured = traits.measure(found, built, train_size)
    tried, checks, avoided = candidates.choose(measured, rules.load(), verdicts.load())
    device, comparison = "", None
    if tried and found.task in BOX_TASKS:  # `compare` does not train classifiers
        per_image, device = built.seconds_per_image(train_size, settings.get("device"))
        comparison = plan.make(tried, {"model": built.name, **settings}, measured, per_image)
    return Recommendation(data, built.name, device, found.inferred, measured, tried, checks, avoided, comparison)


def _settings(data: str, imgsz: int | None, task: str | None, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the comparison's runs, checked as `yolo train` would."""
    from ultralytics.cfg import get_cfg
    from ultralytics.utils import DEFAULT_CFG

    from yolo_losses.config.keys import CLASS_TASKS
    from yolo_losses.config.settings import argument, default_keys
    from yolo_losses.recommendation.errors import errors_in_one_line
    from yolo_losses.registry import did_you_mean

    if task is not None and task not in CLASS_TASKS:
        hint = did_you_mean(task, CLASS_TASKS)
        raise ValueError(f"'task={task}' is not valid for recommend: allowed are {', '.join(CLASS_TASKS)}.{hint}")
    for key in keys:
        if key in map(argument, default_keys()):
            raise ValueError(f"'{key}' chooses a loss, which is what recommend does: leave it out")
    settings = {
        "data": str(data),
        **({"task": task} if task else {}),
        "imgsz": DEFAULT_CFG.imgsz if imgsz is None else imgsz,
        "epochs": DEFAULT_CFG.epochs,
        **keys,
    }
    with errors_in_one_line("yolo train"):
        get_cfg(overrides={**settings, "mode": "train"})
    size = settings["imgsz"]
    if not isinstance(size, int) or size < 32:
        raise ValueError(f"'imgsz={size}' is not valid: allowed is an integer >= 32")
    return settings
