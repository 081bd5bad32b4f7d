"""The opening of a report: what was compared, the outcome, how reliable it is, and what to run next."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from yolo_losses.comparison.language import Text
from yolo_losses.comparison.record import METRICS
from yolo_losses.comparison.report.notes import half_width, on_data_set, with_interval
from yolo_losses.comparison.stats.analysis import ALL_SETS, Analysis
from yolo_losses.comparison.stats.verdict import DECIDED, OUTCOMES, format_points, verdict_if_untrained

EPOCH_WORDS = {"best": "at the best epoch", "last": "at the last epoch", "mean": "over the last tenth of the epochs"}
MAX_ADVISED_SEEDS = 100


def describe_runs(result: Analysis) -> str:
    """Return what was compared, and from how many runs."""
    finished = [r for r in result.records if r.status == "finished"]
    seeds, epochs = sorted({r.seed for r in finished}), sorted({r.epochs for r in finished})
    first = result.labels[result.baseline]
    what = Text("{baseline} alone: there is no other configuration to compare", baseline=first)
    if result.candidates:
        several = count_noun(len(result.candidates), "configuration")
        what = Text("{several} against {baseline}", several=several, baseline=first)
    text = (
        "{what}, on {where}; {runs}, {seed} {seeds}, {epochs} epochs. The metric is {metric} {which}, in points (0.01)."
    )
    return Text(
        text,
        what=what,
        where=[result.titles[data] for data in result.sets],
        runs=count_noun(len(finished), "finished run"),
        seed=Text("seed" if len(seeds) == 1 else "seeds"),
        seeds=format_seeds(seeds),
        epochs=Text.joined(" or ", map(str, epochs)) if epochs else Text("no"),
        metric=METRICS[result.metric],
        which=Text(EPOCH_WORDS[result.epochs]),
    )


def group_by_verdict(result: Analysis, scope: str) -> str:
    """Return the configurations by verdict."""
    by_word: dict[str, list[str]] = {word: [] for word in OUTCOMES}
    for name in result.candidates:
        c = result.get(scope, name)
        if c is not None and c.verdict is not None:
            by_word[c.verdict.word].append(result.labels[name])
    said = [(word, names) for word, names in by_word.items() if names]
    groups = [
        Text("{word}: {names}", word=Text(word.capitalize() if i == 0 else word), names=names)
        for i, (word, names) in enumerate(said)
    ]
    return Text("{groups}.", groups=Text.joined("; ", groups))


def describe_certainty(result: Analysis, scope: str) -> str | None:
    """Return how reliable the verdicts are, `None` if there are none."""
    found = [result.get(scope, name) for name in result.candidates]
    if all(c is None or c.verdict is None or c.verdict.word == "no result" for c in found):
        return None
    half = half_width(result, scope)
    if math.isnan(half):
        if any(len(c.differences) > 1 for name in result.candidates if (c := result.get(scope, name))):
            return Text("There is no interval: the differences from the baseline are the same with every seed.")
        return Text("One seed does not show how much results vary by chance: use three or more.")
    of = Text("new seeds and other validation images" if _over_images(result, scope) else "new seeds")
    if scope == ALL_SETS:
        of = Text("further data sets")
    holds = Text("With 95 % certainty the interval holds for {of}", of=of)
    if (n := len(with_interval(result, scope))) > 1:
        holds = Text("With 95 % certainty the {n} intervals hold for {of} at once", n=n, of=of)
    text = (
        "{holds}, so that it is unlikely that any of the words better, worse or practically equal is wrong. Differences"
        " of less than about {half} points cannot be distinguished from chance with these runs."
    )
    return Text(text, holds=holds, half=format_points(half, sign=False))


def _over_images(result: Analysis, scope: str) -> bool:
    return any(c.estimate.images for n in result.candidates if (c := result.get(scope, n)) and c.estimate)


def all_commands(plan: Mapping[str, Any]) -> str | None:
    """Return the commands of a comparison, a line each, with the seeds of all of them."""
    commands = [command for command in plan.get("commands", [plan.get("command")]) if command]
    if seeds := plan.get("seeds"):
        commands = [with_seeds(command, sorted(seeds)) for command in commands]
    return "\n".join(dict.fromkeys(commands)) or None


def next_step(result: Analysis, plan: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return what to do next, and the command where there is one."""
    command = all_commands(plan)
    places = [(name, data) for data in result.sets for name in result.names if name in result.failed(data)]
    failed = {name for name, _ in places}
    if not failed:
        return _next_seeds(result, command, failed)
    text = (
        "Find out why every run of {titles} failed: the last lines of each are under Failed runs, and more seeds would"
        " fail too. The command that trained these runs trains them again."
    )
    why = Text(
        text, titles=[Text.joined("", (result.labels[name], on_data_set(result, data))) for name, data in places]
    )
    if result.baseline in failed or not result.candidates or failed.issuperset(result.candidates):
        return why, command
    step, next_command = _next_seeds(result, command, failed)
    return Text("{why} Of the others: {step}", why=why, step=step), next_command


