"""The task semantic: the chosen losses in `SemanticSegmentationLoss`, by itself."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics.utils.loss as upstream
from conftest import criterion_of as anchors
from conftest import start_without_plugin
from semantic_criteria import CHOICES, criterion_of, equipped, made_up, value_of
from ultralytics.cfg import get_cfg

import yolo_losses
from yolo_losses import LossSettings
from yolo_losses.integration.criteria import branches_of
from yolo_losses.integration.criteria.ledger import UnprovenError
from yolo_losses.monitor.gather import read

if not hasattr(upstream, "SemanticSegmentationLoss"):
    pytest.skip("this Ultralytics has no task semantic", allow_module_level=True)

from ultralytics.nn.tasks import SemanticSegmentationModel


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
    with pytest.raises(UnprovenError, match=r"computed its dice term without the part for dice_loss=lovasz"):
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
