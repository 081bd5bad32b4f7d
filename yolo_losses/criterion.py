"""The chosen losses inside Ultralytics' criteria: three parts swapped, the body untouched.

A `v8DetectionLoss` calls its `assigner`, then its `bce`, then its `bbox_loss`. Each is replaced by a part that keeps
the stock part inside: the assigner's is only listened to, the class term is computed here, and of the box term the
IoU part. One `Branch` holds the losses and what this step has shown; the model's criterion and the EMA's share it.
"""

from __future__ import annotations

import copy
import copyreg
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils.loss import RotatedBboxLoss, v8DetectionLoss, v8OBBLoss, v8PoseLoss, v8SegmentationLoss

from yolo_losses import registry
from yolo_losses.boxes._base import BoxLoss
from yolo_losses.boxes.iou import iou_loss
from yolo_losses.boxes.probiou import probiou_loss
from yolo_losses.classification._base import ClassificationLoss, Positives
from yolo_losses.distribution.dfl import distribution_focal_loss
from yolo_losses.reduction import upcast
from yolo_losses.settings import LossSettings
from yolo_losses.step import Step, observe

BRANCH_NAMES = ("one2many", "one2one", "vp_criterion")
PARTS = ("assigner", "bce", "bbox_loss")


@dataclass
class Assignment:
    """What the assigner said in this step, flat over batch and anchors where it is about positives.

    Attributes:
        anchors: anchor points in pixels, shape `(anchors, 2)`.
        index: the positives' anchors, flat over the batch, shape `(N,)`.
        valid: which of them count; `None`: all. On a GPU every anchor is listed, since selecting makes the host wait.
        label: the class of each, shape `(N,)`.
        score: the task-aligned score of each, in full precision, shape `(N,)`.
        iou: IoU of each one's predicted box with its object, detached, in [0, 1].
        score_sum: sum of the scores, what upstream divides by where it is above 1.
        count: number of positives.
        step: the step as the losses see it.
    """

    anchors: Tensor
    index: Tensor
    valid: Tensor | None
    label: Tensor
    score: Tensor
    iou: Tensor
    score_sum: Tensor
    count: Tensor
    step: Step


@dataclass
class Branch:
    """The losses of one branch of the head, their state, and what this step has shown.

    Attributes:
        settings: the parsed keys.
        cls: the module of the class term; `None`: stock.
        box: the module of the box term; `None`: stock.
        one_hot: whether the assigner is known to give each anchor one class, so that the background is all zeros.
        assignment: of the step at hand.
        calls: how often each swapped part was called, by part.
        cls_sum: sum of the class term over the first batch, and `bce_sum` BCE's on the same predictions.
    """

    settings: LossSettings
    cls: ClassificationLoss | None
    box: BoxLoss | None
    one_hot: bool = True
    assignment: Assignment | None = None
    calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    cls_sum: Tensor | None = None
    bce_sum: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Branch:
        return self

    @property
    def has_state(self) -> bool:
        """Whether a loss keeps anything from one step to the next; what it keeps is its buffers."""
        return any(module is not None and any(True for _ in module.buffers()) for module in (self.cls, self.box))

    def step_assignment(self) -> Assignment:
        """Return the assignment of the step at hand."""
        if self.assignment is None:
            raise RuntimeError("yolo_losses: this Ultralytics computes the class term before it calls its 'assigner'")
        return self.assignment


