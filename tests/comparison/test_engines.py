"""Interrupted runs: ctrl-C, a kill, a lost node; and how the comparison continues."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from commands import all_gone, compare, descendants, launch, wait_for

from yolo_losses.comparison import folders
from yolo_losses.comparison.engines import local
from yolo_losses.comparison.engines.ray import resources_per_trial
from yolo_losses.comparison.grid import Cell, Run
from yolo_losses.comparison.reader import read_record, read_runs

pytest.importorskip("rich")
pytest.importorskip("scipy")

EPOCHS = 6


def results(folder: Path) -> list[str]:
    """Return the lines of `results.csv` without the time."""
    lines = (folder / "results.csv").read_text().splitlines()
    return [",".join([*line.split(",")[:1], *line.split(",")[2:]]) for line in lines]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "weights" / "last.pt", weights_only=False)["model"].state_dict()


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_comparison_continues_with_identical_results(tmp_path: Path, data: Path) -> None:
    keys = {"cls_loss": "ema_slide,stock", "epochs": EPOCHS}  # the first one has a state
    killed = launch(data, tmp_path / "killed", **keys)
    run = Path("runs", "cls_loss=ema_slide", "seed0")
    wait_for((tmp_path / "killed" / run / "weights" / "snapshot.pt").is_file)
    below = descendants(killed)
    assert below
    killed.kill()
    killed.communicate()
    assert all_gone(below)
    assert not read_runs(tmp_path / "killed").records

    compare(data, tmp_path / "killed", **keys).check()
    compare(data, tmp_path / "whole", **keys).check()
    one, other = tmp_path / "killed" / run, tmp_path / "whole" / run
    assert "Continuing after epoch" in (one / "log.txt").read_text()
    assert "Continuing after epoch" not in (other / "log.txt").read_text()
    assert results(one) == results(other)
    assert all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True))
    ours, theirs = read_record(one / "record.json"), read_record(other / "record.json")
    for field in ("weights_hash", "order_hash", "best", "last", "epochs", "configuration", "data_hash"):
        assert getattr(ours, field) == getattr(theirs, field)
    args = [(folder / "args.yaml").read_text().replace(str(folder.parents[2]), "") for folder in (one, other)]
    assert args[0] == args[1]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a console's ctrl-C cannot be sent there")
def test_ctrl_c_leaves_no_process_and_says_how_to_continue(tmp_path: Path, data: Path) -> None:
    process = launch(data, tmp_path, "--jobs", "2", cls_loss="bce,focal", epochs=100)
    wait_for(lambda: len(list(tmp_path.glob("runs/*/*/weights/snapshot.pt"))) == 2)
    below = descendants(process)
    assert len(below) >= 2
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=100)[0]
    assert process.returncode == 130
    assert "run the same command again to continue" in text
    assert "Traceback" not in text
    assert all_gone(below)
    assert not read_runs(tmp_path).records


@pytest.mark.slow
def test_a_killed_run_is_reported_and_the_others_continue(tmp_path: Path, data: Path) -> None:
    process = launch(data, tmp_path, cls_loss="bce,focal", epochs=EPOCHS)
    wait_for((tmp_path / "runs" / "cls_loss=bce" / "seed0" / "weights" / "snapshot.pt").is_file)
    child = next(p for p in descendants(process) if "yolo_losses.comparison.worker" in p.cmdline())
    child.kill()
    text = process.communicate(timeout=300)[0]
    assert "FAILED" in text
    records = {record.name: record for record in read_runs(tmp_path).records}
    assert records["cls_loss=bce"].status == "failed"
    assert "killed by SIGKILL" in (records["cls_loss=bce"].error or "")
    assert records["cls_loss=focal"].status == "finished"


@pytest.mark.parametrize("devices", [("0", "3"), ("GPU-1,GPU-2",), ()])
def test_each_run_has_a_device_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    say = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    monkeypatch.setattr(folders, "worker_command", lambda folder: [sys.executable, "-c", say])
    monkeypatch.setattr(folders, "record_crash", lambda folder, code: None)
    cell = Cell(name="cell", configuration={}, settings={}, data="data.yaml", folder="cell")
    runs = [Run(cell, seed, tmp_path / f"seed{seed}") for seed in range(4)]
    started: list[Run] = []
    watch = SimpleNamespace(started=started.append, ended=lambda run: None)
    local.run_all(runs, watch, jobs=None, devices=devices, data_hashes={"data.yaml": ""})  # type: ignore[arg-type]
    seen = [(run.folder / folders.LOG_FILE).read_text().strip() for run in runs]
    assert started == runs
    assert set(seen) == (set(devices) or {"7"})  # without any, that of this process
    assert seen[: len(devices)] == list(devices)


def test_a_trial_of_ray_fits_any_node() -> None:
    two_nodes = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}]
    assert resources_per_trial(two_nodes, None) == (4, 1.0, 3)
    assert resources_per_trial(two_nodes, 6) == (2, 0.5, 6)
    assert resources_per_trial([{"CPU": 2.0}, {"CPU": 2.0}, {"memory": 1.0}], None) == (2, 0.0, 2)
    with pytest.raises(ValueError, match="no node"):
        resources_per_trial([{"memory": 1.0}], None)


@pytest.fixture
def ray_cluster():
    """A head and a second node on this machine: the address, and the process of the second."""
    pytest.importorskip("ray.tune")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scratch = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # the paths of sockets are short
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    head = [*command, "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={scratch}"]
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for node in (head, [*command, f"--address=127.0.0.1:{port}"]):
            with Path(scratch, f"node{len(nodes)}.log").open("wb") as log:
                env = {**os.environ, "PYTHONUNBUFFERED": "1"}
                nodes.append(subprocess.Popen(node, stdout=log, stderr=log, env=env, start_new_session=True))
            text = Path(log.name)
            wait_for(lambda text=text: "block forever" in text.read_text(), 60)
        yield f"127.0.0.1:{port}", nodes[1]
    finally:
        for process in reversed(nodes):
            kill_group(process)
        shutil.rmtree(scratch, ignore_errors=True)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a node with all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="kills a process group")
def test_ray_finishes_the_grid_when_a_node_is_lost(tmp_path: Path, data: Path, ray_cluster) -> None:
    address, second = ray_cluster
    keys = {"cls_loss": "bce,focal", "seed": "0,1", "epochs": 40}
    out = tmp_path / "ray"
    process = launch(data, out, "--engine", "ray", "--address", address, **keys)
    try:
        wait_for(lambda: len(list(out.glob("runs/*/*/weights/snapshot.pt"))) == 2)
        os.killpg(second.pid, signal.SIGKILL)
        text = process.communicate(timeout=400)[0]
    finally:
        process.kill()
    assert process.returncode == 0, text
    assert "machine lost" in text
    records = read_runs(out).records
    assert [record.status for record in records] == ["finished"] * 4
    logs = [(record.folder / "log.txt").read_text() for record in records]
    assert sum("Continuing after epoch" in log for log in logs) == 1
    left = [p for p in psutil.process_iter(["cmdline"]) if str(out) in " ".join(p.info["cmdline"] or [])]
    assert not left

    compare(data, tmp_path / "local", "--jobs", "2", **keys).check()
    for record in read_runs(tmp_path / "local").records:
        other = out / record.folder.relative_to(tmp_path / "local")
        assert results(record.folder) == results(other)


@pytest.mark.slow
def test_no_cluster_at_an_address_is_refused_in_one_line(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("ray.tune")
    result = compare(data, tmp_path, "--engine", "ray", "--address", "127.0.0.1:1", cls_loss="bce,focal")
    assert result.code == 1
    assert "--address 127.0.0.1:1" in result.lines[-1]
