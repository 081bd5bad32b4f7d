"""The rules by which traits suggest losses, with their evidence, read from `rules.yaml`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from yolo_losses.config.settings import LossSettings, declared_parameters, default_keys
from yolo_losses.recommendation.traits import Traits

PATH = Path(__file__).with_name("rules.yaml")
REPOSITORY = "https://github.com/yolo-losses/yolo-losses/blob/main/"
GRADES = {"authors": "measured by its authors", "construction": "by construction only"}


@dataclass(frozen=True)
class Evidence:
    """The evidence for a rule.

    Attributes:
        says: the finding, in a sentence.
        page: file and heading in the repository.
        source: the paper.
    """

    says: str
    page: str
    source: str = ""

    @property
    def url(self) -> str:
        """The address of the page."""
        return REPOSITORY + self.page


@dataclass(frozen=True)
class Rule:
    """A rule; `rules.yaml` says what its fields mean."""

    id: str
    kind: Literal["try", "check", "avoid"]
    why: str
    tasks: Sequence[str] = ()
    when: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, Any] = field(default_factory=dict)
    what: str = ""
    grade: str = ""
    evidence: Evidence | None = None
    measured: Mapping[str, str] | None = None

    def applies(self, traits: Traits) -> bool:
        """Return whether the rule is for this task, and each of its conditions holds."""
        if self.tasks and traits.task not in self.tasks:
            return False
        return all(_is_met(getattr(traits, name), bounds) for name, bounds in self.when.items())

    def chosen_keys(self, traits: Traits) -> dict[str, Any]:
        """Return the keys of a candidate, with values that depend on the data set filled in."""
        return {key: _fill_in(value, traits) for key, value in self.keys.items()}

    @property
    def choice(self) -> str:
        """The key that chooses the loss; the others are its parameters."""
        return next(key for key in self.keys if key not in declared_parameters())

    def is_available(self, task: str) -> bool:
        """Return whether this version supports the candidate's keys and values in a task."""
        try:
            keys = {key: value for key, value in self.keys.items() if not str(value).startswith("{")}
            LossSettings.from_mapping(keys).check_task(task)
        except ValueError:
            return False
        return self.keys.keys() <= default_keys().keys()

    def reason(self, traits: Traits) -> str:
        """Return the reason, with the traits of a data set filled in."""
        return self.why.format_map(format_traits(traits))


@functools.cache
def load(path: Path = PATH) -> tuple[Rule, ...]:
    """Return the rules of a file, in its order."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tuple(
        Rule(**{**entry, "evidence": Evidence(**entry["evidence"]) if "evidence" in entry else None})
        for entry in entries
    )


def _is_met(value: Any, bounds: Any) -> bool:
    """Return whether a trait meets a rule's condition; False if the data set does not have the trait."""
    if value is None:
        return False
    if isinstance(bounds, bool):
        return bool(value) == bounds
    low, high = bounds
    number = value if isinstance(value, int | float) else len(value)
    return (low is None or number >= low) and (high is None or number <= high)


def _fill_in(value: Any, traits: Traits) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        return max(0.1, round(float(getattr(traits, value.strip("{}"))), 1))
    return value


def format_traits(traits: Traits) -> dict[str, str]:
    """Return the traits as text for sentences: shares in percent, a few names of a list."""
    return {name: _format_trait(name, value) for name, value in vars(traits).items()}


def _format_trait(name: str, value: Any) -> str:
    if isinstance(value, int | str):
        return f"{value:,}" if type(value) is int and name != "imgsz" else str(value)
    if isinstance(value, float):
        if name in ("class_ratio", "stride", "enlarged", "aspect", "per_image", "mean_side", "median_side"):
            return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
        return percent(value)
    if isinstance(value, Sequence):
        more = f" and {len(value) - 3:,} more" if len(value) > 4 else ""
        return ", ".join(map(str, value[: 3 if more else 4])) + more
    return str(value)


def percent(share: float) -> str:
    """Return a share in percent; one that is not 0 is never shown as 0, and one that is not 1 never as 100."""
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "over 99 %"
    return f"{100 * share:.0f} %"
