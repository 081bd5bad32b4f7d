"""Checkpoints travel: without the package they do all but resume, with it they resume as they were."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import TINY, logged, start, start_without_plugin
from ultralytics import YOLO

from yolo_losses.integration import arguments as policy
from yolo_losses.integration.callbacks import CALLBACKS
from yolo_losses.integration.state import STATE_FILE
from yolo_losses.registry.retired import RETIRED

pytestmark = pytest.mark.slow

CHOSEN = {"cls_loss": "ema_slide", "ema_slide_tau": 500.0, "box_loss": "giou", "dfl_loss": "dfl"}

# Ends as a crash does, at the start of the second epoch.
KILLED = """
import json, os, signal, sys
from ultralytics import YOLO
model = YOLO("yolov8n.yaml")
model.add_callback("on_train_epoch_start", lambda trainer: trainer.epoch == 1 and os.kill(os.getpid(), signal.SIGKILL))
model.train(data=sys.argv[1], project=sys.argv[2], **json.loads(sys.argv[3]))
"""


@dataclass
class Run:
    """A run that was killed after its first epoch."""

    folder: Path
    midrun: Path  # a copy of its last.pt
    said: list[str]

    @property
    def weights(self) -> Path:
        return self.folder / "weights"


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("killed")
    keys = {**TINY, "epochs": 2, **CHOSEN}
    result = start(sys.executable, "-c", KILLED, str(data), str(folder), json.dumps(keys))()
    assert result.code == -signal.SIGKILL, result.text[-2000:]
    run = folder / "train"
    shutil.copy(run / "weights" / "last.pt", folder / "midrun.pt")
    return Run(run, folder / "midrun.pt", result.saying("yolo_losses: "))


@pytest.fixture(scope="module")
def resumed(killed: Run) -> tuple[YOLO, list[str]]:
    """The killed run, resumed to its end, and what was said."""
    model = YOLO(killed.weights / "last.pt")
    with logged() as messages:
        # Keys that are the checkpoint's may be given again.
        model.train(resume=True, cls_loss="ema_slide", focal_gamma=3, device="cpu", workers=0)
    return model, [message.strip() for message in messages if "yolo_losses: " in message]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"cls_loss": "focal"}, "cls_loss=ema_slide; start a new run from last.pt to change it to focal"),
        ({"cls_loss": "stock"}, "cls_loss=ema_slide; start a new run from last.pt to change it to stock"),
        ({"box_loss": "ciou"}, "box_loss=giou; start a new run from last.pt to change it to ciou"),
        ({"ema_slide_tau": 9}, "ema_slide_tau=500.0; start a new run from last.pt to change it to 9.0"),
        ({"cls_scale": 2}, "cls_scale=1.0; start a new run from last.pt to change it to 2.0"),
    ],
)
def test_a_resume_with_another_loss_is_refused(keys, words, killed):
    before = sorted(killed.folder.rglob("*"))
    with pytest.raises(ValueError, match=f"^resume keeps {words}$"):
        YOLO(killed.midrun).train(resume=True, **keys, device="cpu")
    assert sorted(killed.folder.rglob("*")) == before


def test_a_resumed_run_has_the_keys_the_swap_and_the_state(killed, resumed):
    model, said = resumed
    useless, started, restored, ran = said
    assert "'focal_gamma' has no effect with cls=ema_slide(" in useless
    assert started == killed.said[0], "the same line as the first time"
    assert "cls_loss=ema_slide EMASlideLoss(" in started
    assert restored == f"yolo_losses: the losses' state is that of epoch 1, from {killed.weights / STATE_FILE}"
    assert ran.startswith("yolo_losses: ran in the first batch with objects: class, box, distribution")
    module = model.trainer.yolo_losses_run.branches[""].cls
    assert module.updates == 4, "two batches before the kill, two after"
    args = yaml.safe_load((killed.folder / "args.yaml").read_text())
    assert {key: args[key] for key in CHOSEN} == CHOSEN
    rows = (killed.folder / "results.csv").read_text().splitlines()
    assert len(rows) == 3


def test_a_checkpoint_says_with_which_loss_it_was_trained(killed, resumed):
    for path in (killed.midrun, killed.weights / "best.pt", killed.weights / "last.pt"):
        args = torch.load(path, weights_only=False)["train_args"]
        assert {key: args[key] for key in CHOSEN} == CHOSEN


TRAVEL = """
import json, sys
import numpy as np
from ultralytics import YOLO
data, project, *paths = sys.argv[1:]
tiny = dict(imgsz=64, batch=4, device="cpu", workers=0, plots=False, verbose=False)
for path in paths:
    model = YOLO(path)
    assert len(model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, verbose=False)) == 1
    assert model.val(data=data, project=project, **tiny).box.map >= 0
    exported = YOLO(path).export(format="torchscript", imgsz=64, device="cpu")
    assert len(YOLO(exported, task="detect").predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, verbose=False)) == 1
    tuned = YOLO(path)
    tuned.train(data=data, project=project, epochs=1, amp=False, optimizer="SGD", **tiny)
    assert "cls_loss" not in vars(tuned.trainer.args), "fine-tuning is a run of its own"
    print("TRAVELLED", path)
