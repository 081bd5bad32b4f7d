"""The branch of a criterion with anchors, and the part that replaces its assigner, which the criterion calls first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yolo_losses._log import PREFIX
from yolo_losses.integration import context
from yolo_losses.integration.criteria import assigner
from yolo_losses.integration.criteria.assignment import Assignment
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.criteria.parts import Part


@dataclass
class AnchorBranch(Branch):
    """The branch of a criterion with anchors.

    Attributes:
        assignment: the assignment of the current call, which each part consumes once.
        consumers: the parts that have consumed it.
        strides: strides of the positives of the current call, shape `(N, 1, 1)`, if the keypoint term needs them.
        keypoint_weights: weights of the keypoints, shape `(K,)`, or `None`.
        weight: the weight of the one-to-many branch in the current epoch, if its gains are scaled (`schedule`).
        weight_range: the weights of the first and the last epoch; `None` if the gains are not scaled.
    """

    assignment: Assignment | None = None
    consumers: tuple[str, ...] = ()
    strides: Tensor | None = None
    keypoint_weights: Tensor | None = None
    weight: float = 1.0
    weight_range: tuple[float, float] | None = None

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Begin an epoch and set its weight; see `Branch`."""
        super().begin_epoch(epoch, epochs)
        if self.weight_range is not None:
            start, end = self.weight_range
            self.weight = start + (end - start) * min(epoch / max(epochs - 1, 1), 1)

    def consume_assignment(self, part: str) -> Assignment:
        """Return the assignment of the current call, once for each part.

        Raises:
            RuntimeError: if the assigner was not called since the part last consumed an assignment.
        """
        if self.assignment is None or part in self.consumers:
            raise RuntimeError(
                f"{PREFIX}{self.name} asked for its {part} term without calling the assigner that was set up: it"
                " was replaced after set-up, or a subclass or a fork does not call it"
            )
        self.consumers += (part,)
        return self.assignment

    def record(self, term: str, output: Any) -> Any:
        """Record the output of the part of a term; drop the assignment once every part has consumed it."""
        if {"class", "box"}.intersection(self.expected) <= {*self.consumers}:
            self.forget()
        return super().record(term, output)

    def forget(self) -> None:
        """Drop the assignment of the current call."""
        if self.assignment is not None:
            self.assignment.release()
        self.assignment = None

    def settle(self, stepping: bool, allow_unused: bool = False) -> None:
        """Close the open records; see `Branch`."""
        self.forget()
        super().settle(stepping, allow_unused)


ARGUMENTS = ("pd_scores", "pd_bboxes", "anc_points", "gt_labels", "gt_bboxes", "mask_gt")


class AssignerPart(Part):
    """The stock assigner with the values of the chosen keys; its output is recorded in the branch.

    The output is never changed, since the box term is weighted by it. An attribute that a key sets has the value of the
    key.
    """

    def __init__(self, stock: Any, branch: Any) -> None:
        super().__init__(stock, branch)
        self.__dict__["changed"] = assigner.values(stock, branch.settings)

    def __getattr__(self, name: str) -> Any:
        changed = self.__dict__["changed"]
        return changed[name] if name in changed else super().__getattr__(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the stock assigner returns."""
        branch: AnchorBranch = self.branch
        given = {**dict(zip(ARGUMENTS, args, strict=False)), **kwargs}
        anchors = given["anc_points"]
        with context.within_part(), assigner.applied(self.stock, self.changed, len(anchors)):
            assigned = self.stock(*args, **kwargs)
        scores, mask = assigned[2], assigned[3]
        # If all scores are 0, the box term, which is weighted by them, has no gradient.
        branch.begin(lambda compared: scores.any() if compared else _Lazily(mask))
        branch.forget()
        branch.assignment = Assignment(given["pd_bboxes"], anchors, assigned, branch.training)
        branch.consumers = ()
        if "assigner" in branch.expected:
            branch.ledger.enter("assigner", scores)
            if branch.compares and branch.positives_per_object is None:
                branch.positives_per_object = float(mask.sum() / given["mask_gt"].sum().clamp_min(1))
        if branch.statistics is not None and branch.statistics.measuring:
            _count_objects(branch, given["gt_bboxes"], given["mask_gt"], assigned[4])
        return assigned


@torch.no_grad()
def _count_objects(branch: AnchorBranch, boxes: Tensor, valid: Tensor, objects: Tensor) -> None:
    """Add the assignment of each object to the statistics of `loss_stats`.

    Args:
        branch: the branch of the call.
        boxes: boxes of the objects in pixels, `xyxy` or `xywhr`, shape `(b, n, 4 or 5)`.
        valid: 1 for objects, 0 for padding, shape `(b, n, 1)`.
        objects: index of each anchor's object in its image, shape `(b, anchors)`.
    """
    assert branch.assignment is not None
    assert branch.statistics is not None
    sides = boxes[..., 2:4] if boxes.shape[-1] == 5 else boxes[..., 2:] - boxes[..., :2]
    found = branch.assignment.by_object(objects, boxes.shape[1])
    branch.statistics.add_objects(sides.prod(-1).sqrt(), valid.squeeze(-1).bool(), *found)


class _Lazily:
    """Whether any element of a mask is true, computed on demand."""

    def __init__(self, mask: Any) -> None:
        self.mask = mask

    def __bool__(self) -> bool:
        return bool(self.mask.any())
