"""What is refused, where, and in which words: a `ValueError` of one line, before anything is read or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, logged, pairs, start_yolo
from ultralytics import RTDETR, YOLO
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT, loss

import yolo_losses.config.settings
from yolo_losses import registry

YOLO26 = hasattr(loss, "E2ELoss")


def trainer(kind: type, folder: Path, **keys: Any) -> Any:
    """Build a trainer on data that does not exist: what is refused here is refused before anybody looks for it."""
    overrides = {**TINY, "model": "nowhere.yaml", "data": "nowhere.yaml", "project": str(folder / "runs"), **keys}
    return kind(overrides=overrides)


def refusal(kind: type, folder: Path, **keys: Any) -> str:
    """Return the message with which a trainer is refused; nothing may have been written."""
    with pytest.raises(ValueError, match=r".") as error:
        trainer(kind, folder, **keys)
    message = str(error.value)
    assert "\n" not in message
    assert not list(folder.iterdir()), "a refused run leaves nothing behind"
    return message


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"cls_loss": "slid"}, ["'cls_loss=slid' is not valid", "allowed are stock, ", "Did you mean 'slide'?"]),
    ({"cls_loss": "varifocl"}, ["'cls_loss=varifocl'", "Did you mean 'vfl'?"]),
    ({"cls_loss": 3}, ["'cls_loss=3' is not valid", "allowed are stock, "]),
    ({"cls_loss": ["slide"]}, ["'cls_loss=['slide']' is not valid"]),
    ({"cls_loss": "slide\nfocal"}, ["'cls_loss=slide\\nfocal' is not valid"]),
    ({"box_loss": "cious"}, ["'box_loss=cious' is not valid", "Did you mean 'ciou'?", "inner_"]),
    ({"box_loss": "inner_inner_ciou"}, ["'box_loss=inner_inner_ciou'", "'inner_' is repeated"]),
    ({"box_loss": "probiou"}, ["'box_loss=probiou' is not for axis-aligned boxes", "allowed are stock, "]),
    ({"dfl_loss": "of"}, ["'dfl_loss=of' is not valid: allowed are stock, dfl, off", "Did you mean 'off'?"]),
    ({"dfl_loss": True}, ["'dfl_loss=True' is not valid: allowed are stock, dfl, off"]),
    ({"cls_target": "foo"}, ["'cls_target=foo' is not valid: allowed are auto, tal, iou, ciou, hard"]),
    ({"cls_loss": "slide", "loss_branches": "one"}, ["'loss_branches=one' is not valid: allowed are both, one2many"]),
    ({"cls_loss": "focal", "focal_gamma": -1}, ["'focal_gamma=-1' is not valid: allowed is a number >= 0"]),
    ({"cls_loss": "focal", "focal_gamma": "abc"}, ["'focal_gamma=abc' is not valid: allowed is a number >= 0"]),
    ({"cls_loss": "focal", "focal_gamma": float("nan")}, ["'focal_gamma=nan' is not valid"]),
    ({"cls_loss": "focal", "focal_gamma": True}, ["'focal_gamma=True' is not valid"]),
    ({"cls_loss": "slide", "focal_gamma": -1}, ["'focal_gamma=-1' is not valid"]),
    ({"cls_loss": "vfl", "vfl_iou_weighted": 2}, ["'vfl_iou_weighted=2' is not valid: allowed is True or False"]),
    ({"cls_loss": "ghm", "ghm_bins": 2.5}, ["'ghm_bins=2.5' is not valid: allowed is an integer >= 1"]),
    ({"cls_loss": "slide", "slide_delta": 0.3}, ["'slide_delta=0.3'", "'slide_min_iou=0.2'"]),
    ({"cls_scale": "big"}, ["'cls_scale=big' is not valid", "a number > 0"]),
    ({"cls_scale": 0}, ["'cls_scale=0' is not valid: allowed is a number > 0"]),
    ({"loss_stats": "maybe"}, ["'loss_stats=maybe' is not valid: allowed is True or False (default False)"]),
    ({"loss_stats": 2}, ["'loss_stats=2' is not valid"]),
    ({"loss_stats": True, "focal_gamma": 3}, ["'focal_gamma=3' would change nothing"]),
    ({"focal_gamma": 3}, ["'focal_gamma=3' would change nothing", "cls_loss=focal"]),
    ({"inner_ratio": 0.5}, ["'inner_ratio=0.5' would change nothing", "box_loss=inner_ciou"]),
    ({"loss_branches": "one2one"}, ["'loss_branches=one2one' would change nothing"]),
]


@pytest.mark.parametrize(("keys", "words"), REFUSED, ids=lambda v: repr(v)[:60] if isinstance(v, dict) else "")
def test_a_value_that_is_not_valid_is_refused_before_anything_is_read_or_written(keys, words, tmp_path):
    message = refusal(DetectionTrainer, tmp_path, **keys)
    for part in words:
        assert part in message


@pytest.mark.parametrize("parameter", [p for spec in registry.specs() for p in spec.parameters], ids=lambda p: p.key)
def test_every_declared_parameter_is_refused_out_of_range_and_by_type(parameter, tmp_path):
    values: list[Any] = ["abc", [1], {}, float("inf")]
    limits = parameter.limits
    if parameter.type is not bool:
        values += [limits.low - 1, limits.above, limits.high + 1]  # an infinite bound is no number either
    for value in values:
        message = refusal(DetectionTrainer, tmp_path, cls_loss="bce", **{parameter.key: value})
        allowed = "are" if parameter.type is str else "is"
        assert message.startswith(f"'{parameter.key}={registry.format_value(value)}' is not valid: allowed {allowed} ")
        assert message.endswith(f"{parameter.allowed} (default {parameter.default})")


@pytest.mark.parametrize("box_loss", ["siou", "ciou", "inner_siou"])
def test_axis_aligned_box_losses_are_refused_for_rotated_boxes(box_loss, tmp_path):
    message = refusal(OBBTrainer, tmp_path, box_loss=box_loss)
    rotated = ", ".join(["stock", *(spec.name for spec in registry.specs("box") if spec.rotated)])
    assert message == f"'box_loss={box_loss}' is not for rotated (task obb) boxes: allowed are {rotated}"


def other_trainers() -> list[Any]:
    """Return the trainers, by task, whose criterion has no class and box term; a release may lack some."""
    found = [pytest.param(ClassificationTrainer, "classify", id="classify")]
    try:
        from ultralytics.models.yolo.depth import DepthTrainer
        from ultralytics.models.yolo.semantic import SemanticSegmentationTrainer
    except ImportError:
        return found
    return [
        *found,
        pytest.param(SemanticSegmentationTrainer, "semantic", id="semantic"),
        pytest.param(DepthTrainer, "depth", id="depth"),
    ]


@pytest.mark.parametrize(("kind", "task"), other_trainers())
def test_a_task_without_these_terms_refuses_the_keys_by_name(kind, task, tmp_path):
    for key, value in (("cls_target", "iou"), ("box_loss", "giou"), ("dfl_loss", "off")):
        message = refusal(kind, tmp_path, **{key: value})
        assert message == f"'{key}={value}' cannot be used in the task '{task}': allowed are detect, segment, pose, obb"
    assert refusal(kind, tmp_path, cls_loss="slide").startswith("'cls_loss=slide' ")


@pytest.mark.parametrize("kind", [DetectionTrainer, SegmentationTrainer, PoseTrainer])
def test_the_other_tasks_take_the_keys(kind, tmp_path):
    """The same keys pass, up to where the data set is missed: the refusals above are about the task alone."""
    with pytest.raises(Exception, match=r"nowhere\.yaml"):
        trainer(kind, tmp_path, cls_loss="slide", box_loss="giou", dfl_loss="off")


def test_the_parent_of_a_distributed_training_refuses_too(tmp_path):
    """It starts its workers much later, after the devices are looked at: here there are none to look at."""
    assert refusal(DetectionTrainer, tmp_path, device="0,1", cls_loss="slid").startswith("'cls_loss=slid'")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"space": {"focal_gamma": (-1.0, 2.0)}, "cls_loss": "focal"}, "'focal_gamma=-1.0' is not valid"),
        (
            {"space": {"slide_delta": (0.0, 0.9, 1.0)}, "cls_loss": "slide"},
            "'slide_delta=0.9' and 'slide_min_iou=0.2' do not go together",
        ),
        ({"space": {"lr0": (0.001, 0.01)}, "cls_loss": "slid"}, "'cls_loss=slid' is not valid"),
        ({"space": {"focal_gamma": (1.0, 2.0)}}, "'focal_gamma=1.0' would change nothing"),
        ({"space": {"cls_loss": ["bce", "vfl"]}}, r"'cls_loss=\['bce', 'vfl'\]' is not valid in the tuner's space"),
        ({"cls_loss": "focal", "space": {"focal_gamma": 2}}, "'focal_gamma=2' is not valid in the tuner's space"),
        ({"cls_loss": "slid"}, "'cls_loss=slid' is not valid"),
    ],
)
def test_the_tuner_refuses_once_instead_of_in_every_run(keys, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="^" + words) as error:
        YOLO("yolov8n.yaml").tune(data="nowhere.yaml", project=str(tmp_path / "runs"), iterations=1, **TINY, **keys)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "keys", "words"),
    [
        ("yolo26n.yaml", {"dfl_loss": "off"}, "'dfl_loss=off' is not valid: this head predicts no distribution, "),
        ("yolov8n.yaml", {"l1_loss": "l1"}, "'l1_loss=l1' is not valid: "),
        ("yolov8n.yaml", {"o2m_end": 0.5}, "'o2m_end=0.5' is not valid: this head has one branch, "),
        ("yolov8n.yaml", {"cls_loss": "focal", "loss_branches": "one2one"}, "'loss_branches=one2one' is not valid: "),
        ("yolov8n-seg.yaml", {"sem_loss": "bce"}, "'sem_loss=bce' "),
        ("yolov8n-pose.yaml", {"pose_weights": [1, 2]}, "'pose_weights=.* as the head has keypoints, 4"),
        ("rtdetr-l.yaml", {"o2m_end": 0.5}, "'o2m_end=0.5' "),
    ],
)
def test_what_the_head_cannot_use_is_refused_before_anything_is_read_or_written(model, keys, words, tmp_path):
    """The data set names as many keypoints as its head will have; its images are not there."""
    data = tmp_path / "data.yaml"
    data.write_text("train: nowhere\nval: nowhere\nnames: [a]\nkpt_shape: [4, 3]\n")
    if "yolo26" in model and not YOLO26:
        pytest.skip("this Ultralytics has no YOLO26")
    engine = RTDETR(model) if "rtdetr" in model else YOLO(model)
    kept = engine.model.args
    with pytest.raises(ValueError, match=f"^{words}[^\n]*$"):
        engine.train(data=str(data), project=str(tmp_path / "runs"), **TINY, **keys)
    assert list(tmp_path.iterdir()) == [data]
    assert engine.model.args is kept


def test_what_the_head_can_use_is_not_refused(tmp_path):
    """The model itself has 17 keypoints and 80 classes."""
    data = tmp_path / "data.yaml"
    data.write_text("train: nowhere\nval: nowhere\nnames: [a, b]\nkpt_shape: [4, 3]\n")
    keys = {"pose_weights": [1, 2, 3, 4], "kobj_loss": "focal", "cls_weights": {"a": 1, "b": 3}, "cls_loss": "focal"}
    with pytest.raises(Exception, match="nowhere"):
        YOLO("yolov8n-pose.yaml").train(data=str(data), project=str(tmp_path / "runs"), **TINY, **keys)
    if YOLO26:  # which the trainer is told to build, whatever the engine has
        with pytest.raises(Exception, match="nowhere"):
            YOLO("yolov8n-pose.yaml").train(
                model="yolo26n-pose.yaml", data=str(data), project=str(tmp_path / "runs"), l1_loss="l1", **TINY
            )


def test_keypoints_that_only_the_data_set_knows_are_not_those_of_the_model(tmp_path):
    """Of data that are read in another way the early check knows nothing."""
    with pytest.raises(Exception, match="nowhere"):
        YOLO("yolov8n-pose.yaml").train(
            data="nowhere.ndjson", pose_weights=[1, 2, 3, 4], project=str(tmp_path / "runs"), **TINY
        )


def test_a_criterion_of_a_user_s_own_that_needs_a_trainer_is_checked_later(data, tmp_path, monkeypatch):
    def init_criterion(model):
        assert model.nc == 3  # which the trainer sets
        return loss.v8DetectionLoss(model)

    monkeypatch.setattr(DetectionModel, "init_criterion", init_criterion)
    model = YOLO("yolov8n.yaml")
    model.train(data=str(data), project=str(tmp_path), cls_loss="focal", **TINY)
    with pytest.raises(ValueError, match=r"^'l1_loss=l1' is not valid: "):
        YOLO("yolov8n.yaml").train(data=str(data), project=str(tmp_path), l1_loss="l1", **TINY)


@pytest.mark.skipif(not YOLO26, reason="this Ultralytics has no YOLO26")
def test_a_head_that_only_the_trainer_knows_is_refused_before_the_first_batch(data, tmp_path):
    with pytest.raises(ValueError, match=r"^'dfl_loss=off' is not valid: this head predicts no distribution, [^\n]*$"):
        DetectionTrainer(
            overrides={**TINY, "model": "yolo26n.yaml", "data": str(data), "project": str(tmp_path), "dfl_loss": "off"}
        ).train()
    assert not (tmp_path / "train" / "results.csv").exists()


def test_a_parameter_that_the_chosen_loss_only_accepts_is_warned_of_and_not_described(tmp_path):
    with logged() as messages, pytest.raises(Exception, match=r"nowhere\.yaml"):
        trainer(DetectionTrainer, tmp_path, box_loss="piou", piou_lambda=5)
    assert len([m for m in messages if "'piou_lambda' has no effect with cls=stock box=piou dfl=stock" in m]) == 1
    assert not yolo_losses.config.settings.LossSettings.from_mapping({"box_loss": "piou"}).unused
    assert (
        "piou2_lambda=5"
        in yolo_losses.config.settings.LossSettings.from_mapping({"box_loss": "piou2", "piou2_lambda": 5}).describe()
    )


def test_a_parameter_that_the_chosen_loss_does_not_have_is_warned_of(tmp_path):
    with logged() as messages, pytest.raises(Exception, match=r"nowhere\.yaml"):
        trainer(DetectionTrainer, tmp_path, cls_loss="slide", focal_gamma=3)
    assert len([m for m in messages if "'focal_gamma' has no effect with cls=slide(" in m]) == 1
    # It is no part of the run: what is kept says what was trained.
    args = (tmp_path / "runs" / "train" / "args.yaml").read_text()
    assert "cls_loss: slide" in args
    assert "focal_gamma" not in args


def test_numbers_of_numpy_are_numbers():
    keys = {"cls_loss": "ghm", "ghm_bins": np.int64(12), "ghm_momentum": np.float32(0.5), "cls_scale": np.float16(2)}
    chosen = yolo_losses.config.settings.LossSettings.from_mapping(keys)
    assert chosen.non_default() == {"cls_loss": "ghm", "ghm_bins": 12, "ghm_momentum": 0.5, "cls_scale": 2.0}
    assert all(type(value) in (str, int, float) for value in chosen.non_default().values())


def test_keys_of_the_chosen_loss_are_not_warned_of(tmp_path):
    with logged() as messages, pytest.raises(Exception, match=r"nowhere\.yaml"):
        trainer(DetectionTrainer, tmp_path, cls_loss="focal", focal_gamma=3)
    assert not [m for m in messages if "no effect" in m]


def test_none_and_the_defaults_spelled_out_are_no_choice(tmp_path):
    keys = dict.fromkeys(yolo_losses.config.settings.CHOICES, "none") | {"focal_gamma": None, "slide_delta": "0.1"}
    keys = {k: v for k, v in keys.items() if "off" not in getattr(yolo_losses.config.settings.KEYS.get(k), "words", ())}
    with pytest.raises(Exception, match=r"nowhere\.yaml"):
        trainer(DetectionTrainer, tmp_path, **keys)
    args = (tmp_path / "runs" / "train" / "args.yaml").read_text()
    assert not [key for key in yolo_losses.config.settings.default_keys() if key in args]


@pytest.mark.parametrize("value", ["none", None])
def test_no_distribution_term_is_asked_for_by_off(value, tmp_path):
    """`none` is the default for every other key, but who writes it here means `off`."""
    message = refusal(DetectionTrainer, tmp_path, dfl_loss=value)
    assert message == "'dfl_loss=none' is ambiguous: use dfl_loss=off for no distribution term, or dfl_loss=stock"


def test_a_key_of_this_package_that_is_misspelled_is_refused_with_what_is_meant(tmp_path):
    message = refusal(DetectionTrainer, tmp_path, cls_los="slide")
    assert message.startswith("'cls_los=slide' is not valid: Ultralytics and yolo_losses have no such key.")
    assert message.endswith(" Did you mean 'cls_loss'?")
    with pytest.raises(SyntaxError, match="'epocs' is not a valid YOLO argument"):
        trainer(DetectionTrainer, tmp_path, epocs=3)
    assert not list(tmp_path.iterdir())


def test_a_key_that_ultralytics_has_removed_is_said_to_have_no_effect(tmp_path):
    with logged() as messages, pytest.raises(Exception, match=r"nowhere\.yaml"):
        trainer(DetectionTrainer, tmp_path, label_smoothing=0.1)
    removed = "label_smoothing" not in DEFAULT_CFG_DICT
    assert len([m for m in messages if "'label_smoothing' has no effect" in m]) == int(removed)


@pytest.mark.slow
def test_the_stock_command_ends_with_the_refusal_and_exit_code_1(tmp_path):
    common = ["train", "model=yolov8n.yaml", *pairs(data="nowhere.yaml", project=tmp_path / "runs", **TINY)]
    value = start_yolo(*common, "cls_loss=slid")
    key = start_yolo(*common, "cls_los=slide")
    refused = value()
    assert refused.code == 1
    assert refused.lines[-1].startswith("'cls_loss=slid' is not valid: allowed are stock, ")
    assert "Traceback" not in refused.text
    assert refused.lines[-1].endswith("Did you mean 'slide'?")
    unknown = key()
    assert unknown.code == 1
    assert "Traceback" not in unknown.text
    assert unknown.lines[-1].startswith("'cls_los=slide' is not valid: ")
    assert unknown.lines[-1].endswith("Did you mean 'cls_loss'?")
    assert not list(tmp_path.iterdir())