def _next_seeds(result: Analysis, command: str | None, failed: Collection[str]) -> tuple[str, str | None]:
    """Return what to do next about the configurations that have not failed."""
    scope = result.scopes[0]
    found = [c for n in result.candidates if n not in failed and (c := result.get(scope, n)) and c.verdict]
    left = [c for c in found if c.verdict and c.verdict.word not in DECIDED]
    if not found:
        return Text("Name losses to compare, such as cls_loss=bce,focal."), None
    if not left:
        return Text("Nothing: everything is decided."), None
    if any(result.next_seeds.values()):
        return Text("The next round is not finished: run the same command again to continue."), command
    if verdict_if_untrained(result.highest(scope, result.epochs, result.metric), result.rope):
        return Text(
            "Train for more epochs, or from pretrained weights: more seeds do not help before something is learned."
        ), None
    if scope == ALL_SETS:
        return Text("Add data sets: more seeds on these say little about others."), None
    needed = {c.name: c.verdict.seeds_needed for c in left if c.verdict and c.verdict.seeds_needed}
    if all(len(c.differences) < 2 for c in left):
        needed = {c.name: 3 for c in left}
    within = {name: n for name, n in needed.items() if n <= MAX_ADVISED_SEEDS}
    if not within:
        text = "No further run: what is undecided differs too little to be decided with {most} seeds."
        return Text(text, most=MAX_ADVISED_SEEDS), None
    name, count = min(within.items(), key=lambda item: item[1])
    why = Text("About {count} seeds would decide {label}", count=count, label=result.labels[name])
    if result.decisions:
        return Text("Allow more seeds: --max-seeds {seeds}. {why}.", seeds=max(count, 12), why=why), None
    have = sorted({r.seed for r in result.records})
    seeds = [*have, *(s for s in range(count + len(have)) if s not in have)][:count]
    if command is None:
        return Text("{why}: train seeds {seeds} of it and of the baseline.", why=why, seeds=format_seeds(seeds)), None
    if "seed=" not in command:
        command += " seed=0"
    return Text("{why}; finished runs are not repeated:", why=why), with_seeds(command, sorted(seeds))


def with_seeds(command: str, seeds: Sequence[int]) -> str:
    """Return a command with other seeds."""
    # In a shell, a list is quoted together with its key: 'seed=[0, 1]'.
    pattern = r"(?<!\S)(?:'seed=[^']*'|seed=('[^']*'|\[[^\]]*\]|\S+))"
    return re.sub(pattern, lambda found: _seed_word(found[1] or "", seeds), command)


def _seed_word(before: str, seeds: Sequence[int]) -> str:
    text = format_seeds(seeds).replace(" ", "")
    return f"seed={list(seeds)}" if before.startswith(("[", "'")) else f"seed={text}"


def format_seeds(seeds: Sequence[int]) -> str:
    """Return seeds as text: `0-4` for several in a row, otherwise a list."""
    seeds = sorted(seeds)
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))


def count_noun(number: int, what: str) -> Text:
    """Return a number with its noun, in the plural unless it is 1."""
    return Text(f"{{n}} {what}{'' if number == 1 else 's'}", n=number)
