"""Comparisons started by the command line, with the smallest runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from conftest import CONFIG_FOLDER, TINY, Result, pairs, start

KEYS = {key: value for key, value in TINY.items() if key != "exist_ok"}


def words(data: Path, out: Path, *more: str, **keys: object) -> list[str]:
    """Return the command line of a comparison; `more` goes to the end."""
    settings = {"model": "yolov8n.yaml", "data": data, **KEYS, "nbs": 4, "close_mosaic": 1, **keys}
    return [sys.executable, "-m", "yolo_losses", "compare", *pairs(**settings), "--out", str(out), *more]


def compare(data: Path, out: Path, *more: str, **keys: object) -> Result:
    """Run a comparison and return how it ended."""
    return start(*words(data, out, *more, **keys), OMP_NUM_THREADS="1")()


def launch(data: Path, out: Path, *more: str, **keys: object) -> subprocess.Popen[str]:
    """Start a comparison that the test interrupts."""
    return subprocess.Popen(
        words(data, out, *more, **keys),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=CONFIG_FOLDER,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not happen"
        time.sleep(0.01)


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return all processes below one."""
    return psutil.Process(process.pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    """Return whether the processes end by themselves."""
    return not psutil.wait_procs(processes, timeout=60)[1]
