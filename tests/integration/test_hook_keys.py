"""The keys among Ultralytics' own: added, renamed, removed; checked where nothing trains; mappings that are strict."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY, criterion_of, head, logged, made_up_batch, pairs, predictions, run, start, start_yolo
from make_dataset import Task
from ultralytics import YOLO
from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT

import yolo_losses
from yolo_losses import registry
from yolo_losses.config import settings
from yolo_losses.config.settings import LossSettings


def said(lines: list[str]) -> list[str]:
    """Return what the package said."""
    return [line for line in lines if "yolo_losses: " in line]


@pytest.fixture
def registered() -> Iterator[None]:
    """Forget what a test registers."""
    registry.load()
    before = registry.snapshot()
    yield
    registry.restore(before)


# A release whose default.yaml has a key of one of our names, for something of its own.

COLLIDING = """
import sys, json
import ultralytics.utils as utils
key, value = sys.argv[1], json.loads(sys.argv[2])
utils.DEFAULT_CFG_DICT[key] = value
setattr(utils.DEFAULT_CFG, key, value)
from ultralytics import YOLO
import yolo_losses
model = YOLO("yolov8n.yaml")
seen = []
model.add_callback("on_train_end", lambda trainer: seen.append(vars(trainer.args).get(key)))
model.train(data=sys.argv[3], project=sys.argv[4], **json.loads(sys.argv[5]))
print("SEEN", seen, "RUN", trainer is not None if (trainer := model.trainer.yolo_losses_run) else None)
"""


# A word, a number and a flag, with what is chosen of each.
CHOSEN: dict[str, Any] = {"cls_loss": "slide", "cls_scale": 2.0, "loss_stats": True}


@pytest.mark.slow
@pytest.mark.parametrize("key", ["cls_loss", "cls_scale", pytest.param("loss_stats", marks=pytest.mark.long)])
def test_a_key_that_ultralytics_has_for_something_else_stays_its_own(key: str, tmp_path: Path, data: Path) -> None:
    """A run that leaves ours alone does not notice; ours is reached as `yl_` + name."""
    theirs, other = (3.5, 4.5) if key == "cls_scale" else ("soft", "hard")

    def train(name: str, **keys: Any) -> Callable[[], Any]:
        given = json.dumps({**TINY, "name": name, **keys})
        return start(sys.executable, "-c", COLLIDING, key, json.dumps(theirs), str(data), str(tmp_path), given)

    plain = train("plain", **{key: other})
    chosen = train("ours", cls_loss="slide") if key != "cls_loss" else None
    renamed = train("renamed", **{f"yl_{key}": CHOSEN[key]})
    assert plain().check().lines[-1] == f"SEEN [{other!r}] RUN None"
    if chosen is not None:
        assert chosen().check().lines[-1].endswith("RUN True")
    result = renamed().check()
    assert result.lines[-1].endswith("RUN True")
    assert result.saying(f"'yl_{key}' is this package's")
    assert yaml.safe_load((tmp_path / "renamed" / "args.yaml").read_text())[f"yl_{key}"] == CHOSEN[key]


ALL_TAKEN = """
import json, sys
import ultralytics.utils as utils
keys = json.loads(sys.argv[1])
for key in keys:
    utils.DEFAULT_CFG_DICT[key] = "theirs"
    setattr(utils.DEFAULT_CFG, key, "theirs")
import yolo_losses
from ultralytics.cfg import get_cfg
from yolo_losses.config.renaming import argument
from yolo_losses.config.settings import CHOICES, LossSettings
assert all(argument(key) == "yl_" + key for key in keys)
plain = vars(get_cfg(overrides={key: "soft" for key in keys}))
assert all(plain[key] == "soft" for key in keys)
assert LossSettings.from_arguments(plain).is_default
chosen = {"cls_loss": "slide", "box_loss": "siou", "cls_scale": 2.0, "tal_topk": 7, "loss_stats": True}
ours = vars(get_cfg(overrides={"yl_" + key: chosen.get(key, CHOICES[key]) for key in keys}))
assert all(ours[key] == "theirs" for key in keys)
found = LossSettings.from_arguments(ours).non_default()
assert found == chosen, found
print("DONE")
"""


@pytest.mark.slow
def test_every_key_that_ultralytics_has_for_something_else_is_renamed() -> None:
    """All at once: the plain names are Ultralytics' own, and the values of ours are read from `yl_` + name."""
    result = start(sys.executable, "-c", ALL_TAKEN, json.dumps(list(settings.CHOICES)))().check()
    assert result.lines[-1] == "DONE"


