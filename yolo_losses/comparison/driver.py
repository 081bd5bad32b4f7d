"""Runs a comparison: checks it, trains missing runs, writes the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from yolo_losses._files import locked
from yolo_losses.comparison import dataset, folders
from yolo_losses.comparison import grid as grids
from yolo_losses.comparison.options import Options
from yolo_losses.comparison.words import Request

if TYPE_CHECKING:
    import polars as pl

    from yolo_losses.comparison.live import View


@dataclass(frozen=True)
class Prepared:
    """A comparison that has been checked and not started.

    Attributes:
        grid: the runs of the comparison.
        baseline: the configuration that the others are compared with.
        descriptions: descriptions of the data sets by name.
        hashes: hashes of the data sets by name.
        remarks: what to log before the first run.
        planned: with `until_decided`, all seeds that may be run, in order.
    """

    grid: grids.Grid
    baseline: dict[str, Any]
    descriptions: dict[str, dict[str, Any]]
    hashes: dict[str, str]
    remarks: list[str]
    planned: list[int]


def prepare(request: Request, options: Options) -> Prepared:
    """Check a request and return the comparison.

    Raises:
        ValueError: if a value is invalid; the message names the key, its value and the allowed values.
    """
    from yolo_losses.comparison.stats.rounds import look_sizes, plan_seeds

    earlier = folders.read_comparison(options.out)
    stored = earlier.get("options", {}).get("baseline")
    grid = grids.build(request)
    remarks = []
    planned: list[int] = earlier.get("options", {}).get("seeds_planned") or []
    if grid.lacks_baseline:
        with_stock = grids.build(replace(request, also=[{key: "stock" for key in grid.axes if key.endswith("_loss")}]))
        added = with_stock.cells[-1]
        if stored in (None, added.configuration):
            grid, stored = with_stock, added.configuration
            remarks.append(
                f"{added.name} is added as the baseline: a single configuration has nothing to be compared with"
            )
    if options.until_decided:
        planned = plan_seeds(planned or grid.seeds, options.max_seeds)
        grid = replace(grid, seeds=tuple(planned[: look_sizes(len(planned))[0]]))
        remarks.append(f"this is the first round; seeds are added until all is decided, up to {len(planned)} seeds")
    elif planned:
        raise ValueError(
            f"{options.out} holds a comparison in rounds of seeds: repeat --until-decided, or use another folder"
        )
    device = grid.settings.get("device")
    if options.devices and device is not None:
        raise ValueError(f"'device={device}' and '--devices' both say where a run is trained: leave one out")
    if options.engine == "ray" and device not in (None, "cpu"):
        raise ValueError(f"'device={device}': Ray assigns the GPUs of its cluster: leave 'device' out")
    configurations = [cell["configuration"] for cell in earlier.get("cells", [])]
    configurations += [dict(cell.configuration) for cell in grid.cells]
    wanted = stored if options.baseline is None else options.baseline
    baseline = grids.find_baseline(wanted, configurations)
    folders.check_folder(grid, options.out)
    if all(configuration == baseline for configuration in configurations):
        remarks.append("there is one configuration: name losses to compare it with, such as cls_loss=bce,focal")
    if len({*grid.seeds, *earlier.get("seeds", [])}) == 1:
        remarks.append("one seed does not show how much results vary by chance: give three or more, such as seed=0-2")
    descriptions, hashes = {}, {}
    for cell in grid.cells:
        if cell.data not in hashes:
            split = str(cell.settings.get("split") or "val")
            descriptions[cell.data] = dataset.read_data(cell.data, split)
            hashes[cell.data] = dataset.data_hash(descriptions[cell.data], split)
    return Prepared(grid, baseline, descriptions, hashes, remarks, planned)


def train(request: Request, options: Options, command: str, *, quiet_output: bool = False) -> list[grids.Run]:
    """Train the missing runs, and return those that failed.

    Args:
        request: the request.
        options: the options of the comparison.
        command: the command that repeats the comparison, for the report.
        quiet_output: whether to print progress to stderr, if the output is read by a program.

    Raises:
        ValueError: if a value is invalid, before the first run.
        RuntimeError: if no run finished.
    """
    from yolo_losses.comparison.live import View

    prepared = prepare(request, options)
    stored_options = {"baseline": prepared.baseline, "metric": options.metric, "rope": options.rope}
    if prepared.planned:
        stored_options["seeds_planned"] = prepared.planned
    folders.write_comparison(prepared.grid, options.out, command, stored_options)
    runs = prepared.grid.runs(options.out)
    later = replace(prepared.grid, seeds=tuple(prepared.planned[len(prepared.grid.seeds) :])).runs(options.out)
    # Failed runs of later rounds, which an earlier command started, are repeated too.
    runs += [run for run in later if folders.status(run) == "failed"]
    todo = [run for run in runs if folders.status(run) != "finished"]
    with View(runs, options.metric, stderr=quiet_output) as view:
        for remark in prepared.remarks:
            view.log(remark)
        if len(todo) < len(runs):
            view.log(f"{len(runs) - len(todo)} of {len(runs)} runs are finished already")
        while True:
            if todo:
                carry_out(todo, options, view, prepared.hashes)
            todo = next_round(prepared, options)
            if not todo:
                break
            view.add(todo)
            runs += todo
            cells = len({(run.cell.name, run.cell.data) for run in todo})
            view.log(f"next round: {_count(len(todo), 'run')} of {_count(cells, 'configuration')}")
        failed = [run for run in runs if folders.status(run) != "finished"]
        if len(failed) == len(runs):
            raise RuntimeError(f"no run finished: see the logs in {options.out / 'runs'}")
        view.log("all runs have ended; writing the report")
    return failed


def next_round(prepared: Prepared, options: Options) -> list[grids.Run]:
    """Return the runs of the next round of seeds; empty if everything is decided or seeds are not added."""
    if not prepared.planned:
        return []
    from yolo_losses.comparison.reader import read_runs
    from yolo_losses.comparison.stats.analysis import analyse

    records = read_runs(options.out).records
    baseline = next((r.name for r in records if r.configuration == prepared.baseline), None)
    if baseline is None:
        return []
    result = analyse(records, baseline, options.rope, options.metric, options.epochs, prepared.planned)
    runs = [
        run
        for run in replace(prepared.grid, seeds=tuple(prepared.planned)).runs(options.out)
        if run.seed in result.next_seeds.get(run.cell.data, {}).get(run.cell.name, ())
    ]
    return [run for run in runs if folders.status(run) == "open"]


def carry_out(runs: Sequence[grids.Run], options: Options, view: View, hashes: dict[str, str]) -> None:
    """Carry out runs with the chosen engine."""
    if options.engine == "ray":
        from yolo_losses.comparison.engines import ray

        storage = options.out / "ray"
        ray.run_all(runs, view, jobs=options.jobs, address=options.address, data_hashes=hashes, storage=storage)
    else:
        from yolo_losses.comparison.engines import local

        local.run_all(runs, view, jobs=options.jobs, devices=[*map(str, options.devices)], data_hashes=hashes)


def write_report(options: Options) -> pl.DataFrame:
    """Write the report of the folder and return its table."""
    from yolo_losses.comparison.report import build_report  # here, since plots and statistics are slow to import

    if not options.out.is_dir():
        raise ValueError(f"there is no folder {options.out}")
    with locked(options.out / folders.COMPARISON_FILE):  # commands that share the folder may end at the same time
        return build_report(
            options.out,
            baseline=options.baseline,
            rope=options.rope,
            metric=options.metric,
            epochs=options.epochs,
            paper=options.paper,
            language=options.language,
        )


def dry_run(request: Request, options: Options) -> str:
    """Return a description of the grid: cells, number of runs, remarks, and estimates of time and disk space."""
    from yolo_losses.comparison import estimate

    prepared = prepare(request, options)
    grid = prepared.grid
    sets = list(dict.fromkeys(cell.data for cell in grid.cells))
    lines = []
    for cell in grid.cells:
        mark = "  (baseline)" if dict(cell.configuration) == prepared.baseline else ""
        lines.append(f"{cell.name}{f'  on {cell.data}' if len(sets) > 1 else ''}{mark}")
    runs = grid.runs(options.out)
    todo = [run for run in runs if folders.status(run) != "finished"]
    cells = _count(len({cell.name for cell in grid.cells}), "configuration")
    where = f" on {len(sets)} data sets" if len(sets) > 1 else ""
    seeds = f"{_count(len(grid.seeds), 'seed')} ({', '.join(map(str, grid.seeds))})"
    lines.append(f"{cells}{where}, {seeds}: {_count(len(runs), 'run')}")
    if len(todo) < len(runs):
        lines.append(f"{len(runs) - len(todo)} are finished in {options.out}, {len(todo)} remain")
    lines += prepared.remarks
    if todo:
        lines += estimate.describe(runs, todo, prepared.descriptions, options)
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
