"""The chosen losses inside Ultralytics' criteria, on made-up predictions: the numbers, the state, what travels."""

from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import HEADS, criterion_of, head, made_up_batch, predictions, run, start_without_plugin, tensors
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from ultralytics.utils.loss import v8OBBLoss
from ultralytics.utils.metrics import bbox_iou, probiou

import yolo_losses
from yolo_losses import registry
from yolo_losses.integration.criteria import parts
from yolo_losses.integration.criteria.distribution_part import DistributionPart
from yolo_losses.losses import build as factory

CLS_LOSSES = [spec.name for spec in registry.specs("cls")]
BOX_LOSSES = [spec.name for spec in registry.specs("box") if not spec.rotated]


def equipped(name: str, **keys: Any) -> tuple[Any, dict[str, parts.Branch]]:
    """Return a fresh criterion of a head with the chosen losses, and its branches."""
    criterion = criterion_of(name)
    return criterion, yolo_losses.equip(criterion, keys)


def leaves(criterion: Any) -> list[Any]:
    """Return the criteria that a criterion is made of."""
    return [criterion.one2many, criterion.one2one] if hasattr(criterion, "one2many") else [criterion]


def stock_parts(criterion: Any) -> list[Any]:
    """Return what may be swapped in a criterion."""
    return [
        part
        for one in leaves(criterion)
        for part in (one.assigner, one.bce, one.bbox_loss, getattr(one.bbox_loss, "dfl_loss", None))
    ]


class Seen:
    """What a stock criterion's assigner was given and said, and what `bce` was given, in one step."""

    def __init__(self, criterion: Any, outputs: Any, batch: dict[str, Any]) -> None:
        def assigned(module: Any, args: Any, kwargs: Any, result: Any) -> None:
            self.pred_boxes = kwargs.get("pd_bboxes", args[1] if args else None)
            # Copies: v8OBBLoss goes on to scale the boxes in place.
            self.labels, self.boxes, self.scores, self.positive = (tensor.clone() for tensor in result[:4])

        def compared(module: Any, args: Any) -> None:
            self.logits = args[0].detach()

        handles = [
            criterion.assigner.register_forward_hook(assigned, with_kwargs=True),
            criterion.bce.register_forward_pre_hook(compared),
        ]
        run(criterion, outputs, batch)
        for handle in handles:
            handle.remove()

    @property
    def iou(self) -> Tensor:
        """IoU of each positive's predicted box with its object, as Ultralytics works it out."""
        pred, target = self.pred_boxes[self.positive], self.boxes[self.positive]
        if target.shape[-1] == 5:
            return probiou(pred, target).clamp(0, 1).squeeze(-1)
        return bbox_iou(pred, target, xywh=False).clamp(0, 1).squeeze(-1)

    @property
    def mask(self) -> Tensor:
        """Which elements are positive."""
        classes = self.scores.shape[-1]
        return one_hot(self.labels.long().clamp(0, classes - 1), classes).bool() & self.positive[..., None]

    def quality(self) -> Tensor:
        """The IoU at each positive element, 0 elsewhere."""
        targets = torch.zeros_like(self.scores)
        targets[self.mask] = self.iou  # one element an anchor, so in the anchors' order
        return targets


def assert_close(got: float | Tensor, wanted: float | Tensor, relative: float = 1e-6) -> None:
    got, wanted = torch.as_tensor(got), torch.as_tensor(wanted)
    assert (got - wanted).abs().max() <= relative * wanted.abs().max(), (got, wanted)


# ------------------------------------------------------------------------------------------------ equal to stock


@pytest.mark.parametrize("name", HEADS)
def test_bce_and_the_stock_box_loss_by_name_give_the_stock_terms_and_gradients(name):
    """bce and ciou (probiou for rotated boxes) are what Ultralytics uses, to 1e-6."""
    outputs, batch = predictions(name), made_up_batch(name)
    items, loss, gradients = run(criterion_of(name), outputs, batch)
    keys = {"cls_loss": "bce", "box_loss": "probiou" if name.endswith("obb") else "ciou"}
    if name.startswith(("v8", "v10")):
        keys["dfl_loss"] = "dfl"
    criterion, branches = equipped(name, **keys)
    items_ours, loss_ours, gradients_ours = run(criterion, outputs, batch)
    assert items.keys() == items_ours.keys()
    assert all(branch.calls == 1 for branch in branches.values())
    # Ultralytics' probiou takes differences of large numbers, ours does not.
    tolerance = 1e-4 if name.endswith("obb") else 1e-6
    for key in items:
        assert_close(items_ours[key], items[key], tolerance)
    assert_close(loss_ours, loss, tolerance)
    assert [g is None for g in gradients] == [g is None for g in gradients_ours]
    for got, wanted in zip(gradients_ours, gradients, strict=True):
        if wanted is not None:
            assert_close(got, wanted, tolerance)


