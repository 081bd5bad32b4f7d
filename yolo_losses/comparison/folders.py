"""The folder of a comparison and of its runs: plans, status and records."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from yolo_losses._files import locked
from yolo_losses.comparison.grid import Grid, Run
from yolo_losses.comparison.reader import UnusableRunError, read_record
from yolo_losses.comparison.record import PLAN_FILE, RECORD_FILE, RunRecord, read_results, write_json

COMPARISON_FILE = "comparison.json"
LOG_FILE = "log.txt"

Status = Literal["finished", "failed", "open"]


def read_comparison(out: Path) -> dict[str, Any]:
    """Return the stored comparison of a folder: its options, settings, axes and cells; empty if there is none.

    Raises:
        ValueError: if the file cannot be read; the message names it.
    """
    path = out / COMPARISON_FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not {"options", "cells"} <= found.keys():
            raise ValueError("it is not a comparison")
    except (OSError, ValueError) as error:
        raise ValueError(f"unreadable: {path.name}, {error}") from error
    return found


def write_comparison(grid: Grid, out: Path, command: str, options: Mapping[str, Any]) -> None:
    """Write a grid to the folder of its comparison, merged with cells and seeds of earlier commands.

    Raises:
        ValueError: if the folder contains a comparison with other settings.
    """
    path = out / COMPARISON_FILE
    new: dict[str, Any] = {
        "command": command,
        "commands": [command],
        "options": dict(options),
        "settings": dict(grid.settings),
        "axes": {key: values for key, values in grid.axes.items() if key not in ("seed", "data")},
        "seeds": list(grid.seeds),
        "data": list(dict.fromkeys(cell.data for cell in grid.cells)),
        "cells": [
            {"name": c.name, "configuration": dict(c.configuration), "data": c.data, "folder": c.folder}
            for c in grid.cells
        ],
    }
    new = json.loads(json.dumps(new, default=str))
    out.mkdir(parents=True, exist_ok=True)
    with locked(path):  # several commands may add their seeds at the same time
        check_folder(grid, out)
        if old := read_comparison(out):
            for key, values in old["axes"].items():
                new["axes"][key] = values + [v for v in new["axes"][key] if v not in values]
            old.setdefault("commands", [old["command"]])
            for key in ("commands", "seeds", "data", "cells"):
                new[key] = old[key] + [v for v in new[key] if v not in old[key]]
        write_json(path, new)


def check_folder(grid: Grid, out: Path) -> None:
    """Raise if a folder contains a comparison with other settings.

    Raises:
        ValueError: if a setting differs; the message names it and both values.
    """
    old = read_comparison(out)
    if not old:
        return
    settings = json.loads(json.dumps(dict(grid.settings), default=str))
    for key in sorted(old["settings"].keys() | settings.keys()):
        before, now = old["settings"].get(key), settings.get(key)
        if before != now:
            raise ValueError(f"{out} holds a comparison with {key}={before}, not {now}: use another folder with --out")
    axes = [key for key in grid.axes if key not in ("seed", "data")]
    if set(old["axes"]) != set(axes):
        raise ValueError(
            f"{out} holds a comparison of {', '.join(old['axes']) or 'one configuration'},"
            f" not of {', '.join(axes) or 'one configuration'}: use another folder with --out"
        )
    several = len(old["data"]) > 1 or any("data=" in cell["folder"] for cell in old["cells"])
    if several != ("data" in grid.axes):
        raise ValueError(f"{out} holds a comparison on {', '.join(old['data'])}: use another folder with --out")


def write_run_plan(run: Run, threads: int, data_hash: str) -> None:
    """Write the plan for the process of a run, and delete the record of a failure, since the run is repeated."""
    run.folder.mkdir(parents=True, exist_ok=True)
    if status(run) != "finished":  # another command may have finished it meanwhile
        (run.folder / RECORD_FILE).unlink(missing_ok=True)
    plan = {
        "name": run.cell.name,
        "configuration": dict(run.cell.configuration),
        "settings": {**run.cell.settings, "seed": run.seed},
        "seed": run.seed,
        "data": run.cell.data,
        "data_hash": data_hash,
        "threads": threads,
        "cwd": os.getcwd(),
    }
    write_json(run.folder / PLAN_FILE, plan)


def worker_command(folder: Path) -> list[str]:
    """Return the command line of the process of a run."""
    return [sys.executable, "-m", "yolo_losses.comparison.worker", str(folder)]


def record_of(run: Run) -> RunRecord | None:
    """Return the record of a run, `None` if the run is not finished or the record cannot be read."""
    path = run.folder / RECORD_FILE
    try:
        return read_record(path) if path.is_file() else None
    except UnusableRunError:
        return None


def status(run: Run) -> Status:
    """Return the status of a run."""
    record = record_of(run)
    if record is None:
        return "open"
    return "finished" if record.status == "finished" else "failed"


def record_crash(folder: Path, code: int) -> None:
    """Write the record of a run whose process was killed or crashed."""
    if (folder / RECORD_FILE).is_file():
        return
    plan = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
    try:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    except ValueError:
        how = f"killed by signal {-code}"
    lines = [how, *log_tail(folder, 3)]
    RunRecord(
        **{key: plan[key] for key in ("configuration", "name", "seed", "data", "data_hash")},
        status="failed",
        error="\n".join(lines),
        epochs=len(read_results(folder)),
    ).write(folder / RECORD_FILE)


def log_tail(folder: Path, count: int) -> list[str]:
    """Return the last lines of the log of a run, with the last state of progress bars."""
    try:
        with (folder / LOG_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rpartition("\r")[2].strip() for line in text.replace("\r\n", "\n").split("\n")]
    return [line for line in lines if line][-count:]
