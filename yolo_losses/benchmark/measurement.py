"""Time and peak memory of functions, as ratios to those of one of them."""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Runs = dict[str, Callable[[], object]]
Rows = dict[str, dict[str, float]]


def measure(runs: Runs, repeats: int, device: Any, title: str, memory: bool = True) -> Rows:
    """Return time and peak memory of each run as a ratio to the one called `stock`.

    Each ratio is of two runs in direct succession, in alternating order, since the speed of a machine drifts.
    `memory=False` is for runs in other processes, whose memory cannot be measured here.
    """
    import torch

    def timed(once: Callable[[], object]) -> float:
        start = time.perf_counter()
        once()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    if not memory:
        runs["stock"]()  # the first run of all reads files that are not cached yet
    peaks = {}
    for name, once in runs.items():
        progress(f"{title}: warming up, {name}")
        peaks[name] = peak_bytes(once, device) if memory else 0
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    ratios: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats):
        for name in runs:
            progress(f"{title}: round {round_ + 1} of {repeats}, {name}")
            pair = ("stock", name) if round_ % 2 else (name, "stock")
            took = {run: timed(runs[run]) for run in dict.fromkeys(pair)}
            seconds[name].append(took[name])
            ratios[name].append(took[name] / took["stock"])
    progress("")
    rows: Rows = {}
    for name, times in seconds.items():
        rows[name] = {
            "ms": round(statistics.median(times) * 1000, 3),
            "time": round(statistics.median(ratios[name]), 3),
            "time_low": round(min(ratios[name]), 3),
            "time_high": round(max(ratios[name]), 3),
        }
        if peaks["stock"]:
            rows[name].update(memory=round(peaks[name] / peaks["stock"], 3), peak_bytes=peaks[name])
    return rows


def progress(text: str) -> None:
    """Replace the progress line on stderr."""
    print(f"\r{text:<70}\r" if not text else f"\r{text:<70}", end="", file=sys.stderr, flush=True)


def peak_bytes(once: Callable[[], object], device: Any) -> int:
    """Return the peak memory of a run beyond its inputs; on the CPU, with one thread."""
    import torch

    once()  # allocations of the first call alone do not count
    gc.collect()  # nor does garbage of an earlier run
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        once()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    from torch.profiler import ProfilerActivity, profile

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the profiler does not see what other threads allocate
    try:
        with silence_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            once()
    finally:
        torch.set_num_threads(threads)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    clock = "start_ns" if events and hasattr(events[0], "start_ns") else "start_us"  # in torch 2.3
    live = peak = 0
    for event in sorted(events, key=lambda event: getattr(event, clock)()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Discard what is written to stderr, also by C++ code such as the profiler."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