@pytest.mark.parametrize("name", ["v8", "v8-obb"])
def test_dfl_by_name_equals_stock_and_off_is_a_zero_in_the_graph(name):
    outputs, batch = predictions(name), made_up_batch(name)
    items, _, gradients = run(criterion_of(name), outputs, batch)
    criterion, _ = equipped(name, dfl_loss="dfl")
    assert isinstance(criterion.bbox_loss.dfl_loss, DistributionPart)
    items_dfl, _, gradients_dfl = run(criterion, outputs, batch)
    assert_close(items_dfl["dfl_loss"], items["dfl_loss"])
    assert_close(gradients_dfl[0], gradients[0])
    # `off` is the same run as Ultralytics' own `dfl=0`.
    criterion, _ = equipped(name, dfl_loss="off")
    items_off, loss_off, gradients_off = run(criterion, outputs, batch)
    assert items_off["dfl_loss"] == 0
    without = criterion_of(name)
    without.hyp = copy.copy(without.hyp)
    without.hyp.dfl = 0.0
    _, loss_zero, gradients_zero = run(without, outputs, batch)
    assert torch.equal(loss_off, loss_zero)
    assert all(torch.equal(a, b) for a, b in zip(gradients_off, gradients_zero, strict=True) if b is not None)


@pytest.mark.parametrize("name", ["v8", "26", "v8-obb"])
def test_equipping_with_stock_puts_the_stock_parts_back(name):
    criterion = criterion_of(name)
    before = [
        (one.assigner, one.bce, one.bbox_loss, getattr(one.bbox_loss, "dfl_loss", None)) for one in leaves(criterion)
    ]
    keys = {"cls_loss": "slide", "dfl_loss": "stock" if name == "26" else "off"}
    assert yolo_losses.equip(criterion, keys)
    assert yolo_losses.equip(criterion, {"cls_loss": "stock"}) == {}
    after = [
        (one.assigner, one.bce, one.bbox_loss, getattr(one.bbox_loss, "dfl_loss", None)) for one in leaves(criterion)
    ]
    assert all(a is b for x, y in zip(before, after, strict=True) for a, b in zip(x, y, strict=True))


def test_equipping_twice_is_equipping_once_with_the_later_keys():
    outputs, batch = predictions("v8"), made_up_batch("v8")
    criterion, _ = equipped("v8", cls_loss="focal", box_loss="giou", dfl_loss="off")
    yolo_losses.equip(criterion, {"cls_loss": "slide"})
    assert type(criterion.bce.stock) is torch.nn.BCEWithLogitsLoss
    assert run(criterion, outputs, batch)[0] == run(equipped("v8", cls_loss="slide")[0], outputs, batch)[0]


# ------------------------------------------------------------------------------------------------ numbers by hand


@pytest.mark.parametrize("name", ["v8", "v8-obb"])
def test_slides_mean_iou_is_that_of_this_steps_boxes(name):
    outputs, batch = predictions(name), made_up_batch(name)
    stock_criterion = criterion_of(name)
    seen = Seen(stock_criterion, outputs, batch)
    # A low floor, so that the mean itself decides.
    criterion, _ = equipped(name, cls_loss="slide", slide_min_iou=0.02, slide_delta=0.01)
    items = run(criterion, outputs, batch)[0]
    mean = seen.iou.mean()
    assert mean > 0.02
    bce = binary_cross_entropy_with_logits(seen.logits, seen.scores, reduction="none")
    in_band = (seen.scores > mean - 0.01) & (seen.scores < mean)
    weight = torch.ones_like(seen.scores)
    weight[in_band] = (1 - mean).exp()
    weight[seen.scores >= mean] = (1 - seen.scores[seen.scores >= mean]).exp()
    assert (weight > 1).any()
    wanted = (weight * bce).sum() / seen.scores.sum().clamp_min(1) * stock_criterion.hyp.cls
    assert_close(items["cls_loss"], wanted, 1e-5)


