"""Every kind of criterion uses a key or refuses it: one example of each kind, made-up predictions, every key."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import semantic_criteria
import tiny_detr
import torch
import ultralytics.utils.loss as upstream
from conftest import criterion_of, made_up_batch, predictions, tensors
from torch import Tensor, nn

import yolo_losses
from yolo_losses.config.keys import LossKey
from yolo_losses.config.settings import KEYS
from yolo_losses.functional import focal_loss
from yolo_losses.integration import criteria
from yolo_losses.integration.criteria import kind_of
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.criteria.parts import Part, bce_sum, put, put_back


class Example(NamedTuple):
    """A kind of criterion: how to make one, made-up predictions with its loss, and the choices that equal stock there.

    The loss is a tensor, or tensors by name.
    """

    criterion: Callable[[], Any]
    call: Callable[[Any], tuple[list[Tensor], Any]]
    stock: list[dict[str, str]]
    class_key: str = "cls_loss"


def _anchors(criterion: Any) -> tuple[list[Tensor], Any]:
    outputs = predictions("v8")
    return tensors(outputs), criterion(outputs, made_up_batch("v8"))[0]


def _queries(criterion: Any) -> tuple[list[Tensor], Any]:
    leaves, call = tiny_detr.given()
    return leaves, call(criterion)


def _classify(criterion: Any) -> tuple[list[Tensor], Any]:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return [logits], criterion(logits, {"cls": torch.arange(6) % 3})[0]


def _semantic(criterion: Any) -> tuple[list[Tensor], Any]:
    preds, batch = semantic_criteria.made_up(3)
    return list(preds), criterion(preds, batch)[0]


EXAMPLES = {  # by the name of the module in `yolo_losses/integration/criteria`
    "anchors": Example(
        lambda: criterion_of("v8"),
        _anchors,
        # From 81 square pixels on, which all objects here have, sdiou equals ciou.
        [{"cls_loss": "bce"}, {"box_loss": "ciou"}, {"box_loss": "sdiou"}],
    ),
    "queries": Example(tiny_detr.stock_criterion, _queries, [{"box_loss": "giou"}, {"l1_loss": "l1"}]),
    "classify": Example(upstream.v8ClassificationLoss, _classify, [{"cls_loss": "ce"}]),
    "semantic": Example(
        lambda: semantic_criteria.criterion_of(3), _semantic, [{"ce_loss": "ce"}, {"dice_loss": "dice"}], "ce_loss"
    ),
}
if not hasattr(upstream, "SemanticSegmentationLoss"):
    del EXAMPLES["semantic"]
every_kind = pytest.mark.parametrize("kind", EXAMPLES)

# A value of each key that selects no loss, which differs from the default; the losses are tried by name.
VALUES = {
    "dfl_loss": ["off"],
    "cls_target": ["iou", "hard"],
    "cls_scale": [2.0],
    "cls_weights": [[0.2, 1.0, 3.0]],
    "cls_smoothing": [0.3],
    "seg_scale": [2.0],
    "angle_lambda": [1.0],
    "o2m_start": [0.5],
    "o2m_end": [0.5],
    "sem_scale": [2.0],
    "pose_weights": [[0.5] * 17],
    "tal_topk": [2],
    "tal_alpha": [2.0],
    "tal_beta": [1.0],
    "tal_overlap": ["giou"],
    "tal_min_side": [40.0],
    "loss_branches": ["one2one"],
}


def names(key: LossKey) -> list[str]:
    """Return the losses of a key that differ from its stock loss, of every task."""
    specs = [spec for kind in (key.kind, key.classify_kind) if kind for spec in yolo_losses.registry.specs(kind)]
    return sorted({spec.name for spec in specs})


def tried() -> list[dict[str, Any]]:
    found = [{key: value} for key, values in VALUES.items() for value in values]
    return found + [{name: n} for name, key in KEYS.items() if isinstance(key, LossKey) for n in names(key)]


def loss_of(kind: str, criterion: Any) -> tuple[float, list[Tensor | None]]:
    """Return the loss, and its gradients at the predictions."""
    leaves, loss = EXAMPLES[kind].call(criterion)
    total = sum(loss.values()) if isinstance(loss, dict) else loss.sum()
    return float(total.detach()), list(torch.autograd.grad(total, leaves, allow_unused=True))


def equal(one: tuple[float, list[Tensor | None]], other: tuple[float, list[Tensor | None]]) -> bool:
    """Return whether losses and gradients are the same to the last bit."""
    pairs = zip(one[1], other[1], strict=True)
    return one[0] == other[0] and all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


def close(one: tuple[float, list[Tensor | None]], other: tuple[float, list[Tensor | None]]) -> bool:
    """Return whether losses and gradients are the same but for rounding."""
    pairs = zip(one[1], other[1], strict=True)
    return math.isclose(one[0], other[0], rel_tol=1e-5) and all(
        a is b if a is None or b is None else torch.allclose(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))
        for a, b in pairs
    )


def test_every_kind_has_an_example_here() -> None:
    own = {module.__name__.rpartition(".")[2] for module in criteria.KINDS if module.__name__.startswith("yolo_losses")}
    assert own - {"semantic"} == set(EXAMPLES) - {"semantic"}, "add the new kind to EXAMPLES"


def test_every_key_is_tried() -> None:
    losses = {name for name, key in KEYS.items() if isinstance(key, LossKey) and names(key)}
    assert losses | set(VALUES) == set(KEYS) - {"loss_stats"}


@every_kind
def test_an_example_is_of_its_kind(kind: str) -> None:
    assert kind_of(EXAMPLES[kind].criterion()).__name__.endswith(f".{kind}")


@every_kind
def test_a_key_is_used_or_refused(kind: str) -> None:
    """Used: another loss, or another gradient, unless the chosen loss equals the stock one."""
    stock = loss_of(kind, EXAMPLES[kind].criterion())
    ignored, used = [], 0
    for keys in tried():
        criterion = EXAMPLES[kind].criterion()
        try:
            branches = yolo_losses.equip(criterion, keys)
        except ValueError as error:
            (key,) = keys
            assert key in str(error)
            assert "\n" not in str(error)
            assert equal(loss_of(kind, criterion), stock), f"{keys} is refused, and {kind} is changed"
            continue
        used += 1
        found = loss_of(kind, criterion)
        if keys in EXAMPLES[kind].stock:
            assert close(found, stock), f"{keys} differs from the stock loss of {kind}"
        elif close(found, stock):
            ignored.append(keys)
        assert all(branch.proven for branch in branches.values()), f"{keys}: `Branch.ratios` of {kind} are not set"
    assert not ignored, f"{kind} must use these keys or raise a ValueError in `equip`"
    assert used


@every_kind
def test_the_running_factor_is_used_or_refused(kind: str) -> None:
    scaled, plain = EXAMPLES[kind].criterion(), EXAMPLES[kind].criterion()
    keys = {EXAMPLES[kind].class_key: "focal"}
    yolo_losses.equip(plain, keys)
    try:
        yolo_losses.equip(scaled, {**keys, "cls_scale": "auto"})
    except ValueError as error:
        assert "cls_scale" in str(error)
        return
    loss_of(kind, scaled)  # the factor of a call follows from the calls before it
    assert not equal(loss_of(kind, scaled), loss_of(kind, plain))


@every_kind
def test_stock_again_is_stock(kind: str) -> None:
    criterion = EXAMPLES[kind].criterion()
    stock = loss_of(kind, criterion)
    yolo_losses.equip(criterion, {EXAMPLES[kind].class_key: "focal"})
    assert not equal(loss_of(kind, criterion), stock)
    yolo_losses.equip(criterion, {})
    assert equal(loss_of(kind, criterion), stock)


@every_kind
def test_a_copy_has_the_branch_and_a_pickle_is_stock(kind: str) -> None:
    criterion = EXAMPLES[kind].criterion()
    stock = loss_of(kind, criterion)
    branches = yolo_losses.equip(criterion, {EXAMPLES[kind].class_key: "focal"})
    assert criteria.branches_of(copy.deepcopy(criterion)) == branches
    assert equal(loss_of(kind, pickle.loads(pickle.dumps(criterion))), stock)


class OneTerm:
    """A made-up criterion: the class term alone, in an attribute of its own name."""

    def __init__(self) -> None:
        self.class_term = nn.BCEWithLogitsLoss(reduction="none")

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        term: Tensor = self.class_term(logits, targets)
        return term.sum()


class OneTermPart(Part):
    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        branch = self.branch
        branch.begin(lambda compared: targets.any())
        term = self.stock(logits, targets) if branch.cls is None else branch.cls.elementwise(logits, targets)
        if branch.compares:
            branch.ratios = {"value": float(term.detach().sum() / bce_sum(logits, targets))}
        term = branch.record("class", branch.weighted(term * branch.cls_factor))
        branch.end()
        return term


@pytest.fixture
def one_term(monkeypatch: pytest.MonkeyPatch) -> OneTerm:
    """A criterion of a new kind, which defines what the docstring of `criteria` asks for."""

    def equip(criterion: OneTerm, settings: Any, branches: Any, image_size: Any = None) -> dict[str, Branch]:
        put_back(criterion, "class_term")
        if settings.is_default:
            return {}
        branch = branches.get("") or Branch.build(settings, criterion, expected=("class",))
        put(criterion, "class_term", OneTermPart(criterion.class_term, branch))
        return {"": branch}

    kind = ModuleType("one_term")
    vars(kind).update(matches=lambda each: isinstance(each, OneTerm), equip=equip)
    vars(kind).update(first_parts=lambda each: iter([("", each, "class_term")]))
    monkeypatch.setattr(criteria, "KINDS", [kind, *criteria.KINDS])
    return OneTerm()


def test_a_new_kind_runs_the_chosen_loss(one_term: OneTerm) -> None:
    logits, targets = torch.tensor([[1.0, -2.0]]).requires_grad_(), torch.tensor([[1.0, 0.0]])
    branches = yolo_losses.equip(one_term, {"cls_loss": "focal", "cls_scale": 2.0})
    loss = one_term(logits, targets)
    torch.testing.assert_close(loss, 2 * focal_loss(logits, targets).sum())
    loss.backward()
    assert branches[""].proven


def test_a_term_that_a_kind_has_no_part_for_is_refused_and_stock_is_restored(one_term: OneTerm) -> None:
    with pytest.raises(ValueError, match=r"^'box_loss=siou' cannot be used with OneTerm, which has no box term"):
        yolo_losses.equip(one_term, {"cls_loss": "focal", "box_loss": "siou"})
    assert type(one_term.class_term) is nn.BCEWithLogitsLoss
