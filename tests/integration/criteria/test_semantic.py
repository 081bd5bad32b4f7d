"""The task semantic: the chosen losses in `SemanticSegmentationLoss`, by itself and in trainings."""

from __future__ import annotations

import copy
import csv
import math
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import ultralytics.utils.loss as upstream
from conftest import TINY, Result, start, start_without_plugin, yolo
from conftest import criterion_of as anchors
from torch import Tensor, nn
from ultralytics.cfg import get_cfg

import yolo_losses
from yolo_losses import LossSettings, registry
from yolo_losses.integration.criteria import branches_of
from yolo_losses.integration.criteria.ledger import UnprovenError
from yolo_losses.monitor.gather import read

if not hasattr(upstream, "SemanticSegmentationLoss"):
    pytest.skip("this Ultralytics has no task semantic", allow_module_level=True)

from ultralytics.nn.tasks import SemanticSegmentationModel

SEED = 4
CHOICES = [
    {key: spec.name} for kind, key in (("ce", "ce_loss"), ("dice", "dice_loss")) for spec in registry.specs(kind)
]
CHOICES.append({"dice_loss": "off"})
PARAMETERS = [p for spec in registry.specs() if spec.kind in ("ce", "dice") for p in spec.parameters]


def criterion_of(classes: int, data: str = "") -> Any:
    """Return a stock criterion, on Cityscapes with its table of weights."""
    model = nn.Linear(1, 1)
    model.model = [SimpleNamespace(nc=classes)]  # type: ignore[assignment]
    model.args = SimpleNamespace(data=data)  # type: ignore[assignment]
    return upstream.SemanticSegmentationLoss(model)


def made_up(classes: int) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
    """Return predictions of the head and of the auxiliary head, and masks with pixels that are ignored.

    The last of several classes has no pixel.
    """
    generator = torch.Generator().manual_seed(SEED)
    main, auxiliary = (torch.randn(2, classes, size, size, generator=generator) * 2 for size in (4, 2))
    masks = torch.randint(max(classes - 1, 2), (2, 8, 8), generator=generator).int()
    masks[:, :2] = 255
    return (main.requires_grad_(), auxiliary.requires_grad_()), {"semantic_mask": masks}


def value_of(criterion: Any, preds: tuple[Tensor, ...], batch: dict[str, Tensor]) -> tuple[Tensor, list[Tensor], Any]:
    """Return the value of a criterion, its gradients, and what it logs."""
    value, items = criterion(preds, batch)
    if isinstance(items, Tensor):  # by position, in older releases
        items = dict(zip(("ce_loss", "dice_loss", "aux_loss"), items, strict=True))
    return value, list(torch.autograd.grad(value, preds)), items


def equipped(keys: dict[str, Any], classes: int, data: str = "") -> Any:
    criterion = criterion_of(classes, data)
    yolo_losses.equip(criterion, keys)
    return criterion