def test_keys_follow_the_registry(registered: None) -> None:
    def mine(logits: torch.Tensor, targets: torch.Tensor, power: float = 2.0) -> torch.Tensor:
        return (logits.sigmoid() - targets).abs() ** power

    yolo_losses.register_cls_loss("mine")(mine)
    assert DEFAULT_CFG_DICT["mine_power"] == DEFAULT_CFG.mine_power == 2.0

    def other(logits: torch.Tensor, targets: torch.Tensor, exponent: float = 3.0) -> torch.Tensor:
        return (logits.sigmoid() - targets).abs() ** exponent

    other.__name__ = other.__qualname__ = "mine"
    yolo_losses.register_cls_loss("mine")(other)  # the same cell of a notebook, run again
    assert "mine_power" not in DEFAULT_CFG_DICT
    assert not hasattr(DEFAULT_CFG, "mine_power")
    assert DEFAULT_CFG_DICT["mine_exponent"] == 3.0
    registry.remove("cls", "mine")
    assert not [key for key in DEFAULT_CFG_DICT if key.startswith("mine_")]


@pytest.mark.parametrize(("kind", "name"), [("cls", "mean_iou"), ("cls", "positive_mask"), ("box", "stride")])
def test_a_parameter_with_the_name_of_a_supplied_argument_is_refused(kind: str, name: str, registered: None) -> None:
    names: dict[str, Any] = {}
    exec(f"def odd(a, b, {name}: float = 2.0):\n    return a - b\n", names)
    register = {"cls": yolo_losses.register_cls_loss, "box": yolo_losses.register_box_loss}[kind]
    names["odd"].__module__ = __name__
    with pytest.raises(ValueError, match=f"the parameter '{name}' of the loss 'odd' has the name of an argument"):
        register("odd")(names["odd"])


@pytest.mark.parametrize("name", ["eps", "floor", "stride", "image_wh"])
def test_a_name_that_nobody_supplies_to_a_class_loss_is_an_ordinary_parameter(name: str, registered: None) -> None:
    names: dict[str, Any] = {}
    exec(f"def odd(a, b, {name}: float = 2.0):\n    return (a - b).abs() * {name}\n", names)
    names["odd"].__module__ = __name__
    yolo_losses.register_cls_loss("odd")(names["odd"])
    assert DEFAULT_CFG_DICT[f"odd_{name}"] == 2.0


