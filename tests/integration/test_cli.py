"""The stock command and its relatives: who knows the keys, what a run says of itself, train and validation alike."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CONFIGS, ROOT, SITE_PACKAGES, TINY, logged, pairs, start, start_without_plugin, start_yolo
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

SLIDE_START = (
    "yolo_losses: cls_loss=slide SlideLoss(delta=0.1, min_iou=0.2), target: assigner score; box_loss=stock;"
    " dfl_loss=stock; equipped for training and validation"
)


def results(folder: Path) -> list[dict[str, float]]:
    """Return the rows of a run's results.csv."""
    with open(folder / "results.csv", newline="") as file:
        return [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def arguments(folder: Path) -> dict[str, Any]:
    """Return a run's args.yaml."""
    return yaml.safe_load((folder / "args.yaml").read_text())


def said(lines: list[str]) -> list[str]:
    """Return what the package said, wherever on the screen; the progress bar may stand in front of it."""
    return [line[line.index("yolo_losses: ") :] for line in lines if "yolo_losses: " in line]


@pytest.mark.slow
def test_the_stock_command_trains_by_key_and_by_config(data: Path, tmp_path: Path) -> None:
    """Both say what they trained in two lines and in args.yaml; the log of train and validation is of one kind."""
    common = pairs(data=data, project=tmp_path, **TINY)
    by_key = start_yolo("train", "model=yolov8n.yaml", "cls_loss=slide", *common, "name=key")
    by_config = start_yolo("train", f"cfg={CONFIGS / 'slide.yaml'}", "model=yolo26n.yaml", *common, "name=config")
    first, last = said(by_key().check().lines)
    assert first == SLIDE_START
    found = re.fullmatch(
        r"yolo_losses: ran in the first batch with objects: class; class term (\S+) times BCE's on the same"
        r" predictions, \S+ times in gradient on the positives( \(.+ below which its weight is 1\))?",
        last,
    )
    assert found
    assert 1 <= float(found[1]) < 2.72  # slide's weights lie between 1 and e
    first, last = said(by_config().check().lines)
    assert first == f"{SLIDE_START} (one2many, one2one)".replace("dfl_loss", "l1_loss")
    assert re.fullmatch(
        r"yolo_losses: ran in the first batch with objects: one2many class; one2one class;"
        r" one2many class term \S+ times .*; one2one class term \S+ times .*; the log shows one2one",
        last,
    )
    for name in ("key", "config"):
        assert arguments(tmp_path / name)["cls_loss"] == "slide"
        assert "focal_gamma" not in arguments(tmp_path / name)
        row = results(tmp_path / name)[-1]
        assert 0.3 < row["val/cls_loss"] / row["train/cls_loss"] < 3


# What Ultralytics starts by itself does not import this package.
TUNE = """
import json, sys
from ultralytics import YOLO
tiny = json.loads(sys.argv[3])
YOLO("yolov8n.yaml").tune(data=sys.argv[1], project=sys.argv[2], iterations=1, space={"focal_gamma": (2.25, 2.5)},
                          cls_loss="focal", **tiny)
"""


@pytest.mark.slow
def test_a_subprocess_of_the_tuner_and_an_interpreter_without_start_up_files_train(data: Path, tmp_path: Path) -> None:
    tuner = start(sys.executable, "-c", TUNE, str(data), str(tmp_path / "tune"), json.dumps(TINY))
    path = {"PYTHONPATH": ":".join([str(ROOT), *SITE_PACKAGES])}  # folders on it have no start-up files
    keys = pairs(model="yolov10n.yaml", data=data, project=tmp_path, name="module", cls_loss="slide", **TINY)
    module = start(sys.executable, "-S", "-m", "yolo_losses", "train", *keys, **path)
    ran = said(module().check().lines)
    assert ran[0] == f"{SLIDE_START} (one2many, one2one)"
    assert "one2many class; one2one class;" in ran[1]
    assert len(ran) == 2
    result = tuner().check()
    ran = said(result.lines)
    assert [line for line in ran if line.startswith("yolo_losses: cls_loss=focal FocalLoss(gamma=2.")], result.text
    assert [line for line in ran if "ran in the first batch with objects: class;" in line]
    tuned = [arguments(path.parent) for path in (tmp_path / "tune").rglob("args.yaml")]
    tuned = [args for args in tuned if "cls_loss" in args]
    assert tuned
    assert all(args["cls_loss"] == "focal" and 2.25 <= args["focal_gamma"] <= 2.5 for args in tuned)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "start_line", "ran"),
    [
        ({"cls_loss": "slide"}, "cls_loss=slide SlideLoss(", "class;"),
        ({"cfg": str(CONFIGS / "slide.yaml")}, "cls_loss=slide SlideLoss(", "class;"),
        (
            {"cls_loss": "ema_slide", "box_loss": "giou", "dfl_loss": "dfl", "cls_scale": 0.001},
            "cls_loss=ema_slide EMASlideLoss(",
            "class, box, distribution;",
        ),
    ],
    ids=["key", "config", "all terms"],
)
def test_python_trains_by_key_and_by_config(keys, start_line, ran, data, tmp_path):
    """And validation logs the same loss as training, without a write to its state."""
    model = YOLO("yolov8n.yaml")
    updates: list[tuple[str, float]] = []

    def note(event: str) -> Callable[[Any], None]:
        def callback(trainer: Any) -> None:
            module = trainer.yolo_losses_run.branches[""].cls
            if hasattr(module, "updates"):
                updates.append((event, float(module.updates)))

        return callback

    for event in ("on_train_epoch_end", "on_fit_epoch_end"):
        model.add_callback(event, note(event))
    with logged() as messages:
        model.train(data=str(data), project=str(tmp_path), **keys, **TINY)
    lines = said(messages)
    assert len(lines) == 2
    assert lines[0].startswith(f"yolo_losses: {start_line}")
    assert lines[0].endswith("equipped for training and validation")
    assert f"ran in the first batch with objects: {ran}" in lines[1]
    row = results(tmp_path / "train")[-1]
    if "cls_scale" in keys:
        # Stock's is above 1 on both; here both are a thousandth.
        assert row["train/cls_loss"] < 0.02
        assert row["val/cls_loss"] < 0.02
        assert "class term 0.00" in lines[1]
        trained, validated = updates[:2]
        assert trained == ("on_train_epoch_end", 2.0)  # two batches
        assert validated == ("on_fit_epoch_end", 2.0)
    else:
        assert row["train/cls_loss"] > 0.5
        assert row["val/cls_loss"] > 0.5


