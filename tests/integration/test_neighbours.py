"""Living beside others: other modes, other trainings, other people's classes, hooks and mistakes."""

from __future__ import annotations

import csv
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import (
    TINY,
    Model,
    criterion_of,
    logged,
    made_up_batch,
    predictions,
    run,
    start,
    start_without_plugin,
    start_yolo,
)
from make_dataset import Task
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.loss import v8DetectionLoss

import yolo_losses
from yolo_losses.integration import callbacks, hook
from yolo_losses.integration.criteria import anchors


def results(trainer: Any) -> list[dict[str, str]]:
    """Return what a run logged, without its clock."""
    with (Path(trainer.save_dir) / "results.csv").open(encoding="utf-8") as file:
        return [{k.strip(): v for k, v in row.items() if k.strip() != "time"} for row in csv.DictReader(file)]


def train(model: Any, folder: Path, name: str, data: Path, **keys: Any) -> Any:
    """Train for an epoch and return the trainer."""
    model.train(data=str(data), project=str(folder), name=name, **{**TINY, **keys})
    return model.trainer


# Modes other than train.

MODES = """
import json, sys, torch
from pathlib import Path
from ultralytics import YOLO
data, folder = Path(sys.argv[1]), Path(sys.argv[2])
torch.manual_seed(0)
YOLO("yolov8n.yaml").save(folder / "model.pt")
model = YOLO(folder / "model.pt")
options = dict(imgsz=64, device="cpu", verbose=False, project=str(folder))
image = next((data.parent / "images" / "val").iterdir())
found = model.predict(image, conf=0.0, max_det=5, **options)[0]
metrics = model.val(data=str(data), workers=0, plots=False, conf=0.001, **options)
exported = Path(model.export(format="torchscript", imgsz=64, device="cpu"))
arguments = {key: str(value) for key, value in vars(model.predictor.args).items()}
print("FOUND", json.dumps({
    "boxes": found.boxes.data.tolist(),
    "metrics": {key: float(value) for key, value in metrics.results_dict.items()},
    "export": torch.jit.load(exported)(torch.ones(1, 3, 64, 64)).sum().item(),
    "plugin": "yolo_losses.integration.hook" in sys.modules,
}))
"""


@pytest.mark.slow
def test_predict_val_and_export_are_what_they_are_without_the_plugin(tmp_path: Path, data: Path) -> None:
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    waits = [
        start(sys.executable, "-c", MODES, str(data), str(tmp_path / "with")),
        start_without_plugin(MODES, str(data), str(tmp_path / "without")),
    ]
    lines = [wait().check().saying("FOUND ")[0] for wait in waits]
    with_plugin, without = (json.loads(line.split("FOUND ")[1]) for line in lines)
    assert with_plugin.pop("plugin")
    assert not without.pop("plugin")
    assert with_plugin == without
    assert with_plugin["boxes"]


# Trainings in one process.


@pytest.mark.slow
def test_a_training_leaves_nothing_behind_for_the_next_one(tmp_path: Path, data: Path) -> None:
    before = train(YOLO("yolov8n.yaml"), tmp_path, "before", data)
    model = YOLO("yolov8n.yaml")
    chosen = train(model, tmp_path, "chosen", data, cls_loss="focal", box_loss="giou", focal_gamma=3.0)
    other = train(YOLO("yolov8n.yaml"), tmp_path, "other", data, cls_loss="vfl", dfl_loss="off")
    after = train(YOLO("yolov8n.yaml"), tmp_path, "after", data)
    assert results(before) == results(after)
    assert results(chosen) != results(other) != results(after)
    assert other.yolo_losses_run.settings.non_default() == {"cls_loss": "vfl", "dfl_loss": "off"}
    assert not {"cls_loss", "focal_gamma"} & vars(after.args).keys()
    # The same model again, now without a key: stock.
    again = train(model, tmp_path, "again", data)
    assert again.yolo_losses_run is None
    assert not {"cls_loss", "focal_gamma"} & vars(again.args).keys()
    assert DEFAULT_CFG_DICT["cls_loss"] == "stock"
    assert DEFAULT_CFG_DICT["focal_gamma"] == 1.5


