"""The chosen losses inside Ultralytics' RT-DETR criterion, which matches queries to objects and knows no anchors.

An `RTDETRDetectionLoss` calls its `vfl` (its `fl` where the batch has no object) for the class term and its
`_get_loss_bbox` for the L1 and GIoU terms, once for every decoder layer and again for the denoising queries. These are
replaced by parts that keep the stock part inside; matching, L1 and every divisor stay its own.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from yolo_losses import registry
from yolo_losses.boxes.iou import iou_loss
from yolo_losses.classification._base import ClassificationLoss
from yolo_losses.criterion import Branch, Part, _bce_sum, _own, _put
from yolo_losses.formula import formula_arguments
from yolo_losses.registry import LossSpec
from yolo_losses.settings import LossSettings
from yolo_losses.step import Step, observe

CLASS_PARTS = ("fl", "vfl")
METHODS = ("forward", "_get_loss_bbox")


def matches_queries(criterion: Any) -> bool:
    """Return whether a criterion is of this kind."""
    return hasattr(criterion, "matcher") and hasattr(criterion, "_get_loss_class")


def check(settings: LossSettings) -> LossSettings:
    """Return the settings as RT-DETR understands them: the target is the IoU of the matched pairs.

    Raises:
        ValueError: on what makes no sense where queries are matched; of one line, that names the key, its value, and
            what is allowed.
    """
    if settings.swaps_nothing:
        return settings
    if settings.cls_loss != "stock":
        spec = registry.find("cls", settings.cls_loss)
        assert spec is not None
        if not _fits(spec):
            allowed = ", ".join(["stock", *(s.name for s in registry.specs("cls") if _fits(s))])
            raise ValueError(f"'cls_loss={settings.cls_loss}' cannot be used with RT-DETR: allowed are {allowed}")
    reasons = {
        "dfl_loss": ("stock", "which predicts no distribution: allowed is stock"),
        "loss_branches": ("both", "whose head has one branch: allowed is both"),
    }
    if settings.cls_target == "tal":
        reasons["cls_target"] = ("auto", "whose matching gives no task-aligned score: allowed are auto, iou")
    for key, (default, reason) in reasons.items():
        value = getattr(settings, key)
        if value != default:
            raise ValueError(f"'{key}={value}' cannot be used with RT-DETR, {reason}")
    settings.check_boxes(rotated=False)
    if settings.cls_loss == "stock":
        if settings.cls_target != "auto":
            raise ValueError("'cls_target=iou' would change nothing: RT-DETR's stock loss has it. Choose a cls_loss")
        return settings
    return dataclasses.replace(settings, cls_target="iou")


def _fits(spec: LossSpec) -> bool:
    """Return whether a class loss is one value an element, by its logit and target alone.

    What weighs elements by where the batch's positives lie (slide), or by the density over all of its anchors (ghm),
    has another meaning for a few hundred queries of which a handful are matched, layer by layer.
    """
    module: type[ClassificationLoss] = spec.module
    return not module.own_divisor and "mean_iou" not in formula_arguments(module.formula)


@dataclass
class MatchedBranch(Branch):
    """The losses of an RT-DETR criterion, their state, and what this step has shown.

    Attributes:
        image_size: side of the square image in pixels; `None`: not known.
        step: the step at hand, by the last decoder layer's pairs; `None` at the start of one.
        supplied: what the losses' formulas are supplied with in it, by term.
    """

    image_size: float | None = None
    step: Step | None = None
    supplied: dict[str, dict[str, Any]] = field(default_factory=dict)

    def begin(self) -> None:
        """Forget the step before."""
        self.step = None

    def observe(self, iou: Tensor, matched: Tensor | None) -> None:
        """Take the IoUs of a step's first pairs, those of the last decoder layer: state is written once a step."""
        if self.step is not None:
            return
        training = torch.is_grad_enabled()
        self.step = observe(iou, matched, training, join=training and self.has_state)
        for term, module in (("cls", self.cls), ("box", self.box)):
            if module is not None:
                self.supplied[term] = module.to(iou.device).prepare(self.step)


class ForwardPart(Part):
    """The criterion's `forward`, around which a step begins and ends."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the stock criterion returns.

        Raises:
            RuntimeError: where it called none of a swapped term's parts.
        """
        branch: MatchedBranch = self.branch
        branch.begin()
        terms = self.stock(*args, **kwargs)
        branch.calls["assigner"] += 1
        for name, swapped in (("bce", branch.settings.swaps_cls), ("bbox_loss", branch.box is not None)):
            if swapped and not branch.calls[name]:
                raise RuntimeError(f"yolo_losses does not know this Ultralytics: its RT-DETR has no '{name}' to swap")
        return terms


