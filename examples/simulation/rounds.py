"""How many runs `compare --until-decided` saves, and that its errors hold over all looks, on made-up runs.

    python examples/simulation/rounds.py        # writes rounds.csv, some minutes on one core

In each row a number of configurations is compared with a baseline, by normal errors of standard deviation 1: one is
better by 2, a third is worse by 3, the others do not differ; or none differs. `error` is the share of `--repetitions`
comparisons in which one that does not differ is called better or worse; `found` the share of those that differ that are
called so; `seeds_*` how many seeds were spent on them, and `saved` the share of the runs that all seeds of all
configurations would have taken.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_losses.comparison.stats.differences import estimate_differences
from yolo_losses.comparison.stats.rounds import Decision, decide, restrict
from yolo_losses.comparison.stats.verdict import DECIDED, outcome

MAX_SEEDS = 12
ROPE = 0.1
Values = dict[str, dict[Any, float]]


def carry_out(runs: NDArray[Any]) -> tuple[dict[str, Decision], Values]:
    """Return the decisions and the runs that were spent; `runs` has all that may be, the baseline's first."""
    names = [str(i) for i in range(len(runs))]
    values: Values = {name: {} for name in names}
    while True:
        over = {name: set(own) for name, own in values.items()}
        decisions, more = decide(values, names[0], ROPE, range(runs.shape[1]), over)
        if not more:
            return decisions, values
        for name, seeds in more.items():
            values[name] |= {seed: runs[int(name), int(str(seed))] for seed in seeds}


def effects_of(case: str, configurations: int) -> NDArray[Any]:
    """Return what each configuration differs by."""
    effects = np.zeros(configurations)
    if case == "some differ":
        effects[0] = 2
        effects[1 : 1 + configurations // 3] = -3
    return effects


def row(case: str, configurations: int, repetitions: int) -> dict[str, Any]:
    """Return a row of the table."""
    effects = effects_of(case, configurations)
    rng = np.random.default_rng(configurations)
    errors, found, spent = 0, [], []
    for _ in range(repetitions):
        runs = 100 + rng.standard_normal((configurations + 1, MAX_SEEDS))  # a metric near 0 means nothing was learned
        runs[1:] += effects[:, None]
        decisions, values = carry_out(runs)
        called = []
        for name, decision in decisions.items():
            part = restrict(values, decision.seeds)
            estimate = estimate_differences(part, "0", level=decision.level)[0][name]
            called.append(outcome(estimate, ROPE) in DECIDED[:2])
        errors += any(c for c, effect in zip(called, effects, strict=True) if not effect)
        found += [c for c, effect in zip(called, effects, strict=True) if effect]
        spent.append([len(own) for own in values.values()])
    seeds = np.mean(spent, axis=0)
    groups = {"better": effects > 0, "worse": effects < 0, "same": effects == 0}
    values_of = {"case": case, "configurations": configurations, "error": errors / repetitions}
    values_of["found"] = float(np.mean(found)) if found else None
    values_of["seeds_baseline"] = seeds[0]
    values_of |= {f"seeds_{name}": seeds[1:][own].mean() if own.any() else None for name, own in groups.items()}
    values_of["saved"] = 1 - seeds.sum() / (MAX_SEEDS * len(seeds))
    return {key: round(float(v), 3) if isinstance(v, float) else v for key, v in values_of.items()}


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("rounds.csv"))
    args = parser.parse_args()
    table = []
    for case in ("none differs", "some differ"):
        for configurations in (1, 3, 9):
            table.append(row(case, configurations, args.repetitions))
            print(*table[-1].values(), sep="\t", file=sys.stderr, flush=True)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
