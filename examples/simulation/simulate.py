"""How often `compare` errs, and how much it finds: the rules of its statistics on made-up runs.

    python examples/simulation/simulate.py                        # writes errors.csv, some minutes on one core
    python examples/simulation/simulate.py --repetitions 400      # a rough look

Each row is `--repetitions` comparisons of a number of configurations with a baseline. `error` is the share in which any
is called better or worse although none differs; `power` the share in which one is that does differ, by 3.5 standard
deviations over the root of the number of seeds. `paired_error` and `paired_power` are those of the paired t test with
Holm's correction, and `times_runs` says how many times as many runs it needs for the same power.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from yolo_losses.comparison.stats.model import LEVEL, MAX_DF, Design, simultaneous_coverage

Array = NDArray[Any]
FOLDER = Path(__file__).parent
CONFIGURATIONS = (1, 3, 9, 19)
SEEDS = (2, 3, 5, 10)
EFFECT = 3.5
MOST_SEEDS = 60  # up to which the paired t test is tried


def lognormal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Errors with a long tail of poor runs: skewness -3.3 and standard deviation 1."""
    variance = 0.75**2
    return (np.exp(variance / 2) - np.exp(0.75 * rng.standard_normal(shape))) / np.sqrt(
        np.expm1(variance) * np.exp(variance)
    )


def collapse(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Errors of runs of which 15 in 100 collapse, by eight standard deviations of the others; standard deviation 1."""
    fallen = rng.random(shape) < 0.15
    return (0.5 * rng.standard_normal(shape) + 0.6 - 4 * fallen) / np.sqrt(0.25 + 16 * 0.15 * 0.85)


def correlated(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Errors that runs of one seed share for the larger part: correlation 0.8."""
    shared = rng.standard_normal((*shape[:-2], 1, shape[-1]))
    return np.sqrt(0.2) * rng.standard_normal(shape) + np.sqrt(0.8) * shared


def spread(kind: str, count: int) -> Array:
    """Return the standard deviation of each configuration over its seeds, the baseline's first."""
    spreads = np.ones(count)
    if kind == "half of them 2":
        spreads[1::2] = 2
    elif kind == "half of them 4":
        spreads[1::2] = 4
    elif kind == "from 1 to 4":
        spreads = np.roll(np.geomspace(1, 4, count), -(count // 2))
    elif kind == "one of them 4":
        spreads[-1] = 4
    elif kind == "baseline 3":
        spreads[0] = 3
    elif kind == "baseline 1/3":
        spreads[0] = 1 / 3
    return spreads


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal errors."""
    return rng.standard_normal(shape)


def student(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Errors with heavy tails, t with 3 degrees of freedom; standard deviation 1."""
    return rng.standard_t(3, shape) / np.sqrt(3)


CASES: dict[str, tuple[Callable[[np.random.Generator, tuple[int, ...]], Array], str]] = {
    "normal": (normal, "equal"),
    "lognormal": (lognormal, "equal"),
    "t with 3 df": (student, "equal"),
    "15 % collapse": (collapse, "equal"),
    "seeds correlated 0.8": (correlated, "equal"),
    **{
        f"spread: {kind}": (normal, kind)
        for kind in ("half of them 2", "half of them 4", "from 1 to 4", "one of them 4", "baseline 3", "baseline 1/3")
    },
}


def made_up(case: str, configurations: int, seeds: int, repetitions: int, seed: int = 0) -> Array:
    """Return runs of which none differs but by chance, shape (repetitions, configurations + 1, seeds)."""
    draw, kind = CASES[case]
    rng = np.random.default_rng([seed, configurations, seeds])
    return draw(rng, (repetitions, configurations + 1, seeds)) * spread(kind, configurations + 1)[:, None]


def decided(runs: Array, level: float = LEVEL) -> Array:
    """Return which configurations are called better or worse, shape (repetitions, configurations)."""
    repetitions, count, seeds = runs.shape
    design = Design(np.repeat(np.arange(count), seeds), np.tile(np.arange(seeds), count), count)
    fit = design.fit(runs.reshape(repetitions, -1))
    t, df = np.abs(fit.mean) / np.sqrt(fit.variance), np.minimum(fit.df, MAX_DF)
    p = 2 * special.stdtr(df, -t)
    found = p <= 1 - level ** (1 / (count - 1))  # the coverage lies between Šidák's and that of a single difference
    row, column = np.nonzero((p <= 1 - level) & ~found)
    for part in np.array_split(np.arange(len(row)), len(row) // 500 + 1):
        at = (row[part], column[part])
        found[at] = simultaneous_coverage(t[at], df[at], fit.shared[row[part]] / fit.variance[row[part]]) > level
    return found


def paired(runs: Array) -> Array:
    """Return the same by paired t tests with Holm's correction."""
    difference = runs[:, 1:] - runs[:, :1]
    count, seeds = difference.shape[1:]
    t = np.abs(difference.mean(2)) / (difference.std(2, ddof=1) / np.sqrt(seeds))
    p = 2 * stats.t.sf(t, seeds - 1)
    order = p.argsort(1)
    adjusted = np.maximum.accumulate(np.take_along_axis(p, order, 1) * np.arange(count, 0, -1), 1)
    found = np.zeros(p.shape, bool)
    np.put_along_axis(found, order, adjusted <= 1 - LEVEL, 1)
    return found


def seeds_of_paired(case: str, configurations: int, effect: float, power: float, start: int, repetitions: int) -> float:
    """Return how many seeds the paired t test needs for a power, between whole numbers by interpolation."""
    before, seeds = 0.0, start
    while seeds <= MOST_SEEDS:
        runs = made_up(case, configurations, seeds, repetitions, seed=2)
        runs[:, 1] += effect
        own = paired(runs)[:, 0].mean()
        if own >= power:
            return seeds - (own - power) / max(own - before, 1e-9) if seeds > start else float(start)
        before, seeds = own, seeds + 1
    return float("nan")


def rows(
    repetitions: int, configurations: tuple[int, ...], seeds: tuple[int, ...], cases: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table."""
    for case in cases:
        for k in configurations:
            for n in seeds:
                runs = made_up(case, k, n, repetitions)
                row = {"case": case, "configurations": k, "seeds": n, "error": decided(runs).any(1).mean()}
                row["paired_error"] = paired(runs).any(1).mean()
                effect = EFFECT / np.sqrt(n)
                runs[:, 1] += effect
                row["power"] = decided(runs)[:, 0].mean()
                row["paired_power"] = paired(runs)[:, 0].mean()
                times = seeds_of_paired(case, k, effect, row["power"], n, min(repetitions, 2000)) / n
                yield {
                    key: round(float(v), 3) if isinstance(v, float) else v
                    for key, v in (row | {"times_runs": times}).items()
                }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=FOLDER / "errors.csv")
    args = parser.parse_args()
    table = []
    for row in rows(args.repetitions, CONFIGURATIONS, SEEDS, list(CASES)):
        table.append(row)
        print(*row.values(), sep="\t", file=sys.stderr, flush=True)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
