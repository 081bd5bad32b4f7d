"""The mask part by itself: equal to stock for BCE, of the named loss for the others, in no more memory."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import golden
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.utils.loss import v8SegmentationLoss

from yolo_losses import registry
from yolo_losses.integration.criteria.masks import MaskPart

LOSSES = [spec.name for spec in registry.specs("seg")]
every_loss = pytest.mark.parametrize("loss", LOSSES)


def part_of(loss: str, scale: float = 1.0) -> MaskPart:
    """A part that no criterion holds."""
    spec = registry.find("seg", loss)
    assert spec is not None
    settings = SimpleNamespace(seg_scale=scale)
    branch = SimpleNamespace(seg=spec.build(), record=lambda term, output: output, settings=settings)
    return MaskPart(v8SegmentationLoss.single_mask_loss, branch)


Scene = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def scene(count: int = 13, side: int = 24, dtype: torch.dtype = torch.float32) -> Scene:
    """The arguments of `single_mask_loss`: boxes of all sizes, one of less than a pixel."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 0.6
    size = torch.rand(count, 2, generator=generator) * 0.35 + 0.05
    size[0] = 0.01
    boxes = torch.cat((corner, corner + size), 1)
    gt_mask = (torch.rand(count, side, side, generator=generator) > 0.4).float()
    pred = torch.randn(count, 32, generator=generator).to(dtype).requires_grad_()
    proto = torch.randn(32, side, side, generator=generator).to(dtype).requires_grad_()
    return gt_mask, pred, proto, boxes * side, size.prod(1)


def value_and_gradients(function: Any, arguments: Scene) -> list[Tensor]:
    value = function(*arguments)
    return [value.detach(), *torch.autograd.grad(value, arguments[1:3])]


# The part
@pytest.mark.parametrize(("count", "side"), [(1, 8), (13, 24), (70, 40), (9, 120)])
def test_bce_is_the_stock_part_in_value_and_gradients(count: int, side: int) -> None:
    arguments = scene(count, side)
    ours = value_and_gradients(part_of("bce"), arguments)
    stock = value_and_gradients(v8SegmentationLoss.single_mask_loss, arguments)
    for one, other in zip(ours, stock, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * other.abs().max().item())


def test_bce_is_the_golden_case_of_the_stock_part() -> None:
    arrays, cases, _ = golden("mask")
    case = cases["ultralytics_single_mask_loss_grad_coef"]
    given: Any = [
        arrays[f"inputs/{case['inputs'][name]}"].double() for name in ("gt_mask", "pred", "proto", "xyxy", "area")
    ]
    given[1].requires_grad_()
    value = part_of("bce")(*given)
    (slope,) = torch.autograd.grad(value, given[1])
    result = case["results"]["float64"]
    torch.testing.assert_close(value.detach(), arrays[result["out"]], rtol=1e-6, atol=0)
    torch.testing.assert_close(slope, arrays[result["grad"]], rtol=1e-6, atol=1e-12)


@every_loss
def test_it_is_the_sum_of_the_losses_of_the_masks_in_their_boxes(loss: str) -> None:
    arguments = scene(dtype=torch.float64)
    gt_mask, pred, proto, xyxy, area = arguments
    ours = value_and_gradients(part_of(loss, scale=2.5), arguments)
    spec = registry.find("seg", loss)
    assert spec is not None
    formula, logits = spec.build(reduction="sum"), torch.einsum("in,nhw->ihw", pred, proto)
    total = torch.zeros((), dtype=torch.float64)
    for number, (x1, y1, x2, y2) in enumerate(xyxy.ceil().int().tolist()):
        at = number, slice(y1, y2), slice(x1, x2)
        if loss in ("bce", "focal", "bce_dice"):
            # Per pixel: the mean over the box, by its exact area rather than by the number of its pixels.
            share = (y2 - y1) * (x2 - x1) / (24 * 24 * area[number].double())
            box = [logits[at][None], gt_mask[at].double()[None]]
            if not box[0].numel():
                continue
            if loss == "bce_dice":
                parts = [registry.find("seg", each).build(reduction="sum") for each in ("bce", "dice")]  # type: ignore[union-attr]
                total = total + 0.5 * share * parts[0](*box) + 0.5 * parts[1](*box)
            else:
                total = total + share * formula(*box)
        else:
            total = total + formula(logits[at][None], gt_mask[at].double()[None])
    wanted = [total.detach(), *torch.autograd.grad(total, (pred, proto))]
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, 2.5 * other, rtol=1e-6, atol=1e-9)


