"""The class term of a batch, one value per element: equal to the formula, for every loss and however it is chunked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from yolo_losses import registry
from yolo_losses.losses import build as factory
from yolo_losses.losses._step import Step
from yolo_losses.losses.classification import _batch
from yolo_losses.losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.losses.classification._batch import Batch

# Beside the defaults, parameters that take another way through the closed forms.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "focal": [
        {"gamma": 0.0},
        {"gamma": 0.5, "alpha": -1},
        {"gamma": 1.0, "alpha": -1},
        {"gamma": 2.3},
        {"gamma": 3.0},
        {"gamma": 3.5},
        {"gamma": 5},
    ],
    "vfl": [{"detach_weight": True}, {"iou_weighted": False, "gamma": 0.5}, {"gamma": 4.0}, {"gamma": 0.0}],
    "qfl": [{"beta": 1.5, "alpha": 0.25}, {"beta": 0.3}, {"beta": 1.0}, {"beta": 0.0}],
    "poly": [{"gamma": 0.3, "epsilon": -0.5, "alpha": -1}, {"alpha": 1.0}, {"gamma": 0.0}, {"epsilon": 0.0}],
    "asl": [
        {"detach_weight": False},
        {"shift": 0.0},
        {"shift": 0.0, "detach_weight": False, "gamma_neg": 0.4},
        {"gamma_pos": 0.0, "gamma_neg": 0.4, "detach_weight": False},
        {"gamma_pos": 0.3, "gamma_neg": 0.0, "detach_weight": False},
        {"gamma_neg": 2.5, "detach_weight": False},
    ],
    "mal": [{"gamma": 0.4}, {"gamma": 1.0}, {"gamma": 0.0}],
    "ghm": [{"bins": 3, "momentum": 0.0}],
    "slide": [{"min_iou": 0.6, "delta": 0.3}],
    "efl": [{"gamma": 0.6, "alpha": -1}, {"scale": 0.0}],
    "eqfl": [{"gamma": 1.5}],
}
CASES = [(s.name, kw) for s in registry.specs("cls") for kw in [{}, *SETTINGS.get(s.name, [])]]
EVERY_LOSS = pytest.mark.parametrize("name", [s.name for s in registry.specs("cls")])
EVERY_CASE = pytest.mark.parametrize(("name", "parameters"), CASES, ids=lambda v: str(v) if v else "default")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
CUTS = ("whole", "chunks", "background first")  # as on a GPU; without and with rows, in chunks of a few elements


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch, "CHUNK", 64)


class Scene:
    """A made-up batch: logits, and one positive in some of the rows, the first of which has target 0."""

    def __init__(
        self,
        dtype: torch.dtype = torch.float64,
        images: int = 2,
        anchors: int = 60,
        classes: int = 7,
        positives: int = 9,
        extreme: bool = False,
        soft: bool = False,
    ) -> None:
        generator = torch.Generator().manual_seed(classes * 100 + positives)
        count = images * anchors
        logits = torch.randn(count, classes, generator=generator, dtype=torch.float64) * 3 - 2
        if extreme:
            logits = torch.where(logits > -2, 100.0, -100.0)
        self.logits = logits.view(images, anchors, classes).to(dtype).requires_grad_()
        wide = torch.promote_types(dtype, torch.float32)
        rows = torch.randperm(count, generator=generator)[:positives].sort().values
        label = torch.randint(0, classes, (len(rows),), generator=generator)
        quality = torch.rand(len(rows), generator=generator).to(wide)
        quality[:1] = 0  # a positive stays one when its box misses
        targets = torch.zeros(count, classes, dtype=wide)
        mask = torch.zeros(count, classes, dtype=torch.bool)
        if soft:
            targets[rows] = torch.rand(len(rows), classes, generator=generator).to(wide)
            mask[rows] = True
        targets[rows, label], mask[rows, label] = quality, True
        self.rows, self.targets, self.mask, self.iou = rows, targets, mask, quality
        self.class_weights = torch.rand(classes, generator=generator, dtype=torch.float64)

    def step(self, training: bool = True) -> Step:
        return Step(self.iou, None, training)

    def batch(self, cut: str = "whole") -> Batch:
        if cut == "background first":
            return Batch(self.logits, self.targets[self.rows], self.mask[self.rows], self.rows)
        shape = self.logits.shape
        return Batch(self.logits, self.targets.view(shape), self.mask.view(shape))

    def term(self, loss: ClassificationLoss, cut: str = "whole") -> tuple[Tensor, Tensor]:
        """Return the loss per element, and the gradient of its sum, weighted by class."""
        term, kept = loss.per_element(self.batch(cut), self.step())
        assert term.shape == self.logits.shape
        assert term.dtype == torch.promote_types(self.logits.dtype, torch.float32)
        if kept is not None:
            (plain,) = torch.autograd.grad(term.sum(), self.logits, retain_graph=True)
            torch.testing.assert_close(kept.to(plain.dtype), plain)
        (gradient,) = torch.autograd.grad((term * self.class_weights.to(term)).sum(), self.logits)
        return term.detach(), gradient

    def reference(self, loss: ClassificationLoss) -> tuple[Tensor, Tensor]:
        """Return the same by autograd of the formula in float64, on the whole batch."""
        z = self.logits.detach().double().requires_grad_()
        targets, mask = self.targets.double().view(z.shape), self.mask.view(z.shape)
        value = loss.elementwise(z, targets, positive_mask=mask, **supplied(loss, self))
        return value.detach(), torch.autograd.grad((value * self.class_weights).sum(), z)[0]


def supplied(loss: Any, scene: Scene) -> dict[str, Any]:
    """Return what a first step supplies the formula with, for a loss that is left as it was."""
    if loss.registered_name == "ghm":
        return {"weights": weights_of_ghm(loss, scene)}
    loss = copy.deepcopy(loss)
    loss.set_classes(scene.logits.shape[-1])
    given: dict[str, Any] = loss.prepare(scene.step())
    return given


def make(name: str, parameters: dict[str, Any] | None = None) -> ClassificationLoss:
    spec = registry.find("cls", name)
    assert spec is not None
    loss: ClassificationLoss = spec.module(**parameters or {})
    if name == "ghm" and loss.momentum:
        loss.counts += torch.linspace(0.01, 0.3, loss.bins)  # type: ignore[operator]
        loss.momentum = 0.5  # type: ignore[assignment]
    return loss


def weights_of_ghm(loss: Any, scene: Scene) -> Tensor:
    """Return the weights of the bins, from averages that move by `1 - momentum` of the batch's shares."""
    gap = (scene.logits.detach().double().sigmoid() - scene.targets.double().view(scene.logits.shape)).abs()
    index = (gap * loss.bins).long().clamp(max=loss.bins - 1)
    counts = torch.bincount(index.flatten(), minlength=loss.bins)
    share = counts / counts.sum().clamp_min(1)
    if loss.momentum:
        share = torch.where(counts > 0, loss.momentum * loss.counts + (1 - loss.momentum) * share, loss.counts)
    share = share.double()
    return torch.where(share > 0, 1 / (share * (counts > 0).sum()), 0)


