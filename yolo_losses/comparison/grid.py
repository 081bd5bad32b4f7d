"""The grid of a comparison: from a request to checked runs."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_losses.comparison.training import check_trainings
from yolo_losses.comparison.words import MAX_RUNS, OWN_KEYS, Request, default_cfg, read_words, split_at_commas
from yolo_losses.config.keys import LossKey
from yolo_losses.config.settings import KEYS, LossSettings, argument, declared_parameters, default_keys


@dataclass(frozen=True)
class Cell:
    """One configuration on one data set.

    Attributes:
        configuration: the values of the axes, except seed and data set.
        settings: all keys of the training except the seed.
        data: the data set.
        name: the configuration as text.
        folder: name of the folder of its runs.
    """

    configuration: Mapping[str, Any]
    settings: Mapping[str, Any]
    data: str
    name: str
    folder: str


@dataclass(frozen=True)
class Run:
    """One training of the grid: a cell with a seed."""

    cell: Cell
    seed: int
    folder: Path

    @property
    def title(self) -> str:
        """The run as text."""
        return f"{self.cell.name} seed={self.seed}"


@dataclass(frozen=True)
class Grid:
    """The cells of a comparison and its seeds.

    Attributes:
        cells: the cells in the order of the axes, the last one varying fastest, then those of `also`; the first is the
            baseline by default.
        seeds: the seeds of each cell.
        settings: the keys that all runs share, as given.
        axes: the axes with their values as given, including seed and data set.
    """

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    axes: Mapping[str, list[Any]]

    @property
    def lacks_baseline(self) -> bool:
        """Whether there is a single configuration, whose losses are not all `stock`."""
        configurations = [cell.configuration for cell in self.cells]
        losses = {str(value) for key, value in configurations[0].items() if key.endswith("_loss")}
        return all(each == configurations[0] for each in configurations) and bool(losses - {"stock"})

    def runs(self, out: Path) -> list[Run]:
        """Return the runs, with all cells of a seed before the next seed, so that a part of them can be compared."""
        return [
            Run(cell, seed, out / "runs" / cell.folder / f"seed{seed}") for seed in self.seeds for cell in self.cells
        ]


def find_baseline(
    wanted: str | Mapping[str, Any] | None, configurations: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the configuration of the baseline.

    Args:
        wanted: `cls_loss=bce`, several keys separated by spaces or commas, or a mapping; by default the first
            configuration. If several match, the one with exactly these keys is returned, else the first.
        configurations: the configurations of the comparison.

    Raises:
        ValueError: if none matches.
    """
    axes = dict.fromkeys(key for configuration in configurations for key in configuration)
    if isinstance(wanted, str):
        if "=" not in wanted:
            keys = [key for key in axes if _is_loss_name(key, wanted)]
            hint = f" Did you mean '{keys[0]}={wanted}'?" if keys else ""
            raise ValueError(f"--baseline: '{wanted}' has no key: allowed is KEY=VALUE.{hint}")
        wanted = read_words([word for part in split_at_commas(wanted) for word in part.split()]).settings
    wanted = wanted or {}
    for key in wanted:
        if key not in axes:
            raise ValueError(
                f"--baseline: '{key}' is not an axis of this comparison: its axes are {', '.join(axes) or 'none'}"
            )
    found = [each for each in configurations if wanted.keys() <= each.keys() and _has_values(each, wanted)]
    if found:
        return dict(next((each for each in found if each.keys() == wanted.keys()), found[0]))
    names = ", ".join(dict.fromkeys(format_configuration(configuration) for configuration in configurations))
    raise ValueError(f"--baseline: no configuration has '{format_configuration(wanted)}': there is {names}")


def _is_loss_name(key: str, value: str) -> bool:
    """Return whether a key that chooses a loss may have this value."""
    if not isinstance(KEYS.get(key), LossKey):
        return False
    try:
        LossSettings.from_mapping({key: value})
    except ValueError:
        return False
    return True


