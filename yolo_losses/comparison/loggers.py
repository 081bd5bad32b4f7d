"""Groups and tags the runs of a comparison in Weights & Biases and MLflow, if Ultralytics' settings enable them."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_TAG_LENGTH = 64  # in Weights & Biases


def group_and_tag(folder: Path, plan: Mapping[str, Any]) -> None:
    """Set comparison, configuration and seed of a run in the enabled loggers.

    The W&B project and the MLflow experiment are named after the folder of the comparison unless `WANDB_PROJECT` or
    `MLFLOW_EXPERIMENT_NAME` is set. W&B groups runs by configuration, so that its curves are means over seeds.

    Args:
        folder: folder of the run.
        plan: plan of the run.
    """
    from ultralytics.utils import SETTINGS

    comparison = folder.parents[2].name
    title = f"{plan['name']} seed={plan['seed']}"
    tags = {"comparison": comparison, "configuration": plan["name"], "data": Path(plan["data"]).stem}
    tags["seed"] = str(plan["seed"])
    if SETTINGS.get("mlflow") is True:
        os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", comparison)
        os.environ["MLFLOW_RUN"] = title
        os.environ["MLFLOW_RUN_CONTEXT"] = json.dumps(tags)  # tags of all runs that are started
    if SETTINGS.get("wandb") is True:
        try:
            wandb: Any = importlib.import_module("wandb")
        except ImportError:  # Ultralytics does not log either
            return
        wandb.init(  # Ultralytics logs to an existing run
            project=os.environ.get("WANDB_PROJECT", comparison),
            group=plan["name"],
            name=title,
            tags=[f"{key}={value}"[:MAX_TAG_LENGTH] for key, value in tags.items()],
            config=plan["settings"],
            id=hashlib.sha256(str(folder).encode()).hexdigest()[:16],  # the same when a killed run continues
            resume="allow",
            dir=str(folder),
        )