def check(name: str, parameters: dict[str, Any], scene: Scene, cut: str) -> None:
    value, gradient = scene.term(make(name, parameters), cut)
    wanted_value, wanted_gradient = scene.reference(make(name, parameters))
    tolerance = TOLERANCE[scene.logits.dtype]
    single = 1e-6 if name == "ghm" else 0  # the state is in float32
    # torch's BCE with targets loses what is below the logits' rounding.
    rounding = 1e-7 if tolerance < 1e-8 else 2e-6
    torch.testing.assert_close(value.double(), wanted_value, rtol=max(min(tolerance, 1e-5), single), atol=rounding)
    assert gradient.dtype == scene.logits.dtype
    assert torch.isfinite(gradient).all()
    # The elements' gradients span many orders of magnitude; what is tiny beside the largest does not matter.
    floor = max(wanted_gradient.abs().max().item() * tolerance if gradient.numel() else 0, 1e-30)
    torch.testing.assert_close(gradient.double(), wanted_gradient, rtol=max(tolerance, single), atol=floor)


@EVERY_CASE
@pytest.mark.parametrize("soft", [False, True], ids=["one class", "soft"])
@pytest.mark.parametrize("cut", CUTS)
def test_equals_autograd_of_the_formula(
    name: str, parameters: dict[str, Any], soft: bool, cut: str, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cut == "whole":
        monkeypatch.setattr(_batch, "CHUNK", 2**20)
    check(name, parameters, Scene(soft=soft), cut)


@EVERY_LOSS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("extreme", [False, True], ids=["usual", "extreme"])
@pytest.mark.parametrize("cut", CUTS[1:])
def test_precisions(name: str, dtype: torch.dtype, extreme: bool, cut: str, small_chunks: None) -> None:
    check(name, {}, Scene(dtype=dtype, extreme=extreme), cut)


@EVERY_LOSS
@pytest.mark.parametrize("cut", CUTS[1:])
@pytest.mark.parametrize(
    "shape",
    [
        {"classes": 1},
        {"classes": 5000, "anchors": 20},
        {"positives": 0},
        {"positives": 120},
        {"images": 0, "positives": 0},
        {"anchors": 0, "positives": 0},
    ],
    ids=str,
)
def test_shapes(name: str, shape: dict[str, Any], cut: str, small_chunks: None) -> None:
    check(name, {}, Scene(dtype=torch.float32, **shape), cut)


@EVERY_LOSS
@pytest.mark.parametrize("training", [True, False])
def test_result_gradient_and_state_do_not_depend_on_the_chunks(
    name: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over some steps, of which the state of one sets the weights of the next."""
    found = []
    for cut, size in (("whole", 2**20), ("chunks", 2**20), ("chunks", 7), ("background first", 64)):
        monkeypatch.setattr(_batch, "CHUNK", size)
        loss, steps = make(name).train(training), []
        for number in range(3):
            scene = Scene(dtype=torch.float64, positives=9 + number)
            term, _ = loss.per_element(scene.batch(cut), scene.step(training))
            steps += [term, torch.autograd.grad(term.sum(), scene.logits)[0]]
        found.append([*steps, *loss.state_dict().values()])
    for other in found[1:]:
        for ours, theirs in zip(other, found[0], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-12)


@EVERY_LOSS
@pytest.mark.parametrize("cut", CUTS)
def test_the_result_is_fresh_so_that_the_criterion_may_multiply_it_in_place(
    name: str, cut: str, small_chunks: None
) -> None:
    scene = Scene()
    twin = copy.deepcopy(make(name))
    term, _ = make(name).per_element(scene.batch(cut), scene.step())
    assert not term._is_view()
    weighted = term.mul_(scene.class_weights.to(term))
    (gradient,) = torch.autograd.grad(weighted.sum(), scene.logits)
    torch.testing.assert_close(gradient, scene.term(twin, cut)[1])


@EVERY_LOSS
def test_inputs_are_left_alone(name: str, small_chunks: None) -> None:
    scene = Scene(dtype=torch.float32)
    before = scene.logits.detach().clone(), scene.targets.clone()
    for cut in CUTS:
        scene.term(make(name), cut)
    assert torch.equal(scene.logits.detach(), before[0])
    assert torch.equal(scene.targets, before[1])


@EVERY_LOSS
@pytest.mark.parametrize("cut", CUTS)
def test_without_gradients_there_is_no_derivative_and_no_state(name: str, cut: str, small_chunks: None) -> None:
    scene, loss = Scene(), make(name)
    scene.term(loss, cut)
    before = copy.deepcopy(loss.state_dict())
    wanted, _ = copy.deepcopy(loss).per_element(scene.batch(cut), scene.step(training=False))
    scene.logits = scene.logits.detach().clone()
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            term, gradient = loss.per_element(scene.batch(cut), scene.step(training=torch.is_grad_enabled()))
        assert gradient is None
        assert not term.requires_grad
        torch.testing.assert_close(term.clone(), wanted.detach())
        assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())


@EVERY_LOSS
@pytest.mark.parametrize("cut", CUTS)
def test_second_backward_and_second_derivative(name: str, cut: str, small_chunks: None) -> None:
    scene, loss = Scene(), make(name)
    term, _ = loss.per_element(scene.batch(cut), scene.step(training=False))
    first, second = (torch.autograd.grad(term.sum(), scene.logits, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
    (gradient,) = torch.autograd.grad(term.sum(), scene.logits, create_graph=True)
    torch.testing.assert_close(gradient, first)
    found = torch.autograd.grad(gradient.square().sum(), scene.logits)[0]
    # By differences of the gradient, along one direction.
    change = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1e-6
    sizes = []
    for sign in (1, -1):
        moved = Scene()
        moved.logits = (scene.logits.detach() + sign * change).requires_grad_()
        again, _ = loss.per_element(moved.batch(cut), scene.step(training=False))
        sizes.append(torch.autograd.grad(again.sum(), moved.logits)[0].square().sum())
    wanted = (sizes[0] - sizes[1]) / 2
    detached = name in ("asl", "mal")  # whose gradient is not that of the value
    if not detached and name != "ghm":
        assert float((found * change).sum()) == pytest.approx(float(wanted), rel=1e-3)
    assert found.any()


@EVERY_LOSS
def test_nan_logits_reach_the_loss(name: str, small_chunks: None) -> None:
    """Upstream recovers from a NaN loss; an exception would end the training."""
    for cut in CUTS:
        scene = Scene(dtype=torch.float32)
        with torch.no_grad():
            scene.logits[0, 0, 0] = torch.nan
        assert make(name).per_element(scene.batch(cut), scene.step())[0].isnan().any()


@EVERY_LOSS
def test_another_default_device(name: str, small_chunks: None) -> None:
    scene, loss = Scene(dtype=torch.float32), make(name)
    with torch.device("meta"):
        _, gradient = scene.term(loss, "background first")
    assert gradient.device.type == "cpu"


@EVERY_LOSS
def test_the_small_loss_of_a_confident_model_keeps_its_digits(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 20_000, 1, generator=generator) * 0.3 - 12
    rows = torch.randperm(20_000, generator=generator)[:600]
    logits.view(-1)[rows] = torch.randn(600, generator=generator) * 0.3 + 12
    loss, step = make(name), Step(torch.full((600,), 0.9), None, training=True)
    if type(loss).closed_form is ClassificationLoss.closed_form:
        pytest.skip("a formula that is differentiated has the precision that it has")
    ones = torch.ones(600, 1)
    value, _ = copy.deepcopy(loss).per_element(Batch(logits, ones, None, rows), step)
    exact, _ = loss.double().per_element(Batch(logits.double(), ones.double(), None, rows), step)
    torch.testing.assert_close(value.double().sum(), exact.sum(), rtol=1e-5, atol=0)


def test_a_formula_without_closed_form_may_look_at_the_whole_batch(small_chunks: None) -> None:
    def relative_loss(logits: Tensor, targets: Tensor, power: float = 2.0) -> Tensor:
        error = (logits.sigmoid() - targets).abs() ** power
        return error / error.mean()

    register_cls_loss("relative_for_test")(relative_loss)
    try:
        for cut in CUTS:
            check("relative_for_test", {"power": 3.0}, Scene(), cut)
    finally:
        registry.remove("cls", "relative_for_test")


def test_weights_of_bce_of_any_shape(small_chunks: None) -> None:
    scene = Scene()
    for shape in ((7,), (2, 1, 1), (60, 7)):
        weighted = type(factory.make_cls_loss("bce"))(
            weight=torch.rand(shape, dtype=torch.float64), pos_weight=torch.rand(7, dtype=torch.float64) + 1
        )
        for ours, theirs in zip(scene.term(weighted, "background first"), scene.reference(weighted), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ghm_averages_its_counts_in_half_precision_too(dtype: torch.dtype) -> None:
    scene, half, full = Scene(anchors=4000), make("ghm"), make("ghm")
    low = (scene.logits.detach() - 8).to(dtype)  # the sum of all overflows in float16
    assert dtype != torch.float16 or low.sum().isinf()
    for _ in range(3):
        for loss, scene.logits in ((half, low), (full, low.float())):
            loss.per_element(scene.batch(), scene.step())
    assert full.counts.any()
    torch.testing.assert_close(half.counts, full.counts)


@pytest.mark.parametrize("name", ["ghm", "efl", "eqfl"])
def test_a_batch_that_overflowed_does_not_reach_the_state(name: str) -> None:
    scene, loss = Scene(dtype=torch.float32), make(name)
    loss.per_element(scene.batch(), scene.step())
    before = copy.deepcopy(loss.state_dict())
    with torch.no_grad():
        scene.logits[0, 0, 0] = torch.inf
        scene.logits[0, 0, 1] = torch.nan
    loss.per_element(scene.batch(), scene.step())
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())
