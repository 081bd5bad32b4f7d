"""The keypoint terms of pose heads: OKS and BCE are stock, the others by hand; refused where there are none."""

from __future__ import annotations

import copy
import csv
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from anchor_criteria import assert_equal, leaves, terms_and_gradients
from conftest import SIZE, TINY, criterion_of, logged, made_up_batch, predictions, start_without_plugin
from torch import Tensor
from ultralytics.utils.loss import KeypointLoss

from yolo_losses import registry
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria import equip
from yolo_losses.integration.criteria.anchor_branch import AnchorBranch
from yolo_losses.integration.criteria.keypoint_part import METHOD, RLE_WEIGHTS, KeypointPart, PositivesPart

HEADS = ["v8-pose"]
if hasattr(__import__("ultralytics.utils.loss", fromlist=["loss"]), "PoseLoss26"):
    HEADS += ["26-pose", "26-pose without RLE"]
heads = pytest.mark.parametrize("name", HEADS)
every_loss = pytest.mark.parametrize("loss", [spec.name for spec in registry.specs("pose")])
WEIGHTS = [0.0, 1.0, 2.5, *[1.0] * 12, 0.5, 3.0]


def criterion_with_keypoints(name: str) -> Any:
    criterion = criterion_of(name.partition(" ")[0])
    if name.endswith("without RLE"):
        for leaf in leaves(criterion):
            leaf.rle_loss = None
    return criterion


def batch_of(name: str) -> dict[str, Any]:
    """A batch in which some keypoints are not visible, and one object has none that is."""
    batch = made_up_batch(name.partition(" ")[0])
    generator = torch.Generator().manual_seed(3)
    hidden = torch.rand(batch["keypoints"].shape[:2], generator=generator) < 0.3
    hidden[1] = True
    batch["keypoints"][..., 2] = torch.where(hidden, 0.0, 2.0)
    return batch


def outputs_of(name: str) -> Any:
    return predictions(name.partition(" ")[0])


def run_with(name: str, keys: dict[str, Any], batch: dict[str, Any] | None = None) -> Any:
    criterion = criterion_with_keypoints(name)
    equip(criterion, keys)
    return terms_and_gradients(criterion, outputs_of(name), batch or batch_of(name))


@heads
@pytest.mark.parametrize("keys", [{"pose_loss": "oks"}, {"kobj_loss": "bce"}, {"pose_loss": "oks", "kobj_loss": "bce"}])
def test_oks_and_bce_are_the_stock_terms_in_the_whole_criterion(name: str, keys: dict[str, Any]) -> None:
    assert_equal(run_with(name, keys), run_with(name, {}))


@heads
def test_weighted_oks_is_the_weighted_stock_loss(name: str) -> None:
    weighted = run_with(name, {"pose_weights": WEIGHTS})
    assert_equal(run_with(name, {"pose_loss": "oks", "pose_weights": WEIGHTS}), weighted)
    assert not torch.allclose(weighted[0][1], run_with(name, {})[0][1], rtol=1e-2)


@heads
def test_weights_of_1_change_nothing(name: str) -> None:
    assert_equal(run_with(name, {"pose_weights": [1] * len(WEIGHTS)}), run_with(name, {}))


def positives(name: str, batch: dict[str, Any]) -> Iterator[tuple[list[float], list[float], list[float], float, float]]:
    """Yield every positive's keypoints and its object's in pixels, what is visible, the area of its box, its stride.

    Of the last branch that the criterion calls, whose terms are logged.
    """
    criterion = criterion_with_keypoints(name)
    leaf, seen = leaves(criterion)[-1], {}
    original = getattr(leaf, METHOD)

    def looking(*args: Any, **kwargs: Any) -> Any:
        seen.update(dict(zip(original.__func__.__code__.co_varnames[1:], args, strict=False)), **kwargs)
        return original(*args, **kwargs)

    setattr(leaf, METHOD, looking)
    terms_and_gradients(criterion, outputs_of(name), batch)
    mask, chosen, points, strides = (seen[n] for n in ("masks", "target_gt_idx", "pred_kpts", "stride_tensor"))
    for image, anchor in mask.nonzero().tolist():
        rows = (batch["batch_idx"] == image).nonzero().view(-1)
        row = rows[chosen[image, anchor]]
        keypoints, (w, h) = batch["keypoints"][row], batch["bboxes"][row, 2:].tolist()
        stride = float(strides[anchor])
        pred = (points[image, anchor, :, :2].detach() * stride).tolist()
        yield pred, (keypoints[:, :2] * SIZE).tolist(), keypoints[:, 2].tolist(), w * h * SIZE**2, stride


def l1(dx: float, dy: float, size: float) -> float:
    return (abs(dx) + abs(dy)) / size


