"""What `loss_stats=True` leaves of a training: a table beside `results.csv`, its picture, values for loggers."""

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
from yolo_losses.monitor.table import FILE, Row, split

PICTURE = "loss_stats.png"
LOGGED_AS = "loss_stats/"
LOGGED_CLASSES = 100  # a logger gets no more curves by class; the file has them all


class LossStats:
    """The rows of a run, one for each epoch, in a file that is replaced as a whole at the end of each.

    Args:
        folder: of the run.
        epochs: how many a resumed run has done: rows of later ones are dropped; 0 for a new run.
        losses: what the run trains, for the title of the picture.
    """

    def __init__(self, folder: Path, epochs: int, losses: str = "") -> None:
        self.path = folder / FILE
        self.losses = losses
        self.rows: list[Row] = []
        self.writable = True
        self.problem = False
        if epochs:
            self._read(epochs)

    def _read(self, epochs: int) -> None:
        """Read the rows of a run that is resumed. A file that is not read whole is kept under another name."""
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
        """Write an epoch's row; one of the same epoch, which was done again, is replaced.

        A full disk or an unwritable folder is logged once; training continues.
        """
        self.rows = [row for row in self.rows if row["epoch"] < epoch]
        self.rows.append({"epoch": epoch, **columns})
        if not self.writable:
            return
        try:
            table.write(self.path, self.rows)
        except OSError as error:
            if not self.problem:
                log(f"{self.path} could not be written ({error}); training continues", warn=True)
            self.problem = True

    def logged(self) -> Row:
        """Return the last row as loggers are to have it."""
        row = self.rows[-1] if self.rows else {}
        groups = {name: split(name) for name in row if name != "epoch"}
        classes = sum(group == "by_class" for _, group, _ in groups.values())
        left_out = ("by_class",) if classes > LOGGED_CLASSES else ()
        return {
            f"{LOGGED_AS}{name}": row[name]
            for name, (_, group, _) in groups.items()
            if group not in left_out and math.isfinite(row[name])
        }

    def draw(self) -> Path | None:
        """Draw the rows beside their file; return the picture, `None` if there is nothing to draw."""
        if not self.rows:
            return None
        from yolo_losses.monitor.picture import figure

        path = self.path.with_name(PICTURE)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing")  # a letter that no installed font has
                figure(self.rows, f"{path.parent.name}: {self.losses}".rstrip(": ")).savefig(path, dpi=150)
        except Exception as error:  # the training is done: loggers and others have yet to hear of its end
            log(f"{path} could not be drawn ({error})", warn=True)
            return None
        return path


def plain_names(names: Iterable[Any]) -> list[str]:
    """Return names of classes that are unique, and that every logger takes in the name of a curve."""
    plain: list[str] = []
    for name in names:
        word = re.sub(r"[^\w. -]", "_", str(name)).strip(" .")[:60] or "_"
        numbered = (f"{word} {number}" for number in itertools.count(len(plain)))
        plain.append(next(name for name in itertools.chain([word], numbered) if name not in plain))
    return plain
