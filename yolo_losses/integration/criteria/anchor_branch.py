"""The branch of a criterion with anchors, and the part in place of its assigner, which is the first that it calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from yolo_losses.integration import context
from yolo_losses.integration.criteria.assignment import Assignment
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.criteria.parts import Part


@dataclass
class AnchorBranch(Branch):
    """The branch of a criterion with anchors.

    Attributes:
        assignment: of the current call; each part takes it once.
        taken: the parts that took it.
    """

    assignment: Assignment | None = None
    taken: tuple[str, ...] = ()

    def take(self, part: str) -> Assignment:
        """Return the assignment of the current call, once for each part.

        Raises:
            RuntimeError: where the assigner was not called since the part last took an assignment.
        """
        if self.assignment is None or part in self.taken:
            raise RuntimeError(
                f"yolo_losses: {self.name} asked for its {part} term without calling the assigner that was set up: it"
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


class AssignerPart(Part):
    """The stock assigner, observed: its output is never changed, since the box term weights with it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the stock assigner returns."""
        branch: AnchorBranch = self.branch
        with context.within_part():
            assigned = self.stock(*args, **kwargs)
        boxes = kwargs["pd_bboxes"] if "pd_bboxes" in kwargs else args[1]
        anchors = kwargs["anc_points"] if "anc_points" in kwargs else args[2]
        scores, mask = assigned[2], assigned[3]
        # Where all scores have vanished the box term, which is weighted by them, has no gradient to show.
        branch.begin(lambda compared: scores.any() if compared else _Lazily(mask))
        branch.forget()
        branch.assignment = Assignment(boxes, anchors, assigned, branch.training)
        branch.taken = ()
        return assigned


class _Lazily:
    """Whether a mask has an element that is true, computed when it is asked for."""

    def __init__(self, mask: Any) -> None:
        self.mask = mask

    def __bool__(self) -> bool:
        return bool(self.mask.any())