assert not [name for name in sys.modules if name.startswith("yolo_losses")]
try:
    YOLO(paths[0]).train(resume=True)
except SyntaxError as error:
    print("RESUME", error)
"""


def test_checkpoints_do_everything_but_resume_without_the_package(killed, resumed, data, tmp_path):
    paths = [str(path) for path in (killed.midrun, killed.weights / "best.pt", killed.weights / "last.pt")]
    result = start_without_plugin(TRAVEL, str(data), str(tmp_path), *paths)().check()
    assert [line.split()[-1] for line in result.saying("TRAVELLED")] == paths
    (refused,) = result.saying("RESUME")
    assert "is not a valid YOLO argument" in refused


def test_fine_tuning_with_the_package_does_not_inherit_the_loss_and_says_so(killed, data, tmp_path):
    model = YOLO(killed.midrun)
    with logged() as messages:
        model.train(data=str(data), project=str(tmp_path), **TINY)
    (message,) = [message for message in messages if "yolo_losses: " in message]
    assert "was trained with cls_loss=ema_slide" in message
    assert "this run is stock" in message


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        ({"cls_loss": "ghmx", "epochs": 3}, "cls_loss=ghmx"),
        ({"cls_loss": "focal", "focal_gamma": -5.0}, "cls_loss=focal, focal_gamma=-5.0"),
        ({"cls_weights": [1.0, 2.0]}, "cls_weights=[1.0, 2.0]"),
        ({"loss_stats": True, "epochs": 3}, ""),
        (None, ""),
    ],
)
def test_a_stock_run_says_what_its_checkpoint_was_trained_with_as_it_stands(trained, words, tmp_path):
    path = tmp_path / "last.pt"
    torch.save({"train_args": trained}, path)
    arguments = SimpleNamespace(model=str(path), pretrained=True)
    with logged() as messages:
        CALLBACKS["on_pretrain_routine_end"](SimpleNamespace(args=arguments, resume=False, save_dir=tmp_path))
    said = f"yolo_losses: last.pt was trained with {words}; this run is stock, since these keys were not given"
    found = [m[m.index("yolo_losses") :] for m in messages if "was trained with" in m]
    assert found == ([said] if words else [])


def test_a_checkpoint_that_cannot_be_read_is_a_line_and_no_error(tmp_path):
    path = tmp_path / "last.pt"
    torch.save({"train_args": {"cls_loss": "focal"}, "weights": torch.ones(9999)}, path)
    path.write_bytes(path.read_bytes()[:999])
    arguments = SimpleNamespace(model=str(path), pretrained=True)
    with logged() as messages:
        CALLBACKS["on_pretrain_routine_end"](SimpleNamespace(args=arguments, resume=False, save_dir=tmp_path))
    assert [message for message in messages if "cannot read which losses last.pt was trained with" in message]


def test_a_retired_key_is_named_with_what_to_do_on_resume_and_in_fine_tuning(killed, data, tmp_path, monkeypatch):
    monkeypatch.setitem(RETIRED, "ghm_sharpness", "ghm_momentum does the same")
    saved = torch.load(killed.midrun, weights_only=False)
    saved["train_args"] |= {"ghm_sharpness": 3.0}
    path = tmp_path / "last.pt"
    torch.save(saved, path)
    with pytest.raises(ValueError, match=r"^'ghm_sharpness=3\.0' is not valid") as error:
        YOLO(path).train(resume=True)
    assert "An earlier version of yolo_losses had it: ghm_momentum does the same." in str(error.value)
    assert "Resume a run that was trained with it with that version" in str(error.value)
    with logged() as messages:
        CALLBACKS["on_pretrain_routine_end"](
            SimpleNamespace(args=SimpleNamespace(model=str(path), pretrained=True), resume=False, save_dir=tmp_path)
        )
    assert [message for message in messages if "ghm_sharpness=3.0; this run is stock" in message]


@pytest.mark.parametrize(("keys", "hint"), [({"cls_loss": "ghmx"}, True), ({"cls_scale": -1.0}, False)])
def test_a_plugin_is_named_only_where_the_loss_of_a_resumed_run_is_not_known(keys, hint):
    trainer = SimpleNamespace(args=SimpleNamespace(**keys, resume=True, task="detect"), resume=True)
    with pytest.raises(ValueError, match=r"is not valid") as error:
        policy.check(trainer, {})
    assert ("YOLO_LOSSES_PLUGINS" in str(error.value)) is hint
