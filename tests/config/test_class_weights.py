"""Class weights: by the effective number of labels, as a key, in a training from its arguments to its checkpoint."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, head, logged, pairs, start_without_plugin
from ultralytics import YOLO
from ultralytics.cfg import entrypoint
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG_DICT

import yolo_losses
from yolo_losses.config import class_weights
from yolo_losses.config.settings import LossSettings
from yolo_losses.functional import class_balanced_weights
from yolo_losses.integration import run

NAMES = ["disc", "tile", "star"]


# ----------------------------------------------------------------------------------- the effective number of labels


@pytest.mark.parametrize("beta", [0.9, 0.99, 0.999, 0.9999])
def test_weights_are_inverse_to_the_effective_number_of_samples_with_mean_1(beta):
    """As in equation (2) of the paper, by the sum of its geometric series."""
    counts = [1, 3, 20, 400]
    inverse = [1 / sum(beta**i for i in range(n)) for n in counts]
    expected = [len(counts) * value / sum(inverse) for value in inverse]
    weights = class_balanced_weights(counts, beta)
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx(expected, rel=1e-6)
    exact = class_balanced_weights(torch.tensor(counts, dtype=torch.float64), beta=beta)
    assert exact.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_limits_are_equal_weights_and_inverse_frequency():
    counts = torch.tensor([1, 2, 4])
    assert class_balanced_weights(counts, 0.0).tolist() == [1, 1, 1]
    inverse = torch.tensor([12.0, 6.0, 3.0], dtype=torch.float64) / 7
    torch.testing.assert_close(class_balanced_weights(counts, 1), inverse.float())
    # Where 1 - beta^n would cancel:
    torch.testing.assert_close(class_balanced_weights(counts.double(), 1 - 2**-50), inverse, rtol=1e-13, atol=0)


def test_a_class_without_labels_has_the_mean_of_the_others():
    weights = class_balanced_weights([0, 10, 1000])
    assert weights[0] == 1
    assert weights[1:].tolist() == class_balanced_weights([10, 1000]).tolist()
    assert class_balanced_weights([0, 0]).tolist() == [1, 1]
    assert class_balanced_weights([]).shape == (0,)
    assert class_balanced_weights([0, 1], 1).tolist() == [1, 1]


@pytest.mark.parametrize("counts", [[-1.0, 2], [float("nan")], [float("inf")], [[1, 2]], 3])
def test_invalid_counts_are_rejected(counts):
    with pytest.raises(ValueError, match=r"^'counts=[^\n]*' is not valid: allowed are numbers of samples"):
        class_balanced_weights(counts)


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_a_beta_out_of_range_is_refused(beta):
    with pytest.raises(ValueError, match=r"^'beta=[^\n]*' is not valid: allowed is a number >= 0 and <= 1$"):
        class_balanced_weights([1, 2], beta)


# ------------------------------------------------------------------------------------------------------------ the key


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ([1, 2, 5], [1.0, 2.0, 5.0]),
        ((1, "2", 5e-1), [1.0, 2.0, 0.5]),
        ("[1, 2.5]", [1.0, 2.5]),
        ("{star: 3}", {"star": 3.0}),
        (np.array([1, 2]), [1.0, 2.0]),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0]),
        ({"star": 3, 7: "1e1"}, {"star": 3.0, "7": 10.0}),
        ("Balanced", "balanced"),
    ],
    ids=repr,
)
def test_weights_are_a_list_a_mapping_or_balanced(value, kept):
    chosen = LossSettings.from_mapping({"cls_weights": value})
    assert chosen.swaps_cls
    assert chosen.cls_spec.name == "bce"
    expected = {"cls_weights": kept} | ({"cls_weights_beta": 0.999} if kept == "balanced" else {})
    assert chosen.to_config() == expected
    assert LossSettings.from_mapping(chosen.to_config()) == chosen
    assert yaml.safe_load(yaml.safe_dump(chosen.to_config())) == chosen.to_config()


@pytest.mark.parametrize("value", [None, "none", "None"])
def test_none_is_the_default(value):
    assert LossSettings.from_mapping({"cls_weights": value, "cls_weights_beta": None}) == LossSettings()


@pytest.mark.parametrize(
    "value",
    [
        2, 1.5, True, False, "1,2", "", [], {}, [0, 1], [1, -2], [1, float("nan")], [1, float("inf")], [1, "x"],
        [1, None], [1, "none"], "[1, x]", "[1, 2", "[2024-13-45]", [[1, 2]], [True, 2], {"star": 0}, {"star": None},
        {"star": [1]}, {"star"}, print,
    ],
    ids=repr,
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(value):
    with pytest.raises(ValueError, match=r"^'cls_weights=[^\n]*' is not valid: allowed are a list[^\n]*none\.$"):
        LossSettings.from_mapping({"cls_weights": value})


def test_the_nearest_word_is_named():
    with pytest.raises(ValueError, match=r"^'cls_weights=balance' is not valid: [^\n]*Did you mean 'balanced'\?$"):
        LossSettings.from_mapping({"cls_weights": "balance"})
    with pytest.raises(ValueError, match=r"^'cls_weigths' is not a key of yolo_losses. Did you mean 'cls_weights'\?$"):
        LossSettings.from_mapping({"cls_weigths": [1, 2]})


@pytest.mark.parametrize("beta", [-0.5, 1.5, "x", [1]])
def test_the_key_s_beta_is_refused_out_of_range(beta):
    with pytest.raises(ValueError, match=r"^'cls_weights_beta=[^\n]*' is not valid: allowed is a number >= 0 and <= 1"):
        LossSettings.from_mapping({"cls_weights": "balanced", "cls_weights_beta": beta})


def test_a_beta_without_balanced_weights_has_no_effect():
    with pytest.raises(ValueError, match=r"^'cls_weights_beta=0.9' would change nothing: .*cls_weights=balanced\.$"):
        LossSettings.from_mapping({"cls_weights_beta": 0.9})
    chosen = LossSettings.from_mapping({"cls_weights": [1, 2], "cls_weights_beta": 0.9})
    assert chosen.unused == ("cls_weights_beta",)
    assert chosen.to_config() == {"cls_weights": [1.0, 2.0]}


# ---------------------------------------------------------------------------------------------- where they are refused


def trainer(folder: Path, data: Path | str = "nowhere.yaml", **keys: Any) -> DetectionTrainer:
    return DetectionTrainer(
        overrides={**TINY, "model": "yolov8n.yaml", "data": str(data), "project": str(folder), **keys}
    )


needs_cls_pw = pytest.mark.skipif("cls_pw" not in DEFAULT_CFG_DICT, reason="this Ultralytics has no cls_pw")


@needs_cls_pw
@pytest.mark.parametrize("weights", [[1, 2, 4], {"star": 2}, "balanced"], ids=repr)
def test_class_weights_are_rejected_together_with_cls_pw(weights, tmp_path):
    with pytest.raises(ValueError, match=r"^'cls_weights=[^\n]*' cannot be used together with 'cls_pw=0.5', [^\n]*$"):
        trainer(tmp_path, cls_weights=weights, cls_pw=0.5)
    assert not list(tmp_path.iterdir())


@needs_cls_pw
@pytest.mark.parametrize("space", [None, {"cls_pw": (0.0, 1.0)}, {"lr0": (0.01, 0.02)}], ids=repr)
def test_a_tuner_that_would_try_both_is_refused_once(space, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = {"cls_weights": "balanced"} | ({"space": space} if space else {})
    if space == {"lr0": (0.01, 0.02)}:
        yolo_losses.integration.arguments.check_tuner(keys)
        return
    with pytest.raises(ValueError, match=r"^'cls_weights=balanced' cannot be [^\n]*cls_pw[^\n]*$"):
        YOLO("yolov8n.yaml").tune(data="nowhere.yaml", project=str(tmp_path / "runs"), iterations=1, **TINY, **keys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1, 2], r"'cls_weights=\[1.0, 2.0\]' is not valid: allowed are as many numbers as there are classes, 3"),
        ({"Sta": 2}, r"'cls_weights={'Sta': 2.0}' is not valid: 'Sta' is not a class [^\n]*Did you mean 'star'\?"),
    ],
    ids=repr,
)
def test_what_does_not_fit_the_classes_is_refused_before_anything_is_written(weights, words, data, tmp_path):
    with pytest.raises(ValueError, match=f"^{words}$"):
        trainer(tmp_path, data, cls_weights=weights)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_one_class_for_all_is_named_as_the_reason(task, datasets, tmp_path):
    kind, model = (DetectionTrainer, "yolov8n") if task == "detect" else (ClassificationTrainer, "yolov8n-cls")
    keys = {"cls_weights": [1, 2, 3], "single_cls": True, "model": f"{model}.yaml", "data": str(datasets(task))}
    with pytest.raises(ValueError, match=r"as there are classes, 1 \(single_cls=True makes one class of all\)$"):
        kind(overrides={**TINY, **keys, "project": str(tmp_path)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "names"),
    [("{010: 2}", ["010"]), ("{12:30: 2}", ["12:30"]), ("{yes: 2, 1.50: 3}", ["yes", "1.50"]), ("{'a b': 2}", ["a b"])],
)
def test_names_on_the_command_line_stay_text(text, names):
    assert list(LossSettings.from_mapping({"cls_weights": text}).cls_weights) == names


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{a: 2, a: 5}", r"'cls_weights={a: 2, a: 5}' is not valid: the class 'a' is named twice"),
        ({True: 2}, r"'cls_weights={True: 2}' is not valid: the class name True must be quoted to be read as text"),
        ({1.5: 2}, r"'cls_weights={1.5: 2}' is not valid: the class name 1.5 must be quoted to be read as text"),
        ({-1: 2}, r"'cls_weights={-1: 2}' is not valid: the class name -1 must be quoted to be read as text"),
        ({None: 2}, r"'cls_weights={None: 2}' is not valid: the class name None must be quoted to be read as text"),
    ],
)
def test_names_that_are_lost_in_yaml_are_refused(value, words):
    with pytest.raises(ValueError, match=f"^{words}$"):
        LossSettings.from_mapping({"cls_weights": value})


def test_a_name_of_several_lines_is_logged_on_one():
    assert class_weights.summary([1.0, 2.0], ["a\nb", "c"]) == "a\\nb 1, c 2"


def test_class_weights_are_rejected_for_prompt_models():
    class WorldTrainer:
        pass

    chosen = LossSettings.from_mapping({"cls_weights": [1]})
    with pytest.raises(ValueError, match=r"^'cls_weights=\[1.0\]' cannot be used with WorldTrainer, [^\n]*$"):
        run.with_balanced_weights(WorldTrainer(), chosen)


def test_a_data_set_without_labels_is_refused():
    chosen = LossSettings.from_mapping({"cls_weights": "balanced"})
    loader = SimpleNamespace(dataset=SimpleNamespace())
    with pytest.raises(ValueError, match=r"^'cls_weights=balanced' needs the labels of the training set, [^\n]*$"):
        run.with_balanced_weights(SimpleNamespace(train_loader=loader, data={"nc": 3}), chosen)


def test_the_labels_of_several_data_sets_are_counted_together():
    labels = [{"cls": np.array([[0.0], [2.0]])}, {"cls": np.zeros((0, 1))}]
    parts = [SimpleNamespace(labels=labels), SimpleNamespace(labels=labels[:1]), SimpleNamespace(labels=[])]
    of = SimpleNamespace(train_loader=SimpleNamespace(dataset=SimpleNamespace(datasets=parts)), data={"nc": 4})
    assert run._label_counts(of) == [2, 0, 2, 0]


@pytest.mark.parametrize("kind", ["DetectionLoss", "SegmentationLoss", "PoseLoss", "OBBLoss"])
def test_a_criterion_class_knows_the_names_of_its_model(kind):
    suffix = {"SegmentationLoss": "-seg", "PoseLoss": "-pose", "OBBLoss": "-obb"}.get(kind, "")
    model = head(f"v8{suffix}")
    criterion = getattr(yolo_losses, kind)(model, settings={"cls_weights": {model.names[1]: 3}})
    assert criterion.branches[""].weights.tolist() == [1, 3, 1]
    with pytest.raises(ValueError, match=r"^'cls_weights=balanced' needs the labels of the training set, which a crit"):
        getattr(yolo_losses, kind)(model, settings={"cls_weights": "balanced"})


# --------------------------------------------------------------------------------------------------------- a training


def counted(data: Path) -> list[int]:
    """Return the labels of each class in a data set's files."""
    found = Counter(
        int(line.split()[0])
        for file in (data.parent / "labels" / "train").glob("*.txt")
        for line in file.read_text().splitlines()
    )
    return [found[number] for number in range(len(NAMES))]