@pytest.mark.parametrize("name", ["v8", "v8-obb", "26"])
def test_iou_targets_are_divided_by_the_number_of_positives(name):
    outputs, batch = predictions(name), made_up_batch(name)
    stock_criterion = criterion_of(name)
    shown = leaves(stock_criterion)[-1]  # the branch that the log shows
    seen = Seen(shown, outputs["one2one"] if name == "26" else outputs, batch)
    criterion, _ = equipped(name, cls_loss="bce", cls_target="iou")
    items = run(criterion, outputs, batch)[0]
    bce = binary_cross_entropy_with_logits(seen.logits, seen.quality(), reduction="sum")
    assert seen.positive.sum() > 1
    assert_close(items["cls_loss"], bce / seen.positive.sum() * shown.hyp.cls, 1e-5)


@pytest.mark.parametrize("cls_loss", CLS_LOSSES)
def test_without_positives_the_divisor_is_one(cls_loss):
    """An image without objects: what every background anchor costs, divided by 1."""
    outputs, batch = predictions("v8", images=1), made_up_batch("v8", images=1, each=0)
    criterion, _ = equipped("v8", cls_loss=cls_loss)
    items, _, gradients = run(criterion, outputs, batch)
    logits = outputs["scores"].detach().permute(0, 2, 1)
    module = factory.make_cls_loss(cls_loss)
    mean_iou = {"mean_iou": torch.tensor(0.0)}
    wanted = module(logits, torch.zeros_like(logits), reduction_override="sum", **mean_iou)
    if module.own_divisor:
        wanted = wanted / logits.numel()
    assert_close(items["cls_loss"], wanted * criterion.hyp.cls, 2e-5)
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert gradients[1].abs().sum() > 0


@pytest.mark.parametrize("cls_loss", ["vfl", "mal"])
def test_an_assigned_positive_of_iou_zero_stays_a_positive(cls_loss):
    outputs, batch = predictions("v8", images=1), made_up_batch("v8", images=1, each=1)
    batch["bboxes"] = torch.tensor([[0.5, 0.5, 0.98, 0.98]])  # every anchor lies in it
    # One anchor predicts the object; the others that the assigner picks with it predict boxes of no size.
    with torch.no_grad():
        bins = outputs["boxes"].view(1, 4, 16, -1)
        bins[:] = -20
        bins[:, :, 0] = 20
        middle = 4 * 8 + 4  # of the finest grid, 8 x 8
        bins[:, :, 0, middle] = -20
        bins[:, :, 2, middle] = 20
    seen = Seen(criterion_of("v8"), outputs, batch)
    quality, mask = seen.quality(), seen.mask
    lost = mask & (quality == 0)
    assert lost.any(), "the case that this is about"
    assert (quality > 0).any()
    criterion, _ = equipped("v8", cls_loss=cls_loss, cls_target="iou", **{f"{cls_loss}_gamma": 2.0})
    items = run(criterion, outputs, batch)[0]
    p = seen.logits.sigmoid()
    target = quality if cls_loss == "vfl" else quality**2
    bce = binary_cross_entropy_with_logits(seen.logits, target, reduction="none")
    at_positives, factor = (quality, 0.75) if cls_loss == "vfl" else (torch.ones_like(p), 1.0)
    weight = torch.where(mask, at_positives, factor * p**2)
    assert_close(items["cls_loss"], (weight * bce).sum() / seen.positive.sum() * criterion.hyp.cls, 1e-5)
    # The same with those elements taken for background is another number: the check above can tell.
    as_background = torch.where(quality > 0, at_positives, factor * p**2)
    assert ((as_background * bce).sum() / (weight * bce).sum() - 1).abs() > 1e-4


@pytest.mark.parametrize("cls_loss", CLS_LOSSES)
def test_class_weights_multiply_the_columns(cls_loss):
    """`cls_pw` gives each class a weight: the term is the weighted sum of the classes' own."""
    outputs, batch = predictions("v8"), made_up_batch("v8")

    def term(weights: list[float] | None) -> float:
        criterion, _ = equipped("v8", cls_loss=cls_loss)
        criterion.class_weights = None if weights is None else torch.tensor(weights).view(1, 1, -1)
        return run(criterion, outputs, batch)[0]["cls_loss"]

    columns = [term([float(i == k) for i in range(3)]) for k in range(3)]
    assert min(columns) > 0
    assert_close(term(None), sum(columns), 1e-5)
    weights = [0.5, 1.0, 3.0]
    assert_close(term(weights), sum(w * c for w, c in zip(weights, columns, strict=True)), 1e-5)


