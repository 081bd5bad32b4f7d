"""Train several losses over several seeds, and tell what difference they make."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from yolo_losses.comparison.grid import Grid, Request, Run

METRICS = ("map50_95", "map50", "map75", "precision", "recall")
ENGINES = ("local", "ray")


def compare(
    *,
    baseline: str | Mapping[str, Any] | None = None,
    metric: str = "map50_95",
    rope: float = 0.005,
    jobs: int | None = None,
    devices: str | Sequence[int | str] = (),
    engine: str = "local",
    address: str | None = None,
    out: str | Path = "runs/compare",
    report_only: bool = False,
    **keys: Any,
) -> pl.DataFrame:
    """Train a grid of configurations over several seeds, and report how each compares with the baseline.

    What is finished in `out` is not trained again, so that a call that was stopped continues, and one with more seeds
    or losses adds to what is there.

    Args:
        baseline: a configuration of the grid, `cls_loss=bce` or a mapping; `None`: the first one.
        metric: what the verdict is about: `map50_95`, `map50`, `map75`, `precision` or `recall`.
        rope: difference of the metric, from 0 to 1, up to which two configurations count as equal.
        jobs: how many runs at a time; they share the cores. `None`: one per device.
        devices: GPUs, `"0,1"` or `[0, 1]`: one run on each at a time.
        engine: `local`, or `ray` for a Ray cluster.
        address: of the Ray cluster; `None`: the one that `RAY_ADDRESS` names, or one on this machine alone.
        out: folder of the comparison.
        report_only: rebuild the report of the folder, and train nothing.
        **keys: as for `YOLO.train`. A list is an axis of the grid, and so is text with commas; `seed` is the axis that
            is averaged over. A key whose single value is a list has that list in a list: `classes=[[0, 1]]`.

    Returns:
        The table of verdicts, one row for each configuration and metric.

    Raises:
        ValueError: on an invalid value, before the first run; the message is one line naming key, value and allowed
            values.
        RuntimeError: where no run of the grid finished.
    """
    from yolo_losses.comparison.grid import read_keywords

    text = " ".join(f"{key}={value!r}" for key, value in keys.items())
    options = Options(baseline, metric, rope, jobs, devices, engine, address, Path(out))
    if report_only:
        return write_report(options)
    return run(read_keywords(keys), options, f"yolo_losses.compare: {text}")


class Options:
    """The options of a comparison, checked; they are those of `compare`."""

    def __init__(
        self,
        baseline: str | Mapping[str, Any] | None,
        metric: str,
        rope: float,
        jobs: int | None,
        devices: str | Sequence[int | str],
        engine: str,
        address: str | None,
        out: Path,
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"'--metric {metric}': allowed are {', '.join(METRICS)}")
        if not 0 <= rope < 1:
            raise ValueError(f"'--rope {rope}': allowed is a number from 0 to 1, 0.005 for half a point of mAP")
        if engine not in ENGINES:
            raise ValueError(f"'--engine {engine}': allowed are {', '.join(ENGINES)}")
        if address is not None and engine != "ray":
            raise ValueError("'--address' goes with --engine ray")
        parts = devices.split(",") if isinstance(devices, str) else [str(device) for device in devices]
        self.devices = [part.strip() for part in parts if part.strip()]
        if not all(device.isdigit() for device in self.devices) or len(set(self.devices)) < len(self.devices):
            raise ValueError(f"'--devices {','.join(self.devices)}': allowed are numbers of GPUs, such as 0,1")
        if jobs is not None and jobs < 1:
            raise ValueError(f"'--jobs {jobs}': allowed is a number from 1")
        if self.devices and jobs not in (None, len(self.devices)):
            raise ValueError("'--jobs' and '--devices' are two ways to say how many run at a time: leave one out")
        if self.devices and engine == "ray":
            raise ValueError("'--devices' is for --engine local: Ray hands out the GPUs of its cluster")
        self.baseline = baseline
        self.metric = metric
        self.rope = rope
        self.jobs = jobs
        self.engine = engine
        self.address = address
        self.out = out
        _require("compare", ("scipy", "rich"))
        if engine == "ray":
            _require("ray", ("ray",))


def _require(extra: str, modules: Sequence[str]) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"compare needs {' and '.join(missing)}: pip install 'yolo-losses[{extra}]'")


def run(request: Request, options: Options, command: str) -> pl.DataFrame:
    """Train what is not trained yet, and write the report."""
    grid, hashes = prepare(request, options)
    todo = unfinished(grid, options)
    from yolo_losses.comparison import folders
    from yolo_losses.comparison.live import View

    baseline = grid.baseline(options.baseline)
    kept = {"baseline": baseline, "metric": options.metric, "rope": options.rope}
    folders.write_grid(grid, options.out, command, kept)
    runs = grid.runs(options.out)
    with View(runs, options.metric) as view:
        if len(todo) < len(runs):
            view.say(f"{len(runs) - len(todo)} of {len(runs)} runs are finished already")
        if len(grid.seeds) == 1:
            view.say("one seed says nothing about chance: give three or more, such as seed=0,1,2")
        if not todo:
            pass
        elif options.engine == "ray":
            from yolo_losses.comparison.engines import ray

            ray.run_all(
                todo, view, jobs=options.jobs, address=options.address, data_hashes=hashes, storage=options.out / "ray"
            )
        else:
            from yolo_losses.comparison.engines import local

            local.run_all(todo, view, jobs=options.jobs, devices=options.devices, data_hashes=hashes)
        for line in folders.pair_problems(runs):
            view.say(f"warning: {line}")
    if not any(folders.status(r) == "finished" for r in runs):
        raise RuntimeError(f"no run finished: see the logs in {options.out / 'runs'}")
    return write_report(options, baseline)


def prepare(request: Request, options: Options) -> tuple[Grid, dict[str, str]]:
    """Return the checked grid and the hashes of its data sets."""
    from yolo_losses.comparison import folders
    from yolo_losses.comparison import grid as grids

    grid = grids.build(request)
    device = grid.settings.get("device")
    if options.devices and device is not None:
        raise ValueError(f"'device={device}' and '--devices' both say where a run is trained: leave one out")
    if options.engine == "ray" and device not in (None, "cpu"):
        raise ValueError(f"'device={device}': Ray hands out the GPUs of its cluster, leave 'device' out")
    grid.baseline(options.baseline)
    folders.check_folder(grid, options.out)
    hashes = {}
    for cell in grid.cells:
        if cell.data not in hashes:
            split = str(cell.settings.get("split") or "val")
            hashes[cell.data] = grids.data_hash(grids.read_data(cell.data, split), split)
    return grid, hashes


def unfinished(grid: Grid, options: Options) -> list[Run]:
    """Return the runs that are to be carried out: new ones, half-done ones, and those that failed."""
    from yolo_losses.comparison import folders

    return [run for run in grid.runs(options.out) if folders.status(run) != "finished"]


def dry_run(request: Request, options: Options) -> str:
    """Return the grid in words: its cells, the number of runs, and the time left where a run gives a pace."""
    from yolo_losses.comparison import folders
    from yolo_losses.comparison.live import span

    grid, _ = prepare(request, options)
    baseline = grid.baseline(options.baseline)
    several = len({cell.data for cell in grid.cells}) > 1
    lines = []
    for cell in grid.cells:
        mark = "  (baseline)" if dict(cell.configuration) == baseline else ""
        lines.append(f"{cell.name}{f'  on {cell.data}' if several else ''}{mark}")
    runs, todo = grid.runs(options.out), unfinished(grid, options)
    seeds = ", ".join(str(seed) for seed in grid.seeds)
    cells = _count(len({cell.name for cell in grid.cells}), "configuration")
    where = f" on {len({cell.data for cell in grid.cells})} data sets" if several else ""
    lines.append(f"{cells}{where}, {_count(len(grid.seeds), 'seed')} ({seeds}): {_count(len(runs), 'run')}")
    if len(todo) < len(runs):
        lines.append(f"{len(runs) - len(todo)} are finished in {options.out}, {len(todo)} are left")
    at_once = options.jobs or len(options.devices) or 1
    seconds = folders.seconds_left(runs, at_once)
    if seconds and todo:
        lines.append(f"about {span(seconds)} left, {at_once} at a time")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def write_report(options: Options, baseline: Mapping[str, Any] | None = None) -> pl.DataFrame:
    """Write the report of the folder and return its table."""
    import json

    from yolo_losses.comparison.folders import GRID_FILE
    from yolo_losses.comparison.report import build_report  # last: plots and statistics take a moment to load

    if not options.out.is_dir():
        raise ValueError(f"there is no folder {options.out}")
    if baseline is None:
        path = options.out / GRID_FILE
        if isinstance(options.baseline, str):
            from yolo_losses.comparison.grid import read_words

            baseline = read_words(options.baseline.replace(",", " ").split()).settings
        elif options.baseline is not None:
            baseline = options.baseline
        elif path.is_file():
            baseline = json.loads(path.read_text(encoding="utf-8"))["options"]["baseline"]
    return build_report(options.out, baseline=baseline, rope=options.rope, metric=options.metric)


def command_line() -> str:
    """Return the command line of this process, to be repeated."""
    return shlex.join(["yolo-losses", *sys.argv[1:]])
