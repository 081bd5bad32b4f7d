"""`curves.csv`: the metrics of each run after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from yolo_losses.comparison.record import METRIC_COLUMNS, RunRecord

if TYPE_CHECKING:
    import polars


def curves_table(records: Sequence[RunRecord]) -> polars.DataFrame:
    """Return a table with a row per epoch of each run: data set, configuration, seed, epoch and metrics."""
    import polars

    rows = [
        {"data": r.data, "name": r.name, "seed": r.seed, "epoch": int(row["epoch"])}
        | {name: row.get(column) for name, column in METRIC_COLUMNS.items()}
        for r in records
        for row in r.curve
    ]
    return polars.DataFrame(rows, infer_schema_length=None)