@pytest.mark.parametrize("cls_loss", ["stock", *CLS_LOSSES])
def test_cls_scale_multiplies_the_class_term_alone(cls_loss):
    outputs, batch = predictions("v8"), made_up_batch("v8")
    plain, _, gradients = run(equipped("v8", cls_loss=cls_loss)[0], outputs, batch)
    scaled, _, gradients_scaled = run(equipped("v8", cls_loss=cls_loss, cls_scale=0.25)[0], outputs, batch)
    assert_close(scaled.pop("cls_loss"), 0.25 * plain.pop("cls_loss"), 1e-5)
    assert scaled == plain
    assert_close(gradients_scaled[1], 0.25 * gradients[1], 1e-5)


@pytest.mark.parametrize("name", ["v10", "26"])
@pytest.mark.parametrize("branch", ["one2many", "one2one"])
def test_loss_branches_swaps_that_branch_only(name, branch):
    outputs, batch = predictions(name), made_up_batch(name)
    criterion, branches = equipped(name, cls_loss="focal", box_loss="giou", loss_branches=branch)
    assert list(branches) == [branch]
    fresh = criterion_of(name)
    for path in ("one2many", "one2one"):
        ours = run(getattr(criterion, path), outputs[path], batch)[0]
        theirs = run(getattr(fresh, path), outputs[path], batch)[0]
        same = [ours[key] == theirs[key] for key in ("cls_loss", "box_loss")]
        assert same == ([False, False] if path == branch else [True, True])


def test_loss_branches_is_refused_on_a_head_with_one():
    with pytest.raises(ValueError, match=r"^'loss_branches=one2one' is not valid: .*both$"):
        equipped("v8", cls_loss="focal", loss_branches="one2one")


@pytest.mark.parametrize("cls_target", ["tal", "iou", "ciou", "hard"])
@pytest.mark.parametrize("cls_loss", CLS_LOSSES)
def test_a_batch_of_many_chunks_equals_one_of_a_single_chunk(cls_loss, cls_target, monkeypatch):
    """Terms, gradients and state, of some steps, in which some positives have a score of 0."""

    def assigner_of(criterion):
        stock = criterion.assigner.forward

        def forward(*args, **kwargs):
            labels, boxes, scores, *rest = stock(*args, **kwargs)
            scores = scores.clone()
            scores[:, ::2] = 0
            return labels, boxes, scores, *rest

        return forward

    found = []
    for chunk in (2**20, 64):
        monkeypatch.setattr("yolo_losses.losses.classification._batch.CHUNK", chunk)
        criterion = criterion_of("v8")
        criterion.assigner.forward = assigner_of(criterion)
        branches = yolo_losses.equip(criterion, {"cls_loss": cls_loss, "cls_target": cls_target})
        steps = [run(criterion, predictions("v8", seed=seed), made_up_batch("v8", seed=seed)) for seed in range(3)]
        found.append((steps, list(branches[""].cls.state_dict().values())))
    for whole, chunks in zip(found[0][0], found[1][0], strict=True):
        assert_close(chunks[0]["cls_loss"], whole[0]["cls_loss"], 1e-5)
        assert_close(chunks[2][1], whole[2][1], 1e-5)
    for ours, theirs in zip(found[1][1], found[0][1], strict=True):
        assert_close(ours, theirs, 1e-5)


# ------------------------------------------------------------------------------------------------ hard input


