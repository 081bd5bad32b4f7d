"""What a report opens with: what was tried, what came out, how sure that is, and what to run next."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from yolo_losses.comparison.record import METRICS
from yolo_losses.comparison.report.notes import half_width
from yolo_losses.comparison.stats.analysis import ALL_SETS, Analysis
from yolo_losses.comparison.stats.verdict import DECIDED, WORDS, points

EPOCH_WORDS = {"best": "at the best epoch", "last": "at the last epoch", "mean": "over the last tenth of the epochs"}
MOST_SEEDS = 100  # that are advised


def tried(result: Analysis) -> str:
    """Return what was compared, and from how many runs."""
    finished = [r for r in result.records if r.status == "finished"]
    seeds, epochs = sorted({r.seed for r in finished}), sorted({r.epochs for r in finished})
    where = ", ".join(result.titles[data] for data in result.sets)
    what = f"{result.labels[result.baseline]} alone: there is no other configuration to compare"
    if result.candidates:
        what = f"{counted(len(result.candidates), 'configuration')} against {result.labels[result.baseline]}"
    return (
        f"{what}, on {where}; {counted(len(finished), 'finished run')}, seed{'s' * (len(seeds) != 1)} "
        f"{as_range(seeds)}, {' or '.join(map(str, epochs)) or 'no'} epochs. The metric is {METRICS[result.metric]} "
        f"{EPOCH_WORDS[result.epochs]}, in points (0.01)."
    )


def came_out(result: Analysis, scope: str) -> str:
    """Return the configurations by verdict."""
    by_word: dict[str, list[str]] = {word: [] for word in WORDS}
    for name in result.candidates:
        c = result.get(scope, name)
        if c is not None and c.verdict is not None:
            by_word[c.verdict.word].append(result.labels[name])
    said = [f"{word}: {', '.join(names)}" for word, names in by_word.items() if names]
    return ("; ".join(said) + ".").capitalize() if said else "There is nothing to judge yet."


def how_sure(result: Analysis, scope: str) -> str:
    """Return what the words can be relied on for."""
    half = half_width(result, scope)
    if math.isnan(half):
        return "With one seed there is no telling what chance does: take three or more."
    family = "the interval holds" if len(result.candidates) == 1 else f"all {len(result.candidates)} intervals hold"
    of = "other validation images" if _over_images(result, scope) else "new seeds"
    if scope == ALL_SETS:
        of = "further data sets"
    text = (
        f"With 95 % certainty {family} for {of} at once, so that it is unlikely that any of the words better, worse or "
        f"practically equal is wrong. Differences of less than about {points(half, sign=False)} points cannot be told "
        "from chance with these runs."
    )
    return text if len(result.candidates) > 1 else text.replace(" at once", "")


def _over_images(result: Analysis, scope: str) -> bool:
    return any(c.estimate.images for n in result.candidates if (c := result.get(scope, n)) and c.estimate)


def run_next(result: Analysis, plan: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return what to do next, and the command where there is one."""
    scope = result.scopes[0]
    found = [c for name in result.candidates if (c := result.get(scope, name)) and c.verdict]
    left = [c for c in found if c.verdict and c.verdict.word not in DECIDED]
    if not found:
        return "Name losses to compare, such as cls_loss=bce,focal.", None
    if not left:
        return "Nothing: everything is decided.", None
    command = plan.get("command")
    if any(result.next_seeds.values()):
        return "The next round is not over: the same command continues.", command
    if scope == ALL_SETS:
        return "More data sets: more seeds on these ones say little about others.", None
    needed = {c.name: c.verdict.seeds_needed for c in left if c.verdict and c.verdict.seeds_needed}
    if all(len(c.differences) < 2 for c in left):
        needed = {c.name: 3 for c in left}
    within = {name: n for name, n in needed.items() if n <= MOST_SEEDS}
    if not within:
        return (
            f"Nothing is worth it: the {len(left)} that are left differ too little for {MOST_SEEDS} seeds to tell.",
            None,
        )
    name, count = min(within.items(), key=lambda item: item[1])
    if result.decisions:
        return (
            f"Give it more: --max-seeds {max(count, 12)}. About {count} seeds would decide {result.labels[name]}.",
            None,
        )
    have = sorted({r.seed for r in result.records})
    seeds = [*have, *(s for s in range(count + len(have)) if s not in have)][:count]
    why = f"About {count} seeds would decide {result.labels[name]}"
    if command is None:
        return f"{why}: train seeds {as_range(seeds)} of it and of the baseline.", None
    if "seed=" not in command:
        command += " seed=0"
    repeated = re.sub(r"(?<!\S)seed=('[^']*'|\[[^\]]*\]|\S+)", lambda m: _seed_word(m[1], sorted(seeds)), command)
    return (
        f"{why}; what is finished is not run again:",
        repeated if "seed=" in command else f"{command} seed={as_range(seeds)}",
    )


def _seed_word(before: str, seeds: Sequence[int]) -> str:
    text = as_range(seeds).replace(" ", "")
    return f"seed={list(seeds)}" if before.startswith(("[", "'")) else f"seed={text}"


def as_range(seeds: Sequence[int]) -> str:
    """Return seeds in words: `0-4` for several in a row, otherwise a list."""
    seeds = sorted(seeds)
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))


def counted(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{number} {what}{'' if number == 1 else 's'}"
