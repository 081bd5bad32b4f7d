"""Third-party losses: by decorator, entry point, or a file named by an environment variable, and in no other way."""

from __future__ import annotations

import csv
import math
import os
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from conftest import ROOT, TINY, logged, pairs, start, start_yolo, yolo
from torch import Tensor
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT

import yolo_losses
from yolo_losses import LossSettings, functional, registry
from yolo_losses.config.settings import default_keys
from yolo_losses.losses.classification._base import ClassificationLoss
from yolo_losses.registry import plugins
from yolo_losses.registry.parameters import Param

EXAMPLE = ROOT / "examples" / "custom_loss.py"
COMMAND = Path(sys.executable).with_name("yolo-losses")
BOX_PLUGIN = """
import yolo_losses

@yolo_losses.register_box_loss("half_iou", aliases=("halfiou",))
def half_iou_loss(pred, target, share: float = 0.5):
    '''A part of 1 - IoU.'''
    return share * yolo_losses.functional.iou_loss(pred, target)
"""


@pytest.fixture(autouse=True)
def _own_losses_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    registry.load()
    monkeypatch.delenv(plugins.PLUGINS_VARIABLE, raising=False)  # set where the battery is pointed at such a file
    before = dict(registry.snapshot())
    yield
    for kind, name in registry.snapshot().keys() - before.keys():
        registry.remove(kind, name)


def register_wave(**options: Any) -> Any:
    @yolo_losses.register_cls_loss("wave", **options)
    def wave_loss(
        logits: Tensor, targets: Tensor, height: Annotated[float, Param("of the wave", low=0, high=2)] = 0.5
    ) -> Tensor:
        """BCE and a wave on it."""
        gap = logits.sigmoid() - targets
        return (
            torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            + height * gap.sin().square()
        )

    return wave_loss


def test_decorated_formula_is_known_at_once_and_reduces_like_the_others() -> None:
    formula = register_wave(aliases=("wavy",), source="nobody")
    assert DEFAULT_CFG_DICT["wave_height"] == DEFAULT_CFG.wave_height == 0.5
    assert get_cfg(overrides={"wave_height": 0.25, "cls_loss": "wave"}).wave_height == 0.25
    logits, targets = torch.randn(4, 3), torch.rand(4, 3)
    assert formula(logits, targets).shape == (4, 3)
    assert formula(logits, targets, reduction="sum").shape == ()
    module = yolo_losses.make_cls_loss("wavy", wave_height=0.25, reduction="mean")
    assert isinstance(module, ClassificationLoss)
    torch.testing.assert_close(module(logits, targets), formula(logits, targets, height=0.25, reduction="mean"))


def test_python_names_follow_from_the_formula_whatever_it_is_called(tmp_path: Path) -> None:
    plugin = tmp_path / "squared_gap.py"
    plugin.write_text(
        """
import yolo_losses

def helper_loss(gap):
    return gap.square()

@yolo_losses.register_cls_loss("squared")
def squared_gap(logits, targets):
    'The squared gap.'
    return helper_loss(logits.sigmoid() - targets)
"""
    )
    plugins.run_file(str(plugin))
    assert functional.squared_gap is registry.find("cls", "squared").module.formula  # type: ignore[union-attr]
    assert "squared_gap" in dir(functional)
    assert "helper_loss" not in dir(functional)
    module = yolo_losses.SquaredGapLoss()
    logits, targets = torch.randn(4, 3), torch.rand(4, 3)
    torch.testing.assert_close(module(logits, targets), functional.squared_gap(logits, targets, reduction="mean"))
    again = pickle.loads(pickle.dumps(module))
    assert isinstance(again, yolo_losses.SquaredGapLoss)


def test_its_values_are_checked_like_the_others() -> None:
    register_wave()
    chosen = LossSettings.from_mapping({"cls_loss": "Wave", "wave_height": "1e-1"})
    assert chosen.parameters == {"wave_height": 0.1}
    with pytest.raises(ValueError, match=re.escape("'wave_height=3' is not valid: allowed is a number >= 0 and <= 2")):
        LossSettings.from_mapping({"cls_loss": "wave", "wave_height": 3})
    with pytest.raises(ValueError, match="Did you mean 'wave'"):
        LossSettings.from_mapping({"cls_loss": "wafe"})
    with pytest.raises(ValueError, match=r"'wave_height=1' would change nothing.*cls_loss=wave"):
        LossSettings.from_mapping({"wave_height": 1})