def hard_batches(classes: int) -> dict[str, dict[str, Any]]:
    """Return batches of two images that are unlike what a data set should hold."""
    one_empty = made_up_batch("v8", each=2, classes=classes)
    one_empty["batch_idx"] = torch.zeros(4)
    outside, no_size = (made_up_batch("v8", classes=classes) for _ in range(2))
    outside["bboxes"] += torch.tensor([0.9, -0.9, 0, 0])
    no_size["bboxes"][:, 2:] = 0
    many = made_up_batch("v8", each=5_000, classes=classes)
    return {
        "no object": made_up_batch("v8", each=0, classes=classes),
        "one empty image": one_empty,
        "boxes outside of the image": outside,
        "boxes of no size": no_size,
        "10,000 objects": many,
    }


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("cls_loss", CLS_LOSSES)
def test_class_losses_are_finite_on_hard_batches(cls_loss, classes):
    outputs = predictions("v8", classes=classes)
    for what, batch in hard_batches(classes).items():
        if what == "10,000 objects" and (classes > 1 or cls_loss not in ("slide", "ghm")):
            continue  # it is the assigner that takes its time, whatever the loss
        criterion = criterion_of("v8", classes)
        yolo_losses.equip(criterion, {"cls_loss": cls_loss, "cls_target": "iou", "box_loss": "ciou"})
        _, loss, gradients = run(criterion, outputs, batch)
        assert loss.isfinite().all(), what
        assert all(g is not None and g.isfinite().all() for g in gradients), what


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_box_losses_are_finite_and_in_the_graph_on_hard_batches(box_loss):
    outputs = predictions("v8")
    for what, batch in hard_batches(3).items():
        if what == "10,000 objects":
            continue
        criterion, _ = equipped("v8", box_loss=box_loss)
        items, loss, gradients = run(criterion, outputs, batch)
        assert loss.isfinite().all(), what
        assert gradients[0] is not None, what
        assert gradients[0].isfinite().all(), what
        if what == "no object":
            assert items["box_loss"] == 0


@pytest.mark.parametrize("name", ["v8", "v8-obb", "26"])
@pytest.mark.parametrize("cls_loss", CLS_LOSSES)
@pytest.mark.parametrize("sign", [1, -1])
def test_logits_of_a_hundred_are_finite(name, cls_loss, sign):
    outputs, batch = predictions(name), made_up_batch(name)
    with torch.no_grad():
        for part in outputs.values() if name == "26" else [outputs]:
            if isinstance(part, dict):
                part["scores"][:] = torch.where(part["scores"] > part["scores"].median(), 100.0, -100.0) * sign
    _, loss, gradients = run(equipped(name, cls_loss=cls_loss)[0], outputs, batch)
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in gradients if g is not None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cls_loss", CLS_LOSSES)
def test_half_precision_is_finite_and_near_full(cls_loss, dtype):
    """As under autocast: the head's outputs come in half precision, and the sums inside are taken in full."""
    outputs, batch = predictions("v8", images=8), made_up_batch("v8", images=8)
    rounded = {k: v.detach().to(dtype) if k in ("boxes", "scores") else v for k, v in outputs.items()}
    half = {k: v.clone().requires_grad_() if k in ("boxes", "scores") else v for k, v in rounded.items()}
    full = {k: v.float().requires_grad_() if k in ("boxes", "scores") else v for k, v in rounded.items()}
    wanted = run(equipped("v8", cls_loss=cls_loss, box_loss="giou")[0], full, batch)[0]
    with torch.autocast("cpu", dtype=dtype):
        got, loss, gradients = run(equipped("v8", cls_loss=cls_loss, box_loss="giou")[0], half, batch)
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in gradients if g is not None)
    # The assigner itself runs on rounded scores, so the two differ by more than rounding.
    assert_close(got["cls_loss"], wanted["cls_loss"], 0.05)


def alive() -> int:
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


@pytest.mark.parametrize("keys", [{"cls_loss": "mal"}, {"cls_loss": "ema_slide", "box_loss": "wiou"}], ids=str)
@pytest.mark.parametrize("name", HEADS)
def test_a_step_leaves_no_memory_to_the_collector_of_cycles(name, keys):
    """It runs now and then: until then the tensors of every step since would be held, on a GPU too."""
    if name.endswith("obb"):
        keys = {key: value for key, value in keys.items() if key != "box_loss"}
    criterion = equipped(name, **keys)[0]

    def step() -> None:
        run(criterion, predictions(name), made_up_batch(name))

    step()
    gc.collect()
    gc.disable()
    try:
        step()
        before = alive()
        step()
        assert alive() == before
    finally:
        gc.enable()


# ------------------------------------------------------------------------------------------------ state and copies


STATEFUL = [name for name in CLS_LOSSES if any(True for _ in factory.make_cls_loss(name).buffers())]


