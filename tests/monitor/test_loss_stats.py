"""`loss_stats.csv`, its picture, and what loggers get: beside a training that is the same without them."""

from __future__ import annotations

import io
import math
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import polars as pl
import pytest
import torch
import yaml
from conftest import TINY, Model, criterion_of, logged, made_up_batch, predictions
from conftest import run as step
from matplotlib import font_manager

from yolo_losses.config.settings import LossSettings
from yolo_losses.integration import callbacks
from yolo_losses.integration import run as runs
from yolo_losses.monitor import picture, table
from yolo_losses.monitor.loss_stats import LOGGED_CLASSES, PICTURE, LossStats, plain_names
from yolo_losses.monitor.table import FILE, read, split
from yolo_losses.plots.style import installed_fonts

COLUMNS = {"batches": 2.0, "share/box": 0.25, "share/cls": 0.75, "one2one/by_class/a": 1.0, "mean_iou": math.nan}


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_holds_a_row_for_each_epoch(tmp_path: Path) -> None:
    table = LossStats(tmp_path, 0)
    for epoch in (1, 2, 3):
        table.add(epoch, {**COLUMNS, "share/box": 0.1 * epoch})
    rows = read(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["share/box"] for row in rows] == pytest.approx([0.1, 0.2, 0.3])
    assert list(rows[0]) == ["epoch", *COLUMNS]
    assert math.isnan(rows[0]["mean_iou"])
    assert pl.read_csv(tmp_path / FILE)["share/cls"].to_list() == [0.75] * 3  # as people read it
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_resumed_run_goes_on_after_the_epochs_of_its_checkpoint(tmp_path: Path) -> None:
    before = LossStats(tmp_path, 0)
    for epoch in (1, 2, 3):
        before.add(epoch, COLUMNS)
    after = LossStats(tmp_path, 2)  # killed after the third row, before its checkpoint
    after.add(3, {**COLUMNS, "share/box": 0.9})
    assert [(row["epoch"], row["share/box"]) for row in read(tmp_path)] == [(1, 0.25), (2, 0.25), (3, 0.9)]
    LossStats(tmp_path, 0).add(1, COLUMNS)  # a new run in an old folder
    assert [row["epoch"] for row in read(tmp_path)] == [1]


def test_an_epoch_that_is_done_again_has_one_row(tmp_path: Path) -> None:
    table = LossStats(tmp_path, 0)
    for epoch, share in ((1, 0.1), (2, 0.2), (2, 0.3)):
        table.add(epoch, {"share/box": share})
    assert [(row["epoch"], row["share/box"]) for row in read(tmp_path)] == [(1, 0.1), (2, 0.3)]


def test_a_column_that_comes_later_is_empty_before(tmp_path: Path) -> None:
    table = LossStats(tmp_path, 0)
    table.add(1, {"share/box": 0.1})
    table.add(2, {"share/box": 0.2, "threshold": 0.5})
    assert math.isnan(read(tmp_path)[0]["threshold"])
    assert read(tmp_path)[1]["threshold"] == 0.5


def test_a_file_that_cannot_be_written_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = LossStats(tmp_path, 0)
    table.add(1, COLUMNS)
    kept = (tmp_path / FILE).read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with logged() as said:
        table.add(2, COLUMNS)
        table.add(3, COLUMNS)
    assert len(said) == 1
    assert "could not be written" in said[0]
    assert (tmp_path / FILE).read_bytes() == kept


@pytest.mark.parametrize("text", ["", "epoch,a\n1", "epoch,a\n1,x\n", "time,a\n1,2\n"])
def test_a_file_of_something_else_has_no_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert read(tmp_path) == []


WHOLE = "epoch,share/cls\n1,0.25\n2,0.5\n"