def test_class_with_state_is_registered_like_a_formula() -> None:
    @yolo_losses.register_cls_loss("counting")
    class CountingLoss(yolo_losses.BCELoss):
        """BCE that counts its steps."""

        step_size: Annotated[int, Param("what a step counts", low=1)] = 1

        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.register_buffer("steps", torch.zeros(()))

    assert default_keys()["counting_step_size"] == 1
    module = yolo_losses.make_cls_loss("counting", counting_step_size=3.0)
    assert module.step_size == 3
    assert list(module.state_dict()) == ["steps"]


@pytest.mark.parametrize("name", ["focal", "stock", "Focal Loss", "varifocal"])
def test_taken_and_unusable_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"registered as|lower-case letters"):
        yolo_losses.register_cls_loss(name)(lambda logits, targets: logits - targets)


@pytest.mark.slow
def test_taken_name_is_refused_before_anything_else_was_loaded() -> None:
    code = """
import yolo_losses
try:
    yolo_losses.register_cls_loss("focal")(lambda logits, targets: logits)
except ValueError as error:
    print("refused:", error)
print(yolo_losses.make_cls_loss("focal"))
"""
    result = start(sys.executable, "-c", code)().check()
    assert result.saying("refused:")
    assert result.saying("FocalLoss(")


def test_key_of_ultralytics_is_not_taken_over() -> None:
    with pytest.raises(ValueError, match="'mask_ratio' is Ultralytics' own"):

        @yolo_losses.register_cls_loss("mask")
        def loss(logits: Tensor, targets: Tensor, ratio: float = 0.5) -> Tensor:
            return logits

    assert registry.find("cls", "mask") is None
    assert "mask_ratio" not in default_keys()


def test_a_repeated_declaration_replaces_the_first() -> None:
    register_wave()
    formula = register_wave(summary="the second")
    spec = registry.find("cls", "wave")
    assert spec is not None
    assert spec.summary == "the second"
    assert spec.module.formula is formula  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="already registered as 'wave'"):

        @yolo_losses.register_cls_loss("wave")
        def another(logits: Tensor, targets: Tensor) -> Tensor:
            return logits


@pytest.mark.parametrize("default", ["'a'", "None", "1j", "()"])
def test_parameter_that_is_no_number_is_refused(default: str) -> None:
    scope: dict[str, Any] = {"__name__": __name__}
    exec(f"def odd_loss(logits, targets, kind={default}): return logits", scope)
    with pytest.raises(ValueError, match="'kind' of the loss 'odd'"):
        yolo_losses.register_cls_loss("odd")(scope["odd_loss"])


@pytest.mark.slow
def test_python_trains_with_a_loss_registered_after_ultralytics_was_imported(tmp_path: Path, data: Path) -> None:
    register_wave()

    @yolo_losses.register_box_loss("square_iou")
    def square_iou_loss(pred: Tensor, target: Tensor, power: float = 2.0) -> Tensor:
        return functional.iou_loss(pred, target) ** power

    keys = {"cls_loss": "wave", "wave_height": 0.25, "box_loss": "inner_square_iou", "square_iou_power": 3}
    with logged() as lines:
        YOLO("yolov8n.yaml").train(data=str(data), project=str(tmp_path), name="run", **TINY, **keys)
    (started,) = [line for line in lines if "equipped for training and validation" in line]
    assert "WaveLoss(height=0.25)" in started
    assert [line for line in lines if "ran in the first batch with objects: class, box" in line]
    text = (tmp_path / "run" / "args.yaml").read_text(encoding="utf-8")
    assert "wave_height: 0.25" in text
    assert "square_iou_power: 3.0" in text