def pixels(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probabilities, shape `(P, C)`, and the labels of the valid pixels, the head's size made the masks'."""
    z = nn.functional.interpolate(logits.detach(), size=masks.shape[1:], mode="bilinear", align_corners=False)
    p = z.sigmoid() if z.shape[1] == 1 else z.softmax(1)
    rows = [(p[b, :, y, x], int(masks[b, y, x])) for b in range(2) for y in range(8) for x in range(8)]
    valid = [(row, label) for row, label in rows if label != 255]
    return torch.stack([row for row, _ in valid]), torch.tensor([label for _, label in valid])


@pytest.mark.parametrize(("classes", "data"), [(1, ""), (2, ""), (5, ""), (19, "cityscapes8.yaml")])
@pytest.mark.parametrize("keys", [{"ce_loss": "ce"}, {"dice_loss": "dice"}, {"ce_loss": "ce", "dice_loss": "dice"}])
def test_ce_and_dice_equal_the_stock_terms(keys: dict[str, Any], classes: int, data: str) -> None:
    preds, batch = made_up(classes)
    value, gradients, items = value_of(equipped(keys, classes, data), preds, batch)
    stock, wanted, logged = value_of(criterion_of(classes, data), preds, batch)
    torch.testing.assert_close(value, stock, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients, wanted, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(items, logged)


def test_class_weights_replace_those_that_upstream_has() -> None:
    preds, batch = made_up(19)
    weights = torch.linspace(0.5, 2, 19)
    criterion = criterion_of(19)
    criterion.ce.register_buffer("weight", weights, persistent=False)
    wanted = value_of(criterion, preds, batch)
    keys = {"cls_weights": weights.tolist()}
    torch.testing.assert_close(value_of(equipped(keys, 19, "cityscapes8.yaml"), preds, batch), wanted)


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("head", [0, 1])
def test_focal_by_a_loop_over_the_pixels(classes: int, head: int) -> None:
    preds, batch = made_up(classes)
    items = value_of(equipped({"ce_loss": "focal", "ce_focal_gamma": 3}, classes), preds, batch)[2]
    total = 0.0
    p, labels = pixels(preds[head], batch["semantic_mask"])
    for row, label in zip(p, labels, strict=True):
        p_y = float(row[label]) if classes > 1 else float(row[0]) if label else 1 - float(row[0])
        total -= (1 - p_y) ** 3 * math.log(p_y) / len(labels)
    assert float(items[("ce_loss", "aux_loss")[head]]) == pytest.approx((1.0, 0.4)[head] * total, rel=1e-5)


@pytest.mark.parametrize("keep", [0.0, 0.9])
@pytest.mark.parametrize("weights", [None, [0.5, 1, 2, 4, 1]])
def test_ohem_by_a_loop_over_the_hard_pixels(keep: float, weights: list[float] | None) -> None:
    preds, batch = made_up(5)
    keys = {"ce_loss": "ohem", "ce_ohem_threshold": 0.2, "ce_ohem_keep": keep, "cls_weights": weights}
    items = value_of(equipped(keys, 5), preds, batch)[2]
    p, labels = pixels(preds[0], batch["semantic_mask"])
    found = sorted((float(row[label]), int(label)) for row, label in zip(p, labels, strict=True))
    least = math.ceil(keep * len(found))
    hard = [pair for number, pair in enumerate(found) if number < least or pair[0] < 0.2]
    assert least < len(hard) if keep == 0 else least == len(hard) < len(found)
    factors = [weights[label] if weights else 1.0 for _, label in hard]
    wanted = sum(-f * math.log(p_y) for f, (p_y, _) in zip(factors, hard, strict=True)) / sum(factors)
    assert float(items["ce_loss"]) == pytest.approx(wanted, rel=1e-5)


def test_ohem_takes_no_more_than_its_share_of_pixels_that_are_perfect() -> None:
    logits = torch.tensor([[60.0, 0.0]] * 15 + [[0.0, 1.0]])
    loss = registry.find("ce", "ohem").build({"ce_ohem_keep": 0.25})  # type: ignore[union-attr]
    labels = torch.zeros(16, dtype=torch.long)
    per_pixel = loss.pixels(logits, labels)
    assert float(loss.mean_over_pixels(per_pixel, labels)) == pytest.approx(float(per_pixel[-1]) / 4)


@pytest.mark.parametrize("classes", [1, 5])
def test_focal_tversky_by_a_loop_over_classes_and_pixels(classes: int) -> None:
    preds, batch = made_up(classes)
    keys = {"dice_loss": "tversky", "dice_tversky_alpha": 0.2, "dice_tversky_beta": 0.9, "dice_tversky_gamma": 4 / 3}
    items = value_of(equipped(keys, classes), preds, batch)[2]
    p, labels = pixels(preds[0], batch["semantic_mask"])
    losses = []
    for c in range(classes):
        of_class = [
            (float(row[c]), int(label) == (1 if classes == 1 else c)) for row, label in zip(p, labels, strict=True)
        ]
        hit = sum(q for q, inside in of_class if inside)
        more = sum(q for q, inside in of_class if not inside)
        missed = sum(1 - q for q, inside in of_class if inside)
        losses.append((1 - (hit + 1) / (hit + 0.2 * more + 0.9 * missed + 1)) ** 0.75)
    assert float(items["dice_loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("classes", [1, 5])
def test_lovasz_is_the_mean_over_the_classes_that_have_a_pixel(classes: int) -> None:
    preds, batch = made_up(classes)
    items = value_of(equipped({"dice_loss": "lovasz"}, classes), preds, batch)[2]
    p, labels = pixels(preds[0], batch["semantic_mask"])
    losses = []
    for c in [0] if classes == 1 else labels.unique().tolist():
        inside = labels == (1 if classes == 1 else c)
        errors = torch.where(inside, 1 - p[:, c], p[:, c])
        wrong, before, total = torch.zeros_like(inside), 0.0, 0.0
        for i in errors.argsort(descending=True):
            wrong[i] = True
            jaccard = 1 - int((inside & ~wrong).sum()) / int((inside | wrong).sum())
            total, before = total + float(errors[i]) * (jaccard - before), jaccard
        losses.append(total)
    assert len(losses) == max(classes - 1, 1)
    assert float(items["dice_loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_a_dice_term_that_is_off_is_0_and_leaves_the_others() -> None:
    preds, batch = made_up(5)
    value, _, items = value_of(equipped({"dice_loss": "off"}, 5), preds, batch)
    _, _, stock = value_of(criterion_of(5), preds, batch)
    assert float(items["dice_loss"]) == 0
    assert float(value.detach()) == pytest.approx(2 * float(stock["ce_loss"] + stock["aux_loss"]))


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("keys", CHOICES, ids=lambda keys: "=".join(*keys.items()))
def test_masks_that_are_255_everywhere_give_a_zero_in_the_graph(keys: dict[str, Any], classes: int) -> None:
    preds, batch = made_up(classes)
    batch["semantic_mask"].fill_(255)
    keys = {"ce_loss": "ce", "loss_stats": True, **keys}  # stock is NaN in older releases
    value, gradients, _ = value_of(equipped(keys, classes), preds, batch)
    assert float(value.detach()) == 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: p.key)
def test_the_ends_of_a_parameter_s_range_give_finite_numbers(parameter: Any, classes: int) -> None:
    (spec,) = (s for s in registry.specs() if parameter in s.parameters)
    limits = parameter.limits
    low = limits.low if math.isfinite(limits.low) else limits.above + 0.01
    for value in (low, limits.high if math.isfinite(limits.high) else 50.0):
        for size in (1.0, 100.0):
            preds, batch = made_up(classes)
            keys = {registry.TERM_KEYS[spec.kind]: spec.name, parameter.key: value}
            criterion = equipped(keys, classes)
            total, gradients, _ = value_of(
                criterion, tuple(p.detach().mul(size).requires_grad_() for p in preds), batch
            )
            assert total.isfinite()
            assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("keys", CHOICES, ids=lambda keys: "=".join(*keys.items()))
def test_half_precision_is_computed_in_single(keys: dict[str, Any]) -> None:
    preds, batch = made_up(5)
    rounded = tuple(p.detach().bfloat16().float().requires_grad_() for p in preds)
    wanted = value_of(equipped(keys, 5), rounded, batch)[2]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = value_of(equipped(keys, 5), rounded, batch)[2]
    (term,) = (key for key in keys)
    torch.testing.assert_close(found[term], wanted[term], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "classes", "message"),
    [
        ({"ce_loss": "focl"}, 5, r"'ce_loss=focl' is not valid: .*Did you mean 'focal'"),
        ({"ce_loss": "slide"}, 5, r"'ce_loss=slide' is not valid: "),
        ({"ce_loss": "off"}, 5, r"'ce_loss=off' is not valid: "),
        ({"dice_loss": "none"}, 5, r"'dice_loss=none' is ambiguous: use dice_loss=off"),
        ({"ce_loss": "ohem", "ce_ohem_threshold": 0}, 5, r"'ce_ohem_threshold=0' is not valid: .*> 0 and <= 1"),
        ({"ce_loss": "ohem", "ce_ohem_threshold": 1.5}, 5, r"'ce_ohem_threshold=1.5' is not valid"),
        ({"ce_focal_gamma": 3}, 5, r"'ce_focal_gamma=3' would change nothing"),
        ({"cls_weights": [1, 2]}, 5, r"'cls_weights=\[1.0, 2.0\]' is not valid: allowed are as many numbers .*, 5"),
        ({"cls_weights": [2]}, 1, r"'cls_weights=\[2.0\]' cannot be used in the task 'semantic' with one class"),
        ({"cls_weights": "balanced"}, 5, r"'cls_weights=balanced' cannot be used in the task 'semantic'"),
        ({"cls_loss": "focal"}, 5, r"'cls_loss=focal' cannot be used in the task 'semantic'"),
        ({"cls_scale": 2, "ce_loss": "focal"}, 5, r"'cls_scale=2.0' cannot be used in the task 'semantic'"),
        ({"box_loss": "siou"}, 5, r"'box_loss=siou' cannot be used in the task 'semantic'"),
    ],
)
def test_what_has_no_meaning_in_the_task_is_refused_in_one_line(
    keys: dict[str, Any], classes: int, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        yolo_losses.equip(criterion_of(classes), keys)


@pytest.mark.parametrize("keys", CHOICES, ids=lambda keys: "=".join(*keys.items()))
def test_the_keys_are_refused_in_every_other_task(keys: dict[str, Any]) -> None:
    for task in ("detect", "segment", "pose", "obb", "classify"):
        with pytest.raises(ValueError, match=rf"cannot be used in the task '{task}': allowed is semantic$"):
            LossSettings.from_mapping(keys).check_task(task)


@pytest.mark.parametrize("keys", CHOICES, ids=lambda keys: "=".join(*keys.items()))
def test_a_criterion_with_anchors_refuses_the_keys(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"in the tasks detect, segment, pose, obb: allowed is semantic$"):
        yolo_losses.equip(anchors("v8"), keys)


def test_a_copy_is_equipped_and_default_keys_put_the_stock_methods_back() -> None:
    criterion = criterion_of(5)
    before = set(vars(criterion))
    branches = yolo_losses.equip(criterion, {"ce_loss": "focal", "dice_loss": "lovasz"})
    other = copy.deepcopy(criterion)
    assert branches_of(other) == branches
    assert other._ce_loss.stock.__self__ is other
    preds, batch = made_up(5)
    torch.testing.assert_close(value_of(other, preds, batch), value_of(criterion, preds, batch))
    yolo_losses.equip(criterion, {})
    assert set(vars(criterion)) == before


LOADS_WITHOUT_THE_PLUGIN = """
import pickle, sys
import torch
criterion = pickle.loads(open(sys.argv[1], "rb").read())
masks = torch.arange(16).view(1, 4, 4) % 4
items = criterion(torch.zeros(1, 4, 4, 4), {"semantic_mask": masks})[1]
print(float(items["ce_loss"] if isinstance(items, dict) else items[0]))
"""


def test_a_pickle_loads_without_the_plugin_and_computes_the_stock_loss(tmp_path: Path) -> None:
    criterion = equipped({"ce_loss": "focal", "dice_loss": "lovasz"}, 4)
    file = tmp_path / "criterion.pkl"
    file.write_bytes(pickle.dumps(criterion))
    text = start_without_plugin(LOADS_WITHOUT_THE_PLUGIN, str(file))().check().lines[-1]
    assert float(text) == pytest.approx(math.log(4))


@pytest.mark.parametrize("classes", [1, 5])
def test_calls_with_a_valid_pixel_are_proven_and_compared(classes: int) -> None:
    preds, batch = made_up(classes)
    criterion = equipped({"ce_loss": "focal", "ce_focal_gamma": 0, "dice_loss": "lovasz"}, classes)
    (branch,) = branches_of(criterion).values()
    ignored = {"semantic_mask": torch.full_like(batch["semantic_mask"], 255)}
    criterion(preds, ignored)[0].backward()
    assert not branch.proven
    criterion(preds, batch)[0].backward()
    assert branch.proven
    assert branch.ratios == pytest.approx({"value": 1, "gradient": 1}, rel=1e-5)


def test_a_method_that_is_replaced_after_set_up_is_an_error() -> None:
    preds, batch = made_up(5)
    criterion = equipped({"ce_loss": "focal", "dice_loss": "lovasz"}, 5)
    del criterion._dice_loss
    with pytest.raises(UnprovenError, match=r"computed its dice term without the part that holds dice_loss=lovasz"):
        criterion(preds, batch)


@pytest.mark.parametrize("keys", [{}, {"ce_loss": "focal"}])
def test_statistics_have_shares_by_term_and_by_class(keys: dict[str, Any]) -> None:
    preds, batch = made_up(5)
    criterion = equipped({**keys, "loss_stats": True}, 5)
    _, _, items = value_of(criterion, preds, batch)
    columns = read(branches_of(criterion), list("abcde"))
    assert columns["share/ce" if "share/ce" in columns else "share/0"] == pytest.approx(
        float(items["ce_loss"]) / float(sum(items.values()))
    )
    assert sum(columns[f"by_class/{name}"] for name in "abcde") == pytest.approx(1)
    assert columns["by_class/e"] == 0
    assert (columns["cls_to_stock/value"] == pytest.approx(1)) == (not keys)


def test_a_loop_of_one_s_own_trains_what_the_model_s_args_choose() -> None:
    model: Any = SemanticSegmentationModel("yolo26n-sem.yaml", nc=3, verbose=False)
    model.args = get_cfg(overrides={"ce_loss": "focal", "dice_loss": "lovasz"})
    model.task = "semantic"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batch = {"img": torch.rand(2, 3, 64, 64), "semantic_mask": torch.randint(3, (2, 64, 64))}
    model.train().loss(batch)[0].backward()
    (branch,) = branches_of(model.criterion).values()
    assert not branch.proven
    optimizer.step()
    assert branch.proven


# ---------------------------------------------------------------------------------------------------- trainings


def write_masks(root: Path, classes: int) -> Path:
    """Write images of squares and their masks, the upper rows ignored; return the file that describes them."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for number in range(4):
            image, mask = np.full((64, 64, 3), 60, np.uint8), np.zeros((64, 64), np.uint8)
            for label in range(1, max(classes, 2)):
                x, y = random.integers(4, 36, 2)
                image[y : y + 20, x : x + 20] = (90 * label, 255 - 90 * label, 30)
                mask[y : y + 20, x : x + 20] = label
            mask[:6] = 255
            assert cv2.imwrite(str(root / "images" / split / f"{number}.png"), image)
            assert cv2.imwrite(str(root / "masks" / split / f"{number}.png"), mask)
    names = "".join(f"\n  {number}: c{number}" for number in range(classes))
    file = root / "data.yaml"
    file.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nmasks_dir: masks\nnames:{names}\n")
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of three classes."""
    return write_masks(tmp_path_factory.mktemp("semantic"), 3)


def train(data: Path, project: Path, **keys: Any) -> Result:
    words = {**TINY, "model": "yolo26n-sem.yaml", "data": data, "project": project, "name": "run", **keys}
    return yolo("semantic", "train", *(f"{key}={value}" for key, value in words.items()))


WORDS = {"ce_loss": "ohem", "dice_loss": "tversky", "cls_weights": "{c1: 2}", "loss_stats": True}


@pytest.mark.slow
def test_the_stock_command_trains_the_chosen_losses_and_says_so(data: Path, tmp_path: Path) -> None:
    done = train(data, tmp_path, epochs=2, **WORDS).check()
    (line,) = done.saying("yolo_losses: ce_loss=ohem OHEMCrossEntropyLoss(threshold=0.7, keep=0.0625), ")
    assert "class weights: c0 1, c1 2, c2 1; dice_loss=tversky SoftmaxTverskyLoss(alpha=0.3," in line
    assert line.endswith("; equipped for training and validation")
    assert done.saying("yolo_losses: ran in the first batch with objects: class, dice; class term ")
    assert not done.saying("validation did not call")
    rows = list(csv.DictReader((tmp_path / "run" / "loss_stats.csv").open()))
    assert [sum(float(row[f"by_class/c{i}"]) for i in range(3)) for row in rows] == pytest.approx([1, 1], abs=1e-4)
    kept = torch.load(tmp_path / "run" / "weights" / "last.pt", weights_only=False)["train_args"]
    assert kept["cls_weights"] == {"c1": 2.0}
    assert kept["ce_ohem_threshold"] == 0.7


CUT = """
import os, sys
from ultralytics import YOLO
model = YOLO("yolo26n-sem.yaml")
model.add_callback("on_model_save", lambda trainer: os._exit(0))
model.train(**eval(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_run_of_one_class_is_resumed_with_its_losses_and_loads_without_the_plugin(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", 1)
    keys = {"data": str(data), "project": str(tmp_path), "name": "run", "ce_loss": "focal", "dice_loss": "lovasz"}
    start(sys.executable, "-c", CUT, repr({**TINY, **keys, "epochs": 2}))().check()
    last = tmp_path / "run" / "weights" / "last.pt"
    done = yolo("semantic", "train", f"model={last}", "resume=True").check()
    assert done.saying("yolo_losses: ce_loss=focal PixelFocalLoss(gamma=2.0); dice_loss=lovasz LovaszSoftmaxLoss()")
    assert done.saying("yolo_losses: ran in the first batch with objects: class, dice; ")
    refused = yolo("semantic", "train", f"model={last}", "resume=True", "ce_loss=ohem")
    assert refused.code == 1
    code = "import sys; from ultralytics import YOLO; print(type(YOLO(sys.argv[1]).model).__name__)"
    loaded = start_without_plugin(code, str(last))().check()
    assert loaded.lines[-1] == "SemanticSegmentationModel"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [{"cls_loss": "focal"}, {"ce_loss": "slide"}, {"cls_weights": [1, 2]}, {"ce_loss": "ohem", "ce_ohem_threshold": 2}],
    ids=lambda words: next(iter(words)),
)
def test_a_refusal_is_one_line_and_writes_nothing(words: dict[str, Any], data: Path, tmp_path: Path) -> None:
    done = train(data, tmp_path, **words)
    assert done.code == 1
    assert list(words)[-1] in done.lines[-1]
    assert not (tmp_path / "run" / "args.yaml").exists()


@pytest.mark.slow
def test_weights_of_one_class_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    done = train(write_masks(tmp_path / "data", 1), tmp_path, cls_weights=[2])
    assert done.code == 1
    assert "cannot be used in the task 'semantic' with one class" in done.lines[-1]
    assert not (tmp_path / "run").exists()
