"""Reads and writes `loss_stats.csv`, a table with one row per epoch."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from yolo_losses._files import write_whole

FILE = "loss_stats.csv"
GROUPS = (
    *("batches", "share", "cls_to_bce", "cls_to_stock", "cls_scale"),
    *("positives", "mean_iou", "objects", "without_positive", "positives_per_object", "mean_target"),
    *("threshold", "by_score", "by_class"),
)

Row = dict[str, float]


def read(folder: Path) -> list[Row]:
    """Return the complete rows of a run's `loss_stats.csv`; none if the file does not exist or is not a table.

    Raises:
        OSError: if the file exists and cannot be read.
    """
    try:
        return parse(folder / FILE)[0]
    except (FileNotFoundError, ValueError):
        return []


def parse(path: Path) -> tuple[list[Row], int]:
    """Return the complete rows of a table and the number of other lines, such as a truncated last one.

    Files saved by a spreadsheet may have a byte-order mark, or `;` between columns and `,` in numbers.

    Raises:
        FileNotFoundError: if the file does not exist.
        OSError: if it cannot be read.
        ValueError: if it is not a table with a column `epoch`.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = file.read().splitlines(keepends=True)
    delimiter = ";" if lines and ";" in lines[0] else ","
    names, *records = csv.reader((line.strip("\r\n") for line in lines or [""]), delimiter=delimiter)
    names = [name.strip() for name in names]
    if names[:1] != ["epoch"]:
        raise ValueError(f"{path} has no column 'epoch'")
    truncated = bool(records) and not lines[-1].endswith(("\n", "\r"))
    rows: list[Row] = []
    broken = 0
    for number, record in enumerate(records):
        if not record:
            continue
        try:
            values = [float(text.replace(",", ".")) for text in record]
            row = dict(zip(names, values, strict=True))
        except ValueError:
            broken += 1
            continue
        if truncated and number == len(records) - 1:  # the last number may be truncated
            broken += 1
        else:
            rows.append(row)
    return rows, broken


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows to a file, atomically.

    Raises:
        OSError: if it cannot be written; the file is then unchanged.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(f"{row.get(n, math.nan):.6g}" for n in names) for row in rows)]
    write_whole(path, lambda part: part.write_text("\n".join(lines) + "\n", encoding="utf-8"))


def split_column(column: str) -> tuple[str, str, str]:
    """Return branch, group and item of a column; branch and item may be empty."""
    parts = column.split("/")
    at = next((i for i, part in enumerate(parts) if part in GROUPS), 0)
    return "/".join(parts[:at]), parts[at], "/".join(parts[at + 1 :])


def branches_of(rows: Sequence[Row]) -> list[str]:
    """Return the branches in some rows, `""` for a head with a single branch."""
    return list(dict.fromkeys(split_column(name)[0] for row in rows for name in row if name != "epoch"))


def series(rows: Sequence[Row], branch: str, group: str) -> dict[str, list[float]]:
    """Return the columns of a group by item, with NaN for missing values."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: split_column(name) for name in names if name != "epoch"}
    return {
        item: [row.get(name, math.nan) for row in rows]
        for name, (its_branch, its_group, item) in columns.items()
        if (its_branch, its_group) == (branch, group)
    }


def renamed_series(rows: Sequence[Row], branch: str, groups: Mapping[str, str]) -> dict[str, list[float]]:
    """Return the series of groups that have a single column, under new names; missing ones are left out."""
    found = {name: series(rows, branch, group).get("") for group, name in groups.items()}
    return {name: values for name, values in found.items() if values is not None}
