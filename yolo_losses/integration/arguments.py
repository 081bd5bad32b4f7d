"""Checks of the training keys among the arguments of Ultralytics' trainers, tuners and other engines."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from yolo_losses import registry
from yolo_losses._files import write_whole
from yolo_losses._log import PREFIX, is_first_rank, log
from yolo_losses.config import class_weights, renaming, settings
from yolo_losses.config.class_weights import BALANCED, BETA
from yolo_losses.config.renaming import argument
from yolo_losses.config.settings import LossSettings
from yolo_losses.registry.parameters import InvalidValueError, format_value, parse_value
from yolo_losses.registry.plugins import ENTRY_POINT_GROUP, PLUGINS_VARIABLE

ATTRIBUTE = "yolo_losses_settings"

BALANCED_KEYS = ("cls_weights", BETA.key)


class RefusedError(ValueError, SystemExit):
    """An invalid key that ends the `yolo` command with a one-line message and exit code 1, without a traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message


def check_names(known: Any, given: Any) -> None:
    """Raise a `ValueError` on an unknown key that looks like one of this package's, with a hint.

    Args:
        known: the dictionary of known keys. Nothing is checked unless they are a trainer's arguments.
        given: the given keys.

    Raises:
        ValueError: if a key is misspelled; the message has the key and a hint. Ultralytics rejects other unknown keys.
    """
    if argument("cls_loss") not in known:
        return
    if given.get("label_smoothing") and "label_smoothing" not in known:
        classify = "; in the task classify it is cls_smoothing" if "cls_smoothing" in settings.KEYS else ""
        log(f"'label_smoothing' has no effect, Ultralytics has removed it{classify}", warn=True)
    with one_line_on_the_command_line():
        for key, value in given.items():
            if key in known or key == "label_smoothing":
                continue
            if hint := settings.hint_for_unknown_key(key, given, known):
                what = f"{key}={format_value(value)}" if value != "" else key
                raise ValueError(f"'{what}' is not valid: Ultralytics and yolo_losses have no such key.{hint}")


def check(trainer: Any, overrides: Any = None) -> None:
    """Check the keys of a trainer before anything is written, and store those that define the run in its `args`.

    Raises:
        ValueError: if a value is invalid, the task cannot use a loss, or, on resume, a key differs from that of
            the checkpoint.
    """
    with one_line_on_the_command_line():
        _check(trainer, overrides)


@contextlib.contextmanager
def one_line_on_the_command_line() -> Iterator[None]:
    """Let a `ValueError` end the `yolo` command with a one-line message, without a traceback."""
    try:
        yield
    except ValueError as error:
        # Only for the command: a notebook shows the traceback, and a thread would end silently.
        command = Path(sys.argv[0] if sys.argv else "").stem
        if command in ("yolo", "ultralytics") and threading.current_thread() is threading.main_thread():
            raise RefusedError(str(error)) from None
        raise


def _check(trainer: Any, overrides: Any) -> None:
    given = vars(trainer.args)
    resumed = bool(getattr(trainer, "resume", trainer.args.resume))
    chosen = _parse(given, resumed)
    unused = chosen.unused
    if resumed and isinstance(overrides, Mapping):
        asked = settings.own_arguments(overrides)
        weights = chosen.cls_weights  # stored as numbers
        if isinstance(weights, tuple) and class_weights.parse(asked.get("cls_weights")) == BALANCED:
            # The balanced weights are known once the training set is read; `run` compares them with the stored ones.
            balanced = {key: asked[key] for key in BALANCED_KEYS if key in asked}
            chosen = LossSettings.from_mapping({**chosen.to_config(), **balanced}, chosen.task)
            chosen = dataclasses.replace(chosen, resumed_weights=weights)
        unused = _check_same_on_resume(chosen, overrides)
    chosen.check_task(str(trainer.args.task))
    _check_one_weighting(chosen, given.get("cls_pw"))
    if (names := _class_names(given)) is not None:
        if str(trainer.args.task) == "semantic":
            class_weights.check_one_class(chosen.cls_weights, len(names))
        class_weights.by_class(chosen.cls_weights, names, bool(given.get("single_cls")))
    if chosen.swaps_assigner:
        from yolo_losses.integration.criteria import assigner  # imports Ultralytics, as the trainer has

        assigner.check_release(chosen)
    if any(kind.__name__ == "RTDETRTrainer" for kind in type(trainer).__mro__):
        from yolo_losses.integration.criteria import (
            queries,  # imports Ultralytics' losses, which a trainer has loaded already
        )

        queries.check(chosen)
    elif not chosen.swaps_nothing:
        from yolo_losses.integration.criteria import anchors

        anchors.check_release(chosen)
    _keep(given, chosen)
    setattr(trainer, ATTRIBUTE, chosen)
    for key in renaming.renamed():
        if argument(key) in given:
            log(f"Ultralytics has a '{key}' of its own; '{argument(key)}' is this package's")
    for key in unused:
        log(f"'{key}' has no effect with {chosen.describe()}", warn=True)


