"""Measure which epochs to judge a run by: the best one, the last one, or the mean of the last ones.

    python examples/evidence/noise.py [--metric map50_95] FOLDER ...

Each folder is that of a comparison and holds `curves.csv`, the metrics of each run after each epoch. For each way the
table has the mean over all runs; the standard deviation over seeds, pooled over configurations, and its ratio to that
of the best epoch with a 95 % bootstrap interval over configurations; and F, the variance of the configurations' means
over that of their seeds: the larger, the fewer seeds tell the configurations apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

Array = NDArray[np.float64]

WAYS: Mapping[str, Callable[[Array], float]] = {
    "best": lambda curve: curve.max(),
    "last": lambda curve: curve[-1],
    "mean": lambda curve: curve[-max(3, -(-len(curve) // 10)) :].mean(),  # as --metric ...@mean has it
    "mean of a fifth": lambda curve: curve[-max(3, -(-len(curve) // 5)) :].mean(),
    "median of a tenth": lambda curve: float(np.median(curve[-max(3, -(-len(curve) // 10)) :])),
}


def values(table: pl.DataFrame, metric: str, way: Callable[[Array], float]) -> list[Array]:
    """Return what runs are judged by, an array over seeds for each configuration of a data set."""
    groups: dict[str, list[float]] = {}
    for (name, _), run in table.sort("epoch").group_by("name", "seed", maintain_order=True):
        groups.setdefault(str(name), []).append(way(run[metric].to_numpy()))
    return [np.asarray(group) for group in groups.values() if len(group) > 1]


def variance(groups: Sequence[Array]) -> float:
    """Return the variance over seeds, pooled over configurations."""
    return sum(len(g) * g.var() for g in groups) / sum(len(g) - 1 for g in groups)


def measure(table: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Return a row for each way to judge a run."""
    by_way = {name: values(table, metric, way) for name, way in WAYS.items()}
    count = len(by_way["best"])
    if not count:
        raise SystemExit("no configuration has two seeds")
    drawn = np.random.default_rng(0).integers(count, size=(2000, count))
    rows = []
    for name, groups in by_way.items():
        ratios = [
            (variance([groups[i] for i in draw]) / variance([by_way["best"][i] for i in draw])) ** 0.5 for draw in drawn
        ]
        low, high = np.percentile(ratios, (2.5, 97.5))
        within = variance(groups)
        between = float(np.var([g.mean() for g in groups], ddof=1)) * float(np.mean([len(g) for g in groups]))
        rows.append(
            {
                "epochs": name,
                "mean": float(np.concatenate(groups).mean()),
                "sd": within**0.5,
                "ratio to best": (within / variance(by_way["best"])) ** 0.5,
                "low": low,
                "high": high,
                "F": between / within,
            }
        )
    return pl.DataFrame(rows)


def main(words: Sequence[str] | None = None) -> None:
    """Print a table for each folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--metric", default="map50_95")
    args = parser.parse_args(words)
    for folder in args.folders:
        with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, float_precision=4, tbl_cols=-1):
            for (data,), table in pl.read_csv(folder / "curves.csv").group_by("data", maintain_order=True):
                print(f"{folder}, {data}", measure(table, args.metric), sep="\n")


if __name__ == "__main__":
    main()