@pytest.mark.parametrize(
    ("content", "epochs", "reason"),
    [
        (WHOLE.encode("utf-8-sig"), [1, 2], ""),
        (WHOLE.replace("\n", "\r\n").encode(), [1, 2], ""),
        (WHOLE.replace(",", ";").replace(".", ",").encode(), [1, 2], ""),
        (f"{WHOLE}\n\n".encode(), [1, 2], ""),
        (f"{WHOLE}3".encode(), [1, 2], "1 of its lines cannot be read"),
        (f"{WHOLE}3,0.1".encode(), [1, 2], "1 of its lines cannot be read"),  # it may have been 0.125
        (f"{WHOLE}3,\x00\n4,0.5\n".encode(), [1, 2, 4], "1 of its lines cannot be read"),
        (b"", [], "it cannot be read"),
        (b"my notes\n", [], "it cannot be read"),
        (b"\xff\xfe\x00", [], "it cannot be read"),
    ],
)
def test_a_resumed_run_keeps_every_row_that_can_be_read_and_what_cannot_be_read_under_another_name(
    tmp_path: Path, content: bytes, epochs: list[int], reason: str
) -> None:
    (tmp_path / FILE).write_bytes(content)
    with logged() as messages:
        resumed = LossStats(tmp_path, 9)
    assert [row["epoch"] for row in resumed.rows] == epochs
    assert all(row["share/cls"] in (0.25, 0.5) for row in resumed.rows)
    assert len([m for m in messages if reason and reason in m and f"it is kept as {FILE}.old" in m]) == bool(reason)
    assert [path.read_bytes() for path in tmp_path.glob("*.old")] == [content] * bool(reason)
    resumed.add(10, {"share/cls": 0.125})
    assert [row["epoch"] for row in read(tmp_path)] == [*epochs, 10]
    assert not list(tmp_path.glob("*.part"))


def test_a_file_that_is_kept_takes_the_place_of_no_other(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        (tmp_path / FILE).write_bytes(content)
        LossStats(tmp_path, 1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        f"{FILE}.old": b"one",
        f"{FILE}.old2": b"two",
    }


def test_a_file_that_can_neither_be_read_nor_renamed_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / FILE).write_text(WHOLE)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        patched.setattr(Path, "rename", refuse)
        with logged() as messages:
            resumed = LossStats(tmp_path, 2)
    assert len([m for m in messages if "Permission denied" in m and "no statistics are written" in m]) == 1
    resumed.add(3, {"share/cls": 0.1})
    assert (tmp_path / FILE).read_text() == WHOLE
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        with pytest.raises(PermissionError):
            table.read(tmp_path)


def test_the_picture_names_run_and_losses_in_the_letters_of_the_classes(tmp_path: Path) -> None:
    names = ["行人", "пешеход", "자전거"]
    folder = tmp_path / "train7"
    folder.mkdir()
    statistics = LossStats(folder, 0, "cls=slide box=siou")
    statistics.add(1, {f"by_class/{name}": 0.25 for name in plain_names(names)})
    with warnings.catch_warnings(), logged() as messages:
        warnings.simplefilter("error")
        drawn = statistics.draw()
    assert drawn is not None, messages
    figure = picture.figure(statistics.rows, "train7: cls=slide box=siou")
    assert figure.get_suptitle() == "train7: cls=slide box=siou"
    chosen = installed_fonts("".join(names))["font.family"]
    assert chosen[0] == "DejaVu Sans"
    if any("CJK" in file for file in font_manager.findSystemFonts()):
        assert any("CJK" in name for name in chosen[1:])
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a letter without a glyph
            with mpl.rc_context({"font.enable_last_resort": False}):
                figure.savefig(io.BytesIO())
    assert installed_fonts("пешеход")["font.family"] == ["DejaVu Sans"]


def test_names_of_classes_are_unique_and_plain() -> None:
    assert plain_names(["car 2", "car", "car"]) == ["car 2", "car", "car 3"]
    names = plain_names(["person", "traffic light", "a/b,c", "a_b_c", "行人", "", 3, "x" * 300, "person"])
    assert names[:7] == ["person", "traffic light", "a_b_c", "a_b_c 3", "行人", "_", "3"]
    assert len(names[7]) == 60
    assert len(set(names)) == 9
    assert not any(set(name) & set('/,"()\n') for name in names)


