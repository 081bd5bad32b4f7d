"""The comparison that would decide: its configurations, its command, and about how long it takes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from yolo_losses.config.settings import argument
from yolo_losses.recommendation.candidates import Candidate
from yolo_losses.recommendation.traits import Traits

SEEDS = (0, 1, 2)
BASELINE = {"cls_loss": "stock"}
VALIDATION = 1 / 3  # time of an image in validation relative to training: the forward pass alone


@dataclass(frozen=True)
class Plan:
    """What `yolo-losses compare` would train: the stock losses, and each candidate.

    Attributes:
        settings: the keys that all runs share.
        also: the keys of each configuration except the stock one.
        seconds_per_run: about how long a training takes; `None` if it is not known.
    """

    settings: Mapping[str, Any]
    also: Sequence[Mapping[str, Any]]
    seconds_per_run: float | None

    @property
    def configurations(self) -> int:
        """Number of configurations, including the stock one."""
        return 1 + len(self.also)

    @property
    def runs(self) -> int:
        """Number of trainings."""
        return self.configurations * len(SEEDS)

    @property
    def seconds(self) -> float | None:
        """Estimated time of all trainings, one after the other."""
        return None if self.seconds_per_run is None else self.seconds_per_run * self.runs

    @property
    def words(self) -> list[str]:
        """The words of the command."""
        shared = {**self.settings, "seed": ",".join(map(str, SEEDS)), **BASELINE}
        also = [word for keys in self.also for word in ("--also", " ".join(_words(keys)))]
        return ["yolo-losses", "compare", *_words(shared), *also]

    @property
    def command(self) -> str:
        """The command, quoted for a shell."""
        return shlex.join(self.words)

    def as_yaml(self) -> str:
        """Return the grid as a file for `yolo-losses compare cfg=FILE`."""
        keys = {**self.settings, **BASELINE, "grid": {"seed": list(SEEDS)}, "also": [dict(each) for each in self.also]}
        text: str = yaml.safe_dump(keys, sort_keys=False, allow_unicode=True)
        return f"# Written by `yolo-losses recommend`; `yolo-losses compare cfg=FILE` trains it.\n{text}"


def make(
    candidates: Sequence[Candidate], settings: Mapping[str, Any], traits: Traits, seconds_per_image: float | None
) -> Plan | None:
    """Return the comparison of the candidates with stock, `None` if there is no candidate.

    Args:
        candidates: the candidates, in order.
        settings: the keys that all runs share.
        traits: traits of the data set.
        seconds_per_image: time of forward and backward, `None` if it is not known.
    """
    if not candidates:
        return None
    images = (traits.images + VALIDATION * traits.val_images) * settings["epochs"]
    seconds_per_run = None if seconds_per_image is None else seconds_per_image * images
    also = [{argument(key): value for key, value in candidate.keys.items()} for candidate in candidates]
    return Plan(settings, also, seconds_per_run)


def _words(keys: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in keys.items()]
