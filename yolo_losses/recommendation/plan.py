"""The comparison that would decide: its grid, its command, and about how long it takes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from yolo_losses.config.settings import argument, default_keys
from yolo_losses.recommendation.candidates import Candidate
from yolo_losses.recommendation.traits import Traits

SEEDS = (0, 1, 2)
AT_MOST_CONFIGURATIONS = 6
VALIDATION = 1 / 3  # time of an image in validation over one in training: forward of forward and backward


@dataclass(frozen=True)
class Plan:
    """A grid for `yolo-losses compare`, whose first configuration is stock.

    Attributes:
        settings: the keys that all runs share, parameters of the candidates among them.
        axes: the keys that are compared, each with its values, the default first.
        seconds: about how long it takes, one run after the other; `None` where that is not known.
        out: the folder of the comparison where it is not `compare`'s default.
    """

    settings: Mapping[str, Any]
    axes: Mapping[str, list[Any]]
    seconds: float | None
    out: str = ""

    @property
    def configurations(self) -> int:
        """How many there are: every combination of the axes."""
        return _size(self.axes)

    @property
    def runs(self) -> int:
        """How many trainings that is."""
        return self.configurations * len(SEEDS)

    @property
    def words(self) -> list[str]:
        """The command's words."""
        axes = {"seed": list(SEEDS), **self.axes}
        shared = [f"{key}={value}" for key, value in self.settings.items()]
        own = ["--out", self.out] if self.out else []
        return ["yolo-losses", "compare", *shared, *(f"{k}={','.join(map(str, v))}" for k, v in axes.items()), *own]

    @property
    def command(self) -> str:
        """The command, as a shell takes it."""
        return shlex.join(self.words)

    def as_yaml(self) -> str:
        """Return the grid as a file for `yolo-losses compare cfg=FILE`."""
        grid = {"seed": list(SEEDS), **self.axes}
        text: str = yaml.safe_dump({**self.settings, "grid": grid}, sort_keys=False, allow_unicode=True)
        out = f" --out {shlex.quote(self.out)}" if self.out else ""
        return f"# Written by `yolo-losses recommend`; `yolo-losses compare cfg=FILE{out}` trains it.\n{text}"


def make(
    candidates: Sequence[Candidate], settings: Mapping[str, Any], traits: Traits, seconds_per_image: float | None
) -> list[Plan]:
    """Return the comparisons of the candidates with stock, in the order in which to run them.

    Keys of different terms are combined, since what helps alone may not help together; two keys of one term, class
    weights and a class loss, do the same thing twice when combined, and are compared one after the other. Candidates
    are taken in their order while a grid has at most six configurations; the rest makes the next one.

    Args:
        candidates: in the order in which they are to be decided.
        settings: the keys that all runs share.
        traits: of the data set.
        seconds_per_image: of forward and backward, `None` where it is not known.
    """
    images = (traits.images + VALIDATION * traits.val_images) * settings["epochs"]
    plans: list[Plan] = []
    while candidates:
        axes: dict[str, list[Any]] = {}
        parameters: dict[str, Any] = {}
        left_out = []
        for candidate in candidates:
            key = argument(candidate.choice)
            values = axes.get(key, [default_keys()[candidate.choice]])
            wider = {**axes, key: [*values, candidate.keys[candidate.choice]]}
            if _size(wider) > AT_MOST_CONFIGURATIONS or any(k != key and _term(k) == _term(key) for k in axes):
                left_out.append(candidate)
                continue
            axes = wider
            parameters |= {argument(k): value for k, value in candidate.keys.items() if k != candidate.choice}
        out = f"runs/compare-{len(plans) + 1}" if plans else ""
        runs = _size(axes) * len(SEEDS)
        seconds = None if seconds_per_image is None else seconds_per_image * images * runs
        plans.append(Plan({**settings, **parameters}, axes, seconds, out))
        candidates = left_out
    return plans


def _term(key: str) -> str:
    return key.partition("_")[0]


def _size(axes: Mapping[str, list[Any]]) -> int:
    return math.prod(map(len, axes.values()))
