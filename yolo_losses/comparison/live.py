"""What is shown while a comparison runs: a table that is kept up to date, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from yolo_losses.comparison import folders
from yolo_losses.comparison.grid import Run


class View:
    """The whole grid at a glance; a context manager.

    Args:
        runs: of the grid, those that are over too.
        metric: what is shown of each run.
    """

    def __init__(self, runs: list[Run], metric: str) -> None:
        from rich.console import Console

        self.runs = runs
        self.side_by_side = 1  # which the engine knows
        self.metric = metric
        self.running: dict[str, float] = {}  # folder -> when it was started
        self.console = Console()
        self.live: Any = None

    def __enter__(self) -> View:
        if self.console.is_terminal:
            from rich.live import Live

            self.live = Live(get_renderable=self.table, console=self.console, refresh_per_second=1)
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def started(self, run: Run) -> None:
        """Note that a run's process is there."""
        self.running[str(run.folder)] = time.monotonic()
        if self.live is None:
            self.say(f"started  {run.title}")

    def lost(self, run: Run) -> None:
        """Note that the machine of a run is gone."""
        self.running.pop(str(run.folder), None)
        self.say(f"lost its machine: {run.title}; it will be rescheduled")

    def ended(self, run: Run) -> None:
        """Note that a run is over; how a failing one ended stands above the table."""
        seconds = time.monotonic() - self.running.pop(str(run.folder), time.monotonic())
        record = folders.record_of(run)
        done = sum(folders.record_of(r) is not None for r in self.runs)
        count = f"[{done}/{len(self.runs)}]"
        if record is None:
            return
        if record.status == "failed":
            self.say(f"{count} FAILED   {run.title}: {record.error}\n    log: {run.folder / folders.LOG_FILE}")
        elif self.live is None:
            value = (record.best or {}).get(self.metric)
            self.say(
                f"{count} finished {run.title}: {self.metric} {_number(value)}, {record.epochs} epochs,"
                f" {span(seconds)}{self.left()}"
            )

    def say(self, text: str) -> None:
        """Print a line, above the table if there is one."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def left(self) -> str:
        """Return the time left in words, nothing where it is not known."""
        seconds = folders.seconds_left(self.runs, self.side_by_side)
        return f"; about {span(seconds)} left" if seconds else ""

    def table(self) -> Any:
        """Return the table: a row for each run that is over or running, and a line for those that wait."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for heading in ("configuration", "data", "seed", "state", "epoch", self.metric, "left"):
            table.add_column(heading, justify="left" if heading in ("configuration", "data", "state") else "right")
        several = len({run.cell.data for run in self.runs}) > 1
        table.columns[1].header = "data" if several else ""
        waiting = 0
        for run in self.runs:
            record = folders.record_of(run)
            if record is None and str(run.folder) not in self.running:
                waiting += 1
                continue
            done, epochs, value = folders.progress(run, self.metric)
            state = record.status if record is not None else "running"
            if record is not None and record.best:
                value = record.best.get(self.metric)
            style = {"failed": "red", "running": "bold"}.get(state)
            cells = [run.cell.name, run.cell.folder.rpartition("data=")[2] if several else "", str(run.seed), state]
            seconds = folders.seconds_left([run], 1) if record is None else None
            left = span(seconds) if seconds is not None else ""
            table.add_row(*cells, f"{done}/{epochs}", _number(value), left, style=style)
        over = sum(folders.record_of(run) is not None for run in self.runs)
        table.caption = f"{over} of {len(self.runs)} runs are over, {waiting} wait{self.left()}"
        table.caption_justify = "left"
        return table


def span(seconds: float) -> str:
    """Return a time span as a person reads it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