def test_equipping_one_criterion_leaves_another_and_the_classes_alone() -> None:
    equipped, stock = criterion_of("v8"), criterion_of("v8")
    classes = dict(vars(v8DetectionLoss)), dict(vars(type(stock.bbox_loss))), dict(vars(type(stock.assigner)))
    parts = stock.bce, stock.assigner, stock.bbox_loss, stock.bbox_loss.dfl_loss
    expected = run(stock, predictions("v8"), made_up_batch("v8"))
    yolo_losses.equip(equipped, {"cls_loss": "focal", "box_loss": "siou", "dfl_loss": "off"})
    assert run(equipped, predictions("v8"), made_up_batch("v8"))[0] != expected[0]
    assert run(stock, predictions("v8"), made_up_batch("v8"))[0] == expected[0]
    assert all(a is b for a, b in zip(parts, (stock.bce, stock.assigner, stock.bbox_loss, stock.bbox_loss.dfl_loss)))  # noqa: B905
    kinds = v8DetectionLoss, type(stock.bbox_loss), type(stock.assigner)
    assert classes == tuple(dict(vars(kind)) for kind in kinds)


def test_threads_give_what_one_after_another_gives() -> None:
    """Losses with state: a thread that saw the other's step, or wrote its state, would come to other numbers."""
    keys = (
        {"cls_loss": "ema_slide", "box_loss": "wiou", "ema_slide_tau": 2},
        {"cls_loss": "ghm", "box_loss": "nwd", "cls_target": "iou"},
    )
    outputs = [predictions("v8", seed=seed) for seed in range(4)]
    batches = [made_up_batch("v8", seed=seed) for seed in range(4)]

    def steps(which: int, barrier: threading.Barrier | None = None) -> list[dict[str, float]]:
        own = criterion_of("v8")
        yolo_losses.equip(own, keys[which])
        found = []
        for step in range(4):
            if barrier:
                barrier.wait(60)
            found.append(run(own, outputs[(step + which) % 4], batches[(step + which) % 4])[0])
        return found

    alone = [steps(0), steps(1)]
    together: dict[int, list[dict[str, float]]] = {}
    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=lambda w=w: together.update({w: steps(w, barrier)})) for w in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [together[0], together[1]] == alone
    assert alone[0] != alone[1]


# install() and uninstall().

UNINSTALL = """
import os, sys
from ultralytics import YOLO
import ultralytics.engine.tuner, ultralytics.engine.trainer, ultralytics.cfg, ultralytics.utils.loss

def snapshot():
    found = {"meta_path": [id(finder) for finder in sys.meta_path]}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "ultralytics":
            continue
        for key, value in list(vars(module).items()):
            found[name, key] = id(value)
            if isinstance(value, type) and value.__module__.startswith("ultralytics"):
                found.update({(name, key, attribute): id(inner) for attribute, inner in vars(value).items()})
    found["keys"] = dict(ultralytics.utils.DEFAULT_CFG_DICT)
    found["defaults"] = dict(vars(ultralytics.utils.DEFAULT_CFG))
    found["callbacks"] = repr(ultralytics.utils.callbacks.get_default_callbacks())
    return found

clean = snapshot()
del os.environ["YOLO_LOSSES_DISABLE"]
import yolo_losses
from yolo_losses import registry
from yolo_losses.integration import hook
active = snapshot()
changed = {key for key in clean if clean[key] != active[key]}
assert {"keys", "defaults"} <= changed and hook.is_active(), changed
assert len(changed) >= 5, changed
yolo_losses.install()
assert snapshot() == active, "installing twice is not installing once"
yolo_losses.uninstall()
left = snapshot()
assert left == clean, [key for key in clean if clean[key] != left.get(key)]
assert not hook.is_active()
try:
    YOLO("yolov8n.yaml").train(data="nowhere.yaml", cls_loss="focal")
except SyntaxError as error:
    assert "cls_loss" in str(error)
else:
    raise AssertionError("the key is still known")

yolo_losses.register_cls_loss("late")(lambda logits, targets, slope=2.0: logits * slope)
assert "late_slope" not in ultralytics.utils.DEFAULT_CFG_DICT, "a loss that is registered now is no key"
yolo_losses.install()
assert hook.is_active() and {"cls_loss", "focal_gamma", "late_slope"} <= set(ultralytics.utils.DEFAULT_CFG_DICT)
try:
    YOLO("yolov8n.yaml").train(data="nowhere.yaml", cls_loss="fokal")
except ValueError as error:
    assert "focal" in str(error)
else:
    raise AssertionError("installed again, nothing is checked")
print("DONE")
"""


