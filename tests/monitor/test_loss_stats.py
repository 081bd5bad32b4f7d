"""`loss_stats` in a run and in loggers; training is the same with and without it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from conftest import TINY, Model, criterion_of, logged, made_up_batch, predictions
from conftest import run as step

from yolo_losses.config.settings import LossSettings
from yolo_losses.integration import callbacks
from yolo_losses.integration import run as runs
from yolo_losses.monitor import table
from yolo_losses.monitor.loss_stats import PICTURE
from yolo_losses.monitor.table import FILE, read


class Trainer(SimpleNamespace):
    """An object that supports weak references."""


def trainer_of(folder: Path, head: str = "v8") -> Any:
    """Return what a `Run` and the loggers ask of a trainer."""
    return Trainer(
        model=Model(criterion=criterion_of(head)),
        ema=None,
        args=SimpleNamespace(imgsz=64, save=True, save_period=-1),
        save_dir=folder,
        callbacks={"on_fit_epoch_end": []},
        data={"names": {1: "tile", 0: "disc", 2: "star"}},
        loss_names=("box_loss", "cls_loss", "dfl_loss"),
        metrics={"metrics/mAP50(B)": 0.5},
        lr={"lr/pg0": 0.01},
        epoch=1,
        epochs=3,
        stop=False,
        epoch_time=1.0,
        train_loader=SimpleNamespace(dataset=range(8)),
        batch_size=4,
        plots={},
        validator=SimpleNamespace(plots={}),
        platform=None,
    )


def one_epoch(trainer: Any, keys: dict[str, Any], head: str = "v8") -> runs.Run:
    run = runs.Run(trainer, LossSettings.from_mapping(keys))
    trainer.yolo_losses_run = run
    for event, callback in callbacks.CALLBACKS.items():
        trainer.callbacks.setdefault(event, []).append(callback)
    run.begin_epoch(trainer)
    step(trainer.model.criterion, predictions(head), made_up_batch(head))
    if run.statistics is not None:
        run.statistics.write(trainer, run.branches)
    return run


def tensorboard(got: dict[str, Any], monkeypatch: pytest.MonkeyPatch, trainer: Any) -> Any:
    from ultralytics.utils.callbacks import tensorboard as module

    writer = SimpleNamespace(add_scalar=lambda name, value, step: got.update({name: value}))
    monkeypatch.setattr(module, "WRITER", writer, raising=False)
    return module


def wandb(got: dict[str, Any], monkeypatch: pytest.MonkeyPatch, trainer: Any) -> Any:
    from ultralytics.utils.callbacks import wb as module

    run = SimpleNamespace(log=lambda values, *_, **__: got.update(values))
    monkeypatch.setattr(module, "wb", SimpleNamespace(run=run), raising=False)
    return module


def mlflow(got: dict[str, Any], monkeypatch: pytest.MonkeyPatch, trainer: Any) -> Any:
    from ultralytics.utils.callbacks import mlflow as module

    trainer._mlflow_active = True
    stub = SimpleNamespace(log_metrics=lambda metrics, step: got.update(metrics))
    monkeypatch.setattr(module, "mlflow", stub, raising=False)
    return module


def comet(got: dict[str, Any], monkeypatch: pytest.MonkeyPatch, trainer: Any) -> Any:
    from ultralytics.utils.callbacks import comet as module

    experiment = SimpleNamespace(log_metrics=lambda metrics, **_: got.update(metrics))
    stub = SimpleNamespace(get_running_experiment=lambda: experiment)
    monkeypatch.setattr(module, "comet_ml", stub, raising=False)
    return module


def clearml(got: dict[str, Any], monkeypatch: pytest.MonkeyPatch, trainer: Any) -> Any:
    from ultralytics.utils.callbacks import clearml as module

    def report(title: str, series: str, value: float, iteration: int) -> None:
        got[series] = value

    task = SimpleNamespace(get_logger=lambda: SimpleNamespace(report_scalar=report))
    monkeypatch.setattr(module, "Task", SimpleNamespace(current_task=lambda: task), raising=False)
    return module


@pytest.mark.parametrize("logger", [tensorboard, wandb, mlflow, comet, clearml])
def test_every_logger_of_ultralytics_gets_the_statistics_by_its_own_event(
    logger: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: dict[str, Any] = {}
    trainer = trainer_of(tmp_path)
    trainer.callbacks["on_fit_epoch_end"].append(logger(got, monkeypatch, trainer).on_fit_epoch_end)
    one_epoch(trainer, {"cls_loss": "slide", "loss_stats": True})
    metrics = dict(trainer.metrics)

    def end_of_epoch() -> None:
        for callback in trainer.callbacks["on_fit_epoch_end"]:
            callback(trainer)

    end_of_epoch()
    (row,) = read(tmp_path)
    wanted = {f"loss_stats/{name}": value for name, value in row.items() if name != "epoch" and math.isfinite(value)}
    assert len(wanted) > 12
    assert {k: got[k] for k in wanted} == pytest.approx(wanted, rel=1e-5)
    assert trainer.metrics == metrics  # for results.csv, the checkpoint and the next epoch
    got.clear()
    trainer.epoch += 1
    end_of_epoch()  # the validation of the best weights ends an epoch once more
    assert not [name for name in got if name.startswith("loss_stats")]


def test_a_run_without_statistics_adds_nothing_to_metrics_and_writes_no_file(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    one_epoch(trainer, {"cls_loss": "slide"})
    runs.show_statistics(trainer)
    assert trainer.metrics == {"metrics/mAP50(B)": 0.5}
    assert trainer.callbacks["on_fit_epoch_end"] == [callbacks.hide_statistics]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("head", ["v8", "26"])
def test_a_run_of_stock_terms_only_logs_where_its_statistics_are(head: str, tmp_path: Path) -> None:
    with logged() as said:
        trainer = trainer_of(tmp_path, head)
        run = one_epoch(trainer, {"loss_stats": True}, head)
        run.after_batch(trainer)
        run.end_epoch(trainer)
    assert [line for line in said if line.startswith("yolo_losses")] == [
        f"yolo_losses: statistics of the losses by epoch: {tmp_path / FILE}"
    ]
    branches = table.branches_of(read(tmp_path))
    assert branches == ([""] if head == "v8" else ["one2many", "one2one"])
    assert list(table.series(read(tmp_path), branches[0], "by_class")) == ["disc", "tile", "star"]


def test_terms_without_names_get_those_of_the_trainer(tmp_path: Path) -> None:
    """Before Ultralytics 8.4.104 loss items are a tensor."""
    trainer = trainer_of(tmp_path)
    run = runs.Run(trainer, LossSettings.from_mapping({"loss_stats": True}))
    (branch,) = run.branches.values()
    assert branch.statistics is not None
    branch.statistics.begin()
    branch.statistics.end({"0": torch.tensor(1.0), "1": torch.tensor(2.0), "2": torch.tensor(1.0)}, by_class=True)
    run.statistics.write(trainer, run.branches)
    (row,) = read(tmp_path)
    assert (row["share/box"], row["share/cls"], row["share/dfl"]) == (0.25, 0.5, 0.25)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run / "weights" / "last.pt", weights_only=False)["model"].state_dict()
    return found


def results_of(run: Path) -> pl.DataFrame:
    return pl.read_csv(run / "results.csv").drop("time")


@pytest.mark.slow
def test_a_training_is_the_same_and_a_resumed_one_goes_on_with_its_rows(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics import YOLO

    monkeypatch.setattr("yolo_losses.monitor.gather.EVERY", 1)
    seen: list[set[str]] = []
    kept = tmp_path / "killed"

    def train(name: str, **keys: Any) -> Path:
        model = YOLO("yolov8n.yaml")
        model.add_callback("on_fit_epoch_end", lambda trainer: seen.append(set(trainer.metrics)))
        if keys:
            model.add_callback("on_fit_epoch_end", keep)
        model.train(**TINY | {"epochs": 2, "data": str(data)}, **keys, project=str(tmp_path), name=name)
        return tmp_path / name

    def keep(trainer: Any) -> None:
        if trainer.epoch == 0:
            shutil.copytree(trainer.save_dir, kept)

    plain = train("plain")
    assert not any(name.startswith("loss_stats/") for names in seen for name in names)
    seen.clear()
    watched = train("watched", loss_stats=True)
    assert [any(name.startswith("loss_stats/") for name in names) for names in seen] == [True, True, False]

    assert all(torch.equal(a, b) for a, b in zip(weights_of(plain).values(), weights_of(watched).values(), strict=True))
    assert results_of(plain).equals(results_of(watched))
    assert not (plain / FILE).exists()
    assert "loss_stats" not in yaml.safe_load((plain / "args.yaml").read_text())
    assert yaml.safe_load((watched / "args.yaml").read_text())["loss_stats"] is True
    rows = read(watched)
    assert [row["epoch"] for row in rows] == [1, 2]
    logged_terms = results_of(watched).select("train/box_loss", "train/cls_loss", "train/dfl_loss").rows()
    for row, terms in zip(rows, logged_terms, strict=True):
        assert row["batches"] == 2
        assert [row[f"share/{name}"] for name in ("box", "cls", "dfl")] == pytest.approx(
            [term / sum(terms) for term in terms], abs=1e-4
        )
    assert (watched / PICTURE).read_bytes().startswith(b"\x89PNG")

    again = YOLO(str(kept / "weights" / "last.pt"))
    again.train(resume=True, save_dir=str(kept))
    assert [row["epoch"] for row in read(kept)] == [1, 2]
    assert read(kept)[0] == pytest.approx(rows[0], nan_ok=True)  # no object of a size: NaN
