"""What follows from an assignment."""

from __future__ import annotations

import pytest
import torch

from yolo_losses.integration.criteria.assignment import Assignment, plain_iou


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_iou_of_any_boxes_is_between_0_and_1_without_a_clamp(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(20_000, 4, generator=generator) * scale).view(-1, 2, 2).sort(1).values.view(-1, 4)
    noise = torch.randn(20_000, 4, generator=generator) * scale
    # From equal boxes, over those that differ in the last digit, to inverted ones.
    near = torch.cat([target + noise * size for size in (0, 1e-7, 1e-3, 0.3, 3)])
    target = target.repeat(5, 1)
    iou = plain_iou(near, target)
    assert iou.shape == (100_000, 1)
    assert ((iou >= 0) & (iou <= 1)).all()
    inverted = (near[:, 2:] < near[:, :2]).any(-1)
    assert inverted.any()
    assert not iou[inverted].any()
    assert iou[:20_000].median() == 1


def test_iou_is_that_of_torchvision() -> None:
    ops = pytest.importorskip("torchvision.ops")
    generator = torch.Generator().manual_seed(1)
    pred, target = (torch.rand(500, 2, 2, generator=generator).sort(1).values.view(500, 4) * 640 for _ in range(2))
    torch.testing.assert_close(plain_iou(pred, target)[:, 0], ops.box_iou(pred, target).diagonal())


def test_iou_of_two_boxes_without_area_is_0() -> None:
    assert plain_iou(torch.zeros(1, 4), torch.zeros(1, 4)) == 0


def test_strides_and_image_size_are_those_of_the_grid() -> None:
    width, height = 96, 64
    points, strides = [], []
    for stride in (8, 16, 32):
        grid = torch.cartesian_prod(torch.arange(width // stride), torch.arange(height // stride)) + 0.5
        points.append(grid)
        strides.append(torch.full((len(grid), 1), float(stride)))
    point, stride = torch.cat(points), torch.cat(strides)
    count = len(point)
    assigned = (torch.zeros(1, count), torch.zeros(1, count, 4), torch.zeros(1, count, 3), torch.zeros(1, count))
    assignment = Assignment(torch.zeros(1, count, 4), point * stride, assigned, False)
    torch.testing.assert_close(assignment.strides(point), stride)
    torch.testing.assert_close(assignment.image_wh(stride), torch.tensor([float(width), float(height)]))
