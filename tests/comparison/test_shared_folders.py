"""Commands that share the folder of a comparison, as the tasks of a job array do, and what each of them checks."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from commands import words
from conftest import start
from ultralytics.utils import checks

from yolo_losses._files import locked
from yolo_losses.comparison import driver, folders, worker
from yolo_losses.comparison.grid import Grid, build
from yolo_losses.comparison.options import Options
from yolo_losses.comparison.record import PLAN_FILE, RECORD_FILE
from yolo_losses.comparison.report.opening import all_commands
from yolo_losses.comparison.words import read_words

fcntl = pytest.importorskip("fcntl")


def test_a_plan_keeps_the_seeds_of_commands_that_write_it_at_the_same_time(data: Path, tmp_path: Path) -> None:
    tasks = 8
    together = threading.Barrier(tasks)

    grids = [
        build(read_words(["model=yolov8n.yaml", f"data={data}", "cls_loss=bce,focal", f"seed={seed}"]))
        for seed in range(tasks)
    ]

    def add(grid: Grid) -> None:
        together.wait()
        folders.write_comparison(grid, tmp_path, "", {})

    with ThreadPoolExecutor(tasks) as pool:
        list(pool.map(add, grids))
    assert sorted(json.loads((tmp_path / folders.COMPARISON_FILE).read_text())["seeds"]) == list(range(tasks))


def test_a_lock_holds_while_its_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    entered = threading.Event()

    def enter() -> None:
        with locked(path):
            entered.set()

    with locked(path):
        (tmp_path / "new").write_text("{}")
        os.replace(tmp_path / "new", path)
        other = threading.Thread(target=enter)
        other.start()
        assert not entered.wait(0.3)
    other.join(10)
    assert entered.is_set()


def waits(path: Path, call: Callable[[], Any], meanwhile: Callable[[], Any]) -> Any:
    """Return the result of a call that has to wait for the lock of a file, which another process holds."""
    with ThreadPoolExecutor(1) as pool:
        with locked(path):
            waiting = pool.submit(call)
            assert wait([waiting], 0.5).not_done
            meanwhile()
        return waiting.result(60)


def test_a_run_that_another_process_is_training_is_waited_for_and_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "end_with_parent", lambda: None)
    monkeypatch.setattr(worker, "carry_out", lambda folder, plan: pytest.fail("trained twice"))
    (tmp_path / PLAN_FILE).write_text(json.dumps({"cwd": str(tmp_path / "none")}))
    finish = (tmp_path / RECORD_FILE).touch
    assert waits(tmp_path / PLAN_FILE, lambda: worker.main(str(tmp_path)), finish) == 0


def test_a_report_waits_for_the_command_that_is_writing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    events: list[str] = []
    monkeypatch.setattr("yolo_losses.comparison.report.build_report", lambda *_, **__: events.append("second"))
    waits(
        tmp_path / folders.COMPARISON_FILE,
        lambda: driver.write_report(Options(out=tmp_path)),
        lambda: events.append("first"),
    )
    assert events == ["first", "second"]


@pytest.mark.long
def test_tasks_of_one_seed_each_make_one_comparison(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("scipy")
    waiting = [start(*words(data, tmp_path / "out", f"seed={seed}", cls_loss="bce,focal")) for seed in range(2)]
    for result in waiting:
        result().check()
    summary = (tmp_path / "out" / "summary.csv").read_text().splitlines()
    assert len(summary) == 1 + 2 * 2


@pytest.mark.parametrize(("status", "kept"), [("finished", True), ("failed", False), ("open", False)])
def test_a_plan_leaves_the_record_of_a_run_that_another_command_has_finished(
    status: str, kept: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = build(read_words(["model=yolov8n.yaml", f"data={data}", "cls_loss=bce", "seed=0"]))
    (run, *_) = grid.runs(tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "record.json").write_text("{}")
    monkeypatch.setattr(folders, "status", lambda _: status)
    folders.write_run_plan(run, 1, "")
    assert (run.folder / "record.json").is_file() == kept


@pytest.mark.parametrize(
    ("commands", "whole"),
    [
        (["compare seed=4 --out x", "compare seed=0 --out x"], "compare seed=0-4 --out x"),
        (["compare 'seed=[0, 1]' --out x"], "compare seed=0-4 --out x"),
        (["compare cfg=x.yaml"], "compare cfg=x.yaml"),
        (["compare a=b seed=0", "compare a=c seed=1"], "compare a=b seed=0-4\ncompare a=c seed=0-4"),
    ],
)
def test_the_commands_that_repeat_a_comparison_are_all_of_its_own_with_all_seeds(
    commands: list[str], whole: str
) -> None:
    assert all_commands({"command": commands[-1], "commands": commands, "seeds": [4, 0, 1, 2, 3]}) == whole


def test_a_plan_keeps_the_commands_of_all_that_wrote_it(data: Path, tmp_path: Path) -> None:
    for loss in ("bce", "focal", "focal"):
        grid = build(read_words(["model=yolov8n.yaml", f"data={data}", f"cls_loss=stock,{loss}", "seed=0"]))
        folders.write_comparison(grid, tmp_path, loss, {})
    assert json.loads((tmp_path / folders.COMPARISON_FILE).read_text())["commands"] == ["bce", "focal"]


def test_no_check_of_a_training_asks_for_a_newer_ultralytics(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    monkeypatch.setattr(checks, "ONLINE", True)
    monkeypatch.setattr(checks, "IS_PIP_PACKAGE", True)
    monkeypatch.setattr(checks, "check_latest_pypi_version", lambda *_: asked.append(None) or "0")
    build(read_words(["model=yolov8n.yaml", f"data={data}", "cls_loss=bce,focal", "seed=0"]))
    assert not asked
    assert checks.ONLINE
