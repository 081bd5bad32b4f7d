"""What is said of the committed comparisons, in figures, captions, tables and pages, is what their runs give."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from yolo_losses.comparison.grid import build
from yolo_losses.comparison.words import read_words
from yolo_losses.config.settings import default_keys

SETTINGS = [path for path in sorted((ROOT / "examples" / "evidence").glob("*.yaml")) if path.with_suffix("").is_dir()]

pytest.importorskip("scipy")


def test_reports_verdicts_figure_and_captions_are_those_of_the_committed_runs() -> None:
    done = subprocess.run(
        [sys.executable, "examples/evidence/make.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.stem)
def test_the_command_of_a_set_trains_every_configuration_of_its_runs(path: Path) -> None:
    cells = build(read_words([f"cfg={path}", "model=yolov8n.yaml", "data=my.yaml"])).cells
    with (path.with_suffix("") / "summary.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    defaults = {f"{key}={value}" for key, value in default_keys().items()}
    commanded = [{f"{key}={value}" for key, value in c.configuration.items()} - defaults for c in cells]
    for row in rows:
        assert set(row["name"].split()) - defaults in commanded, row["name"]
