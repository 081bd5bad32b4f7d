"""Weights & Biases and MLflow, where Ultralytics' settings have them on: a comparison's runs are grouped and tagged."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LONGEST_TAG = 64  # of Weights & Biases


def group_and_tag(folder: Path, plan: Mapping[str, Any]) -> None:
    """Have the loggers that are on file a run under its comparison, its configuration and its seed.

    The comparison's folder names W&B's project and MLflow's experiment unless `WANDB_PROJECT` or
    `MLFLOW_EXPERIMENT_NAME` does; W&B groups by configuration, so that its curves are means over seeds.

    Args:
        folder: of the run.
        plan: of the run.
    """
    from ultralytics.utils import SETTINGS

    comparison = folder.parents[2].name
    title = f"{plan['name']} seed={plan['seed']}"
    tags = {"comparison": comparison, "configuration": plan["name"], "data": Path(plan["data"]).stem}
    tags["seed"] = str(plan["seed"])
    if SETTINGS.get("mlflow") is True:
        os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", comparison)
        os.environ["MLFLOW_RUN"] = title
        os.environ["MLFLOW_RUN_CONTEXT"] = json.dumps(tags)  # tags of every run that is started
    if SETTINGS.get("wandb") is True:
        try:
            wandb: Any = importlib.import_module("wandb")
        except ImportError:  # then Ultralytics logs nothing either
            return
        wandb.init(  # Ultralytics logs into a run that is there already
            project=os.environ.get("WANDB_PROJECT", comparison),
            group=plan["name"],
            name=title,
            tags=[f"{key}={value}"[:LONGEST_TAG] for key, value in tags.items()],
            config=plan["settings"],
            id=hashlib.sha256(str(folder).encode()).hexdigest()[:16],  # a run that goes on after a kill is the same
            resume="allow",
            dir=str(folder),
        )