class Part:
    """A part in place of a stock part, whose attributes stay readable and settable through it.

    A deep copy shares the branch (NaN recovery rebuilds the EMA that way); a pickle is the stock part's, so that a
    checkpoint that holds a criterion loads where this package is not installed.
    """

    def __init__(self, stock: Any, branch: Branch) -> None:
        self.__dict__.update(stock=stock, branch=branch)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__dict__["stock"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["stock"], name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Part:
        return type(self)(copy.deepcopy(self.__dict__["stock"], memo), self.__dict__["branch"])

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (self.__dict__["stock"],)


class AssignerPart(Part):
    """The stock assigner, listened to: what it says is never changed, since the box term weights with it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the stock assigner returns."""
        assigned = self.stock(*args, **kwargs)
        boxes = kwargs["pd_bboxes"] if "pd_bboxes" in kwargs else args[1]
        anchors = kwargs["anc_points"] if "anc_points" in kwargs else args[2]
        self.branch.assignment = _read(boxes, anchors, assigned, self.branch.has_state)
        self.branch.calls["assigner"] += 1
        return assigned


def _read(pred_boxes: Tensor, anchors: Tensor, assigned: tuple[Tensor, ...], has_state: bool) -> Assignment:
    labels, boxes, scores, foreground = assigned[:4]
    classes = scores.shape[-1]
    mask = foreground.reshape(-1).bool()
    index = torch.arange(mask.numel(), device=mask.device) if mask.is_cuda else mask.nonzero().squeeze(1)
    valid = mask if mask.is_cuda else None
    # Without objects the assigner labels every anchor with the number of classes, as a float.
    label = labels.reshape(-1)[index].long().clamp_(0, max(classes - 1, 0))
    score = scores.reshape(-1)[index * classes + label] if classes else scores.new_zeros(index.shape)
    (score,) = upcast(score)
    pred, target = (b.detach().reshape(-1, b.shape[-1])[index] for b in (pred_boxes, boxes))
    overlap = 1 - (probiou_loss(pred, target) if boxes.shape[-1] == 5 else iou_loss(pred, target))
    iou = overlap.clamp(0, 1)
    if valid is None:
        count = score.new_full((), float(index.numel()))
    else:
        score, iou = torch.where(valid, score, 0), torch.where(valid, iou, 0)
        count = valid.sum().float()
    training = torch.is_grad_enabled()
    step = observe(iou, valid, training, join=training and has_state)
    return Assignment(anchors, index, valid, label, score, iou, score.sum(), count, step)


class ClassPart(Part):
    """The class term in place of `bce`."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the class term of a batch.

        Args:
            logits: shape `(b, anchors, C)`.
            targets: the assigner's scores in the logits' precision, of the same shape.

        Returns:
            A fresh float32 tensor that upstream multiplies by the class weights, sums, and divides by the sum of the
            scores where that is above 1: per-class sums `(1, 1, C)`, or one value an element where the targets are
            not known to be one-hot.
        """
        branch: Branch = self.branch
        assert branch.cls is not None
        at = branch.step_assignment()
        use_iou = branch.settings.target == "iou"
        divisor = at.score_sum.clamp_min(1)
        if branch.cls.own_divisor:
            factor = divisor  # the loss is a mean already: upstream's divisor is cancelled
        elif use_iou:
            factor = divisor / at.count.clamp_min(1)
        else:
            factor = torch.ones_like(divisor)
        positives = Positives(at.index * logits.shape[-1] + at.label, at.iou if use_iou else at.score, at.valid)
        with torch.autocast(logits.device.type, enabled=False):
            if branch.one_hot:
                term = branch.cls.class_sums(logits, positives, at.step)
            else:
                term = _elementwise(branch.cls, logits, targets, positives, use_iou, at.step)
            term = term * (factor * branch.settings.cls_scale)
            if branch.cls_sum is None and torch.is_grad_enabled():
                branch.cls_sum = term.detach().sum()
                branch.bce_sum = _bce_sum(logits, targets)
        branch.calls["bce"] += 1
        return term


def _elementwise(
    loss: ClassificationLoss, logits: Tensor, targets: Tensor, positives: Positives, use_iou: bool, step: Step
) -> Tensor:
    """Return the class term an element, for targets that may be soft in several classes of one anchor."""
    valid = positives.valid if positives.valid is not None else torch.ones_like(positives.index, dtype=torch.bool)
    mask = torch.zeros(logits.numel(), dtype=torch.bool, device=logits.device)
    mask = mask.index_copy_(0, positives.index, valid).view_as(logits)
    targets = targets.to(torch.promote_types(targets.dtype, torch.float32))
    if use_iou:
        quality = torch.where(valid, positives.target.to(targets.dtype), 0)
        targets = torch.zeros_like(targets).view(-1).index_copy_(0, positives.index, quality).view_as(targets)
    logits, positive = logits.to(targets.dtype), mask | (targets > 0)
    if loss.own_divisor:  # a mean over all elements; the module's call takes this step into its state
        call = loss.train(step.training)
        return call(logits, targets, reduction_override="none", positive_mask=positive) / max(logits.numel(), 1)
    return loss.elementwise(logits, targets, positive_mask=positive, **loss.prepare(step))


@torch.no_grad()
def _bce_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of BCE, an image at a time: the first batch is to need no more memory than the others."""
    pairs = zip(logits.detach(), targets, strict=True)
    sums = [nn.functional.binary_cross_entropy_with_logits(z.float(), t.float(), reduction="sum") for z, t in pairs]
    return torch.stack(sums).sum() if sums else logits.new_zeros(())


class BoxPart(Part):
    """The box term in place of `bbox_loss`, whose second result, the distribution's or L1 term, stays its own."""

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return the box term and the distribution's term, weighted and divided as upstream does."""
        branch: Branch = self.branch
        branch.calls["bbox_loss"] += 1
        stock_term, distribution = self.stock(*args, **kwargs)
        if branch.box is None:
            return stock_term, distribution
        names = ("pred_bboxes", "anchor_points", "target_bboxes", "target_scores", "target_scores_sum", "fg_mask")
        given = {**dict(zip(names, args[1:7], strict=False)), **kwargs}
        with torch.autocast(given["pred_bboxes"].device.type, enabled=False):
            # Releases that floor a rotated box's variance keep that number on the stock part.
            term = _box_term(branch, *(given[name] for name in names), floor=getattr(self.stock, "floor", 0.0))
        return term, distribution


def _box_term(
    branch: Branch,
    pred: Tensor,
    points: Tensor,
    target: Tensor,
    scores: Tensor,
    divisor: Tensor,
    foreground: Tensor,
    *,
    floor: float,
) -> Tensor:
    """Return the weighted sum of the chosen loss over the positives, boxes in units of their stride."""
    assert branch.box is not None
    at = branch.step_assignment()
    image, anchor = foreground.nonzero(as_tuple=True)
    strides = (at.anchors / points).mean(-1, keepdim=True)
    image_wh = (at.anchors + strides / 2).amax(0)
    stride = strides[anchor].float()
    weight = scores[image, anchor].sum(-1).float()
    loss = branch.box.pairs(
        pred[image, anchor].float(),
        target[image, anchor].float(),
        image_wh=image_wh / stride,
        stride=stride,
        floor=floor,
        **branch.box.prepare(at.step),
    )
    return (loss * weight).sum() / divisor


class DistributionPart(nn.Module):
    """This project's distribution focal loss in place of `bbox_loss.dfl_loss`, or none at all: a zero in the graph."""

    def __init__(self, stock: nn.Module, off: bool) -> None:
        super().__init__()
        self.stock = stock
        self.off = off

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("stock"), name)

    def forward(self, pred_dist: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the four sides of every positive, shape `(N, 1)`.

        Args:
            pred_dist: logits, shape `(4 N, bins)`.
            target: distances in bins, shape `(N, 4)`.
        """
        if self.off:
            return (pred_dist * 0).sum(-1).view(target.shape).mean(-1, keepdim=True)
        target = target.clamp(0, pred_dist.shape[-1] - 1 - 0.01)
        return distribution_focal_loss(pred_dist, target.reshape(-1)).view(target.shape).mean(-1, keepdim=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (self.stock,)

    def __deepcopy__(self, memo: dict[int, Any]) -> DistributionPart:
        return DistributionPart(copy.deepcopy(self.stock, memo), self.off)


def equip(
    criterion: Any,
    settings: LossSettings | Mapping[str, Any],
    branches: dict[str, Branch] | None = None,
    image_size: float | None = None,
) -> dict[str, Branch]:
    """Swap the chosen losses into a criterion that exists already, in place.

    Args:
        criterion: a `v8DetectionLoss` or one made of several (`E2ELoss`, `E2EDetectLoss`, `TVPDetectLoss`); or an
            `RTDETRDetectionLoss`.
        settings: the parsed keys, or a mapping of keys.
        branches: those of a criterion equipped before, to share losses and state with.
        image_size: side of the training images in pixels; only RT-DETR's criterion does not see it for itself.

    Returns:
        The equipped branches by their path, `""` for a criterion that has none. Empty where every term is stock.

    Raises:
        ValueError: where the head cannot use a chosen loss.
        RuntimeError: where this Ultralytics lacks a part, which is named.
    """
    if not isinstance(settings, LossSettings):
        settings = LossSettings.from_mapping(settings)
    from yolo_losses import detr

    if detr.matches_queries(criterion):
        return detr.equip(criterion, settings, branches, image_size)
    found = dict(_walk(criterion))
    if settings.swaps_nothing:
        for part in found.values():
            _restore(part)
        return {}
    if not found:
        key, value = next(iter(settings.non_default().items()))
        raise ValueError(
            f"'{key}={value}' cannot be used with {type(criterion).__name__}, which has no class and box term"
        )
    if settings.loss_branches != "both":
        chosen = {path: c for path, c in found.items() if path.split(".")[0] == settings.loss_branches}
        if not chosen:
            raise ValueError(
                f"'loss_branches={settings.loss_branches}' is not valid: this head has one branch, allowed is both"
            )
        for path in found.keys() - chosen.keys():
            _restore(found[path])
        found = chosen
    equipped = {}
    for path, part in found.items():
        branch = (branches or {}).get(path)
        equipped[path] = _equip_one(part, settings, branch)
    return equipped


def _walk(criterion: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the criteria that a criterion is made of, by their path."""
    inner = [name for name in BRANCH_NAMES if hasattr(criterion, name)]
    if not inner and any(hasattr(criterion, name) for name in PARTS):
        yield path, criterion
    for name in inner:
        yield from _walk(getattr(criterion, name), f"{path}.{name}".lstrip("."))


def _equip_one(criterion: Any, settings: LossSettings, branch: Branch | None) -> Branch:
    missing = [name for name in PARTS if not hasattr(criterion, name)]
    if missing:
        import ultralytics

        raise RuntimeError(
            f"yolo_losses does not know this Ultralytics ({ultralytics.__version__}):"
            f" {type(criterion).__name__} has no '{missing[0]}'"
        )
    _restore(criterion)
    rotated = isinstance(criterion.bbox_loss, RotatedBboxLoss)
    settings.check_boxes(rotated)
    distribution = _distribution(criterion.bbox_loss)
    if settings.dfl_loss != "stock" and not distribution:
        raise ValueError(
            f"'dfl_loss={settings.dfl_loss}' is not valid: this head predicts no distribution, allowed is stock"
        )
    if branch is None:
        cls = registry.make_cls_loss(settings.cls_name, **_own(settings, "cls")) if settings.swaps_cls else None
        box = (
            None if settings.box_loss == "stock" else registry.make_box_loss(settings.box_loss, **_own(settings, "box"))
        )
        upstream = "ultralytics.", "yolo_losses."
        one_hot = all(type(x).__module__.startswith(upstream) for x in (criterion, criterion.assigner))
        branch = Branch(settings, cls, box, one_hot)
        for module in (cls, box):
            if module is not None and getattr(criterion, "device", None) is not None:
                module.to(criterion.device)
    _put(criterion, "assigner", AssignerPart(criterion.assigner, branch))
    if settings.swaps_cls:
        _put(criterion, "bce", ClassPart(criterion.bce, branch))
    if settings.dfl_loss != "stock":
        stock = getattr(criterion.bbox_loss, distribution)
        _put(criterion.bbox_loss, distribution, DistributionPart(stock, settings.dfl_loss == "off"))
    if settings.box_loss != "stock" or settings.dfl_loss != "stock":
        _put(criterion, "bbox_loss", BoxPart(criterion.bbox_loss, branch))
    return branch


def _own(settings: LossSettings, kind: str) -> dict[str, Any]:
    """Return the parameters of the chosen losses of one kind."""
    specs = registry.specs("cls") if kind == "cls" else registry.specs("box") + registry.specs("modifier")
    keys = {p.key for spec in specs for p in spec.parameters}
    return {key: value for key, value in settings.parameters.items() if key in keys}


def _restore(criterion: Any) -> None:
    """Put a criterion's stock parts back."""
    for name in PARTS:
        part = getattr(criterion, name, None)
        if isinstance(part, Part):
            _put(criterion, name, part.stock)
    box = getattr(criterion, "bbox_loss", None)
    dfl = getattr(box, _distribution(box), None)
    if isinstance(dfl, DistributionPart):
        _put(box, _distribution(box), dfl.stock)


def _distribution(bbox_loss: Any) -> str:
    """Return what a box part calls its distribution's term, "" where the head predicts no distribution."""
    if getattr(bbox_loss, "dfl_loss", None) is not None:
        return "dfl_loss"
    return "_df_loss" if getattr(bbox_loss, "use_dfl", False) else ""  # a static method, before Ultralytics 8.2.48


def _put(owner: Any, name: str, part: Any) -> None:
    # In an nn.Module, a child cannot be replaced by something that is none, nor hide a method of the class.
    getattr(owner, "_modules", {}).pop(name, None)
    if isinstance(part, nn.Module) and hasattr(type(owner), name):
        owner.__dict__[name] = part
    else:
        setattr(owner, name, part)


class _Equipped:
    """Equips a stock criterion as it is built; pickled as the stock class, so that no checkpoint needs this package."""

    stock_class: type

    def __init__(
        self, model: nn.Module, *args: Any, settings: LossSettings | Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(model, *args, **kwargs)  # type: ignore[call-arg]
        arguments: Any = model.args
        if settings is None:
            settings = arguments if isinstance(arguments, dict) else vars(arguments)
        self.branches = equip(self, settings)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in self.__dict__.items() if name != "branches"}
        # `copyreg.__newobj__` insists on the class of the object itself.
        return copyreg._reconstructor, (self.stock_class, object, None), state  # type: ignore[attr-defined]


class DetectionLoss(_Equipped, v8DetectionLoss):
    """Ultralytics' `v8DetectionLoss` with the chosen losses.

    Args:
        model: the model, whose `args` hold the training keys where `settings` is not given.
        *args: passed on to the stock class.
        settings: a `LossSettings`, or a mapping of training keys.
        **kwargs: passed on to the stock class.

    Raises:
        ValueError: on a key's value that is not valid, or that this head cannot use.
    """

    stock_class = v8DetectionLoss


class SegmentationLoss(_Equipped, v8SegmentationLoss):
    """Ultralytics' `v8SegmentationLoss` with the chosen losses; arguments as `DetectionLoss`."""

    stock_class = v8SegmentationLoss


class PoseLoss(_Equipped, v8PoseLoss):
    """Ultralytics' `v8PoseLoss` with the chosen losses; arguments as `DetectionLoss`."""

    stock_class = v8PoseLoss


class OBBLoss(_Equipped, v8OBBLoss):
    """Ultralytics' `v8OBBLoss` with the chosen losses; arguments as `DetectionLoss`."""

    stock_class = v8OBBLoss
