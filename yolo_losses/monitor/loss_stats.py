"""The output of `loss_stats=True`: a table next to `results.csv`, its plot, and values for loggers."""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from yolo_losses._files import put_aside
from yolo_losses._log import log
from yolo_losses.monitor import table
from yolo_losses.monitor.table import FILE, Row, split_column

PICTURE = "loss_stats.png"
LOGGED_AS = "loss_stats/"
LOGGED_CLASSES = 100  # with more classes, loggers get no curves by class; the file has them all


class LossStats:
    """The rows of a run, one per epoch, in a file that is rewritten after each epoch.

    Args:
        folder: folder of the run.
        epochs: number of epochs that a resumed run has done, 0 for a new run. Rows of later epochs are dropped.
        losses: the losses of the run, for the title of the plot.
    """

    def __init__(self, folder: Path, epochs: int, losses: str = "") -> None:
        self.path = folder / FILE
        self.losses = losses
        self.rows: list[Row] = []
        self.writable = True
        self.write_failed = False
        if epochs:
            self._read(epochs)

    def _read(self, epochs: int) -> None:
        """Read the rows of a resumed run. A file that cannot be read completely is kept under another name."""
        try:
            rows, broken = table.parse(self.path)
            reason = f"{broken} of its lines cannot be read" if broken else ""
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            rows, reason = [], f"it cannot be read ({error})"
        self.rows = [row for row in rows if row["epoch"] <= epochs]
        if reason:
            try:
                kept = put_aside(self.path)
                log(f"{self.path}: {reason}; it is kept as {kept.name}", warn=True)
            except OSError as error:
                self.writable = False
                log(f"{self.path}: {reason}, nor can it be renamed ({error}): no statistics are written", warn=True)

    def add(self, epoch: int, columns: Mapping[str, float]) -> None:
        """Write the row of an epoch; rows of the same or later epochs are replaced.

        A full disk or an unwritable folder is logged once; training continues.
        """
        self.rows = [row for row in self.rows if row["epoch"] < epoch]
        self.rows.append({"epoch": epoch, **columns})
        if not self.writable:
            return
        try:
            table.write(self.path, self.rows)
        except OSError as error:
            if not self.write_failed:
                log(f"{self.path} could not be written ({error}); training continues", warn=True)
            self.write_failed = True

    def logged(self) -> Row:
        """Return the last row for the loggers."""
        row = self.rows[-1] if self.rows else {}
        groups = {name: split_column(name) for name in row if name != "epoch"}
        classes = sum(group == "by_class" for _, group, _ in groups.values())
        left_out = ("by_class",) if classes > LOGGED_CLASSES else ()
        return {
            f"{LOGGED_AS}{name}": row[name]
            for name, (_, group, _) in groups.items()
            if group not in left_out and math.isfinite(row[name])
        }

    def draw(self) -> Path | None:
        """Plot the rows to a file next to the table and return its path, `None` if there is nothing to plot."""
        if not self.rows:
            return None
        from yolo_losses.monitor.picture import figure

        path = self.path.with_name(PICTURE)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing")  # a character that no installed font has
                figure(self.rows, f"{path.parent.name}: {self.losses}".rstrip(": ")).savefig(path, dpi=150)
        except Exception as error:  # the other callbacks at the end of training must still be called
            log(f"{path} could not be drawn ({error})", warn=True)
            return None
        return path


def plain_names(names: Iterable[Any]) -> list[str]:
    """Return unique names of classes that every logger accepts in the name of a curve."""
    plain: list[str] = []
    for name in names:
        word = re.sub(r"[^\w. -]", "_", str(name)).strip(" .")[:60] or "_"
        numbered = (f"{word} {number}" for number in itertools.count(len(plain)))
        plain.append(next(name for name in itertools.chain([word], numbered) if name not in plain))
    return plain