class MatchedClassPart(Part):
    """The class term in place of `vfl`, and of `fl` where the batch has no object."""

    def __call__(self, logits: Tensor, targets: Tensor, one_hot: Tensor | None = None) -> Tensor:
        """Return the class term, summed over images and classes and averaged over the queries.

        Upstream multiplies it by the number of queries and divides it by that of the objects.

        Args:
            logits: shape `(b, queries, C)`.
            targets: the IoU of a matched query's box with its object, at the object's class; 0 elsewhere.
            one_hot: 1 at every matched query's class, also where its IoU is 0.

        Returns:
            A fresh scalar.
        """
        branch: MatchedBranch = self.branch
        branch.calls["bce"] += 1
        if branch.cls is None:
            given = (logits, targets) if one_hot is None else (logits, targets, one_hot)
            return self.stock(*given) * branch.settings.cls_scale
        with torch.autocast(logits.device.type, enabled=False):
            z = logits.to(torch.promote_types(logits.dtype, torch.float32))
            quality = targets.detach().to(z.dtype).clamp(0, 1)
            matched = quality > 0 if one_hot is None else one_hot > 0
            branch.observe(quality.amax(-1).view(-1), matched.any(-1).view(-1))
            supplied = branch.supplied["cls"]
            loss = branch.cls.elementwise(z, quality, positive_mask=matched, **supplied)
            term = loss.sum() * (branch.settings.cls_scale / logits.shape[1])
            if branch.cls_sum is None and torch.is_grad_enabled():
                branch.cls_sum = loss.detach().sum() * branch.settings.cls_scale
                branch.bce_sum = _bce_sum(logits, quality)
        return term


class MatchedBoxPart(Part):
    """The box term in place of GIoU in `_get_loss_bbox`, whose L1 term stays its own."""

    def __call__(self, pred_bboxes: Tensor, gt_bboxes: Tensor, postfix: str = "") -> dict[str, Tensor]:
        """Return the terms of the matched pairs.

        Args:
            pred_bboxes: centre, width and height in parts of the image, shape `(N, 4)`.
            gt_bboxes: of the same shape.
            postfix: ends the terms' names.
        """
        branch: MatchedBranch = self.branch
        assert branch.box is not None
        branch.calls["bbox_loss"] += 1
        terms: dict[str, Tensor] = self.stock(pred_bboxes, gt_bboxes, postfix)
        with torch.autocast(pred_bboxes.device.type, enabled=False):
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
                gain = self.stock.__self__.loss_gain["giou"]
                terms[f"loss_giou{postfix}"] = gain * loss.sum() / len(gt_bboxes)
        return terms


def _corners(boxes: Tensor) -> Tensor:
    centre, size = boxes.to(torch.promote_types(boxes.dtype, torch.float32)).split(2, -1)
    return torch.cat((centre - size / 2, centre + size / 2), -1)


def equip(
    criterion: Any,
    settings: LossSettings,
    branches: Mapping[str, Branch] | None = None,
    image_size: float | None = None,
) -> dict[str, Branch]:
    """Swap the chosen losses into an RT-DETR criterion in place, as `criterion.equip` does.

    Args:
        criterion: an `RTDETRDetectionLoss`.
        settings: the parsed keys.
        branches: those of a criterion equipped before, to share losses and state with.
        image_size: side of the training images in pixels, for the losses that count in pixels; the criterion itself
            sees boxes in parts of the image.

    Raises:
        ValueError: on what makes no sense for RT-DETR, or a loss in pixels without an `image_size`.
        RuntimeError: where this Ultralytics lacks a part, which is named.
    """
    restore(criterion)
    settings = check(settings)
    if settings.swaps_nothing:
        return {}
    missing = [name for name in (*CLASS_PARTS, *METHODS) if not hasattr(criterion, name)]
    if missing:
        import ultralytics

        raise RuntimeError(
            f"yolo_losses does not know this Ultralytics ({ultralytics.__version__}):"
            f" {type(criterion).__name__} has no '{missing[0]}'"
        )
    branch = (branches or {}).get("")
    if branch is None:
        swaps_cls = settings.cls_loss != "stock"
        cls = registry.make_cls_loss(settings.cls_loss, **_own(settings, "cls")) if swaps_cls else None
        swaps_box = settings.box_loss != "stock"
        box = registry.make_box_loss(settings.box_loss, **_own(settings, "box")) if swaps_box else None
        branch = MatchedBranch(settings, cls, box, image_size=image_size)
    if image_size is None and branch.box is not None and _counts_pixels(settings.box_loss):
        raise ValueError(
            f"'box_loss={settings.box_loss}' counts in pixels, RT-DETR's criterion in parts of the image:"
            " pass the side of the training images, equip(..., image_size=640)"
        )
    if settings.cls_loss != "stock" or settings.cls_scale != 1:
        for name in CLASS_PARTS:
            _put(criterion, name, MatchedClassPart(getattr(criterion, name), branch))
    if branch.box is not None:
        criterion._get_loss_bbox = MatchedBoxPart(criterion._get_loss_bbox, branch)
    criterion.forward = ForwardPart(criterion.forward, branch)
    return {"": branch}


def _counts_pixels(box_loss: str) -> bool:
    module = registry.split_box_name(box_loss)[1].module
    return "stride" in (*formula_arguments(module.formula), *inspect.signature(module.pairs).parameters)


def restore(criterion: Any) -> None:
    """Put a criterion's stock parts back."""
    for name in (*CLASS_PARTS, *METHODS):
        part = vars(criterion).get(name)
        if isinstance(part, Part):
            del vars(criterion)[name]
            if name in CLASS_PARTS:
                setattr(criterion, name, part.stock)
