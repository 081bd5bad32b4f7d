"""What a loss keeps from one step to the next: one state a branch, kept beside the checkpoint, never in its way."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import crash_worker
import pytest
import torch
from conftest import TINY, Model, criterion_of, logged, made_up_batch, predictions
from conftest import run as step

from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.run import Run
from yolo_losses.integration.state import STATE_FILE

KEYS: dict[str, dict[str, Any]] = {
    "ema_slide": {"cls_loss": "ema_slide"},
    "ghm": {"cls_loss": "ghm"},
    "wiou": {"box_loss": "wiou"},
    "wise": {"box_loss": "wise_inner_siou"},
    "auto": {"cls_loss": "focal", "cls_scale": "auto"},
    "both": {"cls_loss": "ema_slide", "box_loss": "focaler_wiou", "cls_scale": "auto"},
}
State = dict[str, dict[str, torch.Tensor]]


def trainer_of(folder: Path, head: str = "v8", resume: bool = False, epoch: int = 1) -> Any:
    """Return what a `Run` asks of a trainer, its model and EMA."""
    criterion = criterion_of(head)
    last = folder / "last.pt"
    return SimpleNamespace(
        model=Model(criterion=criterion),
        ema=SimpleNamespace(ema=Model(criterion=copy.deepcopy(criterion))),
        args=SimpleNamespace(imgsz=64, resume=str(last) if resume else False),
        resume=resume,
        last=last,
        epoch=epoch,
        start_epoch=epoch + 1,
    )


def run_of(trainer: Any, name: str) -> Run:
    return Run(trainer, LossSettings.from_mapping(KEYS[name]))


def snapshot(run: Run) -> State:
    return copy.deepcopy(run.state())


def flat(state: State) -> torch.Tensor:
    assert state
    return torch.cat([tensor.double().flatten() for tensors in state.values() for tensor in tensors.values()])


def trained(folder: Path, name: str, head: str = "v8") -> Run:
    """Return a run that has trained for two steps and written its state, as of its second epoch."""
    trainer = trainer_of(folder, head)
    run = run_of(trainer, name)
    for seed in (0, 1):
        step(trainer.model.criterion, predictions(head, seed=seed), made_up_batch(head, seed=seed))
        run.equipment.commit(joined=False)
    run.save_state(trainer)
    return run


@pytest.mark.parametrize("head", ["v8", "v10", "26"])
@pytest.mark.parametrize("name", KEYS)
def test_training_writes_the_state_and_validation_reads_the_same_one(tmp_path: Path, name: str, head: str) -> None:
    trainer = trainer_of(tmp_path, head)
    run = run_of(trainer, name)
    fresh = flat(snapshot(run))
    outputs, batch = predictions(head), made_up_batch(head)
    with torch.no_grad():
        before, _, _ = step(trainer.ema.ema.criterion, outputs, batch)
    assert torch.equal(flat(run.state()), fresh)

    step(trainer.model.criterion, outputs, batch)
    run.equipment.commit(joined=False)
    written = flat(snapshot(run))
    assert not torch.equal(written, fresh)

    with torch.no_grad():
        after, _, _ = step(trainer.ema.ema.criterion, outputs, batch)
    assert torch.equal(flat(run.state()), written)
    assert after != before


@pytest.mark.parametrize("head", ["v10", "26"])
@pytest.mark.parametrize("name", KEYS)
def test_each_branch_has_its_own_state(tmp_path: Path, name: str, head: str) -> None:
    state = trained(tmp_path, name, head).state()
    terms = {path.split("/")[1] for path in state}
    assert {path.split("/")[0] for path in state} == {"one2many", "one2one"}
    for term in terms:
        many, one = state[f"one2many/{term}"], state[f"one2one/{term}"]
        assert all(many[key].data_ptr() != one[key].data_ptr() for key in many)
        assert any(not torch.equal(many[key], one[key]) for key in many)


@pytest.mark.parametrize("name", KEYS)
def test_a_deep_copy_shares_the_state(tmp_path: Path, name: str) -> None:
    trainer = trainer_of(tmp_path)
    run = run_of(trainer, name)
    copied = copy.deepcopy(trainer.model.criterion)  # as NaN recovery makes the EMA anew
    before = snapshot(run)
    step(copied, predictions("v8"), made_up_batch("v8"))
    run.equipment.commit(joined=False)
    assert not torch.equal(flat(before), flat(run.state()))


@pytest.mark.parametrize("name", ["ema_slide", "ghm", "wiou", "auto"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_batch_that_overflowed_leaves_the_state_finite(tmp_path: Path, name: str, poison: float) -> None:
    trainer = trainer_of(tmp_path)
    run = run_of(trainer, name)
    outputs = predictions("v8")
    with torch.no_grad():
        for key in ("boxes", "scores"):
            outputs[key][0].fill_(poison)
    terms, _, _ = step(trainer.model.criterion, outputs, made_up_batch("v8"))
    run.equipment.commit(joined=False)
    assert not all(torch.isfinite(torch.tensor(list(terms.values()))))  # it did overflow
    assert flat(run.state()).isfinite().all()


@pytest.mark.parametrize("head", ["v8", "26"])
@pytest.mark.parametrize("name", KEYS)
def test_a_resumed_run_takes_up_the_state(tmp_path: Path, name: str, head: str) -> None:
    wanted = flat(trained(tmp_path, name, head).state())
    with logged() as said:
        resumed = run_of(trainer_of(tmp_path, head, resume=True), name)
    assert torch.equal(flat(resumed.state()), wanted)
    assert [line for line in said if "state" in line] == [
        f"yolo_losses: the losses' state is that of epoch 2, from {tmp_path / STATE_FILE}"
    ]
    assert os.listdir(tmp_path) == [STATE_FILE]  # nothing half written is left over


def test_a_run_that_is_not_resumed_leaves_an_older_state_alone(tmp_path: Path) -> None:
    trained(tmp_path, "both")
    fresh = flat(run_of(trainer_of(tmp_path / "elsewhere"), "both").state())
    assert torch.equal(flat(run_of(trainer_of(tmp_path), "both").state()), fresh)


def test_a_run_killed_between_checkpoint_and_state_says_that_its_state_is_one_epoch_older(tmp_path: Path) -> None:
    wanted = flat(trained(tmp_path, "both").state())
    with logged() as said:
        resumed = run_of(trainer_of(tmp_path, resume=True, epoch=2), "both")
    assert torch.equal(flat(resumed.state()), wanted)
    assert any("is that of epoch 2, the checkpoint of epoch 3" in line for line in said)


class Hostile:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(HOSTILE_MARK),)


HOSTILE_MARK = Path(os.environ["YOLO_CONFIG_DIR"]) / "a_state_file_ran_code"


def change(file: Path, **changed: Any) -> None:
    saved = torch.load(file, weights_only=True)
    saved.update(changed)
    torch.save(saved, file)


def with_mean(file: Path, mean: Any) -> None:
    saved = torch.load(file, weights_only=True)
    saved["state"]["/box"]["base.mean_loss"] = mean
    torch.save(saved, file)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, "is missing"),
    "empty": (lambda file: file.write_bytes(b""), "cannot be read (EOFError)"),
    "cut off": (cut, "cannot be read ("),
    "noise": (lambda file: file.write_bytes(b"no state" * 99), "cannot be read ("),
    "a pickle of something else": (lambda file: torch.save([1, 2], file), "cannot be read (TypeError)"),
    "a hostile pickle": (lambda file: torch.save(Hostile(), file), "cannot be read (UnpicklingError)"),
    "a hostile pickle of old": (lambda file: file.write_bytes(pickle.dumps(Hostile())), "cannot be read ("),
    "of another loss": (
        lambda file: change(file, losses={"cls_loss": "ghm", "box_loss": "focaler_wiou"}),
        "is that of cls_loss=ghm, box_loss=focaler_wiou",
    ),
    "of an epoch long ago": (lambda file: change(file, epoch=50), "is of epoch 51, the checkpoint of epoch 2"),
    "of one branch alone": (lambda file: change(file, state={}), "cannot be read (KeyError)"),
    "not finite": (
        lambda file: with_mean(file, torch.tensor(torch.nan)),
        "has no usable 'base.mean_loss'",
    ),
    "of another shape": (
        lambda file: with_mean(file, torch.ones(3)),
        "has no usable 'base.mean_loss'",
    ),
    "of numbers": (lambda file: with_mean(file, 1.0), "cannot be read (AttributeError)"),
    "a folder": (lambda file: (file.unlink(), file.mkdir()), "cannot be read (IsADirectoryError)"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_state_file_of_no_use_is_a_warning_and_a_fresh_start_of_every_loss(tmp_path: Path, spoilt: str) -> None:
    trained(tmp_path, "both")
    fresh = flat(run_of(trainer_of(tmp_path), "both").state())
    spoil, reason = SPOILT[spoilt]
    spoil(tmp_path / STATE_FILE)
    with logged() as said:
        resumed = run_of(trainer_of(tmp_path, resume=True), "both")
    assert torch.equal(flat(resumed.state()), fresh)
    told = [line for line in said if "state" in line]
    assert len(told) == 1
    assert f"yolo_losses: the losses' state starts from scratch: {tmp_path / STATE_FILE} {reason}" in told[0]
    assert not HOSTILE_MARK.exists()


def test_a_state_that_cannot_be_written_is_told_once_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tmp_path)
    run = run_of(trainer, "both")
    run.save_state(trainer)
    kept = (tmp_path / STATE_FILE).read_bytes()

    def full(file: Path, content: bytes) -> None:
        with file.open("wb") as half:
            half.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with logged() as said:
        run.save_state(trainer)
        run.save_state(trainer)
    assert len(said) == 1
    assert "could not be written" in said[0]
    assert "No space left on device" in said[0]
    assert os.listdir(tmp_path) == [STATE_FILE]
    assert (tmp_path / STATE_FILE).read_bytes() == kept


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file here that behaves as on a full disk")
def test_a_full_disk_is_named_in_plain_words(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    run = run_of(trainer, "both")
    (tmp_path / f"{STATE_FILE}.part").symlink_to("/dev/full")
    with logged() as said:
        run.save_state(trainer)
    (line,) = said
    assert "could not be written" in line
    assert "([Errno 28] No space left on device); training continues" in line
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("done", "usable"), [(1, False), (2, True), (3, True), (4, True), (5, False)])
def test_a_state_is_used_within_an_epoch_of_the_checkpoint(tmp_path: Path, done: int, usable: bool) -> None:
    wanted = flat(trained(tmp_path, "both").state())
    fresh = flat(run_of(trainer_of(tmp_path), "both").state())
    change(tmp_path / STATE_FILE, epoch=done - 1)
    resumed = run_of(trainer_of(tmp_path, resume=True, epoch=2), "both")  # a checkpoint of three epochs
    assert torch.equal(flat(resumed.state()), wanted if usable else fresh)


def test_a_loss_without_state_writes_no_file(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    Run(trainer, LossSettings.from_mapping({"cls_loss": "slide", "box_loss": "siou"})).save_state(trainer)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("there", [True, False])
def test_all_ranks_resume_with_the_state_that_the_first_one_finds(tmp_path: Path, there: bool) -> None:
    """On several machines the run's folder may be on one alone."""
    for rank in (0, 1):
        (tmp_path / f"rank{rank}").mkdir()
    saved = trained(tmp_path / f"rank{0 if there else 1}", "both")
    wanted = saved.state() if there else run_of(trainer_of(tmp_path), "both").state()
    ranks = [crash_worker.start(crash_worker.resumed_rank, rank, tmp_path, KEYS["both"], 2) for rank in (0, 1)]
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    for rank in (0, 1):
        assert torch.equal(flat(torch.load(tmp_path / f"rank{rank}" / "seen.pt")), flat(wanted))


@pytest.mark.slow
def test_a_resumed_training_starts_with_the_very_state_of_the_uninterrupted_one(tmp_path: Path, data: Path) -> None:
    from ultralytics import YOLO

    states: dict[int, State] = {}
    kept = tmp_path / "killed" / "weights"

    def remember(trainer: Any) -> None:
        states[trainer.epoch] = snapshot(trainer.yolo_losses_run)
        if trainer.epoch == 1:
            shutil.copytree(trainer.wdir, kept)

    model = YOLO("yolov8n.yaml")
    model.add_callback("on_fit_epoch_end", remember)
    keys = {**TINY, "epochs": 3, "data": str(data), **KEYS["both"]}
    model.train(**keys, project=str(tmp_path), name="whole")
    assert not torch.equal(flat(states[1]), flat(states[2]))

    seen: list[State] = []
    again = YOLO(str(kept / "last.pt"))
    again.add_callback("on_train_start", lambda trainer: seen.append(snapshot(trainer.yolo_losses_run)))
    again.train(resume=True)
    assert torch.equal(flat(seen[0]), flat(states[1]))
