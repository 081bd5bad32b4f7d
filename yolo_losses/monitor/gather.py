"""Statistics of the losses of a branch for `loss_stats=True`: sums on the device that are read at the end of an epoch.

Every `EVERY`-th batch of an epoch is measured, starting with the first, so that the cost is below 1 % of training.
Statistics that require a pass over all class scores (the class term against the reference, and by predicted score) use
the first images of the batch, with up to `ELEMENTS` scores; all others use the whole batch. Training is not affected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from yolo_losses.losses._step import sum_over_ranks

EVERY = 10
ELEMENTS = 2**20
EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # bins of the predicted scores
SIDES = (16, 32, 96)  # bins of the objects' sizes, the square root of the area in pixels
SIZES = ("0-16", "16-32", "32-96", "over 96")
LOGITS = tuple(math.log(p / (1 - p)) for p in EDGES[1:-1])


class Statistics:
    """Sums over the measured batches of an epoch, for one branch.

    Attributes:
        calls: number of training calls in the epoch.
        measuring: whether the current call is measured.
        term: the class term of the current call, with classes in the last dimension. The criterion may multiply it by
            class weights in place.
        found: the statistics of the current call by name.
        sums: the sums of all measured calls of the epoch, `None` before the first.
        sizes: the number of values of each statistic in `sums`.
        terms: the names of the criterion's terms.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.measuring = False
        self.term: Tensor | None = None
        self.found: dict[str, Tensor] = {}
        self.sums: Tensor | None = None
        self.sizes: dict[str, int] = {}
        self.terms: tuple[str, ...] = ()

    def begin_epoch(self) -> None:
        """Reset the sums."""
        self.calls = 0
        self.sums = None

    def begin(self) -> None:
        """Begin a call of the criterion; every `EVERY`-th call in training is measured."""
        self.measuring = torch.is_grad_enabled() and self.calls % EVERY == 0
        self.calls += torch.is_grad_enabled()
        self.found = {}
        self.term = None

    def sample(self, logits: Tensor) -> int:
        """Return how many images of a batch are used for a pass over all class scores."""
        return min(len(logits), max(1, ELEMENTS // max(logits[0].numel(), 1))) if len(logits) else 0

    @torch.no_grad()
    def add_class_term(
        self,
        logits: Tensor,
        values: Tensor,
        gradient: Tensor | None,
        reference: Tensor,
        reference_gradient: Tensor,
        positive: Tensor,
        factor: Tensor | float = 1.0,
    ) -> None:
        """Add the class term of some images, given per element, and compare it with the reference.

        Args:
            logits: shape `(b, anchors, C)`.
            values: the loss per element, same shape.
            gradient: gradient of the sum of the loss at the logits, same shape, or `None`.
            reference: the sum of the stock loss with its own targets.
            reference_gradient: same shape as the logits.
            positive: which elements are the class of a positive, same shape.
            factor: the factor on the loss and its gradient.
        """
        own, stock = (torch.zeros_like(logits) if g is None else g.float() for g in (gradient, reference_gradient))
        squares = torch.stack((own.square() * (factor * factor), stock.square()))
        value = torch.stack((values.sum() * factor, reference))
        self.found["against"] = torch.cat((value, squares.sum((1, 2, 3)), (squares * positive).sum((1, 2, 3))))
        above = [values.sum((0, 1))]
        above += [torch.where(logits > edge, values, 0).sum((0, 1)) for edge in LOGITS]
        above.append(torch.zeros_like(above[0]))
        self.found["by_score"] = torch.stack([more - less for more, less in pairwise(above)])

    @torch.no_grad()
    def add_positives(self, images: int, positives: Tensor, mean_iou: Tensor, more: Mapping[str, Tensor]) -> None:
        """Add the number of images and of positives, the mean IoU of the positives, and statistics of the loss."""
        self.found["images"] = positives.new_full((), images)
        self.found["positives"] = positives
        self.found["iou"] = mean_iou * positives
        self.found.update(more)

    @torch.no_grad()
    def add_objects(self, sides: Tensor, valid: Tensor, positives: Tensor, targets: Tensor) -> None:
        """Add the assignment of the objects by their size.

        Args:
            sides: the square root of each object's area in training pixels, shape `(b, n)`.
            valid: which of them are objects rather than padding, same shape.
            positives: number of positives of each object, same shape.
            targets: sum of their target scores, same shape.
        """
        size = torch.stack([sides >= side for side in SIDES]).sum(0).view(-1)
        per_object = (
            torch.stack((torch.ones_like(positives), (positives == 0).to(positives), positives, targets)) * valid
        )
        self.found["by_size"] = per_object.new_zeros(4, len(SIZES)).index_add_(
            1, size, per_object.view(4, sides.numel())
        )

    @torch.no_grad()
    def end(self, terms: Mapping[str, Tensor], by_class: bool) -> None:
        """Add the current call to the sums.

        Args:
            terms: the detached terms of the loss by name, with their gains.
            by_class: whether a class is the same one in every batch.
        """
        if not self.measuring:
            return
        self.measuring = False
        self.terms = tuple(terms)
        found = {"terms": torch.stack([term.float() for term in terms.values()]), **self.found}
        term, self.term, self.found = self.term, None, {}
        if term is not None:
            sums = term.detach().reshape(-1, term.shape[-1]).sum(0)
            # The shares by score are those of the first images, and may lack the class weights of the criterion.
            share = found["by_score"] / found["by_score"].sum(0).clamp_min(torch.finfo(sums.dtype).tiny)
            found["by_score"] = (share * sums).sum(1)
            if by_class:
                found["by_class"] = sums
        found["batches"] = torch.ones_like(found["terms"][0])
        sizes = {name: tensor.numel() for name, tensor in found.items()}
        if self.sums is not None and sizes != self.sizes:
            return  # the number of classes differs from that in the first batch of the epoch
        self.sizes = sizes
        dtype = torch.float32 if found["terms"].device.type == "mps" else torch.float64  # Metal has no float64
        vector = torch.cat([tensor.reshape(-1).to(dtype) for tensor in found.values()])
        # A batch that overflowed does not count.
        vector = torch.where(vector.isfinite().all(), vector, 0)
        self.sums = vector if self.sums is None else self.sums + vector


def named_terms(items: Any) -> Mapping[str, Tensor]:
    """Return the detached terms of a criterion by name; before Ultralytics 8.4.104 they have no names, only numbers."""
    return items if isinstance(items, Mapping) else {str(number): term for number, term in enumerate(items)}


def has_prompts(*candidates: Any) -> bool:
    """Return whether the arguments of a criterion contain a batch with prompts, whose classes differ by batch."""
    return any(isinstance(batch, Mapping) and ("texts" in batch or "visuals" in batch) for batch in candidates)


def read(branches: Mapping[str, Any], classes: Sequence[str] = (), terms: Sequence[str] = ()) -> dict[str, float]:
    """Return the columns of an epoch for every branch, summed over ranks; this synchronizes once.

    Args:
        branches: the branches by path.
        classes: names of the classes, used if their number fits.
        terms: names of the terms, used if the criterion has none.

    Returns:
        The values by column: the path of the branch, if any, a slash, and the name of the statistic, see
        `docs/loss-stats.md`.
    """
    measured = {path: b for path, b in branches.items() if b.statistics is not None and b.statistics.sums is not None}
    reduced = {path: b.statistics.sums for path, b in measured.items() if b.joined}
    if reduced:
        total = sum_over_ranks(torch.cat(list(reduced.values())))
        reduced = dict(zip(reduced, total.split([len(sums) for sums in reduced.values()]), strict=True))
    vectors = [reduced.get(path, b.statistics.sums) for path, b in measured.items()]
    factors = [b.scale.factor.view(1) for b in measured.values() if b.scale is not None]
    if not vectors:
        return {}
    numbers = iter(torch.cat([*vectors, *(factor.to(vectors[0]) for factor in factors)]).tolist())
    sums = {
        path: {name: [next(numbers) for _ in range(size)] for name, size in b.statistics.sizes.items()}
        for path, b in measured.items()
    }
    columns: dict[str, float] = {}
    for path, b in measured.items():
        scale = None if b.scale is None else next(numbers)
        own_terms = b.statistics.terms
        if len(terms) == len(own_terms) and "0" in own_terms:
            own_terms = terms
        own = _columns(own_terms, sums[path], classes, "bce" if b.reference == "BCE" else "stock", scale)
        columns.update({f"{path}/{name}" if path else name: value for name, value in own})
    return columns


def _columns(
    terms: Sequence[str], sums: Mapping[str, list[float]], classes: Sequence[str], reference: str, scale: float | None
) -> Iterator[tuple[str, float]]:
    """Yield the columns of a branch."""
    (batches,) = sums["batches"]
    yield "batches", batches
    yield from _shares("share", [term.removesuffix("_loss") for term in terms], sums["terms"])
    if "against" in sums:
        own, stock = sums["against"][::2], sums["against"][1::2]
        value, gradient, positives = (_ratio(a, b) for a, b in zip(own, stock, strict=True))
        yield f"cls_to_{reference}/value", value
        yield f"cls_to_{reference}/gradient", gradient**0.5
        yield f"cls_to_{reference}/gradient_positives", positives**0.5
    if scale is not None:
        yield "cls_scale", scale
    if "positives" in sums:
        (images,), (positives,), (iou,) = (sums[name] for name in ("images", "positives", "iou"))
        yield "positives", _ratio(positives, images)
        yield "mean_iou", _ratio(iou, positives)
    if "by_size" in sums:
        yield from _by_size(sums["by_size"])
    if "threshold" in sums:
        yield "threshold", _ratio(sums["threshold"][0], batches)
    if "by_score" in sums:
        yield from _shares("by_score", [f"{low}-{high}" for low, high in pairwise(EDGES)], sums["by_score"])
    if "by_class" in sums:
        count = len(sums["by_class"])
        names = classes if len(classes) == count else [str(number) for number in range(count)]
        yield from _shares("by_class", names, sums["by_class"])


def _by_size(sums: Sequence[float]) -> Iterator[tuple[str, float]]:
    """Yield the columns of the assignment by size of object."""
    objects, without, positives, targets = (sums[i : i + len(SIZES)] for i in range(0, len(sums), len(SIZES)))
    columns = {
        "objects": objects,
        "without_positive": map(_ratio, without, objects),
        "positives_per_object": map(_ratio, positives, objects),
        "mean_target": map(_ratio, targets, positives),
    }
    for group, values in columns.items():
        yield from ((f"{group}/{size}", value) for size, value in zip(SIZES, values, strict=True))


def _shares(group: str, names: Sequence[str], values: Sequence[float]) -> Iterator[tuple[str, float]]:
    total = sum(values)
    for name, value in zip(names, values, strict=True):
        yield f"{group}/{name}", _ratio(value, total)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
