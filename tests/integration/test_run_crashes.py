"""What goes wrong in a training: killed and resumed, NaN, out of memory, a disk that takes nothing."""

from __future__ import annotations

import copy
import csv
import math
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crash_worker
import pytest
import torch
import yaml
from conftest import TINY, logged
from ultralytics import YOLO

from yolo_losses.config.settings import default_keys
from yolo_losses.integration import hook
from yolo_losses.integration.criteria.anchor_branch import AssignerPart
from yolo_losses.integration.criteria.box_part import BoxPart
from yolo_losses.integration.criteria.class_part import ClassPart
from yolo_losses.integration.state import STATE_FILE

pytestmark = pytest.mark.slow

KEYS: dict[str, Any] = {"cls_loss": "ema_slide", "ema_slide_decay": 0.9, "box_loss": "inner_wiou", "inner_ratio": 0.8}
EPOCHS = 6


def our_keys(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key in default_keys()}


def rows(folder: Path) -> list[dict[str, float]]:
    """Return what the run logged, an epoch a row."""
    with open(folder / "results.csv") as file:
        return [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def losses_of(row: dict[str, float]) -> list[float]:
    found = [value for key, value in row.items() if key.endswith("_loss")]
    assert len(found) == 6  # box, class and distribution, in training and in validation
    return found


def equipped(said: str | list[str]) -> list[str]:
    """Return the start lines."""
    lines = said.splitlines() if isinstance(said, str) else said
    return [line for line in lines if "equipped for training and validation" in line]


def check_swap(trainer: Any) -> None:
    """Fail where the model's or the EMA's criterion is not swapped, or they do not share their state."""
    criteria = [trainer.model.criterion, trainer.ema.ema.criterion]
    branch = trainer.yolo_losses_run.branches[""]
    for criterion in criteria:
        for name, part in (("assigner", AssignerPart), ("bce", ClassPart), ("bbox_loss", BoxPart)):
            assert type(getattr(criterion, name)) is part
            assert getattr(criterion, name).branch is branch
    state = [tensor for tensors in trainer.yolo_losses_run.state().values() for tensor in tensors.values()]
    assert state
    assert all(tensor.isfinite().all() for tensor in state)


def keys_of(data: Path, folder: Path, **changed: Any) -> dict[str, Any]:
    place = {"data": str(data), "project": str(folder.parent), "name": folder.name}
    return {**TINY, "epochs": EPOCHS, **KEYS, **place, **changed}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Return the folder of a training that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = crash_worker.start(crash_worker.train, "yolov8n.yaml", keys_of(data, folder), folder.parent / "log")
    process.join(300)
    assert process.exitcode == 0, (folder.parent / "log").read_text()[-2000:]
    return folder


def killed(folder: Path, data: Path, chance: random.Random) -> str:
    """Train, kill the process with no warning some time after its first epoch, and return what it printed."""
    log = folder.parent / f"{folder.name}.log"
    process = crash_worker.start(crash_worker.train, "yolov8n.yaml", keys_of(data, folder), log)
    epochs = chance.randint(1, EPOCHS - 2)
    deadline = time.monotonic() + 240
    results, last = folder / "results.csv", folder / "weights" / "last.pt"
    while time.monotonic() < deadline and process.is_alive():
        # The heading is a line too; the first checkpoint is written after the first epoch's line.
        if last.exists() and results.read_text().count("\n") > epochs:
            break
        time.sleep(0.005)
    # Writing checkpoint and state takes some hundredths of a second, an epoch some tenths.
    time.sleep(chance.choice([chance.uniform(0, 0.1), chance.uniform(0, 0.6)]))
    process.kill()
    process.join(60)
    text = log.read_text(errors="replace")
    assert process.exitcode == -signal.SIGKILL, f"ended by itself, {process.exitcode}: {text[-2000:]}"
    return text


def loads(checkpoint: Path) -> bool:
    from ultralytics.utils.patches import torch_load

    try:
        torch_load(checkpoint, map_location="cpu")
    except Exception:
        return False
    return True


def resumed_like_whole(folder: Path, data: Path, whole: Path, seed: int) -> str:
    """Kill a training, resume it, hold it to the uninterrupted one, and return how it started again."""
    before = killed(folder, data, random.Random(seed))
    last = folder / "weights" / "last.pt"
    intact = loads(last)
    done = len(rows(folder))
    log = folder.parent / f"{folder.name}.again.log"
    process = crash_worker.start(
        crash_worker.train, str(last) if intact else "yolov8n.yaml", {"resume": str(last)}, log
    )
    process.join(300)
    text = log.read_text(errors="replace")
    if not intact:  # killed while Ultralytics was writing it: nothing is left to resume, and that is what is said
        assert process.exitcode == 1
        assert "Resume checkpoint not found" in text
        return "torn"
    if "is finished, nothing to resume" in text:  # killed after its last epoch, which Ultralytics says
        assert done == EPOCHS
        return "finished"
    assert process.exitcode == 0, text[-2000:]

    start, again, never_killed = equipped(before), equipped(text), equipped((whole.parent / "log").read_text())
    assert len(start) == 1
    assert start == again == never_killed
    assert "ran in the first batch with objects: class, box" in text
    wanted = our_keys(yaml.safe_load((whole / "args.yaml").read_text()))
    assert wanted.items() >= KEYS.items()
    assert our_keys(yaml.safe_load((folder / "args.yaml").read_text())) == wanted
    checkpoint = torch.load(last, map_location="cpu", weights_only=False)
    assert our_keys(checkpoint["train_args"]) == wanted

    mine, theirs = rows(folder), rows(whole)
    assert {row["epoch"] for row in mine} == set(range(1, EPOCHS + 1))
    assert mine[0].keys() == theirs[0].keys()
    for row, other in zip(mine[: done - 1], theirs, strict=False):  # one seed: the same run, as far as it came
        assert losses_of(row) == pytest.approx(losses_of(other), rel=1e-3, abs=1e-3)
    assert all(math.isfinite(value) for row in mine for value in losses_of(row))
    # Validation loss is a mean over the same images with nearly the same weights: of one kind, it is of one size.
    assert mine[-1]["val/cls_loss"] == pytest.approx(theirs[-1]["val/cls_loss"], rel=0.5)

    told = re.findall(r"the losses' state (is that of epoch \d+, the checkpoint|is that of epoch|starts)", text)
    assert len(told) == 1
    return "one epoch older" if "checkpoint" in told[0] else "from scratch" if "starts" in told[0] else "restored"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_run_resumes_with_the_same_losses(tmp_path: Path, data: Path, whole: Path, seed: int) -> None:
    assert resumed_like_whole(tmp_path / "run", data, whole, seed)


@pytest.mark.long
def test_twenty_kills_are_survived(tmp_path: Path, data: Path, whole: Path) -> None:
    ends = [resumed_like_whole(tmp_path / f"run{seed}", data, whole, seed) for seed in range(100, 120)]
    counts = {end: ends.count(end) for end in sorted(set(ends))}
    print("20 kills:", counts)
    assert ends.count("restored") + ends.count("one epoch older") >= 10, counts


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Return the folder of a training that stopped in its third epoch."""
    from ultralytics import YOLO

    folder = tmp_path_factory.mktemp("interrupted") / "run"

    def stop(trainer: Any) -> None:
        if trainer.epoch == 2:
            raise KeyboardInterrupt

    model = YOLO("yolov8n.yaml")
    model.add_callback("on_train_epoch_start", stop)
    with pytest.raises(KeyboardInterrupt):
        model.train(**keys_of(data, folder, epochs=4))
    return folder


def test_a_checkpoint_cut_off_is_ultralytics_own_error(tmp_path: Path, interrupted: Path) -> None:
    from ultralytics import YOLO

    last = tmp_path / "last.pt"
    last.write_bytes((interrupted / "weights" / "last.pt").read_bytes()[:100_000])
    (tmp_path / STATE_FILE).write_bytes((interrupted / "weights" / STATE_FILE).read_bytes())
    with pytest.raises(FileNotFoundError, match="Resume checkpoint not found"):
        YOLO("yolov8n.yaml").train(resume=str(last))


def test_a_run_without_its_state_file_resumes_and_writes_a_new_one(interrupted: Path) -> None:
    from ultralytics import YOLO

    (interrupted / "weights" / STATE_FILE).unlink()
    model = YOLO(str(interrupted / "weights" / "last.pt"))
    with logged() as said:
        model.train(resume=True)
    assert [line for line in said if "the losses' state starts from scratch" in line and "is missing" in line]
    check_swap(model.trainer)
    saved = torch.load(interrupted / "weights" / STATE_FILE, weights_only=True)
    assert saved["epoch"] == 3
    assert all(math.isfinite(value) for row in rows(interrupted) for value in losses_of(row))


def train(data: Path, folder: Path, callbacks: dict[str, Callable[[Any], None]], **changed: Any) -> tuple[Any, list]:
    """Train in this process with callbacks, and return the trainer and what was said."""
    from ultralytics import YOLO

    model = YOLO("yolov8n.yaml")
    for event, callback in callbacks.items():
        model.add_callback(event, callback)
    with logged() as said:
        model.train(**keys_of(data, folder, **changed))
    return model.trainer, said


def test_nan_recovery_keeps_the_swap_and_a_finite_state(tmp_path: Path, data: Path) -> None:
    poisoned: list[Any] = []
    emas: list[Any] = []

    def poison(trainer: Any) -> None:
        emas.append(trainer.ema.ema)
        if trainer.epoch == 1 and not poisoned:
            weight = next(trainer.model.parameters())
            poisoned.append(copy.deepcopy(trainer.yolo_losses_run.state()))
            with torch.no_grad():
                weight.fill_(torch.nan)

    trainer, said = train(data, tmp_path / "run", {"on_train_batch_start": poison}, epochs=3)
    if not any("recovering from last.pt" in line for line in said):
        pytest.skip("this Ultralytics does not recover from NaN")
    assert len(set(map(id, emas))) == 2  # it was rebuilt, as a deep copy of the model
    check_swap(trainer)
    assert trainer.yolo_losses_run.state() != poisoned[0]  # and the losses went on writing it
    assert len(equipped(said)) == 1
    logged_rows = rows(tmp_path / "run")
    assert [row["epoch"] for row in logged_rows] == [1, 2, 3]
    assert all(math.isfinite(value) for row in logged_rows for value in losses_of(row))


def test_halving_the_batch_when_memory_runs_out_keeps_the_swap(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    box_term = BoxPart.__call__

    def out_of_memory_once(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:  # of the first epoch's second batch, its class term done
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return box_term(*args, **kwargs)

    monkeypatch.setattr(BoxPart, "__call__", out_of_memory_once)
    try:
        trainer, said = train(data, tmp_path / "run", {}, epochs=2)
    except RuntimeError as error:
        if "CUDA out of memory" not in str(error):
            raise
        pytest.skip("this Ultralytics does not halve the batch")
    assert trainer.batch_size == 2
    assert any("Reducing to batch=2" in line for line in said)
    check_swap(trainer)
    assert len(equipped(said)) == 1
    assert len([line for line in said if "ran in the first batch" in line]) == 1
    logged_rows = rows(tmp_path / "run")
    assert [row["epoch"] for row in logged_rows] == [1, 2]
    assert all(math.isfinite(value) for row in logged_rows for value in losses_of(row))


@pytest.mark.parametrize("in_the_way", [STATE_FILE, f"{STATE_FILE}.part"])
def test_a_state_that_cannot_be_written_is_told_once_and_the_training_goes_on(
    tmp_path: Path, data: Path, in_the_way: str
) -> None:
    """Where a folder of that name stands, not even an administrator can write the file."""
    weights = tmp_path / "run" / "weights"
    (weights / in_the_way / "full").mkdir(parents=True)
    trainer, said = train(data, tmp_path / "run", {}, epochs=3)
    told = [line for line in said if "state could not be written" in line]
    assert len(told) == 1
    assert "training continues" in told[0]
    check_swap(trainer)
    assert len(rows(tmp_path / "run")) == 3
    assert sorted(path.name for path in weights.iterdir()) == sorted(["best.pt", in_the_way, "last.pt"])


@pytest.mark.parametrize("event", ["on_train_batch_end", "on_train_epoch_start", "on_val_end"])
def test_a_training_in_which_the_package_is_uninstalled_ends_at_its_next_batch(
    tmp_path: Path, data: Path, event: str
) -> None:
    model = YOLO("yolov8n.yaml")
    batches: list[int] = []
    done: list[int] = []

    def uninstall(_: Any) -> None:
        if not done:
            done.append(len(batches))
            hook.uninstall()

    model.add_callback("on_train_batch_end", lambda trainer: batches.append(1))
    model.add_callback(event, uninstall)
    try:
        with logged() as said, pytest.raises(RuntimeError, match="was uninstalled during this training"):
            model.train(data=str(data), project=str(tmp_path), **{**TINY, "epochs": 2}, **KEYS)
    finally:
        hook.install()
    assert len(batches) == done[0]
    assert len([line for line in said if "yolo_losses: uninstalled while a training" in line]) == 1
    assert hook.is_active()


def test_after_a_training_the_package_is_uninstalled_without_a_word(tmp_path: Path, data: Path) -> None:
    trainer, _ = train(data, tmp_path / "run", {}, epochs=1)
    assert trainer.yolo_losses_run.batches
    try:
        with logged() as said:
            hook.uninstall()
    finally:
        hook.install()
    assert said == []