@pytest.mark.parametrize("cls_loss", STATEFUL)
def test_state_is_shared_with_the_ema_and_written_in_training_only(cls_loss):
    assert "ema_slide" in STATEFUL
    model_criterion, branches = equipped("v8", cls_loss=cls_loss)
    ema_criterion = criterion_of("v8")
    assert yolo_losses.equip(ema_criterion, {"cls_loss": cls_loss}, branches)[""] is branches[""]
    outputs, batch = predictions("v8"), made_up_batch("v8")
    module = branches[""].cls

    def state() -> list[Tensor]:
        return [buffer.clone() for buffer in module.buffers()]

    fresh = state()
    with torch.no_grad():
        run(ema_criterion, outputs, batch)
    assert all(torch.equal(a, b) for a, b in zip(state(), fresh, strict=True))
    run(model_criterion, outputs, batch)
    trained = state()
    assert not all(torch.equal(a, b) for a, b in zip(trained, fresh, strict=True))
    with torch.no_grad():
        validated = run(ema_criterion, predictions("v8", seed=5), batch)[0]
        again = run(model_criterion, predictions("v8", seed=5), batch)[0]
    assert all(torch.equal(a, b) for a, b in zip(state(), trained, strict=True))
    assert validated == again


@pytest.mark.parametrize("box_loss", [n for n in BOX_LOSSES if any(True for _ in factory.make_box_loss(n).buffers())])
def test_box_state_is_written_in_training_only(box_loss):
    criterion, branches = equipped("v8", box_loss=box_loss)
    fresh = [buffer.clone() for buffer in branches[""].box.buffers()]
    with torch.no_grad():
        run(criterion, predictions("v8"), made_up_batch("v8"))
    assert all(torch.equal(a, b) for a, b in zip(branches[""].box.buffers(), fresh, strict=True))
    run(criterion, predictions("v8"), made_up_batch("v8"))
    assert not all(torch.equal(a, b) for a, b in zip(branches[""].box.buffers(), fresh, strict=True))


def test_validation_needs_no_graph():
    with torch.no_grad():
        _, loss, gradients = run(
            equipped("v8", cls_loss="vfl", box_loss="giou")[0], predictions("v8"), made_up_batch("v8")
        )
    assert not loss.requires_grad
    assert gradients == []


@pytest.mark.parametrize("name", ["v8", "26"])
def test_a_deep_copy_shares_the_branch_and_gives_the_same_numbers(name):
    """NaN recovery rebuilds the EMA by deep copy of the model, criterion included."""
    criterion, branches = equipped(name, cls_loss="ema_slide", box_loss="giou")
    copied = copy.deepcopy(criterion)
    assert [one.bce.branch for one in leaves(copied)] == list(branches.values())
    assert all(one.bce.branch is branch for one, branch in zip(leaves(copied), branches.values(), strict=True))
    assert all(a.assigner.stock is not b.assigner.stock for a, b in zip(leaves(copied), leaves(criterion), strict=True))
    outputs, batch = predictions(name), made_up_batch(name)
    with torch.no_grad():
        assert run(copied, outputs, batch)[0] == run(criterion, outputs, batch)[0]


def test_attributes_of_a_part_are_those_of_the_stock_part():
    criterion = criterion_of("v8")
    assigner, box = criterion.assigner, criterion.bbox_loss
    yolo_losses.equip(criterion, {"cls_loss": "slide", "box_loss": "giou"})
    assert criterion.assigner is not assigner
    assert criterion.assigner.topk == assigner.topk
    criterion.assigner.num_classes = 7  # as YOLOE sets it
    assert assigner.num_classes == criterion.assigner.num_classes == 7
    assert criterion.bbox_loss.dfl_loss is box.dfl_loss
    assert not hasattr(criterion.assigner, "nothing_of_that_name")


def test_a_pickled_criterion_is_the_stock_one_where_the_package_is_not(tmp_path: Path):
    """Until 8.4.95 a checkpoint taken mid-run holds the EMA's criterion."""
    cases: dict[str, Any] = {
        "v8": equipped("v8", cls_loss="ema_slide", box_loss="giou", dfl_loss="off")[0],
        "v10": equipped("v10", cls_loss="focal", loss_branches="one2one")[0],
        "26": equipped("26", cls_loss="slide", box_loss="ciou")[0],
        "obb": equipped("v8-obb", cls_loss="qfl", dfl_loss="dfl")[0],
        "class": yolo_losses.DetectionLoss(head("v8"), settings={"cls_loss": "focal"}),
    }
    for criterion in cases.values():
        run(leaves(criterion)[0], *sample(criterion))  # with what a step leaves behind
    torch.save(cases, tmp_path / "criteria.pt")
    assert b"yolo_losses" not in pickle.dumps(list(cases.values()))
    code = """
import sys, torch
cases = torch.load(sys.argv[1], weights_only=False)
for name, criterion in cases.items():
    for one in (criterion.one2many, criterion.one2one) if hasattr(criterion, "one2many") else [criterion]:
        kinds = [type(one), type(one.assigner), type(one.bce), type(one.bbox_loss), type(one.bbox_loss.dfl_loss)]
        print(name, *(kind.__name__ for kind in kinds))
assert not [module for module in sys.modules if module.startswith("yolo_losses")]
"""
    result = start_without_plugin(code, str(tmp_path / "criteria.pt"))().check()
    bce = "BCEWithLogitsLoss"
    detect = f"v8DetectionLoss TaskAlignedAssigner {bce} BboxLoss"
    assert result.lines[-7:] == [
        f"v8 {detect} DFLoss",
        f"v10 {detect} DFLoss",
        f"v10 {detect} DFLoss",
        f"26 {detect} NoneType",
        f"26 {detect} NoneType",
        f"obb v8OBBLoss RotatedTaskAlignedAssigner {bce} RotatedBboxLoss DFLoss",
        f"class {detect} DFLoss",
    ]


