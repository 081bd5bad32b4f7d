"""The options of a comparison."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_losses.comparison.language import LANGUAGES
from yolo_losses.comparison.record import EPOCHS, METRIC_COLUMNS, METRICS

ENGINES = ("local", "ray")
MIN_SEEDS = 3  # with `until_decided`


@dataclass
class Options:
    """The checked options of a comparison; see `compare`.

    Attributes:
        epochs: the epochs of the metric, `best`, `last` or `mean`; given after the metric, as in `map50_95@mean`.

    Raises:
        ValueError: if a value is invalid; the message names it and what is allowed.
    """

    baseline: str | Mapping[str, Any] | None = None
    metric: str = "map50_95"
    rope: float = 0.005
    jobs: int | None = None
    devices: str | Sequence[int | str] = ()
    engine: str = "local"
    address: str | None = None
    out: Path = Path("runs/compare")
    paper: Path | None = None
    epochs: str = "best"
    until_decided: bool = False
    max_seeds: int = 12
    language: str = "en"

    def __post_init__(self) -> None:
        asked = self.metric
        self.metric, at, epochs = asked.partition("@")
        self.epochs = epochs if at else self.epochs
        if self.metric not in METRICS or self.epochs not in EPOCHS:
            raise ValueError(
                f"'--metric {asked}': allowed are {', '.join(METRICS)}, each with @{', @'.join(EPOCHS)} or without"
            )
        if self.epochs == "mean" and self.metric not in METRIC_COLUMNS:
            raise ValueError(f"'--metric {asked}': results.csv has no {self.metric} of each epoch")
        if not 0 <= self.rope < 1:
            raise ValueError(f"'--rope {self.rope}': allowed is a number from 0 to 1, 0.005 for half a point of mAP")
        if self.max_seeds < MIN_SEEDS:
            raise ValueError(f"'--max-seeds {self.max_seeds}': allowed is a number from {MIN_SEEDS}")
        if self.language not in LANGUAGES:
            raise ValueError(f"'--language {self.language}': allowed are {', '.join(LANGUAGES)}")
        if self.engine not in ENGINES:
            raise ValueError(f"'--engine {self.engine}': allowed are {', '.join(ENGINES)}")
        if self.address is not None and self.engine != "ray":
            raise ValueError("'--address' is for --engine ray")
        devices = self.devices.split(",") if isinstance(self.devices, str) else map(str, self.devices)
        numbers = [device.strip() for device in devices if device.strip()]
        if not all(map(str.isdigit, numbers)) or len(set(numbers)) < len(numbers):
            raise ValueError(f"'--devices {','.join(numbers)}': allowed are numbers of GPUs, such as 0,1")
        self.devices = numbers
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"'--jobs {self.jobs}': allowed is a number from 1")
        if self.devices and self.jobs not in (None, len(self.devices)):
            raise ValueError("'--jobs' and '--devices' both set how many runs are trained at a time: leave one out")
        if self.devices and self.engine == "ray":
            raise ValueError("'--devices' is for --engine local: Ray assigns the GPUs of its cluster")
        _require("compare", ("scipy", "rich", "polars"))
        if self.engine == "ray":
            _require("ray", ("ray",))


def _require(extra: str, modules: Sequence[str]) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"compare needs {' and '.join(missing)}: pip install 'yolo-losses[{extra}]', in a clone '.[{extra}]'"
        )
