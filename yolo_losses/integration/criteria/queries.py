"""Heads that match queries to objects (RT-DETR): `RTDETRDetectionLoss`.

It calls `vfl` (`fl` if the batch has no objects) for the class term and `_get_loss_bbox` for the L1 and GIoU terms, for
every decoder layer and for the denoising queries. Parts replace these; the matching and all divisors do not change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from yolo_losses import registry
from yolo_losses.config.settings import KEYS, LossSettings
from yolo_losses.integration import context
from yolo_losses.integration.criteria import parts
from yolo_losses.integration.criteria.against import ratios_to_stock
from yolo_losses.integration.criteria.box_part import zeros_like
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.criteria.parts import Part
from yolo_losses.losses._function import formula_arguments
from yolo_losses.losses._step import Step
from yolo_losses.losses.boxes.iou import iou_loss
from yolo_losses.losses.classification._base import ClassificationLoss
from yolo_losses.losses.distances._base import DistanceLoss
from yolo_losses.registry import LossSpec
from yolo_losses.registry.parameters import Value

CLASS_PARTS = ("fl", "vfl")
METHODS = ("forward", "_get_loss_bbox")
NOT_PREDICTED = {
    "distribution": "distribution",
    "angle": "angles",
    "mask": "masks",
    "sem": "masks",
    "pose": "keypoints",
    "kobj": "keypoints",
}


def matches(criterion: Any) -> bool:
    """Return whether a criterion is of this kind."""
    return hasattr(criterion, "matcher") and hasattr(criterion, "_get_loss_class")


def check(settings: LossSettings) -> LossSettings:
    """Return the settings for RT-DETR, whose target is the IoU of the matched pairs.

    Raises:
        ValueError: if RT-DETR cannot use a key; the message has the key, its value and what is allowed.
    """
    if settings.swaps_nothing:
        return settings
    if settings.cls_loss != "stock":
        spec = registry.find("cls", settings.cls_loss)
        assert spec is not None
        if not _fits(spec):
            allowed = ", ".join(["stock", *(s.name for s in registry.specs("cls") if _fits(s))])
            raise ValueError(f"'cls_loss={settings.cls_loss}' cannot be used with RT-DETR: allowed are {allowed}")
    reasons: dict[str, tuple[Value, str]] = {
        name: (key.default, f"which predicts no {NOT_PREDICTED[key.term]}: allowed is {key.default}")
        for name, key in KEYS.items()
        if key.term in NOT_PREDICTED
    }
    reasons |= dict.fromkeys(("o2m_start", "o2m_end"), ("stock", "whose head has one branch: allowed is stock"))
    reasons["loss_branches"] = ("both", "whose head has one branch: allowed is both")
    assigner = [name for name, declared in KEYS.items() if declared.term == "assigner"]
    reasons |= dict.fromkeys(assigner, ("stock", "which matches queries to objects: allowed is stock"))
    if settings.cls_target not in ("auto", "iou"):
        reasons["cls_target"] = ("auto", "whose targets are the IoUs of its matched pairs: allowed are auto, iou")
    for key, (default, reason) in reasons.items():
        value = getattr(settings, key)
        if value != default:
            raise ValueError(f"'{key}={KEYS[key].to_config(value)}' cannot be used with RT-DETR, {reason}")
    settings.check_boxes(rotated=False)
    if settings.cls_loss == "stock":
        if settings.cls_target != "auto":
            raise ValueError("'cls_target=iou' would change nothing: RT-DETR's stock loss has it. Choose a cls_loss")
        return settings
    return dataclasses.replace(settings, cls_target="iou")


def _fits(spec: LossSpec) -> bool:
    """Return whether each element of a class loss depends only on its logit and its target.

    Weights by the mean IoU of the positives (slide), by the density over all anchors (ghm), or by the accumulated
    gradients of a class (efl, eqfl) are not meaningful for a few hundred queries per layer, of which few are matched.
    """
    module: type[ClassificationLoss] = spec.module
    return not module.own_divisor and not {"mean_iou", "pos_neg_ratio"}.intersection(formula_arguments(module.formula))


@dataclass
class QueryBranch(Branch):
    """The branch of an RT-DETR criterion.

    Attributes:
        image_size: side of the square images of this batch in pixels, or `None` if it is not known.
        step: the pairs of the last decoder layer in the current call, `None` before they are known.
        supplied: arguments that the current call supplies to the formulas, by term.
        layers: number of class terms computed in the current call; the first is that of the last decoder layer.
    """

    image_size: float | None = None
    step: Step | None = None
    supplied: dict[str, dict[str, Any]] = field(default_factory=dict)
    layers: int = 0
    always_logged: tuple[str, ...] = ("class", "box", "l1")

    reference: ClassVar[str] = "the stock loss"

    @property
    def needs_image_size(self) -> bool:
        """Whether the box loss counts in pixels; the boxes of the criterion are relative to the image."""
        return self.box is not None and "stride" in self.box.wanted

    def forget(self) -> None:
        """Drop the data of a call that has ended."""
        self.step = None
        self.supplied = {}
        self.layers = 0

    def observe(self, iou: Tensor, matched: Tensor | None) -> None:
        """Prepare the losses with the IoUs of the first pairs of a call, so that state is updated once per step."""
        if self.step is not None:
            return
        self.step = Step(iou, matched, self.training)
        for term, module in (("cls", self.cls), ("box", self.box)):
            if module is not None:
                self.supplied[term] = module.to(iou.device).prepare(self.step)


class ForwardPart(Part):
    """Wraps the `forward` method of the criterion and opens a record of the call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output of the stock criterion."""
        branch: QueryBranch = self.branch
        batch = kwargs["batch"] if "batch" in kwargs else args[1]
        branch.forget()
        branch.begin(lambda compared: len(batch["cls"]) > 0)
        try:
            with context.within_part():
                terms = self.stock(*args, **kwargs)
            branch.end()
            if branch.statistics is not None and branch.statistics.measuring:
                branch.statistics.end(_summed(terms), by_class=True)
            return terms
        finally:
            branch.forget()


def _summed(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the terms summed over decoder layers and denoising queries, by their name in the log."""
    names = {"giou_loss": "loss_giou", "cls_loss": "loss_class", "l1_loss": "loss_bbox"}
    own = {name: [terms[k].detach() for k in terms if k.startswith(start)] for name, start in names.items()}
    return {name: torch.stack([term.float() for term in found]).sum() for name, found in own.items() if found}


