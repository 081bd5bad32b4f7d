"""The table of `loss_stats.csv`: one row per epoch, read and written as a whole."""

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
    """Return the rows of a run's `loss_stats.csv` that are whole; none if there is no such file, or it is no table.

    Raises:
        OSError: if the file is there and cannot be read.
    """
    try:
        return parse(folder / FILE)[0]
    except (FileNotFoundError, ValueError):
        return []


def parse(path: Path) -> tuple[list[Row], int]:
    """Return the rows of a table that are whole, and the number of lines that are not, such as a torn last one.

    A file that was saved by a spreadsheet is understood too: with a byte-order mark, or with `;` between the columns
    and `,` in the numbers.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be read.
        ValueError: if it is no table of statistics.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = file.read().splitlines(keepends=True)
    delimiter = ";" if lines and ";" in lines[0] else ","
    names, *records = csv.reader((line.strip("\r\n") for line in lines or [""]), delimiter=delimiter)
    names = [name.strip() for name in names]
    if names[:1] != ["epoch"]:
        raise ValueError(f"{path} has no column 'epoch'")
    torn = bool(records) and not lines[-1].endswith(("\n", "\r"))
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
        if torn and number == len(records) - 1:  # the last number may be cut off
            broken += 1
        else:
            rows.append(row)
    return rows, broken


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows to a file, which is replaced as a whole.

    Raises:
        OSError: if it cannot be written; the file is as it was then.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(f"{row.get(n, math.nan):.6g}" for n in names) for row in rows)]
    write_whole(path, lambda part: part.write_text("\n".join(lines) + "\n", encoding="utf-8"))


def split(column: str) -> tuple[str, str, str]:
    """Return the branch, the group and the item of a column; branch and item are empty if there is none."""
    parts = column.split("/")
    at = next((i for i, part in enumerate(parts) if part in GROUPS), 0)
    return "/".join(parts[:at]), parts[at], "/".join(parts[at + 1 :])


def branches_of(rows: Sequence[Row]) -> list[str]:
    """Return the branches that rows are of, `""` for a head that has one."""
    return list(dict.fromkeys(split(name)[0] for row in rows for name in row if name != "epoch"))


def series(rows: Sequence[Row], branch: str, group: str) -> dict[str, list[float]]:
    """Return the columns of a group by item, NaN where an epoch has none."""
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: split(name) for name in names if name != "epoch"}
    return {
        item: [row.get(name, math.nan) for row in rows]
        for name, (of, own, item) in found.items()
        if (of, own) == (branch, group)
    }


def named(rows: Sequence[Row], branch: str, groups: Mapping[str, str]) -> dict[str, list[float]]:
    """Return those of some groups of one column each that there are, by another name for each."""
    found = {name: series(rows, branch, group).get("") for group, name in groups.items()}
    return {name: values for name, values in found.items() if values is not None}
