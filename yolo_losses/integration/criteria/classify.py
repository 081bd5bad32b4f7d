"""The head of the task classify: `v8ClassificationLoss`, which calls `F.cross_entropy` itself.

It has no part that could be replaced. When Ultralytics is patched, its call becomes a method `CALL` of the class. In an
equipped instance, an attribute of this name is the part, which runs the same body with the chosen loss in place of
`F.cross_entropy`. How predictions are selected and what is returned does not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from ultralytics.utils.loss import v8ClassificationLoss

from yolo_losses import registry
from yolo_losses.config import class_weights
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.context import CLASSIFY_CALL as CALL
from yolo_losses.integration.criteria import parts
from yolo_losses.integration.criteria.against import Against
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.criteria.parts import Part, full_precision
from yolo_losses.losses.classify._base import ClassifyLoss
from yolo_losses.monitor.gather import named_terms

TASK = "classify"


def matches(criterion: Any) -> bool:
    """Return whether a criterion is of this kind."""
    return isinstance(criterion, v8ClassificationLoss)


@dataclass
class ClassifyBranch(Branch):
    """The branch of a criterion of the task classify."""

    always_logged: tuple[str, ...] = ("class",)

    reference: ClassVar[str] = "cross-entropy"
    tasks: ClassVar[tuple[str, ...]] = (TASK,)
    can_scale: ClassVar[bool] = False
    where_compared: ClassVar[str] = ""

    @classmethod
    def build_class_loss(cls, settings: LossSettings, plain_bce: bool) -> nn.Module:
        """Return the module of the class term; a stock loss that is scaled, weighted or smoothed is cross-entropy."""
        spec = registry.find("classify", "ce" if settings.cls_loss == "stock" else settings.cls_loss)
        assert spec is not None
        module: nn.Module = spec.build(settings.parameters)
        return module


class ClassifyPart(Part):
    """Replaces the call of a criterion."""

    def __call__(self, preds: Any, batch: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return the loss and its items, as the stock criterion does."""
        branch: ClassifyBranch = self.branch
        branch.begin(lambda compared: bool(len(batch["cls"])))
        stock = self.stock
        result = _body(stock.__func__, self._cross_entropy)(stock.__self__, preds, batch, *args, **kwargs)
        branch.end()
        if branch.statistics is not None and branch.statistics.measuring:
            branch.statistics.end(named_terms(_as_items(result[-1])), by_class=True)
        return result

    def _cross_entropy(self, logits: Tensor, targets: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the mean of the chosen loss over the images of a batch.

        Args:
            logits: shape `(N, C)`.
            targets: labels, shape `(N,)`, or probabilities, shape `(N, C)`.
            *args: options of `F.cross_entropy`, which are ignored.
            **kwargs: options of `F.cross_entropy`, which are ignored.
        """
        branch: ClassifyBranch = self.branch
        loss = cast(ClassifyLoss, branch.losses["class"])
        weights, statistics = branch.class_weights(logits), branch.statistics
        if weights is not None and len(weights) != logits.shape[1]:
            what = class_weights.format_option(branch.settings.cls_weights)
            raise ValueError(
                f"{what} is not valid: allowed are as many numbers as there are classes, {logits.shape[1]}"
            )
        with full_precision(logits):
            per_image = loss.images(logits, targets, smoothing=branch.settings.cls_smoothing, class_weights=weights)
            term = loss.mean_over_images(per_image, targets, weights) * branch.cls_factor
            if (branch.compares and not branch.ratios) or (statistics is not None and statistics.measuring):
                against = _against_cross_entropy(term, logits, targets)
                branch.ratios = branch.ratios or against.ratios
                if statistics is not None and statistics.measuring:
                    _measure(statistics, per_image.detach(), logits, targets, against)
        return branch.record("class", term)


def _as_items(items: Any) -> Any:
    """Return the loss items as a dictionary or a vector; older releases have a scalar."""
    return items.reshape(1) if isinstance(items, Tensor) else items


def _body(call: Any, cross_entropy: Any) -> Any:
    """Return the call of a criterion with another function in place of `F.cross_entropy`.

    Raises:
        RuntimeError: if it does not call `F.cross_entropy`.
    """
    while hasattr(call, "__wrapped__"):
        call = call.__wrapped__
    if "cross_entropy" not in call.__code__.co_names:
        raise RuntimeError(
            f"yolo_losses does not know the criterion {call.__module__}.{call.__qualname__}: it does not compute its"
            " loss by 'F.cross_entropy', so that a cls_loss cannot take that place. Leave cls_loss at stock"
        )
    return parts.with_globals(call, {"F": parts.functional_with(cross_entropy=cross_entropy)})


def _against_cross_entropy(term: Tensor, logits: Tensor, targets: Tensor) -> Against:
    z = logits.detach().float().requires_grad_()
    gradient = torch.zeros_like(z)
    if term.requires_grad and logits.requires_grad:
        gradient = torch.autograd.grad(term, logits, retain_graph=True)[0].float()
    with torch.enable_grad():
        reference = nn.functional.cross_entropy(z, targets if targets.dim() == 1 else targets.float())
        (reference_gradient,) = torch.autograd.grad(reference, z)
    return Against(term.detach(), gradient, reference.detach(), reference_gradient)


@torch.no_grad()
def _measure(statistics: Any, per_image: Tensor, logits: Tensor, targets: Tensor, against: Against) -> None:
    """Add the ratios and the loss by class to the statistics of `loss_stats`."""
    labels = targets.long() if targets.dim() == 1 else targets.argmax(-1)
    hot = nn.functional.one_hot(labels, logits.shape[1]).bool()
    statistics.found["against"] = against.sums(hot)
    statistics.found["by_class"] = per_image.new_zeros(logits.shape[1]).index_add_(0, labels, per_image)


def equip(
    criterion: Any, settings: LossSettings, branches: Mapping[str, Branch], image_size: float | None = None
) -> dict[str, Branch]:
    """Put the chosen loss into a criterion, in place; see `criteria.equip`."""
    restore(criterion)
    if settings.is_default:
        return {}
    parts.check_class_weights(criterion, settings)
    branch = branches.get("")
    if not isinstance(branch, ClassifyBranch):
        branch = ClassifyBranch.build(settings, criterion, expected=settings.terms)
    part = ClassifyPart(getattr(criterion, CALL), branch)
    _body(part.stock.__func__, None)  # raises if the criterion is not known
    setattr(criterion, CALL, part)
    return {"": branch}


def first_parts(criterion: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield the empty path, the criterion, and the name of the attribute that it calls."""
    yield "", criterion, CALL


def restore(criterion: Any) -> None:
    """Restore the stock call of a criterion."""
    vars(criterion).pop(CALL, None)
