"""The output while a comparison runs: a line per finished run, and progress bars on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from yolo_losses.comparison import folders
from yolo_losses.comparison.estimate import format_duration, planned_epochs, seconds_left
from yolo_losses.comparison.grid import Run
from yolo_losses.comparison.record import METRIC_COLUMNS, read_results

if TYPE_CHECKING:
    from rich.progress import TaskID


class View:
    """The progress of a grid; a context manager.

    Args:
        runs: all runs of the grid.
        metric: the metric to show for each run.
        stderr: whether to write to stderr.
    """

    def __init__(self, runs: list[Run], metric: str, *, stderr: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        view = self

        class Bars(Progress):
            """Progress bars that read the folders of the runs when they are drawn."""

            def get_renderables(self) -> Iterable[Any]:
                view.read_progress()
                return super().get_renderables()

        self.runs = runs
        self.side_by_side = 1  # set by the engine
        self.metric = metric
        self.running: dict[str, tuple[Run, float, TaskID]] = {}  # folder -> run, when it was started, its bar
        self.ended_count = sum(folders.record_of(run) is not None for run in runs)
        console = Console(stderr=stderr, force_jupyter=False)  # a notebook gets plain lines too
        columns = [
            TextColumn("{task.description}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[value]}"),
        ]
        self.bars = Bars(
            *columns, TimeRemainingColumn(), console=console, refresh_per_second=1, disable=not console.is_terminal
        )
        self.all_runs = self.bars.add_task("runs", total=len(runs), completed=self.ended_count, value="")

    def __enter__(self) -> View:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bars.stop()

    def add(self, runs: Iterable[Run]) -> None:
        """Add the runs of another round."""
        self.runs = [*self.runs, *runs]
        self.bars.update(self.all_runs, total=len(self.runs))

    def started(self, run: Run) -> None:
        """Show that a run has started."""
        bar = self.bars.add_task(run.title, total=planned_epochs(run), value="")
        self.running[str(run.folder)] = (run, time.monotonic(), bar)
        if self.bars.disable:
            self.log(f"started  {run.title}")

    def lost(self, run: Run) -> None:
        """Show that the machine of a run was lost."""
        self._remove(run)
        self.log(f"machine lost: {run.title} will be rescheduled")

    def ended(self, run: Run) -> None:
        """Show that a run has ended."""
        seconds = self._remove(run)
        record = folders.record_of(run)
        if record is None:
            return
        self.ended_count += 1
        self.bars.update(self.all_runs, completed=self.ended_count)
        count = f"[{self.ended_count}/{len(self.runs)}]"
        if record.status == "failed":
            self.log(f"{count} FAILED   {run.title}: {record.error}\n    log: {run.folder / folders.LOG_FILE}")
            return
        value = (record.best or {}).get(self.metric)
        left = seconds_left(self.runs, self.side_by_side)
        self.log(
            f"{count} finished {run.title}: {self.metric} {_number(value)}, {record.epochs} epochs,"
            f" {format_duration(seconds)}{f'; about {format_duration(left)} left' if left else ''}"
        )

    def log(self, text: str) -> None:
        """Print a line above the bars."""
        self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def read_progress(self) -> None:
        """Update the bars from the folders of the runs."""
        column = METRIC_COLUMNS.get(self.metric, METRIC_COLUMNS["map50_95"])
        for run, _, bar in list(self.running.values()):
            if rows := read_results(run.folder):
                self.bars.update(bar, completed=len(rows), value=f"{self.metric} {_number(rows[-1].get(column))}")

    def _remove(self, run: Run) -> float:
        """Remove the bar of a run and return how long it was shown, in seconds."""
        if str(run.folder) not in self.running:
            return 0.0
        _, start, bar = self.running.pop(str(run.folder))
        self.bars.remove_task(bar)
        return time.monotonic() - start


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
