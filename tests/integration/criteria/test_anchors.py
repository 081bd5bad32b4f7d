"""The chosen losses inside Ultralytics' criteria, on made-up predictions: equal to stock, numbers by hand, refusals."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from anchor_criteria import CLS_LOSSES, assert_close, equipped, leaves
from conftest import HEADS, criterion_of, made_up_batch, predictions, run, tensors
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from ultralytics.utils.metrics import bbox_iou, probiou

import yolo_losses
from yolo_losses.integration.criteria.distribution_part import DistributionPart
from yolo_losses.losses import build as factory


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
