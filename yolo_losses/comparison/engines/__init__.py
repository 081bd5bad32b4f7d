"""Engines that carry out the runs of a comparison: on this machine, or with Ray.

Each engine is a function `run_all(runs, watch, ...)` that returns when every run has a record. If it is stopped, it
ends all processes of runs.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Protocol

from yolo_losses.comparison import folders
from yolo_losses.comparison.grid import Run


class Watch(Protocol):
    """Receives events of runs."""

    side_by_side: int

    def started(self, run: Run) -> None:
        """Called when a run has started."""

    def lost(self, run: Run) -> None:
        """Called when the machine of a run was lost; the run will be started again."""

    def ended(self, run: Run) -> None:
        """Called when a run has a record."""


def thread_count(cores: int) -> int:
    """Return the number of threads of a run with these cores: at most `OMP_NUM_THREADS`, if that is set."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(limit)) if limit.isdigit() else cores)


def start_worker(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the process of a run.

    It ends when its stdin is closed, which also happens when this process is killed.
    """
    with (folder / folders.LOG_FILE).open("ab") as log:
        return subprocess.Popen(
            folders.worker_command(folder),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "MPLBACKEND": "agg", **environment},
            start_new_session=True,  # ctrl-C only reaches this process, which then ends the new one
        )


def stop_worker(process: subprocess.Popen[bytes]) -> None:
    """End the process of a run and wait for it."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