def sample(criterion: Any) -> tuple[Any, dict[str, Any]]:
    """Return outputs and a batch for one of a criterion's branches."""
    if isinstance(leaves(criterion)[0], v8OBBLoss):
        return predictions("v8-obb"), made_up_batch("v8-obb")
    if hasattr(criterion, "one2many"):
        name = "v10" if criterion.one2many.use_dfl else "26"
        return predictions(name)["one2many"], made_up_batch(name)
    return predictions("v8"), made_up_batch("v8")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("v8", "DetectionLoss"), ("v8-seg", "SegmentationLoss"), ("v8-pose", "PoseLoss"), ("v8-obb", "OBBLoss")],
)
def test_the_criteria_as_classes_are_equip_on_the_stock_ones(name, kind):
    outputs, batch = predictions(name), made_up_batch(name)
    ours = getattr(yolo_losses, kind)(head(name), settings={"cls_loss": "slide"})
    assert isinstance(ours, type(criterion_of(name)))
    assert run(ours, outputs, batch)[0] == run(equipped(name, cls_loss="slide")[0], outputs, batch)[0]
    # Without settings, the model's own arguments are asked.
    model = copy.copy(head(name))
    model.args = copy.copy(model.args)
    model.args.cls_loss = "slide"
    assert run(getattr(yolo_losses, kind)(model), outputs, batch)[0] == run(ours, outputs, batch)[0]


# ------------------------------------------------------------------------------------------------ refusals, proof


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("v8-obb", {"box_loss": "ciou"}, "'box_loss=ciou' is not for rotated"),
        ("v8", {"box_loss": "probiou"}, "'box_loss=probiou' is not for axis-aligned"),
        ("26", {"dfl_loss": "off"}, "'dfl_loss=off' is not valid: this head predicts no distribution"),
        ("26-obb", {"dfl_loss": "dfl"}, "'dfl_loss=dfl' is not valid: this head predicts no distribution"),
    ],
)
def test_what_the_head_cannot_use_is_refused(name, keys, words):
    with pytest.raises(ValueError, match=words):
        equipped(name, **keys)


@pytest.mark.parametrize("missing", ["assigner", "bce", "bbox_loss"])
def test_a_part_that_has_moved_is_named(missing):
    criterion = criterion_of("v8")
    delattr(criterion, missing)
    with pytest.raises(RuntimeError, match=f"has no '{missing}'"):
        yolo_losses.equip(criterion, {"cls_loss": "slide"})


def test_the_first_batch_is_compared_with_bce_in_value_and_in_gradient_on_the_positives():
    outputs, batch = predictions("v8"), made_up_batch("v8")
    criterion, branches = equipped("v8", cls_loss="bce", cls_scale=3)
    run(criterion, outputs, batch)
    run(criterion, predictions("v8", seed=9), batch)
    branch = branches[""]
    assert branch.ratios == pytest.approx({"value": 3, "gradient": 3})
    assert (branch.calls, branch.ledger.batches) == (1, 2)  # the first one with objects is compared


def test_the_swapped_parts_leave_their_input_as_it_was():
    outputs, batch = predictions("v8"), made_up_batch("v8")
    before = [t.detach().clone() for t in tensors(outputs)]
    run(equipped("v8", cls_loss="slide", cls_target="iou", box_loss="ciou", dfl_loss="dfl")[0], outputs, batch)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(outputs), strict=True))