@pytest.mark.slow
def test_uninstall_puts_everything_back_and_install_works_again() -> None:
    assert start(sys.executable, "-c", UNINSTALL, YOLO_LOSSES_DISABLE="1")().check().lines[-1] == "DONE"


# Other people's classes.


class SmoothedAssigner(torch.nn.Module):
    """Someone's own assigner: a little of every positive goes to the other classes."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.stock = stock

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        labels, boxes, scores, foreground, index = self.stock(*args, **kwargs)
        return labels, boxes, scores * 0.9 + 0.1 * foreground.unsqueeze(-1) / scores.shape[-1], foreground, index


class OwnLoss(v8DetectionLoss):
    """Someone's own criterion."""

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self.assigner = SmoothedAssigner(self.assigner)


class OwnModel(DetectionModel):
    """Someone's own model class."""

    def init_criterion(self) -> OwnLoss:
        return OwnLoss(self)


class OwnTrainer(DetectionTrainer):
    """Someone's own trainer."""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> OwnModel:
        return OwnModel(cfg, nc=self.data["nc"], verbose=False)


@pytest.mark.parametrize("chunk", [64, 2**17])
def test_soft_targets_of_someone_s_own_assigner_reach_the_loss_whole(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BCE on them is stock's, to float32 rounding: an anchor with several classes is not taken for one-hot."""
    stock, equipped = OwnLoss(stock_model()), OwnLoss(stock_model())
    monkeypatch.setattr("yolo_losses.losses.classification._batch.CHUNK", chunk)
    yolo_losses.equip(equipped, {"cls_loss": "bce"})
    expected = run(stock, predictions("v8"), made_up_batch("v8"))
    found = run(equipped, predictions("v8"), made_up_batch("v8"))
    assert found[0]["cls_loss"] == pytest.approx(expected[0]["cls_loss"], rel=1e-6)
    for gradient, of_stock in zip(found[2], expected[2], strict=True):
        if gradient is not None:
            torch.testing.assert_close(gradient, of_stock, rtol=1e-4, atol=1e-6)


def stock_model() -> Any:
    from conftest import head

    return head("v8")


@pytest.mark.slow
def test_someone_s_own_trainer_model_criterion_and_callbacks_get_the_loss(tmp_path: Path, data: Path) -> None:
    called: list[str] = []
    callbacks = {"on_train_start": [lambda trainer: called.append("theirs")]}
    overrides = {**TINY, "model": "yolov8n.yaml", "data": str(data), "project": str(tmp_path), "name": "own"}
    trainer = OwnTrainer(overrides={**overrides, "cls_loss": "focal"}, _callbacks=with_every_event(callbacks))
    with logged() as messages:
        trainer.train()
    assert called == ["theirs"]
    assert trainer.yolo_losses_run.equipment.proven
    assert list(trainer.yolo_losses_run.equipment.criteria) == ["training", "validation"]
    assert isinstance(trainer.model.criterion, OwnLoss)
    assert any("ran in the first batch" in message for message in messages)


def with_every_event(callbacks: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return callbacks with an empty list for every other event, which some releases ask for."""
    from ultralytics.utils.callbacks import default_callbacks

    return {**{event: [] for event in default_callbacks}, **callbacks}


def test_a_trainer_s_own_callbacks_are_kept_in_their_order_and_ours_come_once(data: Path, tmp_path: Path) -> None:
    def theirs(trainer: Any) -> None:
        """Do nothing."""

    given = with_every_event({"on_pretrain_routine_end": [theirs]})
    overrides = {**TINY, "model": "yolov8n.yaml", "data": str(data), "project": str(tmp_path)}
    for _ in range(2):  # a dictionary that two trainers share
        trainer = DetectionTrainer(overrides=dict(overrides), _callbacks=given)
        hook._add_callbacks(trainer)  # as its training begins
        # Ultralytics' integrations add some of their own.
        assert trainer.callbacks["on_pretrain_routine_end"][0] is theirs
        for event, callback in callbacks.CALLBACKS.items():
            assert trainer.callbacks[event].count(callback) == 1


# Start-up files that did not run, callbacks that were reset.

LATE_IMPORT = """
import json, sys
from ultralytics import YOLO
model = YOLO("yolov8n.yaml")
assert "yolo_losses" not in sys.modules
import yolo_losses
model.reset_callbacks()
model.train(data=sys.argv[1], project=sys.argv[2], cls_loss="slide", **json.loads(sys.argv[3]))
assert model.trainer.yolo_losses_run.equipment.proven
print("DONE")
"""


@pytest.mark.slow
def test_importing_the_package_after_the_model_was_built_is_enough(tmp_path: Path, data: Path) -> None:
    paths = f"import sys\nsys.path += {[p for p in sys.path if p]!r}\n"
    code = ["-S", "-c", paths + LATE_IMPORT, str(data), str(tmp_path), json.dumps(TINY)]
    assert start(sys.executable, *code)().check().lines[-1] == "DONE"


@pytest.mark.slow
def test_callbacks_that_were_reset_before_training_do_not_lose_the_loss(tmp_path: Path, data: Path) -> None:
    model = YOLO("yolov8n.yaml")
    model.reset_callbacks()
    assert train(model, tmp_path, "reset", data, cls_loss="focal").yolo_losses_run.equipment.proven


def test_callbacks_that_were_replaced_after_the_trainer_was_built_end_the_run() -> None:
    """Nobody equipped the criterion: the end of the set-up says so, where it would have been a silent stock run."""
    args = SimpleNamespace(cls_loss="focal", imgsz=64, resume=False)
    model = Model(criterion=criterion_of("v8"))
    trainer = SimpleNamespace(args=args, model=model, ema=SimpleNamespace(ema=None), resume=False)
    with pytest.raises(RuntimeError, match="on_pretrain_routine_end"):
        callbacks.check_started(trainer)


# Other import hooks, broken plug-ins, an Ultralytics that has moved.

TWO_HOOKS = """
import sys
seen = []

class Other:
    # Wraps what the finders behind it find, as tracing tools do.
    def __init__(self, name):
        self.name, self.busy = name, set()
    def find_spec(self, fullname, path=None, target=None):
        if not fullname.startswith("ultralytics") or fullname in self.busy:
            return None
        self.busy.add(fullname)
        try:
            behind = sys.meta_path[sys.meta_path.index(self) + 1:]
            spec = next(filter(None, (f.find_spec(fullname, path, target) for f in behind)), None)
        finally:
            self.busy.discard(fullname)
        if spec is not None and spec.loader is not None:
            body = spec.loader.exec_module
            def exec_module(module):
                body(module)
                seen.append((self.name, fullname))
            spec.loader.exec_module = exec_module
        return spec

ours = [f for f in sys.meta_path if type(f).__name__ == "AutoloadFinder"]
assert len(ours) == 1 and sys.meta_path[0] is ours[0]
sys.meta_path.insert(1, Other("behind"))
sys.meta_path.insert(0, Other("before"))
from ultralytics.engine import trainer, tuner
from ultralytics.utils import DEFAULT_CFG_DICT
from yolo_losses.integration import hook
assert hook.is_active() and "cls_loss" in DEFAULT_CFG_DICT
assert hasattr(tuner.Tuner.__init__, "yolo_losses_original")
for module in ("ultralytics.cfg", "ultralytics.engine.trainer", "ultralytics.engine.tuner", "ultralytics.utils.loss"):
    assert seen.count(("before", module)) == seen.count(("behind", module)) == 1, (module, seen)
print("DONE")
"""


@pytest.mark.slow
def test_import_hooks_in_front_and_behind_see_what_they_would_see() -> None:
    assert start(sys.executable, "-c", TWO_HOOKS)().check().lines[-1] == "DONE"


def broken_package(folder: Path, text: str) -> dict[str, str]:
    """Return variables with which a broken `yolo_losses` is found before this one."""
    (folder / "yolo_losses" / "integration").mkdir(parents=True)
    (folder / "yolo_losses" / "__init__.py").write_text("", encoding="utf-8")
    (folder / "yolo_losses" / "integration" / "hook.py").write_text(text, encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


FAULTS: dict[str, tuple[str, str]] = {
    "it raises": ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line second line"),
    "it is not Python": ("def (:", "SyntaxError: "),
    "a function is missing": ("x = 1", "AttributeError: "),
    "it wants a package that is gone": ("import nowhere_to_be_found", "ModuleNotFoundError: No module named"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_plugin_is_one_line_and_ultralytics_works(fault: str, tmp_path: Path) -> None:
    text, words = FAULTS[fault]
    code = "from ultralytics.cfg import get_cfg; print(get_cfg(overrides={'epochs': 3}).epochs)"
    result = start(sys.executable, "-c", code, **broken_package(tmp_path, text))().check()
    assert result.lines[-1] == "3"
    told = result.saying("yolo_losses: ")
    assert len(told) == 1, told
    assert told[0].startswith(f"yolo_losses: not active: {words}")


@pytest.mark.slow
def test_a_plugin_that_is_not_active_trains_no_stock_run_in_silence(tmp_path: Path) -> None:
    broken = broken_package(tmp_path, "raise RuntimeError('no')")
    result = start_yolo("train", "model=yolov8n.yaml", "data=nowhere.yaml", "cls_loss=focal", **broken)()
    assert result.code == 1
    assert "'cls_loss' is not a valid YOLO argument" in result.text


MOVED = """
import sys
from ultralytics.utils import torch_utils
import ultralytics.cfg
if sys.argv[1] == "torch_utils":
    del torch_utils.DEFAULT_CFG_DICT
else:
    # Another version's trainer, without the method: renamed as the body of the module runs.
    import importlib.machinery
    source = importlib.machinery.SourceFileLoader.get_data
    def get_data(self, path):
        text = source(self, path)
        return text.replace(b"check_resume", b"look_for_resume") if path.endswith("engine/trainer.py") else text
    importlib.machinery.SourceFileLoader.get_data = get_data
    importlib.machinery.SourceFileLoader.path_stats = lambda self, path: (_ for _ in ()).throw(OSError)
from ultralytics import YOLO
try:
    YOLO("yolov8n.yaml").train(data="nowhere.yaml", cls_loss="focal")
except SyntaxError as error:
    print("REFUSED" if "cls_loss" in str(error) else error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moved", "words"),
    [
        ("check_resume", "this Ultralytics has no BaseTrainer.check_resume"),
        ("torch_utils", "this Ultralytics has no ultralytics.utils.torch_utils.DEFAULT_CFG_DICT"),
    ],
)
def test_a_trainer_whose_part_has_moved_is_named_and_the_keys_are_refused(moved: str, words: str) -> None:
    result = start(sys.executable, "-c", MOVED, moved)().check()
    assert result.saying("yolo_losses: ") == [f"yolo_losses: not active: RuntimeError: {words}"]
    assert result.lines[-1] == "REFUSED"


def test_a_criterion_without_its_parts_is_named_by_the_first_that_is_gone() -> None:
    for part in anchors.PARTS:
        own = criterion_of("v8")
        delattr(own, part)
        with pytest.raises(RuntimeError, match=rf"v8DetectionLoss has no '{part}'") as caught:
            yolo_losses.equip(own, {"cls_loss": "focal"})
        assert "\n" not in str(caught.value)


def test_a_criterion_of_another_kind_is_refused_with_the_key() -> None:
    with pytest.raises(ValueError, match=r"'cls_loss=focal' cannot be used with CrossEntropyLoss"):
        yolo_losses.equip(torch.nn.CrossEntropyLoss(), {"cls_loss": "focal"})


@pytest.mark.slow
def test_a_plugin_file_with_an_error_is_one_line_and_training_goes_on(
    tmp_path: Path, datasets: Callable[[Task], Path]
) -> None:
    (tmp_path / "mine.py").write_text("import yolo_losses\nraise KeyError('oh\\nno')\n", encoding="utf-8")
    options = [f"{key}={value}" for key, value in {**TINY, "project": tmp_path, "cls_loss": "focal"}.items()]
    command = ["train", "model=yolov8n.yaml", f"data={datasets('detect')}", *options]
    result = start_yolo(*command, YOLO_LOSSES_PLUGINS=str(tmp_path / "mine.py"))().check()
    told = result.saying("plugin left out")
    assert len(told) == 1, told
    assert str(tmp_path / "mine.py") in told[0]
    assert result.saying("ran in the first batch")
