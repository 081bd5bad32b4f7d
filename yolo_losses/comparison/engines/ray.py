"""Carries out runs with Ray Tune, one trial per run, without early stopping.

The folder of the comparison must be on storage that every node mounts under the same path. All progress is in the
folders of the runs: a trial whose node is lost continues from its snapshot on another node, and a comparison whose
driver was lost continues when it is started again.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolo_losses.comparison import folders
from yolo_losses.comparison.engines import Watch, start_worker, stop_worker, thread_count
from yolo_losses.comparison.grid import Run
from yolo_losses.comparison.record import METRIC_COLUMNS, RECORD_FILE, RunRecord, read_results
from yolo_losses.comparison.words import first_line

MAX_LOST_NODES = 10  # of one trial; an error in a training is stored in its record and is no failure for Ray


def run_all(
    runs: Sequence[Run],
    watch: Watch,
    *,
    jobs: int | None,
    address: str | None,
    data_hashes: Mapping[str, str],
    storage: Path,
) -> None:
    """Submit the runs to a Ray cluster as one grid and wait for all of them.

    Args:
        runs: the runs.
        watch: receives the events of the runs.
        jobs: maximum number of runs at a time; by default one per GPU, or one per node of a cluster without GPUs.
        address: address of the cluster; by default that in `RAY_ADDRESS`, or a cluster on this machine.
        data_hashes: hashes of the data sets.
        storage: a folder for the files of Ray, removed at the end.

    Raises:
        ValueError: if there is no cluster at the address.
    """
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # ctrl-C raises KeyboardInterrupt, as without Ray
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import ray
    from ray import tune

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a lost node is logged in one line, not as a traceback
    started_here = not ray.is_initialized()
    if started_here:
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        try:
            host, _, port = address.rpartition(":")
            if port.isdigit() and "/" not in host:  # Ray would retry for minutes
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except Exception as error:
            raise ValueError(f"'--address {address}': {first_line(error)}") from error
    try:
        cpus, gpus, at_once = resources_per_trial([node["Resources"] for node in ray.nodes() if node["Alive"]], jobs)
        watch.side_by_side = at_once
        by_folder = {str(run.folder.resolve()): run for run in runs}
        for run in runs:
            folders.write_run_plan(run, thread_count(cpus), data_hashes[run.cell.data])
        prefixes = ("PYTHONPATH", "YOLO_", "WANDB_", "MLFLOW_")
        environment = {key: value for key, value in os.environ.items() if key.startswith(prefixes)}
        environment["OMP_NUM_THREADS"] = str(thread_count(cpus))
        space = {"folder": tune.grid_search(list(by_folder)), "environment": environment}

        class Callback(tune.Callback):
            """Forwards the events of trials."""

            def __init__(self, watch: Watch, runs: Mapping[str, Run]) -> None:
                self.watch = watch
                self.runs = runs

            def __getstate__(self) -> dict[str, Any]:
                return {}  # Tune pickles it to restore an experiment, which is not used

            def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                self.watch.started(self.runs[trial.config["folder"]])

            def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                self.watch.lost(self.runs[trial.config["folder"]])

            def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                self.watch.ended(self.runs[trial.config["folder"]])

        tuner = tune.Tuner(
            tune.with_resources(carry_out, {"cpu": cpus, "gpu": gpus}),
            param_space=space,
            tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
            run_config=tune.RunConfig(
                name=time.strftime("%Y%m%d-%H%M%S"),
                storage_path=str(storage.resolve()),
                failure_config=tune.FailureConfig(max_failures=MAX_LOST_NODES),
                callbacks=[Callback(watch, by_folder)],
                verbose=0,
            ),
        )
        results = tuner.fit()
        for result in results:
            run = by_folder[result.config["folder"]]
            if folders.record_of(run) is None:
                why = f"Ray gave up: {first_line(result.error)}" if result.error else "Ray left it out"
                what = (dict(run.cell.configuration), run.cell.name, run.seed, run.cell.data)
                RunRecord(*what, status="failed", error=why).write(run.folder / RECORD_FILE)
                watch.ended(run)
    finally:
        if started_here:
            ray.shutdown()  # ends the trials, whose processes end with them
        shutil.rmtree(storage, ignore_errors=True)


def resources_per_trial(nodes: Sequence[Mapping[str, float]], jobs: int | None) -> tuple[int, float, int]:
    """Return the CPUs and GPUs per trial, and the number of trials at a time.

    A trial is small enough for every node of the cluster, so that a lost one can continue on any of them.
    """
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if not cpus:
        raise ValueError("no node of the Ray cluster has a CPU")
    at_once = jobs or gpus or len(cpus)
    return max(1, min(sum(cpus) // at_once, *cpus)), min(1.0, gpus / at_once), at_once


def carry_out(config: Mapping[str, Any]) -> None:
    """Carry out one run, as a trial of Ray Tune."""
    from ray import tune

    folder = Path(config["folder"])
    process = start_worker(folder, config["environment"])
    reported = 0
    try:
        while process.poll() is None:
            time.sleep(0.5)
            rows = read_results(folder)
            if len(rows) > reported:
                reported = len(rows)
                tune.report({"epoch": reported, "map50_95": rows[-1].get(METRIC_COLUMNS["map50_95"])})
    finally:
        stop_worker(process)
    folders.record_crash(folder, process.returncode)
    tune.report({"epoch": reported})