def smooth_l1(dx: float, dy: float, size: float) -> float:
    return sum(d**2 / 0.2 if d < 0.1 else d - 0.05 for d in (abs(dx) / size, abs(dy) / size))


def wing(dx: float, dy: float, size: float) -> float:
    return sum(10 * math.log(1 + d / 2) if d < 10 else d - 10 + 10 * math.log(6) for d in (abs(dx), abs(dy)))


@heads
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("formula", [l1, smooth_l1, wing], ids=lambda formula: formula.__name__)
def test_the_other_losses_are_worked_out_by_hand(name: str, formula: Callable[..., float], weights: Any) -> None:
    batch = batch_of(name)
    objects = []
    for pred, target, visible, area, _ in positives(name, batch):
        own = weights or [1.0] * len(pred)
        counted = [k for k in range(len(pred)) if visible[k] and own[k]]
        losses = [
            own[k] * formula(pred[k][0] - target[k][0], pred[k][1] - target[k][1], math.sqrt(area)) for k in counted
        ]
        objects.append(sum(losses) / max(len(losses), 1))
    keys = {"pose_loss": formula.__name__, **({"pose_weights": weights} if weights else {})}
    criterion = criterion_with_keypoints(name)
    gain = leaves(criterion)[-1].hyp.pose
    terms = run_with(name, keys, batch)[0]
    assert len(objects) > 5
    assert float(terms[1]) == pytest.approx(gain * sum(objects) / len(objects), rel=2e-5)


def test_the_strides_are_in_the_order_of_the_masks_rows() -> None:
    class Criterion:
        def calculate_keypoints_loss(self, masks: Tensor, keypoints: Tensor, stride_tensor: Tensor) -> Tensor:
            return stride_tensor.view(1, -1, 1).expand(*masks.shape, 1)[masks]

    branch = AnchorBranch(LossSettings())
    masks = torch.tensor([[False, True, True], [True, False, True]])
    part = PositivesPart(Criterion().calculate_keypoints_loss, branch)
    strides = part(masks, torch.zeros(1), stride_tensor=torch.tensor([[8.0], [16.0], [32.0]]))
    assert strides.view(-1).tolist() == [16, 32, 8, 32]
    assert branch.strides is not None
    assert branch.strides.view(-1).tolist() == [16, 32, 8, 32]


@heads
def test_focal_visibility_is_worked_out_by_hand(name: str) -> None:
    criterion = criterion_with_keypoints(name)
    leaf, seen = leaves(criterion)[-1], []
    stock = leaf.bce_pose
    leaf.bce_pose = lambda logits, visible: seen.append((logits, visible)) or stock(logits, visible)
    terms_and_gradients(criterion, outputs_of(name), batch_of(name))
    losses = []
    for z, t in zip(*(each.detach().double().view(-1).tolist() for each in seen[-1]), strict=True):
        p = 1 / (1 + math.exp(-z)) if t else 1 / (1 + math.exp(z))
        losses.append(-((1 - p) ** 1.5) * math.log(p))
    terms = run_with(name, {"kobj_loss": "focal"})[0]
    assert float(terms[2]) == pytest.approx(leaf.hyp.kobj * sum(losses) / len(losses), rel=1e-5)
    assert not torch.allclose(terms[2], run_with(name, {})[0][2], rtol=1e-2)


@heads
@every_loss
def test_its_own_term_alone_is_another_one(name: str, loss: str) -> None:
    stock, ours = run_with(name, {})[0], run_with(name, {"pose_loss": loss})[0]
    changed = (~torch.isclose(ours, stock, rtol=1e-5)).nonzero().view(-1).tolist()
    assert changed == ([] if loss == "oks" else [1])


@pytest.mark.skipif("26-pose" not in HEADS, reason="this Ultralytics has no YOLO26")
def test_weights_are_in_the_rle_term_and_its_own_are_untouched() -> None:
    by_hand = criterion_with_keypoints("26-pose")
    for leaf in leaves(by_hand):
        setattr(leaf, RLE_WEIGHTS, getattr(leaf, RLE_WEIGHTS) * torch.tensor(WEIGHTS))
    wanted = terms_and_gradients(by_hand, outputs_of("26-pose"), batch_of("26-pose"))[0]
    criterion = criterion_with_keypoints("26-pose")
    before = [getattr(leaf, RLE_WEIGHTS) for leaf in leaves(criterion)]
    equip(criterion, {"pose_weights": WEIGHTS})
    ours = terms_and_gradients(criterion, outputs_of("26-pose"), batch_of("26-pose"))[0]
    assert float(ours[5]) == pytest.approx(float(wanted[5]), rel=1e-6)
    assert float(ours[5]) != pytest.approx(float(run_with("26-pose", {})[0][5]), rel=1e-3)
    for leaf in leaves(criterion):  # an error on the way
        leaf.rle_loss = lambda *args: 1 / 0
    with pytest.raises(ZeroDivisionError):
        terms_and_gradients(criterion, outputs_of("26-pose"), batch_of("26-pose"))
    assert all(getattr(leaf, RLE_WEIGHTS) is own for leaf, own in zip(leaves(criterion), before, strict=True))


