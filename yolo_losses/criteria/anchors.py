"""Heads whose anchors are assigned to objects (v8, v10, 11, 26; detect, segment, pose, obb): `v8DetectionLoss` and kin.

A `v8DetectionLoss` calls its `assigner`, then its `bce`, then its `bbox_loss`. The assigner is only observed, and its
output never changed; `bce` is replaced by the class part; in `bbox_loss` the one function that computes the IoU is
replaced and its body kept, so that weights, divisor and the distribution term stay its own.
"""

from __future__ import annotations

import copy
import copyreg
import functools
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils.loss import RotatedBboxLoss

from yolo_losses.classification._base import ClassificationLoss
from yolo_losses.criteria import masks, parts
from yolo_losses.criteria.assignment import Assignment
from yolo_losses.criteria.parts import Branch, Part, full_precision
from yolo_losses.criteria.scale import gradient_of, squared_norms
from yolo_losses.criteria.statistics import Statistics, has_prompts, named_terms
from yolo_losses.distribution.dfl import distribution_focal_loss
from yolo_losses.formula import formula_arguments
from yolo_losses.log import say
from yolo_losses.reduction import upcast
from yolo_losses.settings import LossSettings
from yolo_losses.step import Step

PARTS = ("assigner", "bce", "bbox_loss")
IOU_FUNCTIONS = {False: "bbox_iou", True: "probiou"}  # what `bbox_loss` calls for its IoU: axis-aligned, rotated boxes
SKIPPED = ("hyp", "assigner", "bbox_loss", "bce", "yolo_losses_branch", "_modules")  # hold no criterion
WITHIN = "get_assigned_targets_and_loss"  # the body of releases from 8.4.0 on
LOGGED = {"class": "cls_loss", "box": "box_loss"}
TOLERANCE = 0.01  # relative, of a half-precision log


@dataclass
class AnchorBranch(Branch):
    """The branch of a criterion with anchors.

    Attributes:
        one_hot: whether the assigner gives each anchor one class, so that the background is all zeros, and the
            criterion only sums what its class part returns.
        assignment: of the current call; each part takes it once.
        taken: the parts that took it.
        returned: what the class and the box part returned in the current call, to be compared with what is reported.
        running: the criterion that is running.
        logged: under which name or number the criterion reports its class term.
        deviation: largest relative difference between the reported class term and the one that was returned.
    """

    one_hot: bool = True
    assignment: Assignment | None = None
    taken: tuple[str, ...] = ()
    returned: dict[str, Tensor] = field(default_factory=dict)
    running: Any = None
    logged: str | int = "cls_loss"
    deviation: Tensor | None = None

    def forget(self) -> None:
        """Drop what belongs to the call that has ended."""
        self.assignment = None
        self.returned = {}
        self.running = None

    def take(self, part: str) -> Assignment:
        """Return the assignment of the current call, once for each part.

        Raises:
            RuntimeError: where the assigner was not called since the part last took an assignment.
        """
        if self.assignment is None or part in self.taken:
            raise RuntimeError(
                f"yolo_losses: the criterion asked for its {part} term without calling the assigner that was set up"
            )
        self.taken += (part,)
        return self.assignment

    def follow(self, result: Any, criterion: Any) -> None:
        """Compare the reported class term with the returned one on the device, for `check_deviation` to read."""
        items = result[-1]
        known = self.logged in items if isinstance(items, Mapping) else isinstance(self.logged, int)
        if self.assignment is None or not known:
            return
        term = self.returned["class"].detach().sum() * (_gain(criterion) / self.assignment.divisor)
        difference = (items[self.logged] - term).abs_() / term.abs()
        self.deviation = difference if self.deviation is None else torch.fmax(self.deviation, difference)

    def check_deviation(self) -> None:
        """Raise where the criterion reported another class term than the one that was returned to it.

        Raises:
            RuntimeError: that says by how much.
        """
        deviation, self.deviation = self.deviation, None
        if deviation is not None and float(deviation) > TOLERANCE:
            raise RuntimeError(
                f"yolo_losses: the class term that the criterion reports differed by {float(deviation):.0%} from what"
                " its class part returned, in a batch of this epoch: something has begun to weight its elements"
            )

    @property
    def compares(self) -> bool:
        """Whether this call compares terms, which synchronises: the first one with positives in each epoch."""
        return self.check_due and torch.is_grad_enabled() and self.assignment is not None and self.assignment.any