# ------------------------------------------------------------------------------------------------ strict mappings


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"cls_los": "focal"}, "'cls_los' is not a key of yolo_losses. Did you mean 'cls_loss'?"),
        ({"cls_loss": "focal", "gamma": 3}, "'gamma' is not a key of yolo_losses"),
        ({"cls_loss": "focal", "imgsz": 3}, "'imgsz' is not a key of yolo_losses"),
    ],
)
def test_a_mapping_of_keys_is_strict(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        yolo_losses.equip(criterion_of("v8"), keys)
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        yolo_losses.DetectionLoss(head("v8"), settings=keys)


def test_a_trainer_s_arguments_may_hold_other_keys() -> None:
    assert LossSettings.from_arguments({"imgsz": 64, "cls_loss": "focal", "lr0": 0.1}).cls_loss == "focal"


# ------------------------------------------------------------------------------------------------ where nothing trains


def test_keys_are_checked_and_said_to_have_no_effect_where_nothing_trains(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # an export lies beside its model file
    model = YOLO("yolov8n.yaml")
    image = next((data.parent / "images" / "val").glob("*.jpg"))
    common = {"imgsz": 64, "device": "cpu", "verbose": False, "project": str(tmp_path)}
    calls: dict[str, Callable[..., Any]] = {
        "val": lambda **keys: model.val(data=str(data), workers=0, plots=False, **common, **keys),
        "predict": lambda **keys: model.predict(str(image), **common, **keys),
        "export": lambda **keys: model.export(format="torchscript", imgsz=64, **keys),
    }
    for mode, call in calls.items():
        with pytest.raises(ValueError, match=r"'cls_loss=nonsense' is not valid: allowed are stock, "):
            call(cls_loss="nonsense")
        with logged() as lines:
            call(cls_loss="focal", focal_gamma=2.0)
        assert [line for line in said(lines) if f"'cls_loss' has no effect in mode '{mode}'" in line]
        assert [line for line in said(lines) if f"'focal_gamma' has no effect in mode '{mode}'" in line]
        with logged() as lines:
            call()
        assert not said(lines)


@pytest.mark.slow
def test_the_command_line_ends_with_the_sentence_alone(data: Path, tmp_path: Path) -> None:
    common = pairs(model="yolov8n.yaml", data=data, project=tmp_path / "runs", **TINY)
    results = [start_yolo(mode, *common, "cls_loss=slid") for mode in ("train", "val")]
    for wait in results:
        result = wait()
        assert result.code == 1
        assert result.lines[-1].startswith("'cls_loss=slid' is not valid: allowed are stock, ")
        assert result.lines[-1].endswith("Did you mean 'slide'?")
        assert "Traceback" not in result.text


# ------------------------------------------------------------------------------------------------ messages


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"cls_loss": "siou"}, "'siou' is a box loss, box_loss=siou"),
        ({"box_loss": "focal"}, "'focal_' is a modifier, a prefix of box losses, such as focal_ciou"),
        ({"box_loss": "focal"}, "the class loss is cls_loss=focal"),
        ({"box_loss": "inner"}, "'inner_' is a modifier, a prefix of box losses, such as inner_ciou"),
        ({"box_loss": "wiou_v3"}, "box_loss=wiou wiou_version=3"),
        ({"box_loss": "vfl"}, "'vfl' is a class loss, cls_loss=vfl"),
        ({"cls_loss": "gce"}, "'gce' is a loss of the task classify, not a class loss; allowed"),
        ({"box_loss": "cioou"}, "allowed are stock, "),
        ({"cls_loss": "stok"}, "Did you mean 'stock'?"),
        ({"cls_loss": "qualityfocl"}, "Did you mean 'qfl'?"),
        ({"cls_loss": 7}, "allowed are stock, "),
    ],
)
def test_a_wrong_name_gets_the_advice_that_fits_it(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        LossSettings.from_mapping(keys)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------ a third party's loss


def wrong_formulas() -> dict[str, tuple[Any, str]]:
    return {
        "scalar": (lambda logits, targets: (logits - targets).abs().mean(), r"returns shape \(\)"),
        "columns": (lambda logits, targets: (logits - targets).abs().sum(0), r"returns shape \(5,\)"),
        "detached": (lambda logits, targets: (logits - targets).abs().detach(), "returns a value without gradient"),
        "numpy": (lambda logits, targets: (logits - targets).detach().abs().numpy(), "returns a ndarray"),
        "infinite": (lambda logits, targets: -(logits.sigmoid().log() * targets), "that is not finite"),
    }


@pytest.mark.parametrize("name", list(wrong_formulas()))
def test_a_third_party_s_formula_that_is_not_usable_is_refused_by_name(name: str, registered: None) -> None:
    formula, words = wrong_formulas()[name]

    class Own(yolo_losses.BCELoss):
        def elementwise(self, logits: Any, targets: Any, **supplied: Any) -> Any:
            return formula(logits, targets)

        def forward(self, pred: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            return formula(pred, target)

    yolo_losses.register_cls_loss(f"odd_{name}")(Own)
    with pytest.raises(ValueError, match=f"'cls_loss=odd_{name}' .*{words}"):
        yolo_losses.equip(criterion_of("v8"), {"cls_loss": f"odd_{name}"})


def softmax(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -targets * logits.log_softmax(-1).clamp_min(-50)


def by_all(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    gap = (logits.sigmoid() - targets).square()
    return gap / gap.mean().detach()


@pytest.mark.parametrize("formula", [softmax, by_all])
def test_a_third_party_s_formula_may_look_at_the_whole_batch(formula: Any, registered: None) -> None:
    yolo_losses.register_cls_loss(f"odd_{formula.__name__}")(formula)
    criterion, stock, seen = criterion_of("v8"), criterion_of("v8"), []
    yolo_losses.equip(criterion, {"cls_loss": f"odd_{formula.__name__}"})

    class Pasted(torch.nn.Module):
        def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            seen.append(logits.shape)
            return formula(logits, targets)

    stock.bce = Pasted()
    found, expected = (run(each, predictions("v8"), made_up_batch("v8")) for each in (criterion, stock))
    assert found[0]["cls_loss"] == pytest.approx(expected[0]["cls_loss"], rel=1e-5)
    torch.testing.assert_close(found[2][1], expected[2][1])


@pytest.mark.parametrize("what", ["value", "gradient"])
def test_a_third_party_s_closed_form_that_is_not_its_formula_s_is_refused(what: str, registered: None) -> None:
    class Own(yolo_losses.FocalLoss):
        def closed_form(self, logits: Any, targets: Any, **supplied: Any) -> Any:
            value, gradient = super().closed_form(logits, targets, **supplied)
            return (value * 2, gradient) if what == "value" else (value, gradient * 2)

    yolo_losses.register_cls_loss("odd_form")(Own)
    with pytest.raises(ValueError, match=f"'cls_loss=odd_form' has a closed form whose {what} is not the formula's"):
        yolo_losses.equip(criterion_of("v8"), {"cls_loss": "odd_form"})


def test_a_third_party_s_formula_may_ask_for_what_the_criterion_supplies(registered: None) -> None:
    def asking(logits: torch.Tensor, targets: torch.Tensor, positive_mask: Any, mean_iou: Any) -> torch.Tensor:
        return (logits.sigmoid() - targets).square() * torch.where(positive_mask, mean_iou, 1.0)

    yolo_losses.register_cls_loss("odd_asking")(asking)
    criterion = criterion_of("v8")
    yolo_losses.equip(criterion, {"cls_loss": "odd_asking"})
    assert run(criterion, predictions("v8"), made_up_batch("v8"))[0]["cls_loss"] > 0


def test_a_third_party_s_box_formula_is_tried_on_degenerate_boxes(registered: None) -> None:
    def odd_box(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return ((pred - target).abs() / (target[..., 2:] - target[..., :2]).repeat(1, 2)).sum(-1)

    yolo_losses.register_box_loss("odd_box")(odd_box)
    with pytest.raises(ValueError, match=r"'box_loss=odd_box' has a value that is not finite"):
        yolo_losses.equip(criterion_of("v8"), {"box_loss": "odd_box"})

    def good_box(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (pred - target).abs().mean(-1)

    yolo_losses.register_box_loss("good_box")(good_box)
    criterion = criterion_of("v8")
    yolo_losses.equip(criterion, {"box_loss": "good_box"})
    assert run(criterion, predictions("v8"), made_up_batch("v8"))[0]["box_loss"] > 0


def test_a_function_refuses_what_its_key_would_refuse() -> None:
    logits, targets = torch.zeros(3), torch.zeros(3)
    with pytest.raises(ValueError, match=r"'alpha=2' is not valid: allowed is a number >= -1 and <= 1"):
        yolo_losses.functional.focal_loss(logits, targets, alpha=2)
    with pytest.raises(ValueError, match=r"'gamma=-1' is not valid"):
        yolo_losses.functional.focal_loss(logits, targets, -1)


# ------------------------------------------------------------------------------------------------ resume, plugins


def test_a_plugin_file_that_is_missing_or_under_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from yolo_losses import register_cls_loss\n"
        "@register_cls_loss('mine')\ndef mine_loss(logits, targets):\n    return (logits - targets).abs()\n"
    )
    code = "import yolo_losses.registry as r; print([s.name for s in r.specs('cls')][-1]); print(*r.problems())"
    found = start(sys.executable, "-c", code, YOLO_LOSSES_PLUGINS="~/mine.py", HOME=str(tmp_path))().check()
    assert found.lines[-1].endswith("mine")
    lost = start(sys.executable, "-c", code, YOLO_LOSSES_PLUGINS="~/lost.py", HOME=str(tmp_path))().check()
    assert f"there is no file {tmp_path / 'lost.py'}" in lost.text


@pytest.mark.slow
def test_args_yaml_pins_every_parameter_and_resume_without_the_plugin_file_says_what_to_do(
    datasets: Callable[[Task], Path], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from yolo_losses import register_cls_loss\n@register_cls_loss('mine')\n"
        "def mine_loss(logits, targets, power: float = 2.0):\n    return (logits - targets).abs() ** power\n"
    )
    code = (
        "import sys, json; from ultralytics import YOLO\n"
        "model = YOLO('yolov8n.yaml')\n"
        "def stop(trainer):\n    if trainer.epoch == 0: raise KeyboardInterrupt\n"
        "model.add_callback('on_model_save', stop)\n"
        "try: model.train(data=sys.argv[1], project=sys.argv[2], cls_loss='mine', **json.loads(sys.argv[3]))\n"
        "except KeyboardInterrupt: pass\n"
    )
    import json

    given = json.dumps({**TINY, "epochs": 2, "name": "run"})
    plugin = {"YOLO_LOSSES_PLUGINS": str(tmp_path / "mine.py")}
    start(sys.executable, "-c", code, str(datasets("detect")), str(tmp_path), given, **plugin)().check()
    args = yaml.safe_load((tmp_path / "run" / "args.yaml").read_text())
    assert (args["cls_loss"], args["mine_power"]) == ("mine", 2.0)
    resumed = start_yolo("train", "resume", f"model={tmp_path / 'run' / 'weights' / 'last.pt'}")()
    assert resumed.code == 1
    assert "YOLO_LOSSES_PLUGINS" in resumed.lines[-1]
    assert "entry point 'yolo_losses.losses'" in resumed.lines[-1]
