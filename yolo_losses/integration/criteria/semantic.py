"""The head of the task semantic: `SemanticSegmentationLoss`, in releases that have it.

It calls its methods `_ce_loss` for the class term, again for that of an auxiliary head, and `_dice_loss`. Attributes of
the instance replace these methods. How it resizes predictions, ignores pixels, scales the auxiliary term, and what it
returns do not change. A sigmoid over one class equals a softmax over two classes whose background logit is 0, so one
class needs no separate formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from ultralytics.utils import loss as upstream

from yolo_losses import registry
from yolo_losses.config import class_weights
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration import context
from yolo_losses.integration.criteria import parts
from yolo_losses.integration.criteria.against import Against
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.criteria.parts import Part, full_precision
from yolo_losses.losses.semantic._base import PixelLoss, RegionLoss
from yolo_losses.losses.semantic.ce import PixelCrossEntropyLoss
from yolo_losses.monitor.gather import ELEMENTS, named_terms

TASK = "semantic"
IGNORED = 255
METHODS = ("forward", "_ce_loss", "_dice_loss")


def matches(criterion: Any) -> bool:
    """Return whether a criterion is of this kind."""
    kind = getattr(upstream, "SemanticSegmentationLoss", None)
    return kind is not None and isinstance(criterion, kind)


@dataclass
class SemanticBranch(Branch):
    """The branch of a criterion of the task semantic.

    Attributes:
        compared: whether the class term of the head was called in the current call; that of the auxiliary head, which
            comes later, is not compared.
    """

    compared: bool = False
    always_logged: tuple[str, ...] = ("class", "dice")

    reference: ClassVar[str] = "cross-entropy"
    tasks: ClassVar[tuple[str, ...]] = (TASK,)
    can_scale: ClassVar[bool] = False
    where_compared: ClassVar[str] = ""

    @classmethod
    def build_class_loss(cls, settings: LossSettings, plain_bce: bool) -> nn.Module | None:
        """Return the module of the class term; a stock loss with class weights is cross-entropy."""
        if settings.ce_loss == "stock" and settings.cls_weights == class_weights.NONE:
            return None
        spec = registry.find("ce", "ce" if settings.ce_loss == "stock" else settings.ce_loss)
        assert spec is not None
        module: nn.Module = spec.build(settings.parameters)
        return module


class ForwardPart(Part):
    """Wraps the `forward` method of the criterion and opens a record of the call."""

    def __call__(self, preds: Any, batch: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return the loss and its items, as the stock criterion does."""
        branch: SemanticBranch = self.branch
        branch.begin(lambda compared: (batch["semantic_mask"] != IGNORED).any())
        branch.compared = False
        with context.within_part():
            result = self.stock(preds, batch, *args, **kwargs)
        branch.end()
        if branch.statistics is not None and branch.statistics.measuring:
            branch.statistics.end(named_terms(result[-1]), by_class=True)
        return result