@heads
@every_loss
def test_no_visible_keypoint_is_a_zero_in_the_graph(name: str, loss: str) -> None:
    batch = batch_of(name)
    batch["keypoints"][..., 2] = 0
    keys = {"pose_loss": loss, "pose_weights": WEIGHTS, "kobj_loss": "focal"}
    criterion = criterion_with_keypoints(name)
    branches = equip(criterion, keys)
    terms, value, gradients = terms_and_gradients(criterion, outputs_of(name), batch)
    assert float(terms[1]) == 0
    assert terms.isfinite().all()
    assert value.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
    assert all(branch.calls == 1 for branch in branches.values())


@heads
def test_batches_without_objects_go_on(name: str) -> None:
    batch = {k: v[:0] if k in ("batch_idx", "cls", "bboxes", "keypoints") else v for k, v in batch_of(name).items()}
    keys = {"pose_loss": "wing", "pose_weights": WEIGHTS, "kobj_loss": "focal"}
    assert_equal(run_with(name, keys, batch), run_with(name, {}, batch))


@heads
def test_copies_hold_the_parts_and_pickles_the_stock_ones(name: str) -> None:
    criterion = criterion_with_keypoints(name)
    equip(criterion, {"pose_loss": "wing", "pose_weights": WEIGHTS, "kobj_loss": "focal"})
    wanted = terms_and_gradients(criterion, outputs_of(name), batch_of(name))
    again = copy.deepcopy(criterion)
    for leaf, other in zip(leaves(again), leaves(criterion), strict=True):
        assert isinstance(leaf.keypoint_loss, KeypointPart)
        assert getattr(leaf, METHOD).stock.__self__ is leaf is not other
    assert_equal(terms_and_gradients(again, outputs_of(name), batch_of(name)), wanted)
    text = pickle.dumps(criterion)
    assert b"yolo_losses" not in text
    assert_equal(terms_and_gradients(pickle.loads(text), outputs_of(name), batch_of(name)), run_with(name, {}))


@heads
def test_stock_puts_the_stock_parts_back(name: str) -> None:
    criterion = criterion_with_keypoints(name)
    before = [dict(vars(leaf)) for leaf in leaves(criterion)]
    equip(criterion, {"pose_loss": "wing", "pose_weights": WEIGHTS, "kobj_loss": "focal"})
    equip(criterion, {})
    assert [dict(vars(leaf)) for leaf in leaves(criterion)] == before


def test_a_part_that_is_replaced_after_set_up_is_noticed() -> None:
    criterion = criterion_with_keypoints("v8-pose")
    equip(criterion, {"pose_loss": "l1"})
    criterion.keypoint_loss = KeypointLoss(criterion.keypoint_loss.sigmas)
    with pytest.raises(RuntimeError, match=r"computed its pose term without the part for pose_loss=l1"):
        terms_and_gradients(criterion, outputs_of("v8-pose"), batch_of("v8-pose"))


