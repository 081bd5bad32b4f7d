"""A short training on each of four Ultralytics versions; `make compat` runs the whole battery on all of them."""

from __future__ import annotations

import os
from pathlib import Path

import compat
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("version", compat.QUICK_VERSIONS)
def test_chosen_losses_train_and_what_cannot_be_used_is_refused(version: str, tmp_path: Path) -> None:
    outcomes = compat.battery(version, tmp_path, quick=True)
    if "installs" in outcomes and not os.environ.get("CI"):
        pytest.skip(f"Ultralytics {version} cannot be fetched: {outcomes['installs']}")
    assert outcomes
    assert set(outcomes.values()) == {compat.OK}, outcomes
    assert {"yolov8n", "yolo26n"} & outcomes.keys()


def test_a_failed_check_is_in_the_table_and_told_below_it() -> None:
    results = [{"yolov8n": "ok", "yolo26n": "-"}, {"yolov8n": "AssertionError: no", "yolo26n": "ok"}]
    lines = compat.table(["8.3.108", "installed"], results).splitlines()
    assert "| yolov8n | ok | FAIL |" in lines
    assert "| yolo26n | - | ok |" in lines
    assert lines[-1] == "installed yolov8n: AssertionError: no"