def train(folder: Path, data: Path, **keys: Any) -> tuple[Any, list[str]]:
    """Train a tiny model; return it with the lines that this package logged."""
    model = YOLO("yolov8n.yaml")
    with logged() as messages:
        model.train(data=str(data), project=str(folder), **{**TINY, **keys})
    return model, [message.strip() for message in messages if "yolo_losses: " in message]


def test_balanced_is_replaced_by_the_numbers_of_the_training_set(data, tmp_path):
    model, said = train(tmp_path, data, cls_weights="balanced", cls_weights_beta=0.9)
    expected = class_balanced_weights(counted(data), 0.9).tolist()
    assert len(set(expected)) > 1
    args = yaml.safe_load((tmp_path / "train" / "args.yaml").read_text())
    kept = torch.load(tmp_path / "train" / "weights" / "last.pt", weights_only=False)["train_args"]
    for found in (args, kept, vars(model.trainer.args)):
        assert found["cls_weights"] == pytest.approx(expected, rel=1e-5)
        assert type(found["cls_weights"]) is list
        assert {type(weight) for weight in found["cls_weights"]} == {float}
        assert "cls_weights_beta" not in found
    words = "class weights: " + ", ".join(f"{n} {w:.3g}" for n, w in zip(NAMES, expected, strict=True))
    assert words in said[0]
    assert said[1].endswith(words)


