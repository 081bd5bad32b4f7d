"""The result of `recommend`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yolo_losses.recommendation.candidates import Candidate, Note
from yolo_losses.recommendation.plan import SEEDS, Plan
from yolo_losses.recommendation.traits import Traits


@dataclass(frozen=True)
class Recommendation:
    """Which losses are worth trying on a data set.

    Attributes:
        data: the data set.
        model: the model.
        device: the device on which the time was estimated; empty if there is no comparison.
        inferred: how the task was inferred; empty if it was given.
        traits: traits of the data set.
        candidates: losses to compare with the stock ones because of a trait; at most four, often none.
        checks: what to look at before choosing a loss.
        avoided: what not to try.
        plan: the comparison that would decide; `None` if there are no candidates, and for classifiers, which
            `compare` does not train.
    """

    data: str
    model: str
    device: str
    inferred: str
    traits: Traits
    candidates: Sequence[Candidate]
    checks: Sequence[Note]
    avoided: Sequence[Note]
    plan: Plan | None

    def __str__(self) -> str:
        from yolo_losses.recommendation.text import report

        return report(self)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        plan = self.plan
        return {
            "data": self.data,
            "model": self.model,
            "traits": asdict(self.traits),
            "checks": [asdict(note) for note in self.checks],
            "candidates": [{"words": candidate.words, **asdict(candidate)} for candidate in self.candidates],
            "avoided": [asdict(note) for note in self.avoided],
            "compare": None
            if plan is None
            else {
                "command": plan.command,
                **asdict(plan),
                "seeds": SEEDS,
                "runs": plan.runs,
                "seconds": plan.seconds,
                "device": self.device,
            },
        }

    def write(self, path: str | Path) -> Path:
        """Write the comparison as a file for `yolo-losses compare cfg=FILE`.

        Raises:
            ValueError: if there is nothing to compare.
        """
        path = Path(path)
        if self.plan is None:
            why = "compare does not train classifiers" if self.candidates else "no trait suggests another loss"
            raise ValueError(f"'--write {path}': {why}, so there is no grid to write")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.plan.as_yaml(), encoding="utf-8")
        return path

    def draw(self, path: str | Path) -> Path:
        """Draw classes, sizes and shapes to a PNG, SVG or PDF."""
        from yolo_losses.recommendation.picture import figure

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure(self.data, self.traits).savefig(path, dpi=150)
        return path