@pytest.mark.slow
def test_stock_command_trains_with_losses_of_two_files(tmp_path: Path, data: Path) -> None:
    plugin = tmp_path / "box plugin.py"
    plugin.write_text(BOX_PLUGIN, encoding="utf-8")
    keys = {**TINY, "cls_loss": "brier", "brier_power": 1.5, "box_loss": "halfiou"}
    where = os.pathsep.join((str(EXAMPLE), str(plugin)))
    line = ["train", *pairs(model="yolov8n.yaml", data=data, project=tmp_path, name="run", **keys)]
    result = yolo(*line, YOLO_LOSSES_PLUGINS=where).check()
    (started,) = result.saying("equipped for training and validation")
    assert "cls_loss=brier BrierLoss(power=1.5), target: assigner score" in started
    assert "box_loss=half_iou HalfIouLoss(share=0.5)" in started
    assert result.saying("ran in the first batch with objects: class, box")
    (row,) = csv.DictReader((tmp_path / "run" / "results.csv").open(encoding="utf-8"))
    assert all(math.isfinite(float(value)) for value in row.values())


@pytest.mark.slow
def test_example_is_short_and_runs() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 30
    # Read as a plugin as well, as where it starts a distributed training.
    result = start(sys.executable, EXAMPLE, YOLO_LOSSES_PLUGINS=str(EXAMPLE))().check()
    assert len(result.saying("cls_loss=brier BrierLoss(power=1.5)")) == 1
    assert result.saying("ran in the first batch with objects: class")
    assert not result.saying("plugin left out")


@pytest.mark.slow
def test_the_loss_of_a_file_is_listed_checked_and_suggested() -> None:
    env = {"YOLO_LOSSES_PLUGINS": str(EXAMPLE)}
    listed = start(COMMAND, "list", "brier", **env)
    wrong = start_yolo("train", "model=yolov8n.yaml", "data=none.yaml", "cls_loss=brierr", **env)
    result = listed().check()
    assert result.saying("brier  Brier score: |p - t|^power")
    assert result.saying("brier_power          2.0    a number >= 1")
    assert result.saying("Monthly Weather Review")
    result = wrong()
    assert result.code == 1
    assert "Did you mean 'brier'?" in result.lines[-1]
    low = yolo("train", "model=yolov8n.yaml", "data=none.yaml", "cls_loss=brier", "brier_power=0.5", **env)
    assert low.code == 1
    assert "'brier_power=0.5' is not valid: allowed is a number >= 1" in low.lines[-1]


@pytest.mark.slow
def test_a_fresh_interpreter_such_as_a_distributed_worker_knows_the_loss_of_a_file() -> None:
    code = "from ultralytics.cfg import get_cfg; print(get_cfg(overrides=dict(cls_loss='brier', brier_power=1.5)))"
    start(sys.executable, "-c", code, YOLO_LOSSES_PLUGINS=str(EXAMPLE))().check()
    result = start(sys.executable, "-c", code)()
    assert result.code == 1
    assert "brier_power" in result.text


@pytest.mark.slow
def test_entry_point_is_found(tmp_path: Path) -> None:
    (tmp_path / "strangers_losses.py").write_text(BOX_PLUGIN, encoding="utf-8")
    folder = tmp_path / "strangers_losses-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers-losses\nVersion: 1.0\n", encoding="utf-8")
    (folder / "entry_points.txt").write_text(
        "[yolo_losses.losses]\nhalf = strangers_losses\nlost = nowhere_to_be_found\n", encoding="utf-8"
    )
    result = start(COMMAND, "list", "-v", PYTHONPATH=str(tmp_path))().check()
    assert any(line.split() == ["half_iou", "A", "part", "of", "1", "-", "IoU"] for line in result.lines)
    assert result.saying("half_iou_share")
    (problem,) = result.saying("plugin left out")
    assert "entry point lost (nowhere_to_be_found): ModuleNotFoundError" in problem
    code = "import ultralytics.cfg as c; print(c.DEFAULT_CFG_DICT['half_iou_share'])"
    assert start(sys.executable, "-c", code, PYTHONPATH=str(tmp_path))().check().saying("0.5")


FAULTS = {
    "raises": "raise OSError('no luck')",
    "exits": "import sys; sys.exit(3)",
    "syntax": "def",
    "taken": "import yolo_losses\n@yolo_losses.register_cls_loss('focal')\ndef f(a, b): return a",
    "key": "import yolo_losses\n@yolo_losses.register_cls_loss('mask')\ndef f(a, b, ratio=1.0): return a",
    "half": BOX_PLUGIN + "\n1 / 0",
}