def test_a_mapping_names_some_of_the_classes(data, tmp_path):
    config = tmp_path / "weights.yaml"
    config.write_text("cls_loss: focal\ncls_weights:\n  star: 4\n", encoding="utf-8")
    model, said = train(tmp_path, data, cfg=str(config))
    assert model.trainer.yolo_losses_run.branches[""].weights.tolist() == [1, 1, 4]
    assert yaml.safe_load((tmp_path / "train" / "args.yaml").read_text())["cls_weights"] == {"star": 4.0}
    assert "class weights: disc 1, tile 1, star 4" in said[0]


def test_validation_logs_the_weighted_loss(data, tmp_path):
    train(tmp_path, data, cls_weights=[1e-4] * 3)
    header, row = (tmp_path / "train" / "results.csv").read_text().splitlines()
    values = dict(zip([name.strip() for name in header.split(",")], map(float, row.split(",")), strict=True))
    assert 0 < values["train/cls_loss"] < 0.01  # without the weights above 1
    assert 0 < values["val/cls_loss"] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["cls_weights=[1,2,5]"], [1.0, 2.0, 5.0]),
        (["cls_weights=[1,", "2,", "5]"], [1.0, 2.0, 5.0]),
        (["cls_weights=1,2,5"], [1.0, 2.0, 5.0]),
        (["cls_weights={'star': 2}"], {"star": 2.0}),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) and isinstance(words[0], str) else "",
)
def test_the_command_line_accepts_class_weights(words, kept, data, tmp_path, monkeypatch):
    common = ["train", "model=yolov8n.yaml", *pairs(data=data, project=tmp_path / "runs", **TINY)]
    for where in ("sys.argv", "ultralytics.cfg.ARGV"):  # releases differ in which they read
        monkeypatch.setattr(where, ["yolo", *common, *words], raising=False)
    entrypoint()
    assert yaml.safe_load((tmp_path / "runs" / "train" / "args.yaml").read_text())["cls_weights"] == kept


