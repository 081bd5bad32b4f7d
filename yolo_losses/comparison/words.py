"""Parses command lines and keyword arguments to a request: keys with one value, and axes."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolo_losses import registry
from yolo_losses.config.keys import BOX_TASKS

MAX_RUNS = 10_000
OWN_KEYS = {  # keys of `yolo train` that compare sets itself -> what to do instead
    "name": "each run's folder is named after its settings",
    "project": "name the folder of the comparison with --out",
    "save_dir": "name the folder of the comparison with --out",
    "exist_ok": "runs that are finished are never run again",
    "resume": "a comparison that was stopped continues when it is started again",
}
SHARED_KEYS = ("mode", "task", "seed", "data", "device", "workers")  # keys that are the same for all configurations
SEED_RANGE = re.compile(r"\s*(\d+)-(\d+)\s*")


@dataclass
class Request:
    """A request for a comparison.

    Attributes:
        settings: keys with one value.
        axes: keys with several values.
        also: configurations beside the product of the axes, each with the keys that differ.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, list[Any]] = field(default_factory=dict)
    also: list[dict[str, Any]] = field(default_factory=list)

    def add(self, key: str, values: list[Any]) -> None:
        """Set the values of a key; `0-4` for `seed` stands for five values."""
        if key == "seed":
            values = [seed for value in values for seed in expand_seeds(value)]
        self.settings.pop(key, None)
        self.axes.pop(key, None)
        if len(values) == 1:
            self.settings[key] = values[0]
        else:
            self.axes[key] = values

    def add_file(self, path: str) -> None:
        """Add the keys of a YAML file; the lists in its mapping `grid` are axes, the items of `also` configurations."""
        import yaml
        from ultralytics.utils.checks import check_yaml

        try:
            found = yaml.safe_load(Path(check_yaml(path)).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ValueError(f"'cfg={path}' cannot be read: {first_line(error)}") from error
        if not isinstance(found, dict):
            raise ValueError(f"'cfg={path}' has no keys")
        grid = found.pop("grid", None) or {}
        if not isinstance(grid, dict) or not all(isinstance(v, list) and v for v in grid.values()):
            raise ValueError(f"'grid' in {path} is a mapping of lists, such as 'cls_loss: [bce, focal]'")
        also = found.pop("also", None) or []
        if not isinstance(also, list) or not all(isinstance(each, str | dict) for each in also):
            raise ValueError(f"'also' in {path} is a list of configurations, such as '- cls_loss=focal cls_scale=auto'")
        self.also += map(read_configuration, also)
        for key, value in found.items():
            self.add(str(key), [value])
        for key, values in grid.items():
            self.add(str(key), values)


def expand_seeds(value: Any) -> Sequence[Any]:
    """Return the seeds for a value of `seed`: `0-4` stands for five seeds.

    Raises:
        ValueError: if a range is empty or too long.
    """
    found = SEED_RANGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return [value]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MAX_RUNS:
        raise ValueError(f"'seed={value}' is not valid: allowed is a range such as 0-4, of at most {MAX_RUNS:,} seeds")
    return range(first, last + 1)


def read_words(words: Sequence[str]) -> Request:
    """Parse the words of a command line, which are those of `yolo train` with axes.

    Raises:
        ValueError: if `yolo train` would reject a word; the message names it.
    """
    from ultralytics.cfg import MODES, merge_equals_args, parse_key_value_pair

    from_file, request = Request(), Request()
    defaults = default_cfg()
    with errors_in_one_line():
        merged = merge_equals_args(list(words))
    for word in merged:
        key, equals, text = word.partition("=")
        if equals:
            parts = split_at_commas(text)
            if not all(part.strip() for part in parts):
                raise ValueError(f"'{word}' lacks a value")
            ranges = key.strip() == "seed" and SEED_RANGE  # Ultralytics would evaluate it as a difference
            with errors_in_one_line():
                values = [
                    part if ranges and ranges.fullmatch(part) else parse_key_value_pair(f"{key}={part}")[1]
                    for part in parts
                ]
            if key.strip() == "cfg":
                if len(values) != 1:
                    raise ValueError(f"'{word}' names more than one file")
                from_file.add_file(str(values[0]))
            else:
                request.add(key.strip(), values)
        elif word in BOX_TASKS:
            request.add("task", [word])
        elif word in MODES:
            request.add("mode", [word])
        elif isinstance(defaults.get(word), bool):
            request.add(word, [True])
        elif word in defaults:
            raise ValueError(f"'{word}' lacks a value, such as '{word}={defaults[word]}'")
        else:
            raise ValueError(f"'{word}' is not a key of `yolo train`.{registry.did_you_mean(word, list(defaults))}")
    return merge(from_file, request)


def read_configuration(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a single configuration, `cls_loss=focal cls_scale=auto` or a mapping.

    Raises:
        ValueError: if `yolo train` would reject a word, or a key belongs to the whole comparison.
    """
    if isinstance(given, str):
        try:
            request = read_words(shlex.split(given))
        except ValueError as error:
            raise ValueError(f"'also': {error}") from error
    elif isinstance(given, Mapping):
        request = Request({str(key): value for key, value in given.items()})
    else:
        raise ValueError(f"'also': {given!r} is not a configuration, such as 'cls_loss=focal cls_scale=auto'")
    if request.also:
        raise ValueError("'also': a cfg file with configurations of its own is for the whole comparison")
    if request.axes:
        key, values = next(iter(request.axes.items()))
        raise ValueError(f"'also': '{key}' has {len(values)} values: a configuration has one, name one for each")
    for key in request.settings:
        if key in OWN_KEYS:
            raise ValueError(f"'also': '{key}' is not for compare: {OWN_KEYS[key]}")
        if key in SHARED_KEYS:
            raise ValueError(f"'also': '{key}' applies to the whole comparison: leave it out")
    if not request.settings:
        raise ValueError("'also' names no key: give a configuration, such as 'cls_loss=focal cls_scale=auto'")
    return request.settings


def read_keywords(keywords: Mapping[str, Any]) -> Request:
    """Parse keyword arguments. A list, a tuple, or text with commas outside brackets is an axis.

    A list of numbers for `cls_weights` is a single value.
    """
    from_file, request = Request(), Request()
    for key, value in keywords.items():
        if key == "cfg":
            from_file.add_file(str(value))
        elif isinstance(value, str) and ("," in value or key == "seed"):
            request = merge(request, read_words([f"{key}={value}"]))
        elif isinstance(value, (list, tuple, range)):
            if not value:
                raise ValueError(f"'{key}' lacks a value")
            one = key == "cls_weights" and all(isinstance(each, int | float) for each in value)
            request.add(key, [list(value)] if one else list(value))
        else:
            request.add(key, [str(value) if isinstance(value, Path) else value])
    return merge(from_file, request)


def merge(under: Request, over: Request) -> Request:
    """Return a request with the keys of both, where `over` has priority."""
    merged = Request(dict(under.settings), dict(under.axes), [*under.also, *over.also])
    for key, value in over.settings.items():
        merged.add(key, [value])
    for key, values in over.axes.items():
        merged.add(key, values)
    return merged


def split_at_commas(text: str) -> list[str]:
    """Split text at commas outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


@contextmanager
def errors_in_one_line(what: str = "") -> Iterator[None]:
    """Convert exceptions of Ultralytics to a `ValueError` with a one-line message, without its help texts."""
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)
    try:
        yield
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what}: {first_line(error)}" if what else first_line(error)) from error
    finally:
        LOGGER.setLevel(level)


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error, without colors."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(getattr(error, "msg", None) or error))
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def default_cfg() -> dict[str, Any]:
    """Return Ultralytics' keys with their defaults, including those of this package."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    import yolo_losses  # noqa: F401 - adds its keys

    return dict(DEFAULT_CFG_DICT)
