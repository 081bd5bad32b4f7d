"""The grid of a comparison: from words or keywords to checked runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolo_losses import registry
from yolo_losses.config.settings import LossSettings, argument, declared_parameters, default_keys

OWN_KEYS = {  # keys of `yolo train` that compare sets by itself -> what to do instead
    "name": "each run's folder is named after its settings",
    "project": "name the folder of the comparison with --out",
    "save_dir": "name the folder of the comparison with --out",
    "exist_ok": "runs that are finished are never run again",
    "resume": "a comparison that was stopped continues when it is started again",
}
TASKS = ("detect", "segment", "pose", "obb")


@dataclass(frozen=True)
class Cell:
    """One configuration on one data set.

    Attributes:
        configuration: the values of the axes, seed and data set aside.
        settings: all keys of the training but its seed.
        data: the data set.
        name: the configuration in words.
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
        """The run in words."""
        return f"{self.cell.name} seed={self.seed}"


@dataclass
class Request:
    """What was asked for.

    Attributes:
        settings: keys with one value.
        axes: keys with several values.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, key: str, values: list[Any]) -> None:
        """Take a key's values, which replace those it had."""
        self.settings.pop(key, None)
        self.axes.pop(key, None)
        if len(values) == 1:
            self.settings[key] = values[0]
        else:
            self.axes[key] = values

    def add_file(self, path: str) -> None:
        """Take the keys of a YAML file; the lists of its mapping `grid` are axes."""
        import yaml
        from ultralytics.utils.checks import check_yaml

        try:
            found = yaml.safe_load(Path(check_yaml(path)).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ValueError(f"'cfg={path}' cannot be read: {first_line(error)}") from error
        if not isinstance(found, dict):
            raise ValueError(f"'cfg={path}' holds no keys")
        grid = found.pop("grid", None) or {}
        if not isinstance(grid, dict) or not all(isinstance(v, list) and v for v in grid.values()):
            raise ValueError(f"'grid' in {path} is a mapping of lists, such as 'cls_loss: [bce, focal]'")
        for key, value in found.items():
            self.add(str(key), [value])
        for key, values in grid.items():
            self.add(str(key), values)


def read_words(words: Sequence[str]) -> Request:
    """Return what the words of a command line ask for: those of `yolo train`, with axes.

    Raises:
        ValueError: on a word that `yolo train` would reject; the message is one line naming it.
    """
    from ultralytics.cfg import MODES, merge_equals_args, parse_key_value_pair

    from_file, request = Request(), Request()
    defaults = default_cfg()
    with refusals():
        merged = merge_equals_args(list(words))
    for word in merged:
        key, equals, text = word.partition("=")
        if equals:
            parts = split_at_commas(text)
            if not all(part.strip() for part in parts):
                raise ValueError(f"'{word}' lacks a value")
            with refusals():
                values = [parse_key_value_pair(f"{key}={part}")[1] for part in parts]
            if key.strip() == "cfg":
                if len(values) != 1:
                    raise ValueError(f"'{word}' names more than one file")
                from_file.add_file(str(values[0]))
            else:
                request.add(key.strip(), values)
        elif word in TASKS:
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


def read_keywords(keywords: Mapping[str, Any]) -> Request:
    """Return what keywords ask for: a list, a tuple, or text with commas outside brackets, is an axis.

    A list of numbers for `cls_weights` is one value of it.
    """
    from_file, request = Request(), Request()
    for key, value in keywords.items():
        if key == "cfg":
            from_file.add_file(str(value))
        elif isinstance(value, str) and "," in value:
            request = merge(request, read_words([f"{key}={value}"]))
        elif isinstance(value, (list, tuple)):
            if not value:
                raise ValueError(f"'{key}' lacks a value")
            one = key == "cls_weights" and all(isinstance(each, int | float) for each in value)
            request.add(key, [list(value)] if one else list(value))
        else:
            request.add(key, [str(value) if isinstance(value, Path) else value])
    return merge(from_file, request)


def merge(under: Request, over: Request) -> Request:
    """Return both requests, the second one's keys in place of the first one's."""
    merged = Request(dict(under.settings), dict(under.axes))
    for key, value in over.settings.items():
        merged.add(key, [value])
    for key, values in over.axes.items():
        merged.add(key, values)
    return merged


def split_at_commas(text: str) -> list[str]:
    """Split at the commas that stand outside brackets and quotes."""
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


@dataclass(frozen=True)
class Grid:
    """The cells of a comparison and its seeds.

    Attributes:
        cells: in order of the axes, the last one fastest; the first is the baseline unless another is named.
        seeds: of each cell.
        settings: the keys that all runs share, as they were given.
        axes: the axes with their values as they were given, seed and data set among them.
    """

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    axes: Mapping[str, list[Any]]

    def runs(self, out: Path) -> list[Run]:
        """Return the runs, all cells of one seed before the next: a part of the grid is a comparison already."""
        return [
            Run(cell, seed, out / "runs" / cell.folder / f"seed{seed}") for seed in self.seeds for cell in self.cells
        ]

    def baseline(self, words: str | Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the configuration of the baseline.

        Args:
            words: `cls_loss=bce`, several of them apart by blanks or commas, or a mapping; `None` is the first cell.
                Where it fits several cells, the first of them.

        Raises:
            ValueError: where it fits no cell.
        """
        if words is None:
            return dict(self.cells[0].configuration)
        if isinstance(words, str):
            words = read_words([word for part in split_at_commas(words) for word in part.split()]).settings
        for key in words:
            if key not in self.axes or key in ("seed", "data"):
                axes = ", ".join(k for k in self.axes if k not in ("seed", "data")) or "none"
                raise ValueError(f"--baseline: '{key}' is no axis of this grid: its axes are {axes}")
        for cell in self.cells:
            if words.keys() <= cell.settings.keys() and _is_the_same(cell.settings, words):
                return dict(cell.configuration)
        asked = " ".join(f"{key}={shown(value)}" for key, value in words.items())
        raise ValueError(f"--baseline: no cell has '{asked}': there is {', '.join(c.name for c in self.cells)}")


def _is_the_same(settings: Mapping[str, Any], words: Mapping[str, Any]) -> bool:
    try:
        return canonical({**settings, **words}) == canonical(settings)
    except ValueError:
        return False


def build(request: Request) -> Grid:
    """Return the grid of a request, every value checked as `yolo train` would.

    Raises:
        ValueError: on the first value that a run would reject; the message is one line naming key, value and allowed
            values.
    """
    settings, axes = dict(request.settings), dict(request.axes)
    for key, instead in OWN_KEYS.items():
        if key in settings or key in axes:
            raise ValueError(f"'{key}' is not for compare: {instead}")
    if settings.pop("mode", "train") != "train" or "mode" in axes:
        raise ValueError("compare trains: leave 'mode' out")
    for key in ("device", "task", "workers"):
        if key in axes:
            raise ValueError(
                f"'{key}' is no axis"
                + (": each run has one device; --devices 0,1 runs side by side" if key == "device" else "")
            )
    if re.search(r"[,\[(]", str(settings.get("device", ""))):
        raise ValueError(
            f"'device={settings['device']}': each run has one device; --devices 0,1 gives each run a GPU of its own"
        )
    for key in ("model", "data"):
        if settings.get(key) is None and key not in axes:
            raise ValueError(
                f"'{key}' is missing: compare {'model=yolov8n.yaml' if key == 'model' else 'data=my.yaml'}"
            )
    parameters = set(map(argument, declared_parameters()))
    for key in map(argument, default_keys()):  # a loss that is named is what is compared, one value of it too
        if key.endswith("_loss") and key in settings:
            axes = {**axes, key: [settings[key]]}
    # Ultralytics' own order of the keys, not that of the words: the names of the folders do not depend on how the grid
    # was written down.
    order = list(default_cfg())
    axes = {key: axes[key] for key in sorted(axes, key=lambda k: order.index(k) if k in order else len(order))}
    settings = {key: value for key, value in settings.items() if key not in axes}

    seeds = axes.get("seed", [settings.pop("seed", 0)])
    seeds = [int(s) if isinstance(s, float) and s.is_integer() else s for s in seeds]
    data = axes.get("data", [settings.pop("data", None)])
    combined = {key: values for key, values in axes.items() if key != "seed"}
    cells: list[Cell] = []
    used: set[str] = set()
    labels = {key: _labels(key, values) for key, values in axes.items()}
    for chosen in itertools.product(*combined.values()):
        asked = {**settings, **dict(zip(combined, chosen, strict=True))}
        kept = _without_idle_parameters(asked, parameters)
        used |= kept.keys()
        values = canonical(kept)
        index = {key: combined[key].index(value) for key, value in zip(combined, chosen, strict=True)}
        configuration = {key: values[key] for key in combined if key in kept and key != "data"}
        words = [
            f"{key}={labels[key][index[key]] if key == 'model' else shown(configuration[key])}" for key in configuration
        ]
        name = " ".join(words) or "default"
        parts = [*words, *([f"data={labels['data'][index['data']]}"] if "data" in combined else [])]
        kept.setdefault("data", data[0])
        cell = Cell(configuration, kept, str(kept["data"]), name, _folder(parts or ["default"]))
        same = next((c for c in cells if c.folder == cell.folder), None)
        if same is None:
            cells.append(cell)
        elif canonical(same.settings) != values | {"data": kept["data"]} or not asked.keys() - kept.keys():
            raise ValueError(f"'{name}' is in the grid twice")
    for key in settings.keys() | combined.keys():
        if key not in used:
            raise ValueError(f"'{key}' would change nothing: no cell of the grid has a loss with that parameter")
    if len(set(map(repr, seeds))) != len(seeds):
        raise ValueError("'seed' has a value twice")
    grid = Grid(tuple(cells), tuple(seeds), settings, axes)
    check(grid)
    return grid


def _without_idle_parameters(asked: Mapping[str, Any], parameters: set[str]) -> dict[str, Any]:
    """Return the keys but those of losses, or of balanced class weights, that are not chosen."""
    choosing = {argument(key) for key in default_keys() if key.endswith("_loss") or key == "cls_weights"} - parameters
    choices = {key: value for key, value in asked.items() if key in choosing}
    chosen = set(map(argument, LossSettings.from_arguments(choices).parameters))
    return {k: v for k, v in asked.items() if k not in parameters or k in chosen}


def canonical(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the losses' keys as they are called and typed, whatever the spelling."""
    own = LossSettings.from_arguments(settings).non_default()
    keys = {argument(key): own.get(key, default) for key, default in default_keys().items()}
    return {key: keys.get(key, value) for key, value in settings.items()}


def shown(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _labels(key: str, values: list[Any]) -> list[str]:
    """Return short names of an axis's values: of paths as much as tells them apart."""
    if key not in ("model", "data"):
        return [shown(v) for v in values]
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
    raise ValueError(f"'{key}' has a value twice")


def _folder(parts: list[str]) -> str:
    """Return a folder's name that any file system takes, and that no other cell has."""
    text = "+".join(parts)
    safe = re.sub(r"[^\w.=+-]+", "_", text)
    if safe != text or len(safe) > 120:
        safe = f"{safe[:110]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return safe


# --- checks ----------------------------------------------------------------------------------------------------------


def default_cfg() -> dict[str, Any]:
    """Return Ultralytics' keys with their defaults, this package's among them."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    import yolo_losses  # noqa: F401 - makes its keys known

    return dict(DEFAULT_CFG_DICT)


def check(grid: Grid) -> None:
    """Check every cell's keys, its model and its data set.

    Raises:
        ValueError: on an invalid value; the message is one line naming key, value and allowed values.
    """
    from ultralytics.cfg import get_cfg

    tasks: dict[str, str] = {}
    for cell in grid.cells:
        for seed in grid.seeds:
            with refusals():
                get_cfg(overrides={**cell.settings, "seed": seed, "mode": "train"})
        for key, value in cell.settings.items():
            try:
                json.dumps(value)
            except TypeError:
                raise ValueError(f"'{key}': a {type(value).__name__} cannot be handed to a process") from None
        chosen = LossSettings.from_arguments(cell.settings)
        model = str(cell.settings["model"])
        if model not in tasks:
            tasks[model] = _task(model, cell.settings.get("task"))
        chosen.check_task(tasks[model])
    for model, task in tasks.items():
        if task not in TASKS:
            raise ValueError(f"'model={model}' is of the task '{task}': compare trains {', '.join(TASKS)}")


def _task(model: str, task: Any) -> str:
    with refusals(f"'model={model}'"):
        return str(load_model(model, task).task)


def load_model(model: str, task: Any = None) -> Any:
    """Return a model as `yolo train` builds it."""
    import ultralytics

    if "rtdetr" in Path(model).stem.lower():
        return ultralytics.RTDETR(model)
    return ultralytics.YOLO(model, task=task)


def read_data(data: str, split: str = "val") -> dict[str, Any]:
    """Return a data set's description: it is fetched where Ultralytics would, and refused where it is not there."""
    from ultralytics.data.utils import check_det_dataset

    with refusals(f"'data={data}'"):
        found: dict[str, Any] = check_det_dataset(data)
        if not found.get(split):
            raise ValueError(f"there is no split '{split}'")
        return found


def data_hash(description: Mapping[str, Any], split: str = "val") -> str:
    """Return a hash of a data set: its classes, the images' names and sizes, and the labels."""
    digest = hashlib.sha256(repr(sorted(dict(description["names"]).items())).encode())
    for part in dict.fromkeys(("train", split)):
        for image in _images(description.get(part)):
            digest.update(f"{image.name} {image.stat().st_size}".encode())
            label = _label_of(image)
            if label.is_file():
                digest.update(label.read_bytes())
    return digest.hexdigest()[:16]


def _images(where: Any) -> Iterator[Path]:
    for path in [where] if isinstance(where, str) else where or []:
        folder = Path(path)
        if folder.is_file():  # a list of images
            for line in folder.read_text(encoding="utf-8").splitlines():
                image = Path(line.strip())
                image = image if image.is_absolute() else folder.parent / image
                if line.strip() and image.is_file():
                    yield image
        else:
            yield from sorted(
                p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".txt", ".npy", ".cache")
            )


def _label_of(image: Path) -> Path:
    """Return where Ultralytics looks for an image's labels."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


@contextmanager
def refusals(what: str = "") -> Iterator[None]:
    """Turn what Ultralytics raises into a `ValueError` with a one-line message, and keep its help texts to itself."""
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
    """Return the first line of an error's message, without colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(getattr(error, "msg", None) or error))
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