def _has_values(configuration: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    try:
        return canonical({**configuration, **values}) == canonical(configuration)
    except ValueError:
        return False


def format_configuration(configuration: Mapping[str, Any]) -> str:
    """Return a configuration as text."""
    return " ".join(f"{key}={format_option(value)}" for key, value in configuration.items()) or "default"


def build(request: Request) -> Grid:
    """Return the grid of a request, with every value checked as by `yolo train`.

    Raises:
        ValueError: if a run would reject a value; the message names the first such key, its value and the allowed
            values.
    """
    settings, axes = _settings_and_axes(request)
    seeds = axes.get("seed", [settings.pop("seed", 0)])
    seeds = [int(s) if isinstance(s, float) and s.is_integer() else s for s in seeds]
    if len(set(map(repr, seeds))) != len(seeds):
        raise ValueError("'seed' has a repeated value")
    data = axes.get("data", [settings.pop("data", None)])
    combined = {key: values for key, values in axes.items() if key != "seed"}
    chosen = [dict(zip(combined, values, strict=True)) for values in itertools.product(*combined.values())]
    first = {key: values[0] for key, values in combined.items()}
    places = [{"data": each} for each in data] if "data" in combined else [{}]
    chosen += [{**first, **own, **place} for own in request.also for place in places]

    parameters = set(map(argument, declared_parameters()))
    labels = {key: dict(zip(map(repr, values), _labels(key, values), strict=True)) for key, values in axes.items()}
    cells: dict[str, Cell] = {}
    used: set[str] = set()
    for each in chosen:
        asked = {**settings, **each}
        kept = _without_unused_parameters(asked, parameters)
        used |= kept.keys()
        values = canonical(kept)
        if unused := each.keys() - combined.keys() - kept.keys():
            raise ValueError(
                f"'also': '{min(unused)}' would change nothing: no loss of '{format_configuration(each)}' has it"
            )
        configuration = {key: values[key] for key in _sort_keys(each) if key in kept and key != "data"}
        models = labels.get("model", {})
        parts = [
            f"{key}={(key == 'model' and models.get(repr(each[key]))) or format_option(value)}"
            for key, value in configuration.items()
        ]
        name = " ".join(parts) or "default"
        if "data" in combined:
            parts.append(f"data={labels['data'][repr(each['data'])]}")
        kept.setdefault("data", data[0])
        cell = Cell(configuration, kept, str(kept["data"]), name, _folder(parts or ["default"]))
        same = cells.setdefault(cell.folder, cell)
        if same is not cell and (
            canonical(same.settings) != values | {"data": kept["data"]} or not asked.keys() - kept.keys()
        ):
            raise ValueError(f"'{name}' is in the grid twice")
    for key in settings.keys() | combined.keys():
        if key not in used:
            raise ValueError(f"'{key}' would change nothing: no cell of the grid has a loss with that parameter")
    grid = Grid(tuple(cells.values()), tuple(seeds), settings, axes)
    check_trainings([cell.settings for cell in grid.cells], grid.seeds)
    if request.also:
        _check_distinct(grid)
    return grid


def _check_distinct(grid: Grid) -> None:
    """Raise a `ValueError` if two cells train the same, such as one of `also` that repeats shared values."""
    defaults = default_cfg()
    seen: list[tuple[Cell, dict[str, Any]]] = []
    for cell in grid.cells:
        trained = canonical({**defaults, **cell.settings})
        same = next((other for other, settings in seen if settings == trained), None)
        if same is not None:
            raise ValueError(f"'{cell.name}' trains the same as '{same.name}': leave one out")
        seen.append((cell, trained))


def _sort_keys(keys: Iterable[str]) -> list[str]:
    """Return keys in Ultralytics' order."""
    order = {key: number for number, key in enumerate(default_cfg())}
    return sorted(keys, key=lambda key: order.get(key, len(order)))


def _settings_and_axes(request: Request) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return the checked keys with one value, and the axes in Ultralytics' order of the keys.

    The names of the folders do not depend on the order in which keys were given.
    """
    settings, axes = dict(request.settings), dict(request.axes)
    for key, instead in OWN_KEYS.items():
        if key in settings or key in axes:
            raise ValueError(f"'{key}' is not for compare: {instead}")
    if settings.pop("mode", "train") != "train" or "mode" in axes:
        raise ValueError("compare trains: leave 'mode' out")
    one_device = "each run has one device; --devices 0,1 gives each run its own GPU"
    for key in ("device", "task", "workers"):
        if key in axes:
            raise ValueError(f"'{key}' cannot be an axis" + (f": {one_device}" if key == "device" else ""))
    if re.search(r"[,\[(]", str(settings.get("device", ""))):
        raise ValueError(f"'device={settings['device']}': {one_device}")
    for key, example in (("model", "yolov8n.yaml"), ("data", "my.yaml")):
        if settings.get(key) is None and key not in axes:
            raise ValueError(f"'{key}' is missing: compare {key}={example}")
    size = math.prod(map(len, axes.values()))
    if size > MAX_RUNS:  # checked first, since building the product takes long
        sizes = " x ".join(f"{len(values)} {key}" for key, values in axes.items())
        raise ValueError(f"the grid has {size:,} runs ({sizes}): at most {MAX_RUNS:,} are allowed")
    for key in map(argument, default_keys()):  # a given loss is an axis even with a single value
        if key.endswith("_loss") and key in settings:
            axes[key] = [settings[key]]
    axes = {key: axes[key] for key in _sort_keys(axes)}
    return {key: value for key, value in settings.items() if key not in axes}, axes


def _without_unused_parameters(asked: Mapping[str, Any], parameters: set[str]) -> dict[str, Any]:
    """Return the keys without parameters of losses, or of balanced class weights, that are not chosen."""
    choosing = {argument(key) for key in default_keys() if key.endswith("_loss") or key == "cls_weights"} - parameters
    choices = {key: value for key, value in asked.items() if key in choosing}
    chosen = set(map(argument, LossSettings.from_arguments(choices).parameters))
    return {k: v for k, v in asked.items() if k not in parameters or k in chosen}


def canonical(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with canonical values of the losses' keys."""
    own = LossSettings.from_arguments(settings).non_default()
    keys = {argument(key): own.get(key, default) for key, default in default_keys().items()}
    return {key: keys.get(key, value) for key, value in settings.items()}


def format_option(value: Any) -> str:
    """Return a value as on the command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(format_option, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _labels(key: str, values: list[Any]) -> list[str]:
    """Return short names of the values of an axis; paths are shortened as long as they stay distinct."""
    if key not in ("model", "data"):
        return [format_option(v) for v in values]
    paths = [Path(str(v)) for v in values]
    for name in (
        lambda p: p.stem,
        lambda p: p.name,
        lambda p: "_".join([*p.parts[-2:-1], p.stem]),
        lambda p: str(p),
    ):
        labels = [name(p) for p in paths]
        if len(set(labels)) == len(labels):
            return labels
    raise ValueError(f"'{key}' has a repeated value")


def _folder(parts: list[str]) -> str:
    """Return a unique folder name that is valid on any file system."""
    text = "+".join(parts)
    safe = re.sub(r"[^\w.=+-]+", "_", text)
    if safe != text or len(safe) > 120:
        safe = f"{safe[:110]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return safe
