"""Commands that share the folder of a comparison, as the tasks of a job array do."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import words
from conftest import start

from yolo_losses._files import locked
from yolo_losses.comparison import folders
from yolo_losses.comparison.grid import build
from yolo_losses.comparison.words import read_words

fcntl = pytest.importorskip("fcntl")


def test_a_plan_keeps_the_seeds_of_commands_that_write_it_at_the_same_time(data: Path, tmp_path: Path) -> None:
    tasks = 8
    together = threading.Barrier(tasks)

    def add(seed: int) -> None:
        grid = build(read_words(["model=yolov8n.yaml", f"data={data}", "cls_loss=bce,focal", f"seed={seed}"]))
        together.wait()
        folders.write_grid(grid, tmp_path, "", {})

    with ThreadPoolExecutor(tasks) as pool:
        list(pool.map(add, range(tasks)))
    assert sorted(json.loads((tmp_path / folders.GRID_FILE).read_text())["seeds"]) == list(range(tasks))


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


@pytest.mark.long
def test_tasks_of_one_seed_each_make_one_comparison(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("scipy")
    waiting = [start(*words(data, tmp_path / "out", f"seed={seed}", cls_loss="bce,focal")) for seed in range(2)]
    for wait in waiting:
        wait().check()
    summary = (tmp_path / "out" / "summary.csv").read_text().splitlines()
    assert len(summary) == 1 + 2 * 2
