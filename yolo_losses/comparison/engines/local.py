"""Carries out runs on this machine, each in its own process."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence

from yolo_losses.comparison import folders
from yolo_losses.comparison.engines import Watch, start_worker, stop_worker, thread_count
from yolo_losses.comparison.grid import Run


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    runs: Sequence[Run], watch: Watch, *, jobs: int | None, devices: Sequence[str], data_hashes: Mapping[str, str]
) -> None:
    """Carry out the runs, `jobs` at a time (one by default), or one on each device."""
    places: list[str | None] = list(devices) or [None] * (jobs or 1)
    watch.side_by_side = len(places)
    threads = thread_count(cores() // len(places))
    waiting = list(runs)
    running: dict[int, tuple[Run, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or running:
            for place, device in enumerate(places):
                if place not in running and waiting:
                    run = waiting.pop(0)
                    folders.write_run_plan(run, threads, data_hashes[run.cell.data])
                    environment = {"OMP_NUM_THREADS": str(threads)}
                    if device is not None:
                        environment["CUDA_VISIBLE_DEVICES"] = device
                    running[place] = (run, start_worker(run.folder, environment))
                    watch.started(run)
            time.sleep(0.2)
            for place, (run, process) in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[place]
                    stop_worker(process)
                    folders.record_crash(run.folder, code)
                    watch.ended(run)
    finally:
        for _, process in running.values():
            if process.stdin is not None:
                process.stdin.close()  # all of them first, so that they end simultaneously
        for _, process in running.values():
            stop_worker(process)
