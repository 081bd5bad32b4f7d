"""The branch of a criterion with anchors, and the part in place of its assigner, which is the first that it calls."""

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
        assignment: of the current call; each part takes it once.
        taken: the parts that took it.
        strides: of the positives of the current call, shape `(N, 1, 1)`, where the keypoint term needs them.
        keypoint_weights: shape `(K,)`; `None`: none.
        weight: of the one-to-many branch in the current epoch, where its gains are scaled (`schedule`).
        weight_range: those of the first and of the last epoch; `None`: the gains are not scaled.
    """

    assignment: Assignment | None = None
    taken: tuple[str, ...] = ()
    strides: Tensor | None = None
    keypoint_weights: Tensor | None = None
    weight: float = 1.0
    weight_range: tuple[float, float] | None = None

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Begin an epoch, with its weight; see `Branch`."""
        super().begin_epoch(epoch, epochs)
        if self.weight_range is not None:
            start, end = self.weight_range
            self.weight = start + (end - start) * min(epoch / max(epochs - 1, 1), 1)

    def take(self, part: str) -> Assignment:
        """Return the assignment of the current call, once for each part.

        Raises:
            RuntimeError: if the assigner was not called since the part last took an assignment.
        """
        if self.assignment is None or part in self.taken:
            raise RuntimeError(
                f"{PREFIX}{self.name} asked for its {part} term without calling the assigner that was set up: it"
                " was replaced after set-up, or a subclass or a fork does not call it"
            )
        self.taken += (part,)
        return self.assignment

    def record(self, term: str, output: Any) -> Any:
        """Enter what the part of a term returns; the assignment is dropped once every part has taken it."""
        if {"class", "box"}.intersection(self.expected) <= {*self.taken}:
            self.forget()
        return super().record(term, output)

    def forget(self) -> None:
        """Drop the assignment of the current call."""
        if self.assignment is not None:
            self.assignment.release()
        self.assignment = None

    def settle(self, stepping: bool, lenient: bool = False) -> None:
        """Close the open records; see `Branch`."""
        self.forget()
        super().settle(stepping, lenient)


ARGUMENTS = ("pd_scores", "pd_bboxes", "anc_points", "gt_labels", "gt_bboxes", "mask_gt")


class AssignerPart(Part):
    """The stock assigner with the values of the chosen keys, observed.

    Its output is never changed, since the box term weights with it. Attributes that a key sets read as set.
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
        # Where all scores have vanished the box term, which is weighted by them, has no gradient to show.
        branch.begin(lambda compared: scores.any() if compared else _Lazily(mask))
        branch.forget()
        branch.assignment = Assignment(given["pd_bboxes"], anchors, assigned, branch.training)
        branch.taken = ()
        if "assigner" in branch.expected:
            branch.ledger.enter("assigner", scores)
            if branch.compares and branch.positives_per_object is None:
                branch.positives_per_object = float(mask.sum() / given["mask_gt"].sum().clamp_min(1))
        if branch.statistics is not None and branch.statistics.measuring:
            _count_objects(branch, given["gt_bboxes"], given["mask_gt"], assigned[4])
        return assigned


@torch.no_grad()
def _count_objects(branch: AnchorBranch, boxes: Tensor, valid: Tensor, objects: Tensor) -> None:
    """Hand to `loss_stats` what the assigner did for each object.

    Args:
        branch: of the call.
        boxes: of the objects in pixels, `xyxy` or `xywhr`, shape `(b, n, 4 or 5)`.
        valid: 1 where there is an object, 0 where it is padding, shape `(b, n, 1)`.
        objects: the number in its image of each anchor's object, shape `(b, anchors)`.
    """
    assert branch.assignment is not None
    assert branch.statistics is not None
    sides = boxes[..., 2:4] if boxes.shape[-1] == 5 else boxes[..., 2:] - boxes[..., :2]
    found = branch.assignment.by_object(objects, boxes.shape[1])
    branch.statistics.take_objects(sides.prod(-1).sqrt(), valid.squeeze(-1).bool(), *found)


class _Lazily:
    """Whether a mask has an element that is true, computed when it is asked for."""

    def __init__(self, mask: Any) -> None:
        self.mask = mask

    def __bool__(self) -> bool:
        return bool(self.mask.any())
