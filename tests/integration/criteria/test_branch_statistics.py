"""What `loss_stats=True` gathers: the numbers of a plain reference, and nothing that the training notices."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from conftest import HEADS, criterion_of, made_up_batch, predictions, run
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from ultralytics.utils.metrics import bbox_iou

from yolo_losses import functional, registry
from yolo_losses.integration.criteria import equip
from yolo_losses.monitor import gather as statistics
from yolo_losses.monitor.gather import EDGES, read

pytest_plugins = ("every_batch",)


CLS_LOSSES = [spec.name for spec in registry.specs("cls")]
IMAGES = 2


class Reference:
    """Plain sums over batches, of what the stock assigner returned and of a loss per element."""

    def __init__(self, criterion: Any, loss: Any) -> None:
        self.loss = loss
        self.sums: dict[str, Any] = {}
        self.assigned: Any = None
        assigner = getattr(criterion.assigner, "stock", criterion.assigner)
        assigner.register_forward_hook(self.remember, with_kwargs=True)

    def remember(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        self.assigned = (kwargs["pd_bboxes"] if "pd_bboxes" in kwargs else args[1], *result)

    def add(self, scores: Tensor, terms: dict[str, float], images: int = IMAGES, weights: Tensor | None = None) -> None:
        boxes, labels, objects, targets, foreground = self.assigned[:5]
        logits = scores.detach().permute(0, 2, 1)[:images].requires_grad_()
        targets, positive = targets[:images], foreground[:images].bool()
        own, stock = self.loss(logits, targets), binary_cross_entropy_with_logits(logits, targets, reduction="none")
        pulls = [torch.autograd.grad(each.sum(), logits)[0] for each in (own, stock)]
        at = torch.nn.functional.one_hot(labels[:images].long().clamp(0, logits.shape[-1] - 1), logits.shape[-1])
        at = at.bool() & positive.unsqueeze(-1)
        own = own.detach() if weights is None else own.detach() * weights
        p = logits.detach().sigmoid()
        iou = bbox_iou(boxes[foreground.bool()], objects[foreground.bool()], xywh=False)
        found = {
            "value": torch.stack((self.loss(logits, targets).detach().sum(), stock.detach().sum())),
            "gradient": torch.stack([pull.square().sum() for pull in pulls]),
            "gradient_positives": torch.stack([pull[at].square().sum() for pull in pulls]),
            "by_class": own.sum((0, 1)),
            "by_score": torch.stack([own[(p > a) & (p <= b)].sum() for a, b in pairwise(EDGES)]),
            "positives": torch.tensor([foreground.sum(), len(foreground)]),
            "iou": torch.stack((iou.sum(), foreground.sum().float())),
            "terms": torch.tensor(list(terms.values())),
        }
        for name, value in found.items():
            self.sums[name] = self.sums.get(name, 0) + value.double()
        self.names = [name.removesuffix("_loss") for name in terms]

    def columns(self, branch: str = "") -> dict[str, float]:
        def ratio(pair: Tensor) -> float:
            return float(pair[0] / pair[1])

        sums = self.sums
        found = {f"share/{name}": sums["terms"][i] / sums["terms"].sum() for i, name in enumerate(self.names)}
        found |= {
            "cls_to_bce/value": ratio(sums["value"]),
            "cls_to_bce/gradient": math.sqrt(ratio(sums["gradient"])),
            "cls_to_bce/gradient_positives": math.sqrt(ratio(sums["gradient_positives"])),
            "positives": ratio(sums["positives"]),
            "mean_iou": ratio(sums["iou"]),
        }
        for group, items in (
            ("by_score", ("0.0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1.0")),
            ("by_class", "abc"),
        ):
            for i, item in enumerate(items):
                found[f"{group}/{item}"] = sums[group][i] / sums[group].sum()
        return {f"{branch}/{name}" if branch else name: float(value) for name, value in found.items()}


def without_sizes(columns: dict[str, float]) -> dict[str, float]:
    """Return the columns but those by size of object, which `test_sizes` compares."""
    return {name: value for name, value in columns.items() if name.rpartition("/")[2] not in statistics.SIZES}


def steps(criterion: Any, head: str, references: dict[str, Reference], seeds: range = range(3), **changes: Any) -> None:
    for seed in seeds:
        outputs = predictions(head, IMAGES, seed=seed)
        terms = run(criterion, outputs, made_up_batch(head, IMAGES, seed=seed))[0]
        for branch, reference in references.items():
            own = outputs[branch] if branch else outputs
            if branch:  # what it logs is of one branch, or of the sum
                terms = dict.fromkeys(terms, 1.0)
            reference.add(own["scores"], terms, **changes)


LOSSES = {
    "stock": lambda z, t: binary_cross_entropy_with_logits(z, t, reduction="none"),
    "bce": functional.bce_loss,
    "focal": functional.focal_loss,
    "vfl": functional.varifocal_loss,
    "asl": functional.asymmetric_loss,
}


@pytest.mark.parametrize("large", [False, True], ids=["at once", "in chunks"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_columns_are_those_of_a_plain_reference(
    name: str, large: bool, every: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolo_losses.losses.classification._batch.CHUNK", 64 if large else 2**40)
    criterion = criterion_of("v8")
    branches = equip(criterion, {"cls_loss": name, "loss_stats": True})
    reference = Reference(criterion, LOSSES[name])
    steps(criterion, "v8", {"": reference})
    found = read(branches, ["a", "b", "c"])
    assert found.pop("batches") == 3
    assert without_sizes(found) == pytest.approx(reference.columns(), rel=1e-4, abs=1e-6)
    assert found["by_score/0.2-0.4"] > 0.01  # not all in one bucket
    assert found["mean_iou"] > 0


@pytest.mark.parametrize("head", ["v10", "26"])
def test_each_branch_has_its_own_columns(head: str, every: None) -> None:
    criterion = criterion_of(head)
    branches = equip(criterion, {"cls_loss": "focal", "loss_stats": True, "loss_branches": "one2many"})
    references = {
        "one2many": Reference(criterion.one2many, LOSSES["focal"]),
        "one2one": Reference(criterion.one2one, LOSSES["stock"]),
    }
    steps(criterion, head, references)
    found = read(branches, ["a", "b", "c"])
    wanted = {k: v for name, reference in references.items() for k, v in reference.columns(name).items()}
    wanted = {k: v for k, v in wanted.items() if "share" not in k}
    assert {k: found[k] for k in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    shares = [value for name, value in found.items() if name.startswith("one2one/share/")]
    assert sum(shares) == pytest.approx(1)
    assert {branch.expected for branch in branches.values()} == {(), ("class",)}


def test_factors_count_and_shares_stay(every: None) -> None:
    def columns(**keys: Any) -> dict[str, float]:
        criterion = criterion_of("v8")
        branches = equip(criterion, {"cls_loss": "focal", "loss_stats": True, **keys})
        run(criterion, predictions("v8"), made_up_batch("v8"))
        return read(branches)

    plain, scaled, hard = columns(), columns(cls_scale=4), columns(cls_target="hard")
    for name in ("value", "gradient", "gradient_positives"):
        assert scaled[f"cls_to_bce/{name}"] == pytest.approx(4 * plain[f"cls_to_bce/{name}"], rel=1e-5)
    for name in plain:
        if name.startswith("by_"):
            assert scaled[name] == pytest.approx(plain[name], rel=1e-5)
    assert "cls_scale" not in plain
    assert columns(cls_scale="auto")["cls_scale"] == pytest.approx(1.05)
    # Toward 1 over the number of positives: its strength is that in the loss, not that of its sum.
    criterion = criterion_of("v8")
    branch = equip(criterion, {"cls_loss": "focal", "cls_target": "hard"})[""]
    run(criterion, predictions("v8"), made_up_batch("v8"))
    assert hard["cls_to_bce/value"] == pytest.approx(branch.ratios["value"], rel=1e-4)
    assert hard["cls_to_bce/gradient_positives"] == pytest.approx(branch.ratios["gradient"], rel=1e-4)


@pytest.mark.parametrize("name", CLS_LOSSES)
def test_value_and_gradient_on_the_positives_are_those_of_the_proof_line(name: str, every: None) -> None:
    criterion = criterion_of("v8")
    branch = equip(criterion, {"cls_loss": name, "loss_stats": True})[""]
    run(criterion, predictions("v8"), made_up_batch("v8"))
    found = read({"": branch})
    # Of these two, the elements are computed once the step's gradients are in their state.
    tolerance = 0.2 if name in ("efl", "eqfl") else 1e-3
    assert found["cls_to_bce/value"] == pytest.approx(branch.ratios["value"], rel=tolerance)
    assert found["cls_to_bce/gradient_positives"] == pytest.approx(branch.ratios["gradient"], rel=1e-3)


@pytest.mark.parametrize("name", ["slide", "ema_slide"])
def test_the_threshold_is_the_mean_iou_in_use(name: str, every: None) -> None:
    criterion = criterion_of("v8")
    branch = equip(criterion, {"cls_loss": name, f"{name}_min_iou": 0.001, f"{name}_delta": 0, "loss_stats": True})[""]
    seen = []
    for seed in range(3):
        run(criterion, predictions("v8", seed=seed), made_up_batch("v8", seed=seed))
        own = read({"": branch})
        seen.append(float(branch.cls.average) if name == "ema_slide" else own["mean_iou"])
        branch.statistics.begin_epoch() if name == "slide" else None
        assert own["threshold"] == pytest.approx(seen[-1] if name == "slide" else sum(seen) / len(seen), rel=1e-5)
    assert len(set(seen)) == 3


def test_the_threshold_has_its_lower_bound(every: None) -> None:
    criterion = criterion_of("v8")
    branch = equip(criterion, {"cls_loss": "slide", "slide_min_iou": 0.9, "loss_stats": True})[""]
    run(criterion, predictions("v8"), made_up_batch("v8"))
    assert read({"": branch})["threshold"] == pytest.approx(0.9)


def test_of_a_large_batch_the_first_images_take_part_in_passes_over_all_scores(
    every: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolo_losses.losses.classification._batch.CHUNK", 64)
    monkeypatch.setattr(statistics, "ELEMENTS", 1)
    criterion = criterion_of("v8")
    branches = equip(criterion, {"cls_loss": "focal", "loss_stats": True})
    first, whole = (Reference(criterion, LOSSES["focal"]) for _ in range(2))
    for seed in range(2):
        outputs = predictions("v8", seed=seed)
        terms = run(criterion, outputs, made_up_batch("v8", seed=seed))[0]
        first.add(outputs["scores"], terms, images=1)
        whole.add(outputs["scores"], terms)
    found, wanted = read(branches, ["a", "b", "c"]), whole.columns()
    wanted |= {k: v for k, v in first.columns().items() if k.startswith("cls_to_bce")}
    wanted = {k: v for k, v in wanted.items() if not k.startswith("by_score")}
    assert {k: found[k] for k in wanted} == pytest.approx(wanted, rel=1e-4)
    assert sum(v for k, v in found.items() if k.startswith("by_score")) == pytest.approx(1)


@pytest.mark.parametrize("name", ["stock", "focal"])
@pytest.mark.parametrize("large", [False, True])
def test_the_shares_are_of_the_term_with_the_weights_of_the_classes(
    name: str, large: bool, every: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolo_losses.losses.classification._batch.CHUNK", 64 if large else 2**40)
    criterion = criterion_of("v8")
    criterion.class_weights = torch.tensor([[[1.0, 3.0, 9.0]]])  # cls_pw: the criterion weights what it gets in place
    branches = equip(criterion, {"cls_loss": name, "loss_stats": True})
    reference = Reference(criterion, LOSSES[name])
    steps(criterion, "v8", {"": reference}, weights=criterion.class_weights)
    found = read(branches, ["a", "b", "c"])
    found.pop("batches")
    assert without_sizes(found) == pytest.approx(reference.columns(), rel=1e-4, abs=1e-6)


def test_every_tenth_batch_of_an_epoch_is_measured_and_no_validation() -> None:
    criterion = criterion_of("v8")
    branch = equip(criterion, {"loss_stats": True})[""]
    assert statistics.EVERY == 10
    for batches, measured in ((1, 1), (10, 1), (11, 2)):
        branch.statistics.begin_epoch()
        for seed in range(batches):
            run(criterion, predictions("v8", seed=seed), made_up_batch("v8"))
            with torch.no_grad():
                run(criterion, predictions("v8", seed=seed), made_up_batch("v8"))
        assert read({"": branch})["batches"] == measured


def test_an_epoch_without_batches_has_no_columns() -> None:
    assert read(equip(criterion_of("v8"), {"loss_stats": True})) == {}


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_batch_that_overflowed_does_not_count(poison: float, every: None) -> None:
    criterion = criterion_of("v8")
    branches = equip(criterion, {"cls_loss": "focal", "loss_stats": True})
    run(criterion, predictions("v8"), made_up_batch("v8"))
    wanted = read(branches)
    outputs = predictions("v8")
    with torch.no_grad():
        outputs["scores"][0, 0].fill_(poison)
    run(criterion, outputs, made_up_batch("v8"))
    assert read(branches) == pytest.approx(wanted, rel=0, abs=0, nan_ok=True)


def test_a_batch_of_another_number_of_classes_does_not_count_and_stops_nothing(every: None) -> None:
    criterion = criterion_of("v8")
    branches = equip(criterion, {"loss_stats": True})
    run(criterion, predictions("v8"), made_up_batch("v8"))
    wanted = read(branches)
    criterion.nc = criterion.assigner.num_classes = 2
    run(criterion, predictions("v8", classes=2), made_up_batch("v8", classes=2))
    assert read(branches) == pytest.approx(wanted, rel=0, abs=0, nan_ok=True)


def test_a_batch_without_objects_has_no_positives(every: None) -> None:
    criterion = criterion_of("v8")
    branches = equip(criterion, {"cls_loss": "focal", "loss_stats": True})
    run(criterion, predictions("v8"), made_up_batch("v8", each=0))
    found = read(branches)
    assert found["positives"] == 0
    assert math.isnan(found["mean_iou"])
    assert found["cls_to_bce/value"] > 0


def test_where_classes_are_prompts_there_is_no_share_by_class(every: None) -> None:
    criterion = criterion_of("v8")
    branches = equip(criterion, {"loss_stats": True})
    outputs, batch = predictions("v8"), made_up_batch("v8")
    criterion(outputs, {**batch, "texts": [["a", "b", "c"]] * IMAGES})
    found = read(branches)
    assert not [name for name in found if name.startswith("by_class")]
    assert found["by_score/0.0-0.2"] > 0


@pytest.mark.parametrize("head", HEADS)
def test_a_stock_criterion_that_is_looked_at_computes_the_same_bits(head: str, every: None) -> None:
    stock, watched = criterion_of(head), criterion_of(head)
    branches = equip(watched, {"loss_stats": True})
    for seed in range(2):
        results = []
        for criterion in (stock, watched):
            torch.manual_seed(0)
            results.append(run(criterion, predictions(head, seed=seed), made_up_batch(head, seed=seed)))
        (terms, loss, gradients), (own_terms, own_loss, own_gradients) = results
        assert terms == own_terms
        assert torch.equal(loss, own_loss)
        for gradient, own in zip(gradients, own_gradients, strict=True):
            assert (gradient is None) == (own is None)
            assert gradient is None or torch.equal(gradient, own)
    assert sum(value for name, value in read(branches).items() if "share/" in name) == pytest.approx(len(branches))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", CLS_LOSSES)
def test_a_chosen_loss_that_is_looked_at_computes_the_same_bits(
    name: str, large: bool, every: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolo_losses.losses.classification._batch.CHUNK", 64 if large else 2**40)
    keys = {"cls_loss": name, "box_loss": "wiou", "cls_scale": "auto"}

    def trained(**more: Any) -> list[Tensor]:
        criterion = criterion_of("v8")
        branch = equip(criterion, {**keys, **more})[""]
        found = []
        for seed in range(3):
            _, loss, gradients = run(criterion, predictions("v8", seed=seed), made_up_batch("v8", seed=seed))
            found += [loss, *(gradient for gradient in gradients if gradient is not None)]
        return [*found, *(state for module in branch.modules.values() for state in module.state_dict().values())]

    for plain, watched in zip(trained(), trained(loss_stats=True), strict=True):
        assert torch.equal(plain, watched)


def test_the_state_of_a_box_loss_is_updated_beside_a_stock_class_term(every: None) -> None:
    criterion = criterion_of("v8")
    branch = equip(criterion, {"box_loss": "wiou", "loss_stats": True})[""]
    before = branch.box.state_dict()["mean_loss"].clone()
    run(criterion, predictions("v8"), made_up_batch("v8"))
    assert not torch.equal(branch.box.state_dict()["mean_loss"], before)


def test_half_precision_is_measured_in_full(every: None) -> None:
    criterion = criterion_of("v8")
    branches = equip(criterion, {"loss_stats": True})
    reference = Reference(criterion, LOSSES["stock"])
    outputs = predictions("v8")
    for key in ("scores", "boxes"):
        outputs[key] = outputs[key].detach().to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        criterion(outputs, made_up_batch("v8"))
    reference.add(outputs["scores"].float(), {"cls_loss": 1.0})
    found, wanted = read(branches, ["a", "b", "c"]), reference.columns()
    assert found["cls_to_bce/gradient"] == pytest.approx(1, rel=0.01)
    assert found["by_class/a"] == pytest.approx(wanted["by_class/a"], rel=0.01)


def test_nothing_is_gathered_where_it_is_off() -> None:
    for head in ("v8", "26"):
        assert all(b.statistics is None for b in equip(criterion_of(head), {"cls_loss": "focal"}).values())
        assert equip(criterion_of(head), {"loss_stats": False}) == {}
