"""The verdicts of this project's own comparisons: `verdicts.csv`, a copy of `examples/evidence/verdicts.csv`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).with_name("verdicts.csv")
# Words that do not change what a configuration is about: losses that equal the stock ones, and defaults.
NEUTRAL = {"cls_loss=bce", "box_loss=ciou", "cls_loss=stock", "box_loss=stock", "cls_scale=1.0", "cls_target=auto"}
NEUTRAL |= {"cls_weights=none"}


@dataclass(frozen=True)
class Verdict:
    """A configuration against the stock losses on one data set.

    Attributes:
        set: the data set.
        config: the configuration, as words of `yolo train`.
        difference, low, high: difference of mAP50-95 in points (hundredths), and its 95 % interval.
        word: the outcome, as in `compare`: `better`, `worse`, `practically equal`, ... `inconclusive`.
        seeds: number of seeds.
    """

    set: str
    config: str
    difference: float
    low: float
    high: float
    word: str
    seeds: int

    @property
    def decided(self) -> bool:
        """Whether the seeds decided it."""
        return self.word in ("better", "worse", "practically equal")

    def __str__(self) -> str:
        interval = f"{self.difference:+.1f} points, {self.low:+.1f} to {self.high:+.1f}, {self.seeds} seeds"
        return f"measured here on {self.set}: {self.word} ({interval})"


def load(path: Path = PATH) -> list[Verdict]:
    """Return the verdicts of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Verdict(
                set=row["set"],
                config=row["config"],
                difference=float(row["difference"]),
                low=float(row["low"]),
                high=float(row["high"]),
                word=row["word"],
                seeds=int(row["seeds"]),
            )
            for row in csv.DictReader(file)
        ]


def find(verdicts: list[Verdict], data: str, config: str) -> Verdict | None:
    """Return the verdict on a configuration, whatever the parameters of its losses were."""
    asked = set(config.split())
    losses = tuple(f"{word.partition('=')[2]}_" for word in asked)
    for verdict in verdicts:
        words = set(verdict.config.split())
        more = words - asked - NEUTRAL
        if verdict.set == data and asked <= words and all(word.startswith(losses) for word in more):
            return verdict
    return None
