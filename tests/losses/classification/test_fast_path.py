"""The class term of a whole batch, by its fast paths, equals the formula: value and gradient, for every loss."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from yolo_losses import registry
from yolo_losses.losses import build as factory
from yolo_losses.losses._step import Step
from yolo_losses.losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.losses.classification._fast import compiled, cpu, gpu
from yolo_losses.losses.classification._fast.autograd import Positives

# Beside the defaults, parameters that take another way through the closed forms.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "focal": [
        {"gamma": 0.0},
        {"gamma": 0.5, "alpha": -1},
        {"gamma": 2.3},
        {"gamma": 3.0},
        {"gamma": 3.5},
        {"gamma": 5},
    ],
    "vfl": [{"detach_weight": True}, {"iou_weighted": False, "gamma": 0.5}, {"gamma": 4.0}],
    "qfl": [{"beta": 1.5, "alpha": 0.25}, {"beta": 0.3}],
    "poly": [{"gamma": 0.3, "epsilon": -0.5, "alpha": -1}, {"alpha": 1.0}, {"gamma": 0.0}, {"epsilon": 0.0}],
    "asl": [
        {"detach_weight": False},
        {"shift": 0.0},
        {"shift": 0.0, "detach_weight": False, "gamma_neg": 0.4},
        {"gamma_pos": 0.0, "gamma_neg": 0.4, "detach_weight": False},
        {"gamma_pos": 0.3, "gamma_neg": 0.0, "detach_weight": False},
        {"gamma_neg": 2.5, "detach_weight": False},
    ],
    "mal": [{"gamma": 0.4}, {"gamma": 1.0}],
    "ghm": [{"bins": 3, "momentum": 0.0}],
}
CASES = [(s.name, kw) for s in registry.specs("cls") for kw in [{}, *SETTINGS.get(s.name, [])]]
EVERY_LOSS = pytest.mark.parametrize("name", [s.name for s in registry.specs("cls")])
EVERY_CASE = pytest.mark.parametrize(("name", "parameters"), CASES, ids=lambda v: str(v) if v else "default")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


class Batch:
    """A made-up batch: logits, and one positive in some of the rows."""

    def __init__(
        self,
        *,
        dtype: torch.dtype = torch.float64,
        images: int = 2,
        anchors: int = 60,
        classes: int = 7,
        positives: int = 9,
        masked: bool = False,
        extreme: bool = False,
    ) -> None:
        generator = torch.Generator().manual_seed(classes * 100 + positives)
        rows = images * anchors
        logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3 - 2
        if extreme:
            logits = torch.where(logits > -2, 100.0, -100.0)
        self.logits = logits.view(images, anchors, classes).to(dtype).requires_grad_()
        self.wide = torch.promote_types(dtype, torch.float32)
        chosen = torch.randperm(rows, generator=generator)[:positives]
        label = torch.randint(0, classes, (rows,), generator=generator)
        quality = torch.rand(rows, generator=generator).to(self.wide)
        quality[chosen[:1]] = 0  # a positive stays one when its box misses
        index = torch.arange(rows) * classes + label
        valid = torch.zeros(rows, dtype=torch.bool).index_fill_(0, chosen, True)
        self.positives = Positives(index, quality, valid) if masked else Positives(index[chosen], quality[chosen])
        self.targets = torch.zeros(rows * classes, dtype=torch.float64)
        self.targets[index[chosen]] = quality[chosen].double()
        self.mask = torch.zeros(rows * classes, dtype=torch.bool).index_fill_(0, index[chosen], True)
        self.step = Step(quality[chosen], None, training=True)
        self.class_weight = torch.rand(classes, generator=generator, dtype=torch.float64)

    def reference(self, loss: ClassificationLoss) -> tuple[Tensor, Tensor]:
        """Return per-class sums by the formula in float64, and the gradient of their weighted sum."""
        z = self.logits.detach().double().requires_grad_()
        targets, mask = self.targets.view_as(z), self.mask.view_as(z)
        value = loss.elementwise(z, targets, positive_mask=mask, **loss.prepare(self.step)).sum((0, 1))
        if loss.own_divisor:
            value = value / z.numel()
        return value.detach(), torch.autograd.grad((value * self.class_weight).sum(), z)[0]

    def fast(self, loss: ClassificationLoss) -> tuple[Tensor, Tensor]:
        """Return the same by `class_sums`."""
        sums = loss.class_sums(self.logits, self.positives, self.step)
        assert sums.shape == (1, 1, self.logits.shape[-1])
        assert sums.dtype == self.wide
        weighted = (sums * self.class_weight.to(sums)).sum()
        return sums.detach().view(-1), torch.autograd.grad(weighted, self.logits)[0]


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cpu, "VALUES_EACH", 2**16)  # so that small batches, too, are shared among them
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def make(name: str, parameters: dict[str, Any] | None = None) -> ClassificationLoss:
    spec = registry.find("cls", name)
    assert spec is not None
    return spec.module(**parameters or {})


def needs_a_closed_form(loss: ClassificationLoss) -> None:
    """Skip where the background goes through autograd, which is not compiled and keeps the formula's own precision."""
    if not loss.has_closed_form() and type(loss).class_sums is ClassificationLoss.class_sums:
        pytest.skip(f"'{loss.registered_name}' has no closed form of the background, so it has no compiled path")


