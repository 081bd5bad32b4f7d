"""Estimates of the time and disk space of a comparison, from finished epochs or from a trial step."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yolo_losses.comparison import dataset, folders
from yolo_losses.comparison.grid import Run
from yolo_losses.comparison.options import Options
from yolo_losses.comparison.record import read_results
from yolo_losses.comparison.training import load_model

# Bytes per parameter: last.pt and best.pt in half precision after a run; and additionally during training, snapshot and
# checkpoints with the weights, their average and the state of the optimizer.
KEPT_BYTES = 4
TRAINING_BYTES = 56


def seconds_left(runs: Sequence[Run], side_by_side: int) -> float | None:
    """Return about how long the unfinished runs will take, `None` before the first epoch."""
    epoch_seconds: list[float] = []
    epochs_left = 0
    for run in runs:
        rows = read_results(run.folder)
        times = [row["time"] for row in rows if "time" in row]
        epoch_seconds += [b - a for a, b in zip([0.0, *times], times, strict=False) if b > a]
        if folders.record_of(run) is None:
            epochs_left += max(0, planned_epochs(run) - len(rows))
    return statistics.median(epoch_seconds) * epochs_left / max(1, side_by_side) if epoch_seconds else None


def planned_epochs(run: Run) -> int:
    """Return the planned number of epochs of a run."""
    return int(run.cell.settings.get("epochs", 100))


def describe(
    runs: Sequence[Run], todo: Sequence[Run], descriptions: Mapping[str, Mapping[str, Any]], options: Options
) -> list[str]:
    """Return the estimates for the remaining runs as text."""
    at_once = options.jobs or len(options.devices) or 1
    trials = {str(run.cell.settings["model"]): run for run in todo}
    parameters = {name: count_parameters(run) for name, run in trials.items()}
    seconds, source = seconds_left(runs, at_once), "from the finished epochs"
    if seconds is None:
        source = "from a trial step, without start-up and image loading"
        epoch_seconds: dict[Any, float] = {}
        seconds = 0.0
        for run in todo:
            settings = run.cell.settings
            key = (run.cell.data, *(str(settings.get(k)) for k in ("model", "imgsz", "batch", "device", "fraction")))
            if key not in epoch_seconds:
                epoch_seconds[key] = seconds_per_epoch(run, descriptions[run.cell.data])
            seconds += epoch_seconds[key] * planned_epochs(run)
        if options.devices:  # on a CPU, simultaneous runs share the cores
            seconds /= at_once
    sizes = [_folder_size(run.folder) for run in runs if folders.status(run) == "finished"]
    kept = [statistics.median(sizes) if sizes else KEPT_BYTES * parameters[str(r.cell.settings["model"])] for r in todo]
    extra = TRAINING_BYTES * max(parameters.values()) * at_once
    free = shutil.disk_usage(
        next(p for p in (options.out.resolve(), *options.out.resolve().parents) if p.exists())
    ).free
    lines = [
        f"time: about {format_duration(seconds)}, {at_once} at a time ({source})",
        f"disk: about {_gigabytes(sum(kept))}, and {_gigabytes(extra)} more during the runs",
    ]
    if sum(kept) + extra > free:
        lines.append(f"warning: only {_gigabytes(free)} are free")
    return lines


def count_parameters(run: Run) -> int:
    """Return the number of parameters of a run's model."""
    model = load_model(str(run.cell.settings["model"]), run.cell.settings.get("task"))
    return sum(parameter.numel() for parameter in model.model.parameters())


def seconds_per_epoch(run: Run, description: Mapping[str, Any]) -> float:
    """Return about how long an epoch with validation takes, from forward and backward passes of random images."""
    import torch

    settings = run.cell.settings
    loaded = load_model(str(settings["model"]), settings.get("task"))
    model, imgsz = loaded.model, settings.get("imgsz", loaded.overrides.get("imgsz", 640))
    on_gpu = torch.cuda.is_available() and settings.get("device") != "cpu"
    batch = int(settings.get("batch", 16))
    batch = (batch if batch >= 1 else 16) if on_gpu else 2
    device = torch.device("cuda" if on_gpu else "cpu")
    model = model.to(device).float().eval().requires_grad_()
    images = torch.rand(batch, 3, *2 * [int(imgsz)], device=device)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        sum(part.sum() for part in _tensors(model(images)) if part.requires_grad).backward()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    seconds_per_image = min(seconds) / batch
    split = str(settings.get("split") or "val")
    trained = dataset.count_trained(dataset.count_images(description, "train"), settings.get("fraction", 1.0))
    validated = dataset.count_images(description, split)
    return seconds_per_image * (trained + validated / 3)  # a forward pass takes about a third of both


def _tensors(output: Any) -> Iterator[Any]:
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, list | tuple):
        for part in output:
            yield from _tensors(part)
    elif output is not None:
        yield output


def _folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def format_duration(seconds: float) -> str:
    """Return a duration as text."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