def test_a_column_names_branch_group_and_item() -> None:
    assert split("mean_iou") == ("", "mean_iou", "")
    assert split("share/box") == ("", "share", "box")
    assert split("one2one/by_class/share") == ("one2one", "by_class", "share")
    assert split("one2many.vp_criterion/by_score/0.2-0.4") == ("one2many.vp_criterion", "by_score", "0.2-0.4")


def test_loggers_get_the_last_row_without_what_is_missing_and_not_too_many_classes(tmp_path: Path) -> None:
    table = LossStats(tmp_path, 0)
    assert table.logged() == {}
    classes = {f"by_class/{number}": 0.1 for number in range(LOGGED_CLASSES - 1)}  # and one of the other branch
    table.add(1, {**COLUMNS, **classes})
    assert {f"loss_stats/{name}" for name in [*classes, "share/box"]} <= table.logged().keys()
    assert "loss_stats/mean_iou" not in table.logged()
    assert "loss_stats/epoch" not in table.logged()
    table.add(2, {**COLUMNS, **classes, "by_class/more": 0.1, "one2one/by_score/0.0-0.2": 1})
    assert {split(name.removeprefix("loss_stats/"))[1] for name in table.logged()} == {"batches", "share", "by_score"}


def test_the_picture_has_six_panels_for_each_branch(tmp_path: Path) -> None:
    own = {"cls_to_bce/value": 0.2, "cls_scale": 2.0, "positives": 9.0, "threshold": 0.4, "mean_iou": 0.5}
    own |= {f"by_class/{number}": 0.1 for number in range(10)}
    rows = [{"epoch": e, **{f"{b}/{k}": v for b in ("one2many", "one2one") for k, v in own.items()}} for e in (1, 2)]
    drawn = picture.figure(rows)
    assert len(drawn.axes) == 12
    assert [axes.get_title(loc="left") for axes in drawn.axes][6] == "one2one: terms, share of the loss"
    labels = [text.get_text() for text in drawn.axes[5].get_legend().get_texts()]
    assert labels == ["2 others", *map(str, reversed(range(8)))]
    assert len(picture.figure([{"epoch": 1, **COLUMNS}]).axes) == 12  # that row is of two branches too
    assert LossStats(tmp_path, 0).draw() is None


def test_two_more_panels_show_the_assignment_by_size_of_the_objects_that_there_are() -> None:
    own = {"without_positive/0-16": 0.2, "without_positive/16-32": 0.1, "without_positive/over 96": math.nan}
    own |= {"positives_per_object/0-16": 3.0, "positives_per_object/16-32": 9.0}
    drawn = picture.figure([{"epoch": epoch, **own} for epoch in (1, 2)])
    titles = [axes.get_title(loc="left") for axes in drawn.axes]
    assert (len(titles), titles[2], titles[6]) == (8, "objects without a positive", "positives per object")
    legend = [text.get_text() for text in drawn.axes[2].get_legend().get_texts()]
    assert legend == ["0-16 px", "16-32 px"]
    assert [line.get_ydata()[0] for line in drawn.axes[6].get_lines()] == [3.0, 9.0]


# --- a run, and the loggers ------------------------------------------------------------------------------------------


class Trainer(SimpleNamespace):
    """Something that can be referred to weakly."""


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
def test_a_run_of_stock_terms_is_looked_at_and_claims_nothing(head: str, tmp_path: Path) -> None:
    with logged() as said:
        trainer = trainer_of(tmp_path, head)
        run = one_epoch(trainer, {"loss_stats": True}, head)
        run.after_batch(trainer)
        run.end_epoch(trainer)
    assert [line for line in said if line.startswith("yolo_losses")] == [
        f"yolo_losses: statistics of the losses, an epoch at a time: {tmp_path / FILE}"
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


# --- a training ------------------------------------------------------------------------------------------------------


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
