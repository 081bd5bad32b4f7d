"""What the tests of crashes and of state run in processes of their own, forked from one that has imported all of it."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CONTEXT: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
CONTEXT.set_forkserver_preload(["crash_worker", "ultralytics.models.yolo.detect", "yolo_losses.integration.run"])


def start(function: Any, *args: Any) -> BaseProcess:
    """Start a function of this module in a process of its own."""
    process: BaseProcess = CONTEXT.Process(target=function, args=args, daemon=True)
    process.start()
    return process


def train(model: str, keys: dict[str, Any], log: Path) -> None:
    """Train, all output into a file."""
    with open(log, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    from ultralytics import YOLO

    YOLO(model).train(**keys)


def resumed_rank(rank: int, folder: Path, given: dict[str, Any], epochs: int) -> None:
    """Resume as one of two ranks, with weights in a folder of the rank's own, and write down the state."""
    import ddp_worker
    import torch
    import torch.distributed as dist
    from conftest import Model
    from ultralytics import utils

    from yolo_losses.config.settings import LossSettings
    from yolo_losses.integration.run import Run

    utils.RANK = rank
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mine = folder / f"rank{rank}"
    trainer = SimpleNamespace(
        model=Model(criterion=ddp_worker.criterion()),
        ema=None,
        args=SimpleNamespace(imgsz=64, resume=str(mine / "last.pt")),
        resume=True,
        start_epoch=epochs,
    )
    run = Run(trainer, LossSettings.from_mapping(given))
    torch.save(run.state(), mine / "seen.pt")
    dist.barrier()
    dist.destroy_process_group()