class MatchedClassPart(Part):
    """Replaces `vfl`, the class term, and `fl`, which is called if the batch has no objects."""

    def __call__(self, logits: Tensor, targets: Tensor, one_hot: Tensor | None = None) -> Tensor:
        """Return the class term, summed over images and classes and averaged over the queries.

        Ultralytics multiplies it by the number of queries and divides it by the number of objects.

        Args:
            logits: shape `(b, queries, C)`.
            targets: IoU of each matched query's box with its object, at the class of the object; 0 elsewhere.
            one_hot: 1 at the class of each matched query, even if its IoU is 0.

        Returns:
            A scalar.
        """
        branch: QueryBranch = self.branch
        first = branch.layers == 0
        branch.layers += 1
        statistics = branch.statistics
        measuring = first and statistics is not None and statistics.measuring
        if branch.cls is None:
            given = (logits, targets) if one_hot is None else (logits, targets, one_hot)
            if measuring:
                with parts.full_precision(logits):
                    self._measure(logits, targets, one_hot, None)
            # With class weights, by class: the stock loss sums over classes.
            loss = self.stock(*given) if branch.weights is None else torch.vmap(self.stock, in_dims=-1)(*given)
            return self.record("class", branch.weighted(loss).sum() * branch.cls_factor)
        with parts.full_precision(logits):
            z = logits.to(torch.promote_types(logits.dtype, torch.float32))
            quality = targets.detach().to(z.dtype).clamp(0, 1)
            matched = quality > 0 if one_hot is None else one_hot > 0
            branch.observe(quality.amax(-1).view(-1), matched.any(-1).view(-1))
            supplied = branch.supplied["cls"]
            loss = branch.cls.elementwise(z, quality, positive_mask=matched, **supplied)
            plain = loss.sum() / logits.shape[1]
            if first and branch.training and z.requires_grad and branch.scale is not None:
                (own,), (stock, _) = torch.autograd.grad(plain, z, retain_graph=True), self._stock(z, targets, one_hot)
                norms = torch.stack([gradient.square().sum() for gradient in (own, stock)])
                branch.scale.to(z.device).advance(norms / matched.sum().clamp_min(1) ** 2, matched.any())
            if measuring:
                self._measure(z, targets, one_hot, loss)
            weighted = plain if branch.weights is None else branch.weighted(loss).sum() / logits.shape[1]
            term = weighted * branch.cls_factor
            if first and branch.compares and not branch.ratios and z.requires_grad:
                branch.ratios = self._against_stock(plain * branch.cls_factor, z, targets, one_hot, matched)
        return self.record("class", term)

    def _against_stock(
        self, term: Tensor, logits: Tensor, targets: Tensor, one_hot: Tensor | None, matched: Tensor
    ) -> dict[str, float]:
        """Return the class term over the stock one on the same predictions, in value and in gradient norm on the pairs.

        The result is empty if the batch overflowed.
        """
        (own,), (stock, value) = (
            torch.autograd.grad(term, logits, retain_graph=True),
            self._stock(logits, targets, one_hot),
        )
        return ratios_to_stock(
            {
                "value": (float(term.detach()), float(value)),
                "gradient": (float(own[matched].norm()), float(stock[matched].norm())),
            }
        )

    def _measure(self, logits: Tensor, targets: Tensor, one_hot: Tensor | None, values: Tensor | None) -> None:
        """Add the class term of a call to the statistics of `loss_stats`.

        Args:
            logits: shape `(b, queries, C)`.
            targets: same shape.
            one_hot: same shape.
            values: the chosen loss per element, same shape; `None` for the stock loss.
        """
        branch: QueryBranch = self.branch
        statistics = branch.statistics
        assert statistics is not None
        stock, value = self._stock(logits, targets, one_hot)
        own: Tensor | None = stock
        if values is None:
            given = [x.detach().reshape(-1, 1, 1) for x in (logits.float(), targets, one_hot) if x is not None]
            values = torch.vmap(self.stock)(*given).view_as(logits)
        else:
            own = torch.autograd.grad(values.sum(), logits, retain_graph=True)[0] if logits.requires_grad else None
            own = own if own is None else own / logits.shape[1]
        with torch.no_grad():
            matched = targets > 0 if one_hot is None else one_hot > 0
            step = Step(targets.detach().float().clamp(0, 1).amax(-1), matched.any(-1), training=False)
            statistics.add_class_term(
                logits.detach().float(),
                values.detach() / logits.shape[1],
                own,
                value,
                stock,
                matched,
                branch.cls_factor,
            )
            statistics.add_positives(len(logits), matched.any(-1).sum(), step.mean_iou, {})
            statistics.term = branch.weighted(values.detach())

    def _stock(self, logits: Tensor, targets: Tensor, one_hot: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the gradient of the stock loss at the logits, and its value."""
        leaf = logits.detach().requires_grad_()
        value = self.stock(leaf, targets) if one_hot is None else self.stock(leaf, targets, one_hot)
        return torch.autograd.grad(value, leaf)[0], value.detach()


class MatchedBoxPart(Part):
    """Replaces `_get_loss_bbox`: its GIoU term, its L1 term, or both."""

    def __call__(self, pred_bboxes: Tensor, gt_bboxes: Tensor, postfix: str = "") -> dict[str, Tensor]:
        """Return the terms of the matched pairs.

        Args:
            pred_bboxes: center, width and height relative to the image, shape `(N, 4)`.
            gt_bboxes: same shape.
            postfix: suffix of the names of the terms.
        """
        branch: QueryBranch = self.branch
        terms: dict[str, Tensor] = self.stock(pred_bboxes, gt_bboxes, postfix)
        gains: Mapping[str, float] = self.stock.__self__.loss_gain
        with parts.full_precision(pred_bboxes):
            if len(gt_bboxes) and "l1" in branch.expected:
                distance = cast("DistanceLoss | None", branch.losses.get("l1"))
                sides = zeros_like(pred_bboxes) if distance is None else distance.sides(pred_bboxes, gt_bboxes)
                terms[f"loss_bbox{postfix}"] = self.record("l1", gains["bbox"] * sides.sum() / len(gt_bboxes))
            if branch.box is None:
                return terms
            pred, target = _corners(pred_bboxes), _corners(gt_bboxes)
            branch.observe(1 - iou_loss(pred.detach(), target), None)
            if len(gt_bboxes):
                loss = branch.box.pairs(
                    pred,
                    target,
                    image_wh=pred.new_ones(2),
                    stride=pred.new_full((1,), branch.image_size or torch.nan),
                    **branch.supplied["box"],
                )
                terms[f"loss_giou{postfix}"] = self.record("box", gains["giou"] * loss.sum() / len(gt_bboxes))
        return terms


def _corners(boxes: Tensor) -> Tensor:
    centre, size = boxes.to(torch.promote_types(boxes.dtype, torch.float32)).split(2, -1)
    return torch.cat((centre - size / 2, centre + size / 2), -1)


def equip(
    criterion: Any, settings: LossSettings, branches: Mapping[str, Branch], image_size: float | None = None
) -> dict[str, Branch]:
    """Put the chosen losses into an RT-DETR criterion, in place; see `criteria.equip`.

    Args:
        criterion: an `RTDETRDetectionLoss`.
        settings: the parsed keys.
        branches: the branches of a criterion that was equipped before, whose losses and state are shared.
        image_size: side of the training images in pixels, required by losses that count in pixels.

    Raises:
        ValueError: if RT-DETR cannot use a key, or a loss counts in pixels and `image_size` is missing.
        RuntimeError: if this Ultralytics lacks an attribute that is to be replaced; the message names it.
    """
    restore(criterion)
    settings = check(settings)
    if settings.is_default:
        return {}
    parts.check_class_weights(criterion, settings)
    parts.check_attributes(criterion, (*CLASS_PARTS, *METHODS))
    _check_class_parts(criterion, settings)
    branch = branches.get("")
    if not isinstance(branch, QueryBranch):
        branch = QueryBranch.build(
            settings,
            criterion,
            plain_bce=False,  # the stock loss is varifocal loss, which is only scaled
            expected=settings.terms,
            image_size=image_size,
        )
    if image_size is None and branch.needs_image_size:
        raise ValueError(
            f"'box_loss={settings.box_loss}' counts in pixels, RT-DETR's criterion in parts of the image:"
            " pass the side of the training images, equip(..., image_size=640)"
        )
    if settings.swaps_cls or settings.loss_stats:
        for name in CLASS_PARTS:
            if getattr(criterion, name):
                parts.put(criterion, name, MatchedClassPart(getattr(criterion, name), branch))
    if settings.swaps_box or "l1" in settings.terms:
        criterion._get_loss_bbox = MatchedBoxPart(criterion._get_loss_bbox, branch)
    criterion.forward = ForwardPart(criterion.forward, branch)
    return {"": branch}


def _check_class_parts(criterion: Any, settings: LossSettings) -> None:
    """Raise a `ValueError` if a criterion has no class part to replace."""
    lacks = "fl" if not criterion.fl else "vfl" if settings.cls_loss != "stock" and not criterion.vfl else ""
    if settings.swaps_cls and lacks:
        key, value = next((key, value) for key, value in settings.non_default().items() if key.startswith("cls_"))
        why = "computes BCE in its own body" if lacks == "fl" else "has no IoU as a target"
        raise ValueError(
            f"'{key}={value}' cannot be used with a {type(criterion).__name__} without '{lacks}', which {why}:"
            f" leave {key} at its default"
        )


def logged_branch(criterion: Any) -> str:
    """Return which decoder layer's loss the log shows, and under which name."""
    return "the last decoder layer, its box loss as giou_loss"


def first_parts(criterion: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield the empty path, the criterion, and the name of the method that is called first."""
    yield "", criterion, "forward"


def restore(criterion: Any) -> None:
    """Restore the stock parts of a criterion."""
    for name in (*CLASS_PARTS, *METHODS):
        parts.put_back(criterion, name)
