"""The task classify: the chosen loss in `v8ClassificationLoss`, in trainings by the stock command and by itself."""

from __future__ import annotations

import copy
import csv
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY, Result, start_without_plugin, yolo
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.utils.loss import v8ClassificationLoss

import yolo_losses
from yolo_losses import LossSettings, registry
from yolo_losses.integration.criteria import branches_of

LOSSES = [spec.name for spec in registry.specs("classify")]
WEIGHTS = [0.2, 1.0, 1.8]


def made_up(images: int = 12) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, 3, generator=generator) * 2
    return logits.requires_grad_(), {"cls": torch.randint(3, (images,), generator=generator)}


def loss_of(keys: dict[str, Any], logits: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return value and gradient of a criterion with these keys."""
    criterion = v8ClassificationLoss()
    yolo_losses.equip(criterion, keys)
    value = criterion(logits, batch)[0]
    return value, torch.autograd.grad(value, logits, retain_graph=True)[0]


@pytest.mark.parametrize("keys", [{"cls_loss": "ce"}, {"cls_loss": "stock", "cls_scale": 1.0}, {"cls_scale": 2.0}])
def test_ce_and_a_factor_alone_equal_the_stock_loss(keys: dict[str, Any]) -> None:
    logits, batch = made_up()
    stock = v8ClassificationLoss()(logits, batch)[0]
    value, gradient = loss_of(keys, logits, batch)
    factor = keys.get("cls_scale", 1.0)
    torch.testing.assert_close(value, stock * factor, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(stock, logits)[0] * factor, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weights_and_smoothing_are_those_of_torch(smoothing: float) -> None:
    logits, batch = made_up()
    value, gradient = loss_of({"cls_weights": WEIGHTS, "cls_smoothing": smoothing}, logits, batch)
    wanted = nn.functional.cross_entropy(logits, batch["cls"], torch.tensor(WEIGHTS), label_smoothing=smoothing)
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, logits)[0])


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_mean_of_the_function_over_images(name: str) -> None:
    logits, batch = made_up()
    value, _ = loss_of({"cls_loss": name}, logits, batch)
    spec = registry.find("classify", name)
    assert spec is not None
    torch.testing.assert_close(value, spec.module.formula(logits, batch["cls"], reduction="mean"))


@pytest.mark.parametrize("name", LOSSES)
def test_equal_class_weights_change_nothing(name: str) -> None:
    logits, batch = made_up()
    plain, weighted = (loss_of({"cls_loss": name, **more}, logits, batch)[0] for more in ({}, {"cls_weights": [3] * 3}))
    torch.testing.assert_close(plain, weighted)


@pytest.mark.parametrize(
    "parameter", [p for s in registry.specs("classify") for p in s.parameters], ids=lambda p: p.key
)
def test_the_ends_of_a_parameter_s_range_give_finite_numbers(parameter: Any) -> None:
    (spec,) = (s for s in registry.specs("classify") if parameter in s.parameters)
    limits = parameter.limits
    low = limits.low if math.isfinite(limits.low) else limits.above + 0.01
    for value in (low, limits.high if math.isfinite(limits.high) else 50.0):
        for size in (1.0, 100.0):
            logits, batch = made_up()
            found = loss_of({"cls_loss": spec.name, parameter.key: value}, (logits * size), batch)
            assert all(each.isfinite().all() for each in found)


def test_a_batch_without_images_has_a_loss_of_0_in_the_graph() -> None:
    logits = torch.zeros(0, 3, requires_grad=True)
    value, _ = loss_of({"cls_loss": "focal"}, logits, {"cls": torch.zeros(0, dtype=torch.long)})
    assert float(value) == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"cls_loss": "slide"},
            r"'cls_loss=slide' is not valid: 'slide' is a class loss, not a loss of the task classify",
        ),
        ({"cls_smoothing": 1}, r"'cls_smoothing=1' is not valid: allowed is a number >= 0 and < 1"),
        ({"cls_loss": "gce", "cls_smoothing": 0.1}, r"'cls_smoothing=0.1' cannot be used with cls_loss=gce"),
        ({"cls_loss": "ce", "cls_scale": "auto"}, r"'cls_scale=auto' cannot be used in the task 'classify'"),
        ({"cls_loss": "ce", "cls_target": "iou"}, r"'cls_target=iou' cannot be used in the task 'classify'"),
        ({"box_loss": "siou"}, r"'box_loss=siou' cannot be used in the task 'classify'"),
    ],
)
def test_what_has_no_meaning_in_the_task_is_refused_in_one_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        yolo_losses.equip(v8ClassificationLoss(), keys)


def test_smoothing_is_refused_where_anchors_are_assigned() -> None:
    with pytest.raises(
        ValueError, match=r"^'cls_smoothing=0.1' cannot be used in the task 'detect': allowed is classify"
    ):
        LossSettings.from_mapping({"cls_smoothing": 0.1, "cls_loss": "bce"}).check_task("detect")


def test_a_copy_is_equipped_and_a_pickle_is_the_stock_criterion() -> None:
    criterion = v8ClassificationLoss()
    branches = yolo_losses.equip(criterion, {"cls_loss": "focal"})
    assert branches_of(copy.deepcopy(criterion)) == branches
    yolo_losses.equip(criterion, {})
    assert not vars(criterion)


LOADS_WITHOUT_THE_PLUGIN = """
import pickle, sys
import torch
criterion = pickle.loads(open(sys.argv[1], "rb").read())
print(float(criterion(torch.zeros(2, 4), {"cls": torch.tensor([0, 1])})[0]))
"""


def test_a_pickle_loads_without_the_plugin_and_computes_the_stock_loss(tmp_path: Path) -> None:
    criterion = v8ClassificationLoss()
    yolo_losses.equip(criterion, {"cls_loss": "focal"})
    file = tmp_path / "criterion.pkl"
    file.write_bytes(pickle.dumps(criterion))
    text = start_without_plugin(LOADS_WITHOUT_THE_PLUGIN, str(file))().check().lines[-1]
    assert float(text) == pytest.approx(math.log(4))


# ---------------------------------------------------------------------------------------------------- trainings


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes in folders, one of them rare."""
    random = np.random.default_rng(0)
    data = tmp_path_factory.mktemp("classify")
    for split, counts in {"train": (10, 10, 4), "val": (4, 4, 4)}.items():
        for name, count, colour in zip("abc", counts, (40, 130, 220), strict=True):
            folder = data / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = random.integers(colour - 30, colour + 30, (64, 64, 3)).astype(np.uint8)
                assert cv2.imwrite(str(folder / f"{number}.png"), image)
    return data


def train(data: Path, project: Path, **keys: Any) -> Result:
    words = {**TINY, "model": "yolov8n-cls.yaml", "data": data, "project": project, "name": "run", **keys}
    return yolo("train", *(f"{key}={value}" for key, value in words.items()))


@pytest.mark.slow
def test_the_stock_command_trains_the_chosen_loss_and_says_so(folders: Path, tmp_path: Path) -> None:
    done = train(
        folders, tmp_path, cls_loss="focal", cls_weights="balanced", cls_smoothing=0.1, loss_stats=True
    ).check()
    (start,) = done.saying("yolo_losses: cls_loss=focal SoftmaxFocalLoss(gamma=1.5)")
    assert "class weights: a " in start
    assert start.endswith("smoothing 0.1; equipped for training and validation")
    assert done.saying("yolo_losses: ran in the first batch with objects: class; class term ")
    (row,) = csv.DictReader((tmp_path / "run" / "loss_stats.csv").open())
    assert sum(float(row[f"by_class/{name}"]) for name in "abc") == pytest.approx(1, abs=1e-4)
    kept = torch.load(tmp_path / "run" / "weights" / "last.pt", weights_only=False)["train_args"]
    assert kept["cls_loss"] == "focal"
    assert kept["cls_weights"][2] > kept["cls_weights"][0]


@pytest.mark.slow
def test_a_single_class_has_no_ratio_to_cross_entropy_which_is_0(folders: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(folders / split / "a", tmp_path / "data" / split / "only")
    done = train(tmp_path / "data", tmp_path, cls_loss="bce", loss_stats=True).check()
    (proof,) = done.saying("yolo_losses: ran in the first batch with objects: ")
    assert proof.endswith("class; cross-entropy is 0 on the same predictions, and the class term has no ratio to it")
    (row,) = csv.DictReader((tmp_path / "run" / "loss_stats.csv").open())
    assert row["cls_to_stock/value"] == row["cls_to_stock/gradient"] == "nan"


@pytest.mark.parametrize("words", [{"cls_loss": "slide"}, {"cls_weights": [1, 2]}, {"dfl_loss": "off"}])
def test_a_refusal_is_one_line_and_writes_nothing(words: dict[str, Any], folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^[^\n]*{next(iter(words))}[^\n]*$"):
        YOLO("yolov8n-cls.yaml").train(**TINY, data=str(folders), project=str(tmp_path), name="run", **words)
    assert not (tmp_path / "run" / "args.yaml").exists()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weights", [[1, 2], [1, 2, 3, 4, 5]])
def test_weights_of_another_number_of_classes_are_refused_in_one_line(name: str, weights: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^'cls_weights=[^\n]* allowed are as many numbers as there are classes, 3$"):
        loss_of({"cls_loss": name, "cls_weights": weights}, *made_up())