class PixelPart(Part):
    """Replaces `_ce_loss`, the class term of the head and of the auxiliary head."""

    def __call__(self, preds: Tensor, masks: Tensor, *valid: Tensor) -> Tensor:
        """Return the mean of the chosen loss over the valid pixels of a batch.

        Args:
            preds: logits, shape `(B, C, H, W)`.
            masks: labels, shape `(B, H, W)`.
            *valid: mask of the pixels that are not ignored, shape `(B * H * W,)`, in releases that pass it.
        """
        branch: SemanticBranch = self.branch
        loss = branch.losses.get("class")
        term = self.stock(preds, masks, *valid) if loss is None else self._mean(preds, masks)
        statistics = branch.statistics
        measuring = statistics is not None and statistics.measuring
        if not branch.compared and (measuring or (loss is not None and branch.compares and not branch.ratios)):
            self._compare(preds.detach(), masks, bool(valid))
        branch.compared = True
        return branch.record("class", term)

    def _mean(self, preds: Tensor, masks: Tensor) -> Tensor:
        """Return the mean of the chosen loss, or of cross-entropy if the loss is stock."""
        loss = self._loss
        with full_precision(preds):
            rows, labels = _pixels(preds, masks)
            return loss.mean_over_pixels(loss.pixels(rows, labels), labels, self._weights(preds))

    @property
    def _loss(self) -> PixelLoss:
        return cast(PixelLoss, self.branch.losses.get("class") or PixelCrossEntropyLoss())

    def _weights(self, like: Tensor) -> Tensor | None:
        """Return the weights of the classes: those of the key, else those of Ultralytics."""
        own: Tensor | None = self.branch.class_weights(like)
        return getattr(self.stock.__self__.ce, "weight", None) if own is None else own

    def _compare(self, preds: Tensor, masks: Tensor, passes_valid: bool) -> None:
        """Compare the class term with the stock one on the first images that have a valid pixel."""
        branch: SemanticBranch = self.branch
        some = (masks != IGNORED).flatten(1).any(1).nonzero().squeeze(1)[: max(1, ELEMENTS // max(preds[0].numel(), 1))]
        preds, masks = preds[some].float(), masks[some]
        valid = [masks.reshape(-1) != IGNORED] if passes_valid else []
        with full_precision(preds):
            against = Against(
                *_with_gradient(lambda leaf: self._mean(leaf, masks), preds),
                *_with_gradient(lambda leaf: self.stock(leaf, masks, *valid), preds),
            )
            if branch.compares and not branch.ratios:
                branch.ratios = against.ratios
            statistics = branch.statistics
            if statistics is not None and statistics.measuring:
                classes = torch.arange(preds.shape[1], device=preds.device).view(1, -1, 1, 1)
                hot = masks.unsqueeze(1) == (classes if preds.shape[1] > 1 else 1)
                statistics.found["against"] = against.sums(hot)
                statistics.found["by_class"] = self._by_class(preds, masks)

    @torch.no_grad()
    def _by_class(self, preds: Tensor, masks: Tensor) -> Tensor:
        """Return the sum of the class term over the pixels of each class; for one class, of background and class."""
        rows, labels = _pixels(preds, masks)
        loss, weights = self._loss.pixels(rows, labels), self._weights(preds)
        loss = loss if weights is None else loss * weights[labels]
        return loss.new_zeros(rows.shape[1]).index_add_(0, labels, loss)


class RegionPart(Part):
    """Replaces `_dice_loss`, the dice term."""

    def __call__(self, preds: Tensor, masks: Tensor, *valid: Tensor) -> Tensor:
        """Return the mean of the chosen loss over the classes, or the loss of a single class; see `PixelPart`."""
        loss = cast("RegionLoss | None", self.branch.losses.get("dice"))
        if loss is None:  # `off`: zero, in the graph
            return self.record("dice", preds[:, :, :0].float().sum())
        with full_precision(preds):
            rows, labels = _pixels(preds, masks)
            by_class = loss.classes(rows, labels)
            term = by_class[1] if preds.shape[1] == 1 else loss.mean_over_classes(by_class, labels)
        return self.record("dice", term)


def _pixels(preds: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits, shape `(P, C)` or `(P, 2)` for one class, and labels, shape `(P,)`, of the valid pixels."""
    valid = masks.reshape(-1) != IGNORED
    rows = preds.permute(0, 2, 3, 1).reshape(-1, preds.shape[1])[valid]
    labels = masks.reshape(-1)[valid].long()
    return (nn.functional.pad(rows, (1, 0)) if preds.shape[1] == 1 else rows), labels


def _with_gradient(loss: Callable[[Tensor], Tensor], preds: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of predictions and its gradient with respect to them."""
    with torch.enable_grad():
        leaf = preds.detach().requires_grad_()
        value = loss(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def equip(
    criterion: Any, settings: LossSettings, branches: Mapping[str, Branch], image_size: float | None = None
) -> dict[str, Branch]:
    """Put the chosen losses into a criterion, in place; see `criteria.equip`."""
    restore(criterion)
    if settings.is_default:
        return {}
    class_weights.check_one_class(settings.cls_weights, criterion.nc)
    parts.check_class_weights(criterion, settings)
    parts.check_attributes(criterion, METHODS)
    branch = branches.get("")
    if not isinstance(branch, SemanticBranch):
        branch = SemanticBranch.build(settings, criterion, expected=settings.terms)
    if "class" in branch.expected or branch.statistics is not None:
        criterion._ce_loss = PixelPart(criterion._ce_loss, branch)
    if "dice" in branch.expected:
        criterion._dice_loss = RegionPart(criterion._dice_loss, branch)
    criterion.forward = ForwardPart(criterion.forward, branch)
    return {"": branch}


def first_parts(criterion: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield the empty path, the criterion, and the name of the method that is called first."""
    yield "", criterion, "forward"


def restore(criterion: Any) -> None:
    """Restore the stock methods of a criterion."""
    for name in METHODS:
        parts.put_back(criterion, name)
