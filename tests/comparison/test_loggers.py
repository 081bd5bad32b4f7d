"""Weights & Biases and MLflow: runs are grouped and tagged if a logger is enabled."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ultralytics.utils import SETTINGS

from yolo_losses.comparison.loggers import group_and_tag

PLAN = {"name": "cls_loss=slide", "seed": 3, "data": "sets/my.yaml", "settings": {"epochs": 2}}
FOLDER = Path("runs/slide_or_not/runs/cls_loss=slide/seed3")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what `wandb.init` is called with; MLflow's variables are put back."""
    calls: list[dict[str, Any]] = []
    wandb: Any = ModuleType("wandb")
    wandb.init = lambda **keys: calls.append(keys)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN", "MLFLOW_RUN_CONTEXT", "WANDB_PROJECT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return calls


def test_runs_are_grouped_by_configuration_and_tagged_where_a_logger_is_on(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, "wandb", True)
    monkeypatch.setitem(SETTINGS, "mlflow", True)
    group_and_tag(FOLDER, PLAN)
    (run,) = started
    assert (run["project"], run["group"], run["name"]) == ("slide_or_not", "cls_loss=slide", "cls_loss=slide seed=3")
    assert run["tags"] == ["comparison=slide_or_not", "configuration=cls_loss=slide", "data=my", "seed=3"]
    assert os.environ["MLFLOW_EXPERIMENT_NAME"] == "slide_or_not"
    assert os.environ["MLFLOW_RUN"] == "cls_loss=slide seed=3"
    assert json.loads(os.environ["MLFLOW_RUN_CONTEXT"])["configuration"] == "cls_loss=slide"
    group_and_tag(FOLDER, PLAN)
    assert started[1]["id"] == run["id"], "a run that goes on is the same run"
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    group_and_tag(FOLDER, PLAN)
    assert started[2]["project"] == os.environ["MLFLOW_EXPERIMENT_NAME"] == "mine"


def test_nothing_is_started_where_they_are_off(started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "wandb", False)
    monkeypatch.setitem(SETTINGS, "mlflow", False)
    group_and_tag(FOLDER, PLAN)
    assert not started
    assert "MLFLOW_RUN" not in os.environ