def check(name: str, parameters: dict[str, Any], batch: Batch) -> None:
    value, gradient = batch.fast(make(name, parameters))
    wanted_value, wanted_gradient = batch.reference(make(name, parameters))
    tolerance = TOLERANCE[batch.logits.dtype]
    torch.testing.assert_close(value.double(), wanted_value, rtol=min(tolerance, 1e-5), atol=1e-7)
    assert gradient.dtype == batch.logits.dtype
    assert torch.isfinite(gradient).all()
    # The elements' gradients span many orders of magnitude; what is tiny beside the largest does not matter.
    floor = max(wanted_gradient.abs().max().item() * tolerance, 1e-30)
    torch.testing.assert_close(gradient.double(), wanted_gradient, rtol=tolerance, atol=floor)


@EVERY_CASE
@pytest.mark.parametrize("masked", [False, True], ids=["listed", "masked"])
def test_equals_the_formula(name: str, parameters: dict[str, Any], masked: bool) -> None:
    check(name, parameters, Batch(masked=masked))


@EVERY_CASE
@pytest.mark.parametrize("masked", [False, True], ids=["listed", "masked"])
def test_gpu_path_equals_the_formula(
    name: str, parameters: dict[str, Any], masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU without a compiler does, on the CPU."""
    monkeypatch.setattr(cpu, "pass_over", gpu.pass_over)
    check(name, parameters, Batch(masked=masked))


@EVERY_LOSS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("extreme", [False, True], ids=["usual", "extreme"])
def test_precisions(name: str, dtype: torch.dtype, extreme: bool) -> None:
    check(name, {}, Batch(dtype=dtype, extreme=extreme))


@EVERY_LOSS
@pytest.mark.parametrize(
    "shape",
    [
        {"classes": 1},
        {"classes": 1203, "anchors": 70},
        {"positives": 0},
        {"positives": 0, "masked": True},
        {"positives": 120, "masked": True},
        {"images": 1, "anchors": 9000, "positives": 40},
    ],
    ids=str,
)
def test_shapes(name: str, shape: dict[str, Any]) -> None:
    check(name, {}, Batch(dtype=torch.float32, **shape))


@EVERY_LOSS
def test_empty_batches(name: str) -> None:
    for images, anchors in ((0, 60), (2, 0)):
        batch = Batch(images=images, anchors=anchors, positives=0, dtype=torch.float32)
        value, gradient = batch.fast(make(name))
        assert not value.any()
        assert gradient.shape == batch.logits.shape


@EVERY_LOSS
def test_second_backward(name: str) -> None:
    batch = Batch()
    total = make(name).class_sums(batch.logits, batch.positives, batch.step).sum()
    first, second = (torch.autograd.grad(total, batch.logits, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
    assert first.any()


@EVERY_LOSS
def test_second_derivative(name: str) -> None:
    batch = Batch()
    z = batch.logits.detach().requires_grad_()
    loss, twin = make(name), make(name)
    value = twin.elementwise(
        z, batch.targets.view_as(z), positive_mask=batch.mask.view_as(z), **twin.prepare(batch.step)
    )
    wanted, seconds = value.sum() / (z.numel() if loss.own_divisor else 1), []
    for total in (wanted, loss.class_sums(z, batch.positives, batch.step).sum()):
        slope = torch.autograd.grad(total, z, create_graph=True)[0]
        seconds.append(torch.autograd.grad(slope.square().sum(), z)[0])
    torch.testing.assert_close(seconds[1], seconds[0])
    assert seconds[0].any()


@EVERY_LOSS
def test_without_gradient(name: str, three_threads: None) -> None:
    batch = Batch(anchors=9000)
    wanted = batch.fast(make(name))[0]
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            sums = make(name).class_sums(batch.logits.detach().clone(), batch.positives, batch.step)
        torch.testing.assert_close(sums.view(-1), wanted)


@EVERY_LOSS
def test_same_bits_again(name: str, three_threads: None) -> None:
    """Whichever thread is first."""
    batch = Batch(dtype=torch.float32, anchors=40_000, positives=300)
    runs = [batch.fast(make(name)) for _ in range(3)]
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


@EVERY_LOSS
def test_nan_logits_reach_the_loss(name: str) -> None:
    """Upstream recovers from a NaN loss; an exception would end the training."""
    batch = Batch(dtype=torch.float32)
    logits = batch.logits.detach().clone()
    logits[0, 0, 0] = torch.nan
    assert make(name).class_sums(logits.requires_grad_(), batch.positives, batch.step).isnan().any()


def test_a_formula_without_closed_form() -> None:
    def squared_loss(logits: Tensor, targets: Tensor, power: float = 2.0) -> Tensor:
        return (logits.sigmoid() - targets).abs() ** power

    register_cls_loss("squared_for_test")(squared_loss)
    try:
        check("squared_for_test", {"power": 3.0}, Batch())
        check("squared_for_test", {}, Batch(masked=True))
    finally:
        registry.remove("cls", "squared_for_test")


def test_weights_of_bce_that_depend_on_the_class() -> None:
    batch = Batch()
    loss = factory.make_cls_loss("bce")
    weighted = type(loss)(weight=torch.rand(7, dtype=torch.float64), pos_weight=torch.rand(7, dtype=torch.float64) + 1)
    value, gradient = batch.fast(weighted)
    wanted_value, wanted_gradient = batch.reference(weighted)
    torch.testing.assert_close(value, wanted_value)
    torch.testing.assert_close(gradient, wanted_gradient)


@pytest.mark.parametrize("momentum", [0.0, 0.75])
def test_ghm_of_a_small_batch_is_that_of_a_large_one(momentum: float) -> None:
    batch, whole, pieces = Batch(), make("ghm", {"momentum": momentum}), make("ghm", {"momentum": momentum})
    targets = batch.targets.view_as(batch.logits)
    for training in (True, True, False):
        step = Step(batch.step.iou, None, training)
        elements = whole.per_element(batch.logits, targets, **whole.prepare(step)).sum((0, 1), keepdim=True)
        sums = pieces.class_sums(batch.logits, batch.positives, step)
        torch.testing.assert_close(elements / batch.logits.numel(), sums, rtol=1e-6, atol=0)
        slopes = [torch.autograd.grad(each.sum(), batch.logits)[0] for each in (elements, sums)]
        torch.testing.assert_close(slopes[0] / batch.logits.numel(), slopes[1], rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(whole.state_dict(), pieces.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ghm_averages_its_counts_in_half_precision_too(dtype: torch.dtype) -> None:
    batch, half, full = Batch(anchors=4000), make("ghm"), make("ghm")
    logits = (batch.logits.detach() - 8).to(dtype)  # the sum of all overflows in float16
    assert dtype != torch.float16 or logits.sum().isinf()
    for _ in range(3):
        half.class_sums(logits, batch.positives, batch.step)
        full.class_sums(logits.float(), batch.positives, batch.step)
    assert full.counts.any()
    torch.testing.assert_close(half.counts, full.counts)


def test_ghm_averages_its_counts_in_training_only() -> None:
    batch, loss = Batch(), make("ghm")
    batch.fast(loss)
    after = loss.counts.clone()  # type: ignore[operator]
    assert after.any()
    still = Step(batch.step.iou, None, training=False)
    loss.class_sums(batch.logits, batch.positives, still)
    assert torch.equal(loss.counts, after)
    batch.fast(loss)
    assert not torch.equal(loss.counts, after)


@pytest.mark.slow
@EVERY_LOSS
def test_compiles_and_equals_the_formula(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function that a GPU compiles, through the compiler's CPU side; another image size compiles nothing anew."""
    monkeypatch.setattr(cpu, "pass_over", gpu.pass_over)
    monkeypatch.setattr(compiled, "compiling", lambda device: True)
    monkeypatch.setattr(compiled, "_give_up", pytest.fail)
    loss = make(name)
    needs_a_closed_form(loss)
    for number, anchors in enumerate((60, 45, 333)):
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            batch = Batch(dtype=torch.float32, anchors=anchors, masked=True)
            # One loss throughout, since a kernel is its own; its state has moved on, so a copy is the reference.
            twin = make(name)
            twin.load_state_dict(loss.state_dict())
            value, gradient = batch.fast(loss)
            wanted_value, wanted_gradient = batch.reference(twin)
            torch.testing.assert_close(value.double(), wanted_value, rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(
                gradient.double(), wanted_gradient, rtol=1e-4, atol=wanted_gradient.abs().max().item() * 1e-5
            )


def test_goes_on_where_nothing_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(cpu, "pass_over", gpu.pass_over)
    monkeypatch.setattr(compiled, "_gave_up", False)
    monkeypatch.setattr(compiled, "compiling", lambda device: not compiled._gave_up)
    monkeypatch.setattr(compiled, "_program", lambda function: fail)
    check("focal", {}, Batch(masked=True))
    assert compiled._gave_up
    check("focal", {}, Batch(masked=True))


def total(rows: Tensor) -> Tensor:
    return cpu.map_sum(rows, lambda piece, _: piece.sum(0))


def test_threads_do_operations_alone_and_leave_torch_as_it_was(three_threads: None) -> None:
    """Also where two trainings are the first at once."""
    cpu._pool.cache_clear()
    both, pools = threading.Barrier(2), []

    def first() -> None:
        torch.get_num_threads()
        both.wait()
        pools.append(cpu._pool(3, os.getpid()))

    trainings = [threading.Thread(target=first) for _ in range(2)]
    for training in trainings:
        training.start()
    for training in trainings:
        training.join()
    for pool in pools:
        meet = threading.Barrier(3)
        running = [pool.submit(lambda meet=meet: (meet.wait(), torch.get_num_threads())[1]) for _ in range(3)]
        assert [each.result() for each in running] == [1, 1, 1]
    assert torch.get_num_threads() == 3
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [3]


def test_batches_of_any_size_share_their_threads(three_threads: None) -> None:
    cpu._pool.cache_clear()
    for millions in (2, 3, 5):
        total(torch.zeros(millions * 2**20, 1))
    assert cpu._pool.cache_info().currsize == 1


def test_memory_of_a_gradient_is_used_again_once_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "LARGE_BLOCK", 1)
    monkeypatch.setattr(cpu, "_free_blocks", [])

    def empty(rows: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return cpu._empty(torch.Size((rows, 3)), dtype)

    one, other = empty(1000), empty(1000)
    places = {one.data_ptr(), other.data_ptr()}
    assert len(places) == 2
    kept = one.mul_(0).view(-1)[5:]  # a view keeps its memory
    del one, other
    again = empty(500)
    assert again.data_ptr() in places
    again.fill_(1)
    assert not kept.any()
    del kept
    assert empty(400, torch.float64).data_ptr() in places
    larger = empty(10**6)
    assert larger.data_ptr() not in places
    del again, larger
    assert len(cpu._free_blocks) <= cpu.KEPT_BLOCKS


def test_a_system_that_allows_no_more_threads(three_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def second_fails(self: threading.Thread) -> None:
        started.append(self)
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        start(self)

    cpu._pool.cache_clear()
    rows = torch.ones(3 * 2**20, 1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", second_fails)
        assert total(rows) == len(rows)
    assert len(started) == 2
    assert not started[0].is_alive()
    assert total(rows) == len(rows)


@pytest.mark.slow
def test_a_training_that_outlives_the_main_thread() -> None:
    code = """
import threading, time, torch
from yolo_losses.losses.classification._fast import compiled, cpu, gpu
from yolo_losses.losses.classification._fast.autograd import Positives
from yolo_losses.losses.classification._fast.autograd import Positives
torch.set_num_threads(2)
cpu.VALUES_EACH = 2**20
def train():
    threading.main_thread().join()
    time.sleep(0.2)
    print(int(cpu.map_sum(torch.ones(2**21, 1), lambda piece, _: piece.sum(0))))
cpu._pool(2, __import__("os").getpid())
threading.Thread(target=train).start()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str(2**21), done.stderr


@EVERY_LOSS
def test_another_default_device(name: str) -> None:
    batch, loss = Batch(dtype=torch.float32), make(name)
    with torch.device("meta"):
        _, gradient = batch.fast(loss)
    assert gradient.device.type == "cpu"


@EVERY_LOSS
def test_the_small_loss_of_a_confident_model_keeps_its_digits(name: str) -> None:
    """A positive's share as background, which is large, is not first added and then taken away."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 20_000, 1, generator=generator) * 0.3 - 12
    index = torch.randperm(20_000, generator=generator)[:600]
    logits.view(-1)[index] = torch.randn(600, generator=generator) * 0.3 + 12
    target = torch.ones(600)
    step = Step(torch.full((600,), 0.9), None, training=True)
    needs_a_closed_form(make(name))
    value = make(name).class_sums(logits, Positives(index, target), step).sum()
    exact = make(name).double().class_sums(logits.double(), Positives(index, target.double()), step).sum()
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=0)
