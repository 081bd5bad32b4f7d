"""The process of one run: `python -m yolo_losses.comparison.worker FOLDER`.

It trains through Ultralytics' Python API and public callbacks. It seeds random numbers by seed and epoch, so that runs
with the same seed are paired, and a run that continues after a kill equals one that was not killed; it stores hashes
that prove this; and it validates both checkpoints, with the detections that a bootstrap over images needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import signal
import statistics
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch

import yolo_losses
from yolo_losses._files import locked, write_whole
from yolo_losses.comparison.loggers import group_and_tag
from yolo_losses.comparison.record import PLAN_FILE, RECORD_FILE, Metrics, RunRecord, read_results
from yolo_losses.comparison.training import load_model
from yolo_losses.comparison.validation import Arrays, validate

SNAPSHOT = "snapshot.pt"
HASHED_BATCHES = 3


def end_with_parent() -> None:
    """End this process and the workers of its data loader when its parent ends, which closes the pipe to stdin."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Training:
    """One training: seeds, hashes, snapshots and times, in Ultralytics' callbacks.

    Args:
        folder: folder of the run.
        seed: seed of the run.
        threads: number of threads of the process.
    """

    def __init__(self, folder: Path, seed: int, threads: int) -> None:
        self.folder = folder
        self.seed = seed
        self.threads = threads
        self.snapshot = folder / "weights" / SNAPSHOT
        self.resumed: dict[str, Any] | None = None
        self.weights_hash = ""
        self.order_hash = ""
        self.seconds: list[float] = []
        self.peak_memory_mb: float | None = None
        self.device = ""
        self.saved = False
        self.epoch_started = 0.0

    def add_callbacks(self, model: Any) -> None:
        """Add the callbacks to an Ultralytics model."""
        for event in (
            "on_train_start",
            "on_train_epoch_start",
            "on_train_epoch_end",
            "on_model_save",
            "on_fit_epoch_end",
            "on_train_end",
        ):
            model.add_callback(event, getattr(self, event))

    def restore_files(self) -> bool:
        """Restore the files of the run from its snapshot, and return whether there is one."""
        if not self.snapshot.is_file():
            return False
        self.resumed = torch.load(self.snapshot, map_location="cpu", weights_only=True)
        for name, content in self.resumed["files"].items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_bytes(path, content)
        return True

    def on_train_start(self, trainer: Any) -> None:
        """Restore the state of an interrupted run, or hash the initial weights of a new one."""
        torch.set_num_threads(self.threads)  # Ultralytics uses all threads
        model = trainer.model
        self.device = str(trainer.device)
        if trainer.device.type == "cuda":
            self.device += f" ({torch.cuda.get_device_name(trainer.device)})"
            torch.cuda.reset_peak_memory_stats(trainer.device)
        if self.resumed is not None:
            state = self.resumed
            if trainer.start_epoch != state["epoch"] + 1:
                raise RuntimeError(f"last.pt is of epoch {trainer.start_epoch}, its snapshot of {state['epoch'] + 1}")
            model.load_state_dict(state["model"])
            trainer.ema.ema.load_state_dict(state["ema"])
            trainer.ema.updates = state["updates"]
            trainer.optimizer.load_state_dict(state["optimizer"])
            trainer.scaler.load_state_dict(state["scaler"])
            trainer.best_fitness = state["best_fitness"]
            vars(trainer.stopper).update(state["stopper"])
            for number in state["buffer"]:  # the images that mosaic selects from
                trainer.train_loader.dataset.load_image(number)
            self.weights_hash, self.order_hash = state["weights_hash"], state["order_hash"]
            self.seconds = state["seconds"]
            # Resuming has written `model=last.pt resume=...` to it.
            _write_bytes(self.folder / "args.yaml", state["files"]["args.yaml"])
            return
        digest = hashlib.sha256()
        for name, tensor in model.state_dict().items():
            if not name.startswith("criterion."):
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        self.weights_hash = digest.hexdigest()[:16]
        self.hash_first_batches(trainer)

    def hash_first_batches(self, trainer: Any) -> None:
        """Hash the images of the first batches of the loader."""
        digest = hashlib.sha256()
        preprocess = trainer.preprocess_batch
        count = 0

        def preprocess_batch(batch: dict[str, Any]) -> Any:
            nonlocal count
            if count < HASHED_BATCHES and trainer.epoch == trainer.start_epoch:
                for name in batch["im_file"]:
                    digest.update(Path(name).name.encode())
                digest.update(batch["img"].contiguous().numpy())
                count += 1
                self.order_hash = digest.hexdigest()[:16]
            return preprocess(batch)

        trainer.preprocess_batch = preprocess_batch  # never removed, since it may be wrapped later

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Seed all random numbers by seed and epoch.

        The order and the augmentations of an epoch then do not depend on the loss or on a kill. Up to Ultralytics
        8.4.120, the generator of the loader has a constant seed, which would give every seed the same order.
        """
        number = int.from_bytes(hashlib.sha256(f"{self.seed} {trainer.epoch}".encode()).digest()[:7], "big")
        random.seed(number)
        np.random.seed(number % 2**32)
        torch.manual_seed(number)
        loader = trainer.train_loader
        loader.generator.manual_seed(number)
        loader.reset()  # workers are seeded when they start, and a new iterator draws a number before the order
        self.epoch_started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any) -> None:
        """Store the time of the epoch, before validation."""
        self.seconds.append(time.perf_counter() - self.epoch_started)

    def on_model_save(self, trainer: Any) -> None:
        """Record that a checkpoint of this epoch has been saved."""
        self.saved = True

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Write a snapshot of everything that the next epoch depends on."""
        if not self.saved:  # this event is called again after the final validation
            return
        self.saved = False
        if trainer.epoch + 1 >= trainer.epochs or trainer.stop:
            return
        files = [self.folder / "args.yaml", self.folder / "results.csv"]
        files += [p for p in trainer.wdir.iterdir() if not p.name.startswith(("epoch", "snapshot")) and p.is_file()]
        state = {
            "epoch": trainer.epoch,
            "files": {
                str(path.relative_to(self.folder)): torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
                for path in files
                if path.stat().st_size
            },
            "model": trainer.model.state_dict(),
            "ema": trainer.ema.ema.state_dict(),
            "updates": trainer.ema.updates,
            "optimizer": _to_python(trainer.optimizer.state_dict()),
            "scaler": trainer.scaler.state_dict(),
            "best_fitness": _to_python(trainer.best_fitness),
            "stopper": _to_python(vars(trainer.stopper)),
            "buffer": list(getattr(trainer.train_loader.dataset, "buffer", [])),
            "weights_hash": self.weights_hash,
            "order_hash": self.order_hash,
            "seconds": self.seconds,
        }
        write_whole(self.snapshot, lambda part: torch.save(state, part))

    def on_train_end(self, trainer: Any) -> None:
        """Store the peak memory, before the checkpoints are validated again."""
        if trainer.device.type == "cuda":
            self.peak_memory_mb = torch.cuda.max_memory_allocated(trainer.device) / 2**20
            return
        try:
            import resource
        except ImportError:  # not on Windows
            return
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.peak_memory_mb = peak / (2**20 if sys.platform == "darwin" else 2**10)