# Refusals


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"pose_loss": "okss"}, r"^'pose_loss=okss' is not valid: .*Did you mean 'oks'\?$"),
        ({"pose_loss": "focal"}, "'focal' is a class loss, cls_loss=focal"),
        ({"cls_loss": "wing"}, "'wing' is a keypoint loss, pose_loss=wing"),
        ({"kobj_loss": "off"}, "^'kobj_loss=off' is not valid: allowed are stock, bce, focal"),
        ({"pose_loss": "wing", "pose_wing_w": 0}, "^'pose_wing_w=0' is not valid: allowed is a number > 0"),
        ({"pose_smooth_l1_beta": 0.2}, "would change nothing.*such as pose_loss=smooth_l1"),
        ({"pose_weights": [0, 0]}, r"^'pose_weights=\[0, 0\]' is not valid: allowed are a list of numbers >= 0"),
        ({"pose_weights": [1, -1]}, r"^'pose_weights=\[1, -1\]' is not valid"),
        ({"pose_weights": [1, math.nan]}, r"^'pose_weights=\[1, nan\]' is not valid"),
        ({"pose_weights": [1, True]}, r"^'pose_weights=\[1, True\]' is not valid"),
        ({"pose_weights": []}, r"^'pose_weights=\[\]' is not valid"),
        ({"pose_weights": 2}, "^'pose_weights=2' is not valid"),
        ({"pose_weights": "balanced"}, "^'pose_weights=balanced' is not valid"),
    ],
)
def test_what_cannot_be_is_refused_early(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LossSettings.from_mapping(keys)


@pytest.mark.parametrize("given", [[1, 2], (1, 2), "[1, 2]", "[1.0, 2e0]", torch.tensor([1.0, 2.0])])
def test_weights_may_be_written_in_several_ways(given: Any) -> None:
    settings = LossSettings.from_mapping({"pose_weights": given})
    assert settings.pose_weights == (1.0, 2.0)
    assert LossSettings.from_mapping(settings.to_config()) == settings
    assert settings.describe().endswith("pose=stock(weights=[1.0, 2.0])")


@pytest.mark.parametrize("given", [None, "none", "None"])
def test_no_weights_are_the_default(given: Any) -> None:
    assert LossSettings.from_mapping({"pose_weights": given}).is_default


KEYS = [("pose_loss", "oks"), ("pose_weights", [1.0, 2.0]), ("kobj_loss", "bce")]


@pytest.mark.parametrize("task", ["detect", "segment", "obb", "classify"])
@pytest.mark.parametrize(("key", "value"), KEYS)
def test_other_tasks_refuse_it_by_name(task: str, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^'{key}=.*' cannot be used in the task '{task}': allowed is pose$"):
        LossSettings.from_mapping({key: value}).check_task(task)


@pytest.mark.parametrize("name", ["v8", "v8-seg", "v8-obb"])
@pytest.mark.parametrize(("key", "value"), KEYS)
def test_criteria_without_keypoints_refuse_it_by_name(name: str, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^'{key}=.*' cannot be used with \w+, which has no {key[:4]} term: allowed"):
        equip(criterion_of(name), {key: value})


@pytest.mark.parametrize(("key", "value"), KEYS)
def test_rt_detr_refuses_it_by_name(key: str, value: Any) -> None:
    from ultralytics.models.utils.loss import RTDETRDetectionLoss

    with pytest.raises(ValueError, match=rf"'{key}=.*' cannot be used with RT-DETR, which predicts no keypoints"):
        equip(RTDETRDetectionLoss(nc=3), {key: value})


@heads
def test_another_number_of_weights_than_of_keypoints_is_refused(name: str) -> None:
    words = r"^'pose_weights=\[1.0, 2.0\]' is not valid: allowed are as many numbers as the head has keypoints, 17$"
    with pytest.raises(ValueError, match=words):
        equip(criterion_with_keypoints(name), {"pose_weights": [1, 2]})


@heads
def test_a_head_without_visibility_refuses_its_loss_alone(name: str) -> None:
    criterion = criterion_with_keypoints(name)
    for leaf in leaves(criterion):
        leaf.kpt_shape = [17, 2]
    with pytest.raises(ValueError, match=r"^'kobj_loss=focal' cannot be used with a head that predicts no visibility"):
        equip(criterion, {"kobj_loss": "focal"})
    equip(criterion, {"pose_loss": "wing"})


# Trainings


@pytest.mark.slow
@pytest.mark.parametrize("model", ["yolov8n-pose.yaml", *(["yolo26n-pose.yaml"] if len(HEADS) > 1 else [])])
def test_a_training_says_that_the_terms_ran(model: str, datasets: Any, tmp_path: Path) -> None:
    from ultralytics import YOLO

    data = datasets("pose")
    keys = {"pose_loss": "wing", "pose_weights": [0.5, 1, 1, 1], "kobj_loss": "focal", "loss_stats": True}
    with logged() as messages:
        YOLO(model).train(**TINY, data=data, project=tmp_path, name="run", **keys)
    start = next(message for message in messages if "equipped for" in message)
    assert "pose_loss=wing WingLoss(w=10.0, epsilon=2.0), weights [0.5, 1.0, 1.0, 1.0]" in start
    assert "kobj_loss=focal VisibilityFocalLoss(gamma=1.5, alpha=-1.0)" in start
    assert any("ran in the first batch with objects" in message and "pose, kobj" in message for message in messages)
    arguments = (tmp_path / "run" / "args.yaml").read_text()
    assert "pose_wing_w: 10.0" in arguments
    assert "kobj_focal_alpha: -1" in arguments
    with (tmp_path / "run" / "loss_stats.csv").open() as file:
        row = next(csv.DictReader(file))
    for branch in ("one2many/", "one2one/") if "26" in model else ("",):
        assert float(row[f"{branch}share/pose"]) > 0
        assert float(row[f"{branch}share/kobj"]) > 0
    code = (
        "from ultralytics import YOLO; import sys, numpy;"
        " model = YOLO(sys.argv[1]); model.predict(numpy.zeros((64, 64, 3), 'uint8'), imgsz=64, verbose=False);"
        " print('loaded', model.ckpt['train_args']['pose_loss'])"
    )
    result = start_without_plugin(code, str(tmp_path / "run" / "weights" / "last.pt"))().check()
    assert result.saying("loaded wing")