class AssignerPart(Part):
    """The stock assigner, observed: its output is never changed, since the box term weights with it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the stock assigner returns."""
        branch: AnchorBranch = self.branch
        assigned = self.stock(*args, **kwargs)
        boxes = kwargs["pd_bboxes"] if "pd_bboxes" in kwargs else args[1]
        anchors = kwargs["anc_points"] if "anc_points" in kwargs else args[2]
        branch.assignment = Assignment(boxes, anchors, assigned, branch.one_hot, branch.joined)
        branch.taken = ()
        if branch.box is not None and branch.joined and any(True for _ in branch.box.buffers()):
            # A rank without positives may skip its box term; what ranks share is shared here, on every one of them.
            _ = branch.assignment.step.joint_positives
        return assigned


class ClassPart(Part):
    """The class term in place of `bce`."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the class term of a batch.

        Args:
            logits: shape `(b, anchors, C)`.
            targets: the assigner's scores in the logits' precision, of the same shape.

        Returns:
            A fresh float32 tensor that upstream multiplies by the class weights, sums, and divides by the sum of the
            scores where that is above 1: per-class sums `(1, 1, C)`, or per element where the targets are not known to
            be one-hot or the criterion weights elements.
        """
        branch: AnchorBranch = self.branch
        loss, statistics = branch.cls, branch.statistics
        if loss is None:
            return self._observed(logits, targets)
        at = branch.take("class")
        branch.called.add("class")
        compares = branch.compares
        if compares and branch.one_hot and int((at.scores > 0).sum()) != int((at.score > 0).sum()):
            branch.one_hot = at.one_hot = False
        kind = branch.settings.target
        with full_precision(logits):
            summed = branch.one_hot and (at.large or loss.sums_a_batch())
            factor = _factor(loss, kind, at, summed=summed)
            if summed:
                term = loss.class_sums(logits, at.positives(_quality(kind, at)), _step(kind, at))
            else:
                term = _per_element(loss, logits, targets, kind, at, _step(kind, at))
            if branch.scale is not None and torch.is_grad_enabled() and logits.requires_grad:
                norms = squared_norms(gradient_of(term, logits), logits, at.scores)
                if factor is not None:
                    norms[0] *= factor**2
                branch.scale.update(norms, at.scores.any(), branch.joined)
            if statistics is not None and statistics.measuring:
                _measure(branch, statistics, term, logits, at, factor)
            if factor is not None:
                term = term * factor
            if branch.settings.cls_scale != 1:
                term = term * branch.cls_factor
            if compares and not branch.ratios:
                branch.ratios = _against_bce(term, logits, targets, at)
            term = branch.weighted(term)
            if compares or (branch.one_hot and at.large and torch.is_grad_enabled()):
                branch.returned["class"] = term
            if statistics is not None and statistics.measuring:
                statistics.term = term
        return term

    def _observed(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the stock class term, which `loss_stats` looks at."""
        branch: AnchorBranch = self.branch
        term: Tensor = self.stock(logits, targets)
        statistics, at = branch.statistics, branch.assignment
        if statistics is not None and statistics.measuring and at is not None and term.shape == logits.shape:
            with full_precision(logits):
                _measure(branch, statistics, term, logits, at, None)
            statistics.term = term
        return term


def _measure(
    branch: AnchorBranch, statistics: Statistics, term: Tensor, logits: Tensor, at: Assignment, factor: Tensor | None
) -> None:
    """Measure the class term of a call.

    Args:
        branch: of the call.
        statistics: of the branch.
        term: what the loss returned for the logits, as yet without factors.
        logits: shape `(b, anchors, C)`.
        at: what was assigned.
        factor: what cancels upstream's divisor.
    """
    loss, kind, step = branch.cls, branch.settings.target, _step(branch.settings.target, at)
    mean_iou = at.step.mean_iou
    gradient = gradient_of(term, logits) if loss is not None and logits.requires_grad else None
    with torch.no_grad():
        some = statistics.sample(logits)
        sample, z = at.first(some), logits.detach()[:some].float()
        stock = z.sigmoid() - sample.scores
        if term.shape == logits.shape:
            values = term.detach()[:some]
        else:  # summed by class: once more for these images
            assert loss is not None
            values = _per_element(loss, z, sample.scores, kind, sample, step.read_only())
            if loss.own_divisor:
                values = values / logits.numel()
        statistics.take_class_term(
            z,
            values,
            stock if loss is None else gradient if gradient is None else gradient[:some],
            nn.functional.binary_cross_entropy_with_logits(z, sample.scores.float(), reduction="sum"),
            stock,
            sample.assigned_elements,
            branch.cls_factor if factor is None else branch.cls_factor * factor,
        )
        statistics.take_positives(len(logits), at.mask.sum(), mean_iou, loss.shown(step) if loss is not None else {})


def _step(kind: str, at: Assignment) -> Step:
    return at.ciou_step if kind == "ciou" else at.step


def _quality(kind: str, at: Assignment) -> Tensor:
    """Return the target of each positive."""
    if kind == "tal":
        return at.score
    if kind == "hard":
        return torch.ones_like(at.score)
    return at.ciou if kind == "ciou" else at.iou


def _factor(loss: ClassificationLoss, kind: str, at: Assignment, *, summed: bool) -> Tensor | None:
    """Return what cancels upstream's divisor where the loss has another one; `None`: nothing."""
    if loss.own_divisor:  # the loss is a mean: its sums by class are divided already
        return at.divisor if summed else at.divisor / max(at.scores.numel(), 1)
    return None if kind == "tal" else at.divisor / at.count


def _per_element(
    loss: ClassificationLoss, logits: Tensor, targets: Tensor, kind: str, at: Assignment, step: Step
) -> Tensor:
    """Return the class term per element: of small batches, or where targets may be soft in several classes."""
    logits, targets = upcast(logits, targets if kind == "tal" else at.dense(_quality(kind, at)))
    supplied = loss.prepare(step)
    if "positive_mask" in formula_arguments(type(loss).formula) or loss.sums_a_batch():
        supplied["positive_mask"] = at.positive_elements if kind == "tal" else at.assigned_elements
    return loss.per_element(logits, targets, **supplied)


def _against_bce(term: Tensor, logits: Tensor, targets: Tensor, at: Assignment) -> dict[str, float]:
    """Return the class term over BCE's on the same predictions, in value and in gradient norm on the positives."""
    ratios = {"value": float(term.detach().sum() / parts.bce_sum(logits, targets).clamp_min(1e-12))}
    if logits.requires_grad:  # not where the head is frozen
        slope = torch.autograd.grad(term.sum(), logits, retain_graph=True)[0].reshape(-1)[at.element].float()
        stock = logits.detach().reshape(-1)[at.element].float().sigmoid() - at.score.float()
        if at.valid is not None:
            slope, stock = (torch.where(at.valid, each, 0) for each in (slope, stock))
        ratios["pull"] = float(slope.norm() / stock.norm().clamp_min(1e-12))
    return ratios


class BoxPart(Part):
    """The box term in place of `bbox_loss`: its own body, in which the function for the IoU is replaced."""

    def __init__(self, stock: nn.Module, branch: AnchorBranch) -> None:
        super().__init__(stock, branch)
        name = IOU_FUNCTIONS[isinstance(stock, RotatedBboxLoss)]
        self.__dict__["_forward"] = rebound(stock, name, self._overlap)

    def __call__(
        self, pred_dist: Tensor, pred_bboxes: Tensor, anchor_points: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the box term and the distribution's term, weighted and divided as upstream does."""
        branch: AnchorBranch = self.branch
        assert branch.box is not None
        at = branch.take("box")
        if branch.box.wanted & {"stride", "image_wh"}:
            # Further columns of the boxes: upstream selects the positives' rows, and a second selection synchronises.
            strides = at.strides(anchor_points)
            columns = torch.cat((strides, at.image_wh(strides).expand(len(strides), 2)), -1)
            pred_bboxes = torch.cat((pred_bboxes.float(), columns.expand(len(pred_bboxes), -1, -1)), -1)
        self.__dict__["_at"] = at
        try:
            result: tuple[Tensor, Tensor] = self._forward(
                self.stock, pred_dist, pred_bboxes, anchor_points, *args, **kwargs
            )
        finally:
            self.__dict__["_at"] = None
        return result

    def _overlap(self, pred: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return `1 - loss` per pair, where upstream's body expects an overlap.

        Args:
            pred: boxes of the positives in units of their stride, shape `(N, 4)` or `(N, 5)`, and further columns.
            target: their objects, shape `(N, 4)` or `(N, 5)`.
            *args: which overlap upstream would compute.
            **kwargs: the same.
        """
        branch: AnchorBranch = self.branch
        loss = branch.box
        assert loss is not None
        branch.called.add("box")
        sides = target.shape[-1]
        supplied: dict[str, Any] = {"floor": getattr(self.stock, "floor", 0.0)}
        boxes = pred
        if pred.shape[-1] > sides:
            boxes = pred[:, :sides]
            stride = pred[:, sides : sides + 1].detach()
            supplied.update(stride=stride, image_wh=pred[:, sides + 1 :].detach() / stride)
        with full_precision(pred):
            supplied.update(loss.prepare(self._at.step))
            overlap = 1 - loss.pairs(boxes.float(), target.float(), **supplied).unsqueeze(-1)
        if branch.check_due and torch.is_grad_enabled():
            branch.returned["box"] = overlap
        return overlap


def rebound(stock: nn.Module, name: str, function: Any) -> Any:
    """Return the `forward` of a stock part in which one global function is replaced; the part itself is left alone.

    Raises:
        RuntimeError: where it calls no such function.
    """
    kind = type(stock)
    forward: Any = kind.forward
    code = getattr(forward, "__code__", None)
    changed = (
        "forward" in vars(stock) or hasattr(forward, "__wrapped__") or stock._forward_hooks or stock._forward_pre_hooks
    )
    if code is None or name not in code.co_names or changed:
        raise RuntimeError(
            f"yolo_losses does not know the box part {kind.__module__}.{kind.__qualname__}: it does not compute its IoU"
            f" by '{name}' in its own forward, so that a box_loss cannot take that place. Leave box_loss at stock"
        )
    body = types.FunctionType(
        code, {**forward.__globals__, name: function}, forward.__name__, forward.__defaults__, forward.__closure__
    )
    body.__kwdefaults__ = forward.__kwdefaults__
    return body


class DistributionPart(nn.Module):
    """This project's distribution focal loss in place of `bbox_loss.dfl_loss`, or none at all: a zero in the graph."""

    def __init__(self, stock: nn.Module, branch: AnchorBranch) -> None:
        super().__init__()
        self.stock = stock
        self.branch = branch

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
        self.branch.called.add("distribution")
        if self.branch.settings.dfl_loss == "off":
            return (pred_dist * 0).sum(-1).view(target.shape).mean(-1, keepdim=True)
        target = target.clamp(0, pred_dist.shape[-1] - 1 - 0.01)
        return distribution_focal_loss(pred_dist, target.reshape(-1)).view(target.shape).mean(-1, keepdim=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (self.stock,)

    def __copy__(self) -> DistributionPart:
        return DistributionPart(self.stock, self.branch)

    def __deepcopy__(self, memo: dict[int, Any]) -> DistributionPart:
        return DistributionPart(copy.deepcopy(self.stock, memo), self.branch)


class Watched:
    """Mixed into a criterion's class as it is equipped: its calls are watched, its pickle is the stock class's."""

    yolo_losses_branch: AnchorBranch

    def __reduce__(self) -> tuple[Any, ...]:
        own = ("branches", "yolo_losses_branch")
        state = {name: value for name, value in self.__dict__.items() if name not in own}
        # `copyreg.__newobj__` insists on the class of the object itself.
        return copyreg._reconstructor, (stock_class(type(self)), object, None), state  # type: ignore[attr-defined]

    def __copy__(self) -> Any:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        other = memo[id(self)] = object.__new__(type(self))
        other.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return other


@functools.cache
def watched_class(kind: type) -> type:
    """Return the class of criteria of a kind whose calls are watched; named as the kind itself."""

    def watched(name: str) -> Any:
        @functools.wraps(getattr(kind, name))
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            # The body is looked up at each call: the method may have been replaced since.
            return _watched(self, name, functools.partial(getattr(kind, name), self), args, kwargs)

        return call

    # Releases from 8.4.0 on call `loss` for each branch of a head; subclasses may call what is within.
    entries = ("__call__", "loss", WITHIN)
    methods = {name: watched(name) for name in entries if hasattr(kind, name)}
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (Watched, kind), {**names, **methods})


def unwatched_class(kind: type) -> type:
    """Return the class that a criterion had before it was equipped."""
    return kind.__mro__[2] if Watched in kind.__bases__ else kind


def stock_class(kind: type) -> type:
    """Return the class that a criterion's pickle is of."""
    return getattr(unwatched_class(kind), "stock_class", unwatched_class(kind))


def _watched(criterion: Any, entry: str, body: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a criterion's body and prove that its parts ran, and that its terms are made of what they returned."""
    branch: AnchorBranch = criterion.yolo_losses_branch
    if branch.running is not None:  # `__call__` has called `loss`
        return body(*args, **kwargs)
    check_in_place(criterion)
    branch.running = criterion
    statistics = branch.statistics
    if statistics is not None:
        statistics.begin()
    try:

        def no_positives() -> bool:
            return branch.assignment is not None and not bool(branch.assignment.mask.any())

        def call() -> Any:
            return parts.watch(criterion, branch, body, args, kwargs, no_positives)

        result = call()
        if branch.returned and branch.compares:
            differs = _term_that_differs(criterion, branch, result, entry)
            if differs == "class" and branch.one_hot:
                # The step has not been taken yet: the same batch again, with values that the body can weight.
                branch.one_hot = False
                say(f"{type(criterion).__name__} weights the elements of its class term: it gets one value per element")
                result = call()
                differs = _term_that_differs(criterion, branch, result, entry)
            if differs:
                raise RuntimeError(parts.differs(criterion, branch, differs))
            branch.check_due = False
        elif "class" in branch.returned:
            branch.follow(result, criterion)
        if statistics is not None and statistics.measuring:
            statistics.end(named_terms(result[-1]), by_class=not has_prompts(*args, *kwargs.values()))
        return result
    finally:
        branch.forget()


def check_in_place(criterion: Any) -> None:
    """Raise a `RuntimeError` where a part of an equipped criterion was replaced after set-up."""
    for owner, name, kind in _places(criterion, criterion.yolo_losses_branch):
        part = getattr(owner, name, None)
        if not isinstance(part, kind):
            raise parts.replaced(criterion, name, part)


def _places(criterion: Any, branch: AnchorBranch) -> Iterator[tuple[Any, str, type]]:
    """Yield where the parts of an equipped criterion are."""
    if branch.expected:
        yield criterion, "assigner", AssignerPart
    if "class" in branch.expected:
        yield criterion, "bce", ClassPart
    if "box" in branch.expected:
        yield criterion, "bbox_loss", BoxPart
    if "distribution" in branch.expected:
        box = getattr(criterion.bbox_loss, "stock", criterion.bbox_loss)
        yield box, _distribution(box), DistributionPart
    if "mask" in branch.expected:
        yield criterion, masks.METHOD, masks.MaskPart


def _term_that_differs(criterion: Any, branch: AnchorBranch, result: Any, entry: str) -> str:
    """Return the term of a criterion that is not made of what its part returned; "" where there is none.

    What a term owes to a part is the part's result times the loss's derivative by it: that must be the term that is
    reported. Per-class sums must besides come out as their sum over the divisor, times the gain: a body that weights
    elements would broadcast them.
    """
    at = branch.assignment
    assert at is not None
    loss, items = result[-2], result[-1]
    images = 1 if entry == WITHIN else len(at.scores)
    total = loss.sum()
    logged = items if isinstance(items, Mapping) else dict(enumerate(items))
    values = {name: float(value) for name, value in logged.items()}
    if not all(math.isfinite(value) for value in (float(total.detach()), *values.values())):
        return ""  # a batch that overflowed says nothing; the next one is compared
    for term, tensor in branch.returned.items():
        if not tensor.requires_grad:
            continue
        (share,) = torch.autograd.grad(total, tensor, retain_graph=True, allow_unused=True)
        own = (tensor if term == "class" else tensor - 1).detach()  # the box part returns 1 - loss
        owed = 0.0 if share is None else float((own * share).sum()) / images
        key = LOGGED[term]
        names = [key] if key in values else [] if isinstance(items, Mapping) else list(values)
        found = [name for name in names if _close(values[name], owed) or _close(values[name], owed * images)]
        if names and not found:
            return term
        if term == "class" and found:
            branch.logged = found[0]
            if branch.one_hot:
                expected = float(tensor.detach().sum() / at.divisor) * _gain(criterion)
                if not any(_close(values[name], wanted) for name in found for wanted in (expected, expected * images)):
                    return term
    return ""


def _close(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= TOLERANCE * max(abs(wanted), 1e-6)


def _gain(criterion: Any) -> float:
    hyp = criterion.hyp
    return float(hyp.get("cls", 1.0) if isinstance(hyp, Mapping) else getattr(hyp, "cls", 1.0))


LAST = True  # matches by what a criterion holds: a kind that knows the criterion itself comes first


def matches(criterion: Any) -> bool:
    """Return whether a criterion, or one that it holds, is of this kind."""
    return any(True for _ in leaves(criterion))


def leaves(criterion: Any, path: str = "", depth: int = 12, seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield the criteria that a criterion is made of, by their path, auxiliary ones included."""
    seen = set() if seen is None else seen
    if depth == 0 or id(criterion) in seen or isinstance(criterion, Part | Tensor | str | bytes | type):
        return
    seen.add(id(criterion))  # a criterion may know its model, and the model its criterion
    if isinstance(criterion, Mapping):
        inner = {str(name): value for name, value in criterion.items()}
    elif isinstance(criterion, list | tuple):
        inner = {str(number): value for number, value in enumerate(criterion)}
    else:
        if sum(hasattr(criterion, name) for name in PARTS) >= 2:
            yield path, criterion
        attributes = getattr(criterion, "__dict__", {})
        inner = {k: v for k, v in {**attributes, **attributes.get("_modules", {})}.items() if k not in SKIPPED}
    for name, value in inner.items():
        yield from leaves(value, f"{path}.{name}".lstrip("."), depth - 1, seen)


def equip(
    criterion: Any, settings: LossSettings, branches: Mapping[str, Branch], image_size: float | None = None
) -> dict[str, Branch]:
    """Swap the chosen losses into a criterion with anchors in place; arguments and errors as `criteria.equip`."""
    found = dict(leaves(criterion))
    if settings.is_default:
        for leaf in found.values():
            restore(leaf)
        return {}
    equipped: dict[str, Branch] = {}
    if settings.loss_branches != "both":
        chosen = {path: c for path, c in found.items() if path.split(".")[0] == settings.loss_branches}
        if not chosen:
            raise ValueError(
                f"'loss_branches={settings.loss_branches}' is not valid: this head has one branch, allowed is both"
            )
        for path, leaf in found.items():
            if path not in chosen:
                restore(leaf)
                if settings.loss_stats:
                    equipped[path] = _equip_one(leaf, LossSettings(loss_stats=True), branches.get(path), path)
        found = chosen
    equipped |= {path: _equip_one(leaf, settings, branches.get(path), path) for path, leaf in found.items()}
    return equipped


def _equip_one(criterion: Any, settings: LossSettings, branch: Branch | None, path: str) -> AnchorBranch:
    missing = [name for name in PARTS if not hasattr(criterion, name)]
    if missing:
        raise parts.unknown_release(criterion, missing[0])
    restore(criterion)
    settings.check_boxes(isinstance(criterion.bbox_loss, RotatedBboxLoss))
    parts.check_class_weights(criterion, settings)
    distribution = _distribution(criterion.bbox_loss)
    swaps_distribution = settings.dfl_loss != "stock"
    if swaps_distribution and not distribution:
        raise ValueError(
            f"'dfl_loss={settings.dfl_loss}' is not valid: this head predicts no distribution, allowed is stock"
        )
    if settings.swaps_seg:
        masks.check(criterion, settings)
    if not isinstance(branch, AnchorBranch):
        branch = AnchorBranch.build(
            settings,
            expected=settings.terms,
            # A rank whose batch has the classes' own prompts returns before this criterion: ranks must not wait there.
            joined="vp_criterion" not in path.split("."),
            one_hot=all(
                type(x).__module__.startswith(("ultralytics.", "yolo_losses.")) for x in (criterion, criterion.assigner)
            ),
        )
        if branch.cls is not None and hasattr(criterion, "nc"):
            branch.cls.set_classes(criterion.nc)
        for module in branch.modules.values():
            if getattr(criterion, "device", None) is not None:
                module.to(criterion.device)
    if swaps_distribution:
        stock = getattr(criterion.bbox_loss, distribution)
        parts.put(criterion.bbox_loss, distribution, DistributionPart(stock, branch))
    if settings.swaps_box:
        parts.put(criterion, "bbox_loss", BoxPart(criterion.bbox_loss, branch))
    if settings.swaps_cls or settings.loss_stats:
        parts.put(criterion, "bce", ClassPart(criterion.bce, branch))
    if settings.swaps_seg:
        masks.put(criterion, branch)
    parts.put(criterion, "assigner", AssignerPart(criterion.assigner, branch))
    criterion.yolo_losses_branch = branch
    kind: type = type(criterion)
    criterion.__class__ = watched_class(kind)
    return branch


def shown(criterion: Any) -> str:
    """Return which of several losses of a kind the log shows, "" where there is one."""
    if not hasattr(criterion, "one2one"):
        return ""
    return "one2one" if hasattr(criterion, "o2o") else "the sum of one2many and one2one"


def is_equipped(criterion: Any, branches: Mapping[str, Branch]) -> bool:
    """Return whether the parts of these branches are in place."""
    return all(getattr(_at(criterion, path), "yolo_losses_branch", None) is b for path, b in branches.items())


def _at(criterion: Any, path: str) -> Any:
    """Return the criterion at a path, `None` where there is none."""
    for name in filter(None, path.split(".")):
        if isinstance(criterion, Mapping):
            criterion = {str(key): value for key, value in criterion.items()}.get(name)
        elif isinstance(criterion, list | tuple):
            criterion = dict(enumerate(criterion)).get(int(name))
        else:
            criterion = getattr(criterion, name, None)
    return criterion


def restore(criterion: Any) -> None:
    """Put a criterion's stock parts, and its class, back."""
    for name in PARTS:
        part = getattr(criterion, name, None)
        if isinstance(part, Part):
            parts.put(criterion, name, part.stock)
    box = getattr(criterion, "bbox_loss", None)
    dfl = getattr(box, _distribution(box), None)
    if isinstance(dfl, DistributionPart):
        parts.put(box, _distribution(box), dfl.stock)
    masks.restore(criterion)
    if isinstance(criterion, Watched):
        del criterion.yolo_losses_branch
        criterion.__class__ = unwatched_class(type(criterion))


def _distribution(bbox_loss: Any) -> str:
    """Return what a box part calls its distribution's term, "" where the head predicts no distribution."""
    if getattr(bbox_loss, "dfl_loss", None) is not None:
        return "dfl_loss"
    return "_df_loss" if getattr(bbox_loss, "use_dfl", False) else ""  # a static method, before Ultralytics 8.2.48