@pytest.mark.slow
def test_faulty_files_are_named_and_left_out(tmp_path: Path) -> None:
    paths = []
    for name, text in FAULTS.items():
        paths.append(tmp_path / f"{name}.py")
        paths[-1].write_text(text, encoding="utf-8")
    where = os.pathsep.join(map(str, [*paths, tmp_path / "missing.py", tmp_path, EXAMPLE]))
    code = "import ultralytics.cfg; from yolo_losses import registry; print([s.name for s in registry.specs()])"
    result = start(sys.executable, "-c", code, YOLO_LOSSES_PLUGINS=where)().check()
    told = " ".join(result.saying("plugin left out"))
    for words in ("no luck", "SystemExit", "SyntaxError", "'focal'", "'mask_ratio' is", "ZeroDivisionError"):
        assert words in told
    assert told.count("there is no file") == 2
    assert "'brier'" in result.lines[-1]
    assert "half_iou" not in result.lines[-1]
    assert "'mask'" not in result.lines[-1]


EVIL = "import pathlib; pathlib.Path({marker!r}).touch()"


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an importable module `evil`, that leaves a file `touched` beside it when it runs."""
    (tmp_path / "evil.py").write_text(EVIL.format(marker=str(tmp_path / "touched")), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def hostile(folder: Path) -> list[Any]:
    return [
        "evil",
        "evil:loss",
        "evil.loss",
        "inner_evil",
        str(folder / "evil.py"),
        "../evil.py",
        "__import__('evil')",
        "yolo_losses.registry._run_file",
        "os.system",
        "{0.__class__}",
        "%s%n",
        "focal\nevil",
        "focal\x00",
        "a" * 100_000,
        ["evil"],
        {"evil": 1},
        object(),
        3.5,
        True,
        float("nan"),
        b"evil",
        type,
    ]


@pytest.mark.parametrize("key", list(default_keys()))
def test_no_value_of_a_key_imports_code(key: str, evil: Path) -> None:
    choices = {"cls_loss": "focal", "box_loss": "ciou"}
    for value in hostile(evil):
        if isinstance(value, float | bool) and key not in ("cls_loss", "box_loss", "cls_target", "loss_branches"):
            continue
        if key == "cls_weights" and isinstance(value, dict):
            continue  # by class name, which is refused where the classes are known
        with pytest.raises(ValueError, match=r"^'") as caught:
            LossSettings.from_mapping({**choices, key: value})
        message = str(caught.value)
        assert message.startswith(f"'{key}=")
        assert "\n" not in message
        assert len(message) < 1500
    assert "evil" not in sys.modules
    assert not (evil / "touched").exists()


@pytest.mark.slow
@pytest.mark.parametrize("line", ["cls_loss: evil", "box_loss: evil:loss", "cls_loss: !!python/object/apply:evil.f []"])
def test_no_config_file_imports_code(line: str, evil: Path, data: Path) -> None:
    (evil / "bad.yaml").write_text(f"mode: train\ntask: detect\n{line}\n", encoding="utf-8")
    result = yolo(f"cfg={evil / 'bad.yaml'}", "model=yolov8n.yaml", f"data={data}", PYTHONPATH=str(evil))
    assert result.code != 0
    assert not (evil / "touched").exists()


@pytest.mark.slow
def test_no_key_names_a_plugin_file(evil: Path, data: Path) -> None:
    for key in ("YOLO_LOSSES_PLUGINS", "yolo_losses_plugins"):
        result = yolo("train", "model=yolov8n.yaml", f"data={data}", f"{key}={evil / 'evil.py'}")
        assert result.code == 1
        assert not (evil / "touched").exists()


@pytest.mark.slow
def test_no_checkpoint_s_keys_import_code(evil: Path, data: Path) -> None:
    def stop(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    model = YOLO("yolov8n.yaml")
    model.add_callback("on_train_epoch_start", stop)
    with pytest.raises(KeyboardInterrupt):
        model.train(data=str(data), project=str(evil), name="run", **{**TINY, "epochs": 2}, cls_loss="focal")
    last = evil / "run" / "weights" / "last.pt"
    checkpoint = torch.load(last, weights_only=False)
    for value in ("evil", "evil:loss", str(evil / "evil.py")):
        checkpoint["train_args"]["cls_loss"] = value
        torch.save(checkpoint, last)
        with pytest.raises(ValueError, match=r"^'cls_loss="):
            YOLO(str(last)).train(resume=True)
    assert "evil" not in sys.modules
    assert not (evil / "touched").exists()