def _write_bytes(path: Path, content: torch.Tensor) -> None:
    """Write a file from a snapshot, atomically, since a report may read it at the same time."""
    write_whole(path, lambda part: part.write_bytes(content.numpy().tobytes()))


def _to_python(value: Any) -> Any:
    """Return a value with NumPy numbers converted to Python numbers, for `torch.load(weights_only=True)`."""
    if isinstance(value, dict):
        return {key: _to_python(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_to_python(inner) for inner in value]
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 else value


def train(folder: Path, plan: dict[str, Any]) -> RunRecord:
    """Train or continue a run, validate its checkpoints and return its record."""
    import ultralytics

    group_and_tag(folder, plan)
    training = Training(folder, plan["seed"], plan["threads"])
    settings = dict(plan["settings"])
    if training.restore_files():
        model = load_model(str(folder / "weights" / "last.pt"), settings.get("task"))
        training.add_callbacks(model)
        print(f"Continuing after epoch {training.resumed['epoch'] + 1}", flush=True)  # type: ignore[index]
        model.train(resume=True, data=settings["data"])
    else:
        model = load_model(settings.pop("model"), settings.pop("task", None))
        training.add_callbacks(model)
        model.train(**settings, project=str(folder.parent), name=folder.name, exist_ok=True)
    arrays: Arrays = {}
    metrics: dict[str, Metrics] = {}
    classes: list[str] = []
    for which in ("last", "best"):
        weights = folder / "weights" / f"{which}.pt"
        if not weights.is_file():  # every epoch had a metric of NaN
            weights = folder / "weights" / "last.pt"
        metrics[which], detections, classes = validate(weights, plan)
        for key in ("tp", "conf", "cls", "image"):
            arrays[f"{which}_{key}"] = detections.pop(key)
        arrays.update(detections)
    np.savez_compressed(folder / "validation.npz", allow_pickle=False, **arrays)
    record = RunRecord(
        **_plan_part(plan),
        classes=classes,
        versions={
            "ultralytics": ultralytics.__version__,
            "torch": str(torch.__version__),
            "yolo_losses": yolo_losses.__version__,
            "python": platform.python_version(),
        },
        device=training.device,
        weights_hash=training.weights_hash,
        order_hash=training.order_hash,
        seconds_per_epoch=statistics.median(training.seconds) if training.seconds else None,
        peak_memory_mb=training.peak_memory_mb,
        epochs=len(read_results(folder)),
        best=metrics["best"],
        last=metrics["last"],
    )
    if wrong := record.wrong_metric():
        raise RuntimeError(f"the training ended without metrics: {wrong}")
    return record


def _plan_part(plan: dict[str, Any]) -> dict[str, Any]:
    return {key: plan[key] for key in ("configuration", "name", "seed", "data", "data_hash")}


def carry_out(folder: Path, plan: dict[str, Any]) -> RunRecord:
    """Train a run and return its record; if it fails, the record has the error."""
    try:
        return train(folder, plan)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        lines = [line.strip() for line in "".join(traceback.format_exception_only(error)).splitlines() if line.strip()]
        return RunRecord(
            **_plan_part(plan),
            status="failed",
            error="\n".join(lines if len(lines) < 6 else [lines[0], *lines[-4:]]),
            epochs=len(read_results(folder)),
        )


def main(argument: str) -> int:
    """Carry out the run in a folder; errors are stored in its record."""
    end_with_parent()
    folder = Path(argument).resolve()
    plan = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
    if Path(plan["cwd"]).is_dir():
        os.chdir(plan["cwd"])
    with locked(folder / PLAN_FILE):  # a comparison may be started twice, and a lost node may still be running
        if (folder / RECORD_FILE).is_file():  # another process has finished this run
            return 0
        record = carry_out(folder, plan)
        record.write(folder / RECORD_FILE)
    if record.status == "finished":
        (folder / "weights" / SNAPSHOT).unlink(missing_ok=True)
    return 0 if record.status == "finished" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