def stop_in_epoch_1(trainer: Any) -> None:
    if trainer.epoch == 1:
        raise KeyboardInterrupt


@pytest.fixture
def stopped(data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run of balanced weights that was stopped after its first epoch: its checkpoint and its data set."""
    own = tmp_path / "data"
    shutil.copytree(data.parent, own)
    for file in own.rglob("*.cache"):
        file.unlink()
    description = yaml.safe_load(data.read_text())
    if "path" in description:
        description["path"] = str(own)
    (own / data.name).write_text(yaml.safe_dump(description))
    model = YOLO("yolov8n.yaml")
    model.add_callback("on_train_epoch_start", stop_in_epoch_1)
    keys = {**TINY, "epochs": 2, "cls_weights": "balanced"}
    with pytest.raises(KeyboardInterrupt):
        model.train(data=str(own / data.name), project=str(tmp_path), **keys)
    return tmp_path / "train" / "weights" / "last.pt", own


@pytest.mark.slow
def test_a_resumed_run_keeps_its_numbers(stopped):
    """If `balanced` is given again, the run continues with equal numbers, and is rejected if the labels changed."""
    checkpoint, data = stopped
    numbers = torch.load(checkpoint, weights_only=False)["train_args"]["cls_weights"]
    shutil.copy(checkpoint, data / "before.pt")
    for file in (data / "labels" / "train").glob("*.txt"):
        file.write_text("\n".join("2" + line[1:] for line in file.read_text().splitlines()), encoding="utf-8")
    for file in data.rglob("*.cache"):
        file.unlink()
    with pytest.raises(ValueError, match=r"^resume keeps cls_weights=[^\n]*, which is 'balanced' now$"):
        YOLO(checkpoint).train(resume=True, cls_weights="balanced", device="cpu", workers=0)
    with pytest.raises(ValueError, match=r"^resume keeps cls_weights=[^\n]* to change it to \[1.0, 2.0, 4.0\]$"):
        YOLO(checkpoint).train(resume=True, cls_weights=[1, 2, 4], device="cpu", workers=0)
    model = YOLO(checkpoint)
    model.train(resume=True, device="cpu", workers=0)
    assert vars(model.trainer.args)["cls_weights"] == numbers
    assert model.trainer.yolo_losses_run.branches[""].weights.tolist() == pytest.approx(numbers)


@pytest.mark.slow
def test_the_same_command_resumes(stopped):
    checkpoint, data = stopped
    model = YOLO(checkpoint)
    model.train(resume=True, cls_weights="balanced", cls_weights_beta=0.999, device="cpu", workers=0)
    expected = class_balanced_weights(counted(data / "data.yaml")).tolist()
    assert vars(model.trainer.args)["cls_weights"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_checkpoint_needs_no_plugin(data, tmp_path):
    train(tmp_path, data, cls_weights={"star": 4}, cls_loss="slide")
    code = """
import sys
from ultralytics import YOLO
model = YOLO(sys.argv[1])
assert model.val(data=sys.argv[2], imgsz=64, batch=4, device="cpu", workers=0, plots=False).box.map >= 0
assert "yolo_losses" not in sys.modules
"""
    start_without_plugin(code, str(tmp_path / "train" / "weights" / "last.pt"), str(data))().check()