def _check_one_weighting(chosen: LossSettings, cls_pw: Any) -> None:
    """Raise a `ValueError` if Ultralytics would also weight the classes.

    Args:
        chosen: the settings.
        cls_pw: the value of Ultralytics' key, or its bounds in a tuner's search space.
    """
    if chosen.cls_weights != class_weights.NONE and cls_pw:
        both = f"{class_weights.format_option(chosen.cls_weights)} cannot be used together with 'cls_pw"
        raise ValueError(f"{both}={format_value(cls_pw)}', which weights the classes too: leave out one of them")


def described_data(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the content of the YAML file of a run's data set, `None` if it is not available yet."""
    from ultralytics.utils.checks import check_file

    data = given.get("data")
    data = str(data) if isinstance(data, Path) else data
    if not isinstance(data, str) or "://" in data or Path(data).suffix not in (".yaml", ".yml"):
        return None
    try:
        described = yaml.safe_load(Path(check_file(data, hard=False)).read_text(encoding="utf-8", errors="ignore"))
    except Exception:  # Ultralytics checks the data set later and reports what is wrong
        return None
    return described if isinstance(described, dict) else None


def _class_names(given: Mapping[str, Any]) -> list[str] | None:
    """Return the names of the classes of a run, `None` if its data set is not available yet."""
    data = given.get("data")
    if given.get("task") == "classify" and isinstance(data, str | Path) and (folder := Path(data, "train")).is_dir():
        names = sorted(found.name for found in folder.iterdir() if found.is_dir())
        return ["item"] if given.get("single_cls") else names
    described = described_data(given) or {}
    number = described.get("nc")
    names = described.get("names") or [f"class_{i}" for i in range(number if isinstance(number, int) else 0)]
    if not names:
        return None
    if given.get("single_cls"):
        return ["item"]
    found = class_weights.class_names_by_index(names if isinstance(names, Mapping) else dict(enumerate(names)))
    if given.get("task") == "semantic" and not described.get("masks_dir") and len(found) > 1:
        found.append("background")  # the pixels that no polygon covers
    return found


def _keep(given: dict[str, Any], chosen: LossSettings) -> None:
    """Replace this package's keys among a trainer's arguments by those that define the run."""
    for key in settings.default_keys():
        given.pop(argument(key), None)
    given.update({argument(key): value for key, value in chosen.to_config().items()})


def save(trainer: Any, chosen: LossSettings) -> None:
    """Store the keys that define the run in a trainer's arguments, and in `args.yaml` if they changed since."""
    given = vars(trainer.args)
    before = settings.own_arguments(given)
    _keep(given, chosen)
    file = Path(getattr(trainer, "save_dir", "")) / "args.yaml"
    if before == settings.own_arguments(given) and (not chosen.to_config() or _written(file) == chosen.to_config()):
        return
    if is_first_rank() and file.is_file():
        kept: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        _keep(kept, chosen)
        text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
        write_whole(file, lambda part: part.write_text(text, encoding="utf-8"))


def _written(file: Path) -> dict[str, Any] | None:
    """Return this package's keys in the `args.yaml` of a run, `None` if there is no such file."""
    if not file.is_file():
        return None
    return settings.own_arguments(yaml.safe_load(file.read_text(encoding="utf-8")) or {})


def _parse(given: Mapping[str, Any], resumed: bool) -> LossSettings:
    try:
        return LossSettings.from_arguments(given)
    except InvalidValueError as error:
        if not resumed or error.key not in map(argument, registry.TERM_KEYS.values()):
            raise
        raise ValueError(
            f"{error} If the resumed run used a loss of a plugin, name its file in {PLUGINS_VARIABLE} or install the"
            f" package that has it under the entry point '{ENTRY_POINT_GROUP}'"
        ) from None


def _check_same_on_resume(kept: LossSettings, overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """Raise if a resumed run is given other losses than it was started with; return the keys without effect."""
    defaults = settings.default_keys()
    asked = {k: v for k, v in settings.own_arguments(overrides).items() if v is not None}
    now = {**defaults, **kept.to_config()}
    chosen = LossSettings.from_mapping({**now, **asked}, kept.task)
    wanted = {**defaults, **chosen.to_config()}
    for key in asked:
        if wanted[key] != now[key]:
            raise ValueError(
                f"resume keeps {argument(key)}={now[key]}; start a new run from last.pt to change it to {wanted[key]}"
            )
    return chosen.unused


def of(trainer: Any) -> LossSettings:
    """Return the settings of a trainer; they are only parsed again if its arguments have changed."""
    chosen: LossSettings | None = getattr(trainer, ATTRIBUTE, None)
    if chosen is None or settings.own_arguments(vars(trainer.args)) != chosen.to_config():
        chosen = LossSettings.from_arguments(vars(trainer.args))
        setattr(trainer, ATTRIBUTE, chosen)
    return chosen


def check_unchanged(trainer: Any, running: LossSettings) -> None:
    """Raise a `RuntimeError` if keys were changed after set-up: the checkpoint would contain a loss that never ran."""
    now, then = settings.own_arguments(vars(trainer.args)), running.to_config()
    for key in {**then, **now}:
        if now.get(key) != then.get(key):
            raise RuntimeError(
                f"{PREFIX}'{argument(key)}' was changed to {now.get(key, 'its default')} after set-up, but the run"
                f" has {then.get(key, 'its default')}: set it before the training starts"
            )


def check_shared(arguments: Any) -> None:
    """Check the keys that a tuner, or a trainer of several data sets, passes to each of its runs.

    Both bounds of a tuner's search space are checked, since the tuner would count a failed run as a bad score.

    Raises:
        ValueError: as in `parse`.
    """
    if not isinstance(arguments, Mapping):
        return
    space = arguments.get("space") or {}
    own = {argument(key) for key in settings.default_keys()}
    for key in own.intersection(space):
        bounds = space[key]
        numbers = [parse_value(b, float) for b in bounds] if isinstance(bounds, list | tuple) else []
        if len(numbers) < 2 or None in numbers:
            reason = (
                "is not valid in the tuner's space: allowed are two finite numbers, the bounds; words are varied by"
                " `yolo-losses compare`, or by Ray Tune (use_ray=True)"
            )
            raise InvalidValueError(key, bounds, reason)
    for i in (0, 1):
        chosen = LossSettings.from_arguments({**arguments, **{k: v[i] for k, v in space.items() if k in own}})
        if arguments.get("task"):
            chosen.check_task(str(arguments["task"]))
    for key in chosen.unused:
        log(f"'{key}' has no effect with {chosen.describe()}", warn=True)


def check_tuner(arguments: Any) -> None:
    """Check the keys that a tuner passes to its runs, and that its search space does not also weight the classes.

    Raises:
        ValueError: as in `parse`.
    """
    from ultralytics.utils import DEFAULT_CFG_DICT

    check_shared(arguments)
    if not isinstance(arguments, Mapping):
        return
    chosen = LossSettings.from_arguments(arguments)
    space = arguments.get("space")
    _check_one_weighting(chosen, arguments.get("cls_pw") or (space or {}).get("cls_pw"))
    if chosen.cls_weights != class_weights.NONE and not space and "cls_pw" in DEFAULT_CFG_DICT:
        raise ValueError(
            f"{class_weights.format_option(chosen.cls_weights)} cannot be tuned with cls_pw, which is in"
            " the tuner's default search space: pass a 'space' without it"
        )


def check_without_training(arguments: Any, mode: str) -> None:
    """Check the keys of an engine that does not train, and warn that they have no effect.

    Args:
        arguments: the `args` of the engine.
        mode: `val`, `predict` or `export`; nothing is checked if the `args` have another mode, as during training.

    Raises:
        ValueError: if a value is invalid.
    """
    if getattr(arguments, "mode", mode) != mode:
        return
    given = vars(arguments)
    with one_line_on_the_command_line():
        chosen = LossSettings.from_arguments(given)
    for key in settings.default_keys():
        given.pop(argument(key), None)
    for key in dict.fromkeys((*chosen.non_default(), *chosen.unused)):
        log(f"'{argument(key)}' has no effect in mode '{mode}': losses are for training", warn=True)


def whole_numbers() -> set[str]:
    """Return the keys with integer values, which a tuner must round after a mutation."""
    found = {p.key for spec in registry.specs() for p in spec.parameters if p.type in (int, bool)}
    return {argument(key) for key in found | {name for name, key in settings.KEYS.items() if key.type is int}}
