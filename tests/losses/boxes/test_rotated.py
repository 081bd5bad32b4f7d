"""IoU and DIoU of rotated boxes: the exact area, its gradient, and what they cost."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from conftest import criterion_of, golden, gradient, made_up_batch, predictions, run
from torch import Tensor

import yolo_losses
from yolo_losses import functional, make_box_loss, registry
from yolo_losses.losses.boxes.probiou import probiou_loss
from yolo_losses.losses.boxes.rotated_diou import rotated_diou_loss
from yolo_losses.losses.boxes.rotated_iou import rotated_iou_loss
from yolo_losses.losses.boxes.rotated_mgiou import rotated_mgiou_loss

LOSSES = [rotated_iou_loss, rotated_diou_loss, rotated_mgiou_loss]
MODIFIED = ["inner_rotated_iou", "focaler_rotated_iou", "alpha_rotated_iou", "focal_rotated_iou"]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


def pairs(count: int, seed: int = 0, near: float = 5.0, shortest: float = 2.0) -> tuple[Tensor, Tensor]:
    """Pairs of boxes of `shortest` to 22, most of which overlap."""
    g = torch.Generator().manual_seed(seed)
    centre, size = (torch.rand(count, 2, generator=g, dtype=torch.float64) for _ in "cs")
    centre, size = centre * 80, size * 20 + shortest
    moved = centre + torch.randn(count, 2, generator=g, dtype=torch.float64) * near
    grown = size * (torch.randn(count, 2, generator=g, dtype=torch.float64) * 0.4).exp()
    angles = torch.rand(2, count, 1, generator=g, dtype=torch.float64) * 7 - 3
    return torch.cat((moved, grown, angles[0]), 1), torch.cat((centre, size, angles[1]), 1)


def central_differences(loss, pred: Tensor, target: Tensor, step: float = 1e-6) -> Tensor:
    columns = []
    for i in range(pred.shape[-1]):
        shift = torch.zeros_like(pred)
        shift[..., i] = step
        columns.append((loss(pred + shift, target) - loss(pred - shift, target)) / (2 * step))
    return torch.stack(columns, -1)


def polygons(boxes: Tensor):
    shapely = pytest.importorskip("shapely")
    x, y, w, h, r = boxes.numpy().T[:, :, None]
    u, v = np.array([-1, 1, 1, -1]) / 2, np.array([-1, -1, 1, 1]) / 2
    corners = x + u * w * np.cos(r) - v * h * np.sin(r), y + u * w * np.sin(r) + v * h * np.cos(r)
    return shapely.polygons(np.stack(corners, -1))


def shapely_iou(pred: Tensor, target: Tensor) -> Tensor:
    shapely = pytest.importorskip("shapely")
    a, b = polygons(pred), polygons(target)
    shared = shapely.area(shapely.intersection(a, b))
    return torch.from_numpy(shared / (shapely.area(a) + shapely.area(b) - shared))


# The originals' numbers


def against(case: str, loss) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arrays, cases, _ = golden("rotated")
    result = cases[case]["results"]["float64"]
    pred, target = (arrays[f"inputs/{k}"].double() for k in ("pred", "target"))
    out, slope = (arrays[result[k]] for k in ("out", "grad"))
    return *gradient(loss, pred, target), out.reshape(-1), slope


def rows(*left_out: str | int) -> Tensor:
    """All rows but those of the named groups."""
    groups = golden("rotated")[2]
    keep = torch.ones(64, dtype=torch.bool)
    for group in left_out:
        keep[slice(*groups[group]) if isinstance(group, str) else group] = False
    return keep


def test_iou_is_that_of_exact_polygons() -> None:
    value, grad, out, slope = against("exact_iou", rotated_iou_loss)
    torch.testing.assert_close(value, 1 - out, rtol=1e-9, atol=1e-12)
    # Of identical boxes, in row 63 too, the originals' differences are the mean of two one-sided slopes.
    smooth = rows("identical", 63)
    scale = slope.abs().amax(-1, keepdim=True).clamp_min(1e-3)
    torch.testing.assert_close((grad / scale)[smooth], (-slope / scale)[smooth], rtol=0, atol=1e-4)
    usual = rows("identical", "near_identical", 63)
    torch.testing.assert_close((grad / scale)[usual], (-slope / scale)[usual], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "loss", "turned"),
    [
        ("mmcv_diff_iou_rotated_2d", rotated_iou_loss, True),
        ("mmrotate_rotated_iou_linear", rotated_iou_loss, False),
        ("rotatediou_diou_aligned", rotated_diou_loss, False),
    ],
)
def test_value_and_gradient_are_those_of_codes_that_sort_vertices(case: str, loss, turned: bool) -> None:
    value, grad, out, slope = against(case, loss)
    out, slope = (1 - out, -slope) if turned else (out, slope)
    # Row 63 overruns their buffer; an eps in their intersections counts for boxes of 0.1; mmrotate's clamp counts for
    # disjoint ones, whose loss is 1 - 1e-6.
    usual = rows("identical", "near_identical", "tiny", 63, *([slice(52, 58)] if "mmrotate" in case else []))
    scale = slope.abs().amax(-1, keepdim=True).clamp_min(1e-3)
    torch.testing.assert_close(value[usual], out[usual], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close((grad / scale)[usual], (slope / scale)[usual], rtol=1e-6, atol=1e-6)
    near = rows("identical", 63)
    torch.testing.assert_close(value[near], out[near], rtol=1e-4, atol=1e-5)


# Against polygons that another library clips


@pytest.mark.parametrize("shortest", [2.0, 0.02])
def test_iou_is_that_of_shapely(shortest: float) -> None:
    pred, target = pairs(3000, seed=1, shortest=shortest)
    torch.testing.assert_close(1 - rotated_iou_loss(pred, target), shapely_iou(pred, target), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tilt", [0.0, 1e-12, 1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("moved", [0.0, 1e-9, 1e-5])
def test_iou_is_that_of_shapely_where_edges_coincide_or_nearly_do(tilt: float, moved: float) -> None:
    _, target = pairs(200, seed=2)
    for scale in ([1, 1], [1, 0.5], [0.5, 0.5], [2, 0.25]):
        pred = target.clone()
        pred[:, 2:4] *= torch.tensor(scale)
        pred[:, 4] += tilt
        pred[:, 0] += moved
        for turned in range(4):
            again = pred.clone()
            again[:, 4] += turned * math.pi / 2
            value, grad = gradient(rotated_iou_loss, again, target)
            torch.testing.assert_close(1 - value, shapely_iou(again, target), rtol=0, atol=1e-9)
            assert grad.isfinite().all()
            assert grad[:, :2].abs().max() < 10  # the IoU of boxes of 2 to 22 changes by less than 1 per unit
            single, slope = gradient(rotated_iou_loss, again.float(), target.float())
            torch.testing.assert_close(single.double(), value, rtol=0, atol=2e-4)  # coordinates of 80, sides of 0.5
            assert slope[:, :2].abs().max() < 10


def test_float32_is_good_to_six_digits() -> None:
    pred, target = pairs(3000, seed=1)
    value, grad = gradient(rotated_iou_loss, pred.float(), target.float())
    exact, slope = gradient(rotated_iou_loss, pred.float().double(), target.float().double())
    torch.testing.assert_close(value.double(), exact, rtol=0, atol=2e-6)
    assert ((grad - slope).abs().amax(-1) < 1e-3 * slope.abs().amax(-1).clamp_min(1e-2)).float().mean() > 0.999


# Values that are known


def box(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("pred", "target", "iou"),
    [
        (box(0, 0, 2, 2, 0), box(0, 0, 2, 2, math.pi / 4), (8 * math.sqrt(2) - 8) / (16 - 8 * math.sqrt(2))),
        (box(0, 0, 4, 2, 0), box(0, 0, 4, 2, math.pi / 2), 4 / 12),
        (box(0, 0, 4, 2, 0.3), box(0, 0, 2, 1, 0.3), 1 / 4),  # nested
        (box(0, 0, 4, 2, 0), box(4, 0, 4, 2, 0), 0.0),  # touching along an edge
        (box(0, 0, 2, 2, 0), box(2, 2, 2, 2, 0), 0.0),  # touching in a corner
        (box(0, 0, 2, 2, 0), box(1 + math.sqrt(2), 0, 2, 2, math.pi / 4), 0.0),  # a corner touches an edge
        (box(0, 0, 100, 0.01, 0), box(0, 0, 100, 0.01, math.pi / 2), 1e-4 / (2 - 1e-4)),  # thin
        (box(0, 0, 2, 2, 0), box(1e4, 0, 2, 2, 1), 0.0),  # apart
        (box(0, 0, 3, 0, 0), box(0, 0, 3, 0, 0), 0.0),  # no area
        (box(0, 0, -3, 2, 0), box(0, 0, 3, 2, 0), 0.0),  # negative side
    ],
)
def test_iou_of_hand_drawn_boxes(pred: Tensor, target: Tensor, iou: float) -> None:
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-6)):
        for a, b in ((pred, target), (target, pred)):
            value, grad = gradient(rotated_iou_loss, a.to(dtype), b.to(dtype))
            assert 1 - value.item() == pytest.approx(iou, abs=tolerance)
            assert grad.isfinite().all()


def test_diou_divides_by_the_diagonal_of_the_upright_box_around_both() -> None:
    pred, target = box(0, 0, 2, 2, math.pi / 4), box(10, 0, 2, 4, 0)
    width, height = 10 + 1 + math.sqrt(2), 4
    assert rotated_diou_loss(pred, target).item() == pytest.approx(1 + 100 / (width**2 + height**2))


def test_boxes_without_rotation_have_the_loss_of_axis_aligned_ones() -> None:
    pred, target = pairs(200)
    pred[:, 4] = target[:, 4] = 0
    upright = [torch.cat((b[:, :2] - b[:, 2:4] / 2, b[:, :2] + b[:, 2:4] / 2), 1) for b in (pred, target)]
    torch.testing.assert_close(rotated_iou_loss(pred, target), functional.iou_loss(*upright), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(rotated_diou_loss(pred, target), functional.diou_loss(*upright), rtol=1e-6, atol=1e-7)
    for name in MODIFIED:
        modified = make_box_loss(name)(pred, target)
        expected = make_box_loss(name.replace("rotated_", ""))(*upright)
        torch.testing.assert_close(modified, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", MODIFIED)
def test_modifiers_mean_what_they_mean_for_axis_aligned_boxes(name: str) -> None:
    pred, target = pairs(200)
    iou = 1 - rotated_iou_loss(pred, target)
    small = [torch.cat((b[:, :2], b[:, 2:4] * 0.7, b[:, 4:]), 1) for b in (pred, target)]
    expected = {
        "inner_rotated_iou": rotated_iou_loss(*small),
        "focaler_rotated_iou": 1 - (iou / 0.95).clamp(0, 1),
        "alpha_rotated_iou": 1 - iou**3,
        "focal_rotated_iou": iou.sqrt() * (1 - iou),
    }
    torch.testing.assert_close(make_box_loss(name)(pred, target), expected[name])


# Gradients


@every_loss
def test_gradient_is_that_of_central_differences(loss) -> None:
    for seed in range(3):
        pred, target = pairs(500, seed=seed)
        _, grad = gradient(loss, pred, target)
        differences = central_differences(loss, pred, target)
        close = (grad - differences).abs().amax(-1) < 1e-6 * differences.abs().amax(-1).clamp_min(1)
        assert close.float().mean() > 0.995  # where a corner crosses an edge within a step, the difference is off


@every_loss
def test_gradient_passes_gradcheck_in_both_boxes(loss) -> None:
    pred, target = pairs(30, seed=5)
    assert torch.autograd.gradcheck(loss, (pred.requires_grad_(), target.requires_grad_()), atol=1e-5)


def test_the_angle_of_a_square_has_a_gradient() -> None:
    target = box(0, 0, 10, 10, 0)
    for angle in (0.1, 0.4, 0.7):
        _, grad = gradient(rotated_iou_loss, box(0, 0, 10, 10, angle), target)
        assert grad[0, 4] > 0.05
        # A square has the period of a quarter turn.
        again = rotated_iou_loss(box(0, 0, 10, 10, angle + math.pi / 2), target)
        torch.testing.assert_close(again, rotated_iou_loss(box(0, 0, 10, 10, angle), target))


def test_boxes_apart_have_a_gradient_of_diou_alone() -> None:
    pred, target = box(30, 0, 4, 8, 0.3), box(0, 0, 5, 5, 1)
    value, grad = gradient(rotated_iou_loss, pred, target)
    assert value == 1
    assert (grad == 0).all()
    _, grad = gradient(rotated_diou_loss, pred, target)
    assert grad[0, 0] > 0.005


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_boxes_whose_circles_are_apart_have_a_loss_of_exactly_1_and_no_gradient(dtype: torch.dtype) -> None:
    pred, target = (boxes.to(dtype) for boxes in pairs(500))
    pred[:, 0] += (pred[:, 2:4].norm(dim=1) + target[:, 2:4].norm(dim=1)) / 2 + 40
    value, grad = gradient(rotated_iou_loss, pred, target)
    assert (value == 1).all()
    assert (grad == 0).all()


def test_gradient_descent_turns_a_box_onto_its_target() -> None:
    target = box(50, 50, 30, 30, 0.2)
    pred = box(53, 48, 24, 35, 0.6).requires_grad_()
    optimizer = torch.optim.Adam([pred], lr=0.05)
    for _ in range(800):
        optimizer.zero_grad()
        rotated_iou_loss(pred, target).sum().backward()
        optimizer.step()
    assert rotated_iou_loss(pred, target).item() < 0.02


# Conventions of the angle, cost


@every_loss
@pytest.mark.parametrize("turns", [-3, -2, -1, 1, 2, 3])
def test_the_same_box_by_another_convention_has_the_same_loss_and_gradient(loss, turns: int) -> None:
    pred, target = pairs(300, seed=4)
    value, grad = gradient(loss, pred, target)
    for both in (False, True):
        again, other = pred.clone(), target.clone()
        for boxes in (again, other) if both else (again,):
            boxes[:, 4] += turns * math.pi / 2
            if turns % 2:
                boxes[:, 2:4] = boxes[:, 2:4].flip(1)
        turned, slope = gradient(loss, again, other)
        if turns % 2:
            slope[:, 2:4] = slope[:, 2:4].flip(1)
        torch.testing.assert_close(turned, value, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(slope, grad, rtol=1e-6, atol=1e-8)


@every_loss
def test_no_operation_depends_on_the_data(loss) -> None:
    pred, target = (boxes.to("meta") for boxes in pairs(8))
    value, grad = gradient(loss, pred, target)  # a tensor without data: `nonzero`, masks and `item` would raise
    assert value.shape == (8,)
    assert grad.shape == (8, 5)


@every_loss
def test_memory_is_linear_in_the_pairs(loss) -> None:
    def saved(count: int) -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        pred, target = pairs(count)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss(pred.requires_grad_(), target)
        return sum(sizes)

    assert saved(4000) <= 10 * saved(400)
    assert saved(4000) < 4000 * 400


@every_loss
@pytest.mark.slow
def test_cost_is_at_most_five_times_probious(loss) -> None:
    pred, target = (boxes.float() for boxes in pairs(4000))

    def seconds(function) -> float:
        start = time.thread_time()
        function(pred.requires_grad_(), target).sum().backward()
        return time.thread_time() - start

    times = [(seconds(loss), seconds(probiou_loss)) for _ in range(60)]
    ours, theirs = (min(column) for column in zip(*times, strict=True))
    assert ours < 5 * theirs


# In Ultralytics' criteria


ROTATED = [spec.name for spec in registry.specs("box") if spec.rotated]


@pytest.mark.parametrize("head", ["v8-obb", "26-obb"])
@pytest.mark.parametrize("name", [*ROTATED, *MODIFIED])
def test_rotated_losses_train_every_obb_head(head: str, name: str) -> None:
    outputs, batch = predictions(head), made_up_batch(head)
    stock, _, _ = run(criterion_of(head), outputs, batch)
    criterion = criterion_of(head)
    yolo_losses.equip(criterion, {"box_loss": name})
    items, loss, gradients = run(criterion, outputs, batch)
    assert loss.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
    others = {key for key in stock if key != "box_loss"}
    assert {key: items[key] for key in others} == pytest.approx({key: stock[key] for key in others}, rel=1e-5)
    assert (items["box_loss"] == pytest.approx(stock["box_loss"], rel=1e-4)) == (name == "probiou")


@pytest.mark.parametrize("name", [*ROTATED, *MODIFIED])
def test_rotated_losses_are_refused_for_axis_aligned_boxes(name: str) -> None:
    with pytest.raises(ValueError, match=f"'box_loss={registry.box_name(*registry.split_box_name(name))}' is not for"):
        yolo_losses.equip(criterion_of("v8"), {"box_loss": name})