def test_a_trainer_whose_callbacks_were_replaced_trains_the_chosen_loss(data, tmp_path):
    trainer = DetectionTrainer(
        overrides={**TINY, "model": "yolov8n.yaml", "data": str(data), "project": str(tmp_path), "cls_loss": "slide"}
    )
    for event in list(trainer.callbacks):
        trainer.set_callback(event, lambda trainer: None)
    with logged() as messages:
        trainer.train()
    assert [line.split(";")[0] for line in said(messages)] == [
        SLIDE_START.split(";")[0],
        "yolo_losses: ran in the first batch with objects: class",
    ]


class Deaf(DetectionTrainer):
    """A trainer whose override of run_callbacks drops the event that ends its set-up."""

    def run_callbacks(self, event: str) -> None:
        if event != "on_pretrain_routine_end":
            super().run_callbacks(event)


def test_a_run_whose_criteria_were_not_equipped_does_not_start(data, tmp_path):
    overrides = {**TINY, "model": "yolov8n.yaml", "data": str(data), "project": str(tmp_path)}
    with pytest.raises(RuntimeError, match="did not call the callbacks of 'on_pretrain_routine_end'"):
        Deaf(overrides={**overrides, "cls_loss": "slide"}).train()
    Deaf(overrides={**overrides, "cls_loss": "stock"}).train()


@pytest.mark.parametrize("event", ["on_train_start", "on_train_batch_end", "on_train_epoch_end"])
def test_a_criterion_that_is_rebuilt_is_equipped_again_and_said_so(data, tmp_path, event):
    """Model and EMA alike: no batch and no validation runs stock."""
    model = YOLO("yolov8n.yaml")

    def forget(trainer: Any) -> None:
        trainer.model.criterion = trainer.ema.ema.criterion = None

    model.add_callback(event, forget)
    with logged() as messages:
        model.train(data=str(data), project=str(tmp_path), cls_loss="slide", **{**TINY, "epochs": 2})
    lines = said(messages)
    assert [line for line in lines if "criterion for training was replaced after set-up; it is equipped again" in line]
    # That of the EMA is built as it validates, so that only one that has validated is replaced.
    again = [line for line in lines if "criterion for validation was replaced after set-up" in line]
    assert len(again) == (event != "on_train_start")
    assert not [line for line in lines if "validation did not call" in line]


@pytest.mark.slow
def test_switched_off_it_leaves_ultralytics_as_it_was(tmp_path):
    """With YOLO_LOSSES_DISABLE=1 the key is refused in the words that Ultralytics has without the package."""
    line = ["train", "model=yolov8n.yaml", "data=nowhere.yaml", f"project={tmp_path}", "cls_loss=slide"]
    off = start_yolo(*line, YOLO_LOSSES_DISABLE="1")
    gone = start_without_plugin("from ultralytics.cfg import entrypoint\nentrypoint()", *line)
    off_result, gone_result = off(), gone()
    assert off_result.code == gone_result.code == 1
    assert off_result.lines[-1].startswith("SyntaxError: 'cls_loss' is not a valid YOLO argument.")
    assert off_result.lines[-1] == gone_result.lines[-1]
    assert not off_result.saying("yolo_losses: ")


def test_the_start_up_file_costs_under_a_millisecond_and_imports_neither_torch_nor_ultralytics():
    code = "import sys; print(*[m for m in ('torch', 'ultralytics', 'yolo_losses', 'typing') if m in sys.modules])"
    costs = []
    for _ in range(5):  # the best of some: another process may get in the way of one
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
        )
        rows = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")]
        cost = [int(row[1]) for row in rows if row[2].strip() == "yolo_losses_autoload"]
        assert len(cost) == 1, "installed, and imported once"
        costs.append(cost[0])
        assert done.stdout.strip() == ""
    assert min(costs) < 1000, costs
