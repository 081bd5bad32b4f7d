"""Where the runs of a comparison are carried out: on this machine, or by Ray.

Each engine is a function `run_all(runs, watch, ...)` that returns when every run has a record, and that leaves no
process behind where it is stopped.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Protocol

from yolo_losses.comparison import folders
from yolo_losses.comparison.grid import Run


class Watch(Protocol):
    """Receives run events."""

    side_by_side: int

    def started(self, run: Run) -> None:
        """Take note that a run's process is there."""

    def lost(self, run: Run) -> None:
        """Take note that the machine of a run is gone: it will be started again elsewhere."""

    def ended(self, run: Run) -> None:
        """Take note that a run has a record."""


def threads(cores: int) -> int:
    """Return how many threads a run with these cores has: no more than `OMP_NUM_THREADS`, where that is set."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(limit)) if limit.isdigit() else cores)


def start(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the process of a run.

    It ends by itself when its standard input closes, which happens too when this process is killed.
    """
    with (folder / folders.LOG_FILE).open("ab") as log:
        return subprocess.Popen(
            folders.command(folder),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "MPLBACKEND": "agg", **environment},
            start_new_session=True,  # ctrl-C is for this process, which then ends that one
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process of a run, and wait until it is gone."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