@every_loss
def test_gradients_are_the_derivative(loss: str) -> None:
    gt_mask, pred, proto, xyxy, area = scene(3, 6, torch.float64)

    def term(pred: Tensor, proto: Tensor) -> Tensor:
        value: Tensor = part_of(loss)(gt_mask, pred, proto, xyxy, area.double())
        return value

    pred, proto = (each.detach()[:, :4].clone() for each in (pred, proto.transpose(0, 1)))
    proto = proto.transpose(0, 1).contiguous()
    assert torch.autograd.gradcheck(term, (pred.requires_grad_(), proto.requires_grad_()))


@every_loss
def test_it_is_the_same_however_many_masks_are_worked_on_at_a_time(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = scene(40, 32)
    whole = value_and_gradients(part_of(loss), arguments)
    monkeypatch.setattr("yolo_losses.integration.criteria.masks.LEAST_PIXELS", 1)
    monkeypatch.setattr("yolo_losses.integration.criteria.masks.SHARE", 20)
    for one, other in zip(value_and_gradients(part_of(loss), arguments), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_has_the_gradient_of_float32_on_a_large_mask(loss: str, dtype: torch.dtype) -> None:
    gt_mask, pred, proto, xyxy, area = scene(4, 160, dtype)
    xyxy, area = torch.tensor([[0.0, 0, 160, 160]]).repeat(4, 1), torch.ones(4)
    with torch.autocast("cpu", dtype=dtype):
        low = value_and_gradients(part_of(loss), (gt_mask, pred, proto, xyxy, area))
    single = tuple(each.detach().float().requires_grad_() for each in (pred, proto))
    high = value_and_gradients(part_of(loss), (gt_mask, *single, xyxy, area))
    assert low[0].dtype == torch.float32
    assert low[1].dtype == low[2].dtype == dtype
    torch.testing.assert_close(low[0], high[0])
    torch.testing.assert_close(low[1].float(), high[1], rtol=1e-2, atol=1e-6)


@every_loss
def test_logits_of_a_hundred_and_boxes_of_no_area_are_finite(loss: str) -> None:
    gt_mask, pred, proto, xyxy, area = scene()
    xyxy[1, 2:] = xyxy[1, :2]
    area[1] = 0
    for factor in (1.0, 100.0):
        large = (pred.detach() * factor).requires_grad_()
        found = value_and_gradients(part_of(loss), (gt_mask, large, proto, xyxy, area))
        assert all(each.isfinite().all() for each in found)


def test_no_gradient_is_computed_where_none_is_wanted() -> None:
    gt_mask, pred, proto, xyxy, area = scene()
    with torch.inference_mode():
        value = part_of("dice")(gt_mask, pred.detach().clone(), proto.detach().clone(), xyxy, area)
    assert not value.requires_grad
    value = part_of("dice")(gt_mask, pred.detach(), proto, xyxy, area)
    assert torch.autograd.grad(value, proto)[0].any()


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    arguments = scene()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(part_of("dice")(*arguments), arguments[1], create_graph=True)


class Memory(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make and that are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage not in self.seen:
                    self.seen.add(storage)
                    size = storage.nbytes()
                    self.now += size
                    weakref.finalize(storage, self.free, size)
        self.most = max(self.most, self.now)
        return result

    def free(self, size: int) -> None:
        self.now -= size


def peak(function: Any, arguments: Scene, images: int) -> int:
    """Most bytes at a time, of as many images whose terms are added up before they go backward."""
    with Memory() as memory:
        # Upstream makes the targets anew for every image.
        total = sum(function(arguments[0].clone(), *arguments[1:]) for _ in range(images))
        torch.autograd.grad(total, arguments[1:3])
    return memory.most


@every_loss
@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize(("count", "side"), [(160, 80), (40, 160)])
def test_memory_is_no_more_than_stocks(loss: str, images: int, count: int, side: int) -> None:
    arguments = scene(count, side)
    assert peak(part_of(loss), arguments, images) <= peak(v8SegmentationLoss.single_mask_loss, arguments, images)
