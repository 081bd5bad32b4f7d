"""A head of a kind that is not known here is equipped whole or refused by name, never half.

The doubles have the terms of query-based detectors with distributions over matched pairs: a class term of the focal,
VFL or MAL kind, L1, GIoU, and a term on the distributions.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Model, logged
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss
from ultralytics.models.utils.loss import RTDETRDetectionLoss

import yolo_losses
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.run import Run


class MatchingCriterion(nn.Module):
    """Matches queries to objects and computes every term by itself."""

    def __init__(self, class_term: str = "mal") -> None:
        super().__init__()
        self.matcher = lambda outputs, targets: [torch.arange(len(t["boxes"])) for t in targets]
        self.class_term = class_term
        self.gain = {"loss_cls": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0, "loss_fgl": 0.15}

    def loss_labels(self, logits: Tensor, quality: Tensor) -> Tensor:
        p = logits.sigmoid().detach()
        weight = {"mal": p**1.5, "vfl": 0.75 * p**2, "focal": (quality - p).abs() ** 2}[self.class_term]
        return (torch.where(quality > 0, 1, weight) * binary_cross_entropy_with_logits(logits, quality)).mean()

    def loss_boxes(self, pred: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"loss_bbox": l1_loss(pred, target), "loss_giou": (pred - target).square().mean()}

    def loss_local(self, corners: Tensor) -> Tensor:
        return -corners.log_softmax(-1)[..., 0].mean()

    def forward(self, outputs: dict[str, Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        boxes = torch.cat([t["boxes"] for t in targets])
        quality = torch.zeros_like(outputs["logits"])
        quality[0, : len(boxes), 0] = 0.5
        terms = {"loss_cls": self.loss_labels(outputs["logits"], quality)}
        terms |= self.loss_boxes(outputs["boxes"][0, : len(boxes)], boxes)
        terms["loss_fgl"] = self.loss_local(outputs["corners"])
        return {name: term * self.gain[name] for name, term in terms.items()}


KEYS: list[dict[str, Any]] = [
    {"cls_loss": "mal"},
    {"cls_loss": "focal"},
    {"box_loss": "siou"},
    {"dfl_loss": "off"},
    {"cls_scale": 2.0},
    {"cls_loss": "vfl", "loss_branches": "one2one"},
]


@pytest.mark.parametrize("class_term", ["mal", "vfl", "focal"])
@pytest.mark.parametrize("keys", KEYS, ids=str)
def test_a_criterion_of_an_unknown_kind_is_refused_by_its_class_and_left_as_it_was(
    keys: dict[str, Any], class_term: str
) -> None:
    criterion = MatchingCriterion(class_term)
    before = dict(vars(criterion))
    key = next(iter(keys))
    with pytest.raises(ValueError, match=rf"'{key}={keys[key]}' cannot be used with MatchingCriterion"):
        yolo_losses.equip(criterion, keys)
    assert vars(criterion) == before
    assert yolo_losses.equip(criterion, {}) == {}


def test_a_training_with_such_a_criterion_does_not_start() -> None:
    model = Model(criterion=MatchingCriterion())
    trainer = SimpleNamespace(model=model, ema=None, args=SimpleNamespace(imgsz=64), resume=False)
    with logged() as lines, pytest.raises(ValueError, match="MatchingCriterion"):
        Run(trainer, LossSettings.from_mapping({"cls_loss": "focal"}))
    assert not lines


class OwnClassTerm(RTDETRDetectionLoss):
    """Of the known kind, with a class term of its own and a further term on distributions."""

    def _get_loss_class(self, pred_scores: Any, targets: Any, gt_scores: Any, num_gts: int, postfix: str = "") -> Any:
        return {f"loss_class{postfix}": pred_scores.sigmoid().mean() * self.loss_gain["class"]}

    def forward(self, preds: Any, batch: Any, **kwargs: Any) -> Any:
        terms = super().forward(preds, batch, **kwargs)
        return {**terms, "loss_fgl": preds[0].sum() * 0 + 1}


def call(criterion: Any) -> dict[str, Tensor]:
    """Return the terms of two decoder layers on two images."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(2, 2, 5, 4, generator=generator) * 0.4 + 0.3
    scores = torch.randn(2, 2, 5, 3, generator=generator)
    batch = {
        "cls": torch.tensor([0, 1, 2]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.4, 0.4, 0.2, 0.3], [0.6, 0.5, 0.3, 0.3]]),
        "batch_idx": torch.tensor([0, 0, 1]),
        "gt_groups": [2, 1],
    }
    terms: dict[str, Tensor] = criterion((boxes.requires_grad_(), scores.requires_grad_()), batch)
    return terms


def criterion_of(kind: Callable[..., Any]) -> Any:
    return kind(nc=3, use_vfl=True)


def test_a_known_kind_with_a_class_term_of_its_own_ends_in_its_first_batch() -> None:
    criterion = criterion_of(OwnClassTerm)
    yolo_losses.equip(criterion, {"cls_loss": "mal"})
    with pytest.raises(RuntimeError, match="OwnClassTerm computed its class term without the part for"):
        call(criterion)


def test_a_known_kind_with_a_further_term_keeps_it_beside_the_chosen_box_loss() -> None:
    stock, criterion = criterion_of(OwnClassTerm), criterion_of(OwnClassTerm)
    yolo_losses.equip(criterion, {"box_loss": "siou"})
    before, after = call(stock), call(criterion)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"loss_giou", "loss_giou_aux"}
