"""The chosen losses in the criteria of one model: equipped, proven, their state moved once per batch."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from yolo_losses._log import PREFIX
from yolo_losses.config import class_weights
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration import criteria
from yolo_losses.integration.context import Context
from yolo_losses.integration.criteria import semantic_mask_part
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.criteria.ledger import UnprovenError
from yolo_losses.integration.criteria.parts import Part
from yolo_losses.losses._state import commit_collected

ROLES = ("training", "validation")  # what the criteria of the model and of its EMA are for


class Equipment:
    """The chosen losses of one model.

    Args:
        model: whose parameters are trained.
        settings: the parsed keys, class weights by name where they were given so.
        names: the names of the classes in their order.
        image_size: side of the training images in pixels.

    Raises:
        ValueError: if the head has no such term.

    Attributes:
        equipped: the settings with class weights in the order of the classes.
        branches: by path; those of a further criterion of the model under the name of its attribute.
        criteria: the model's and the EMA's, by role.
        proven: the paths of the branches that were logged as proven.
        arguments: this package's keys among the model's `args`, as they were equipped.
        steps: of the optimizer, in a loop that no run follows.
    """

    def __init__(self, model: Any, settings: LossSettings, names: Sequence[str], image_size: float) -> None:
        semantic_mask_part.check_head(model, settings)
        self.settings = settings
        weights = settings.cls_weights
        self.names = list(names) if weights != class_weights.NONE else []
        if isinstance(weights, tuple) and not self.names:  # a model that has no names of its classes
            self.names = [str(number) for number in range(len(weights))]
        self.equipped = settings.weighted_by(class_weights.by_class(settings.cls_weights, self.names))
        self.image_size = image_size
        self.branches: dict[str, Branch] = {}
        self.criteria: dict[str, Any] = {}
        self.proven: list[str] = []
        self._paths: dict[str, dict[str, str]] = {}  # in each attribute: the path there, and in `branches`
        self._model = weakref.ref(model)
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self.arguments: Mapping[str, Any] = {}
        self.steps = 0

    def equip(self, role: str, criterion: Any, name: str = "") -> None:
        """Equip a criterion with the losses and the state that all criteria of the model share.

        Args:
            role: `training` or `validation`.
            criterion: the criterion.
            name: of the model's attribute that holds it, where it is not the model's `criterion`.
        """
        found = criteria.equip(criterion, self.equipped, self._branches_at(name), self.image_size)
        self._paths[name] = {path: f"{name}.{path}".strip(".") for path in found}
        for path, branch in found.items():
            branch.join_training()
            self.branches[self._paths[name][path]] = branch
        if not name:
            self.criteria[role] = criterion

    def is_equipped(self, criterion: Any, name: str = "") -> bool:
        """Return whether the parts in a criterion are this model's."""
        found, wanted = criteria.branches_of(criterion), self._branches_at(name)
        return bool(found) and found.keys() == wanted.keys() and all(found[path] is wanted[path] for path in found)

    def _branches_at(self, name: str) -> dict[str, Branch]:
        """Return the branches of the criterion that an attribute of the model holds."""
        paths = self._paths.get(name, {})
        return {path: self.branches[whole] for path, whole in paths.items()}

    # ------------------------------------------------------------------------------------------- criteria not seen yet

    def notice(self, running: Context, called: Any) -> Any:
        """Return the part to be called in place of a stock assigner or criterion, `None` if it is to be stock.

        A model may build a criterion in its first batch, or hold a second one: it is equipped as it is called.

        Args:
            running: whose loss is being computed.
            called: the assigner, or the criterion of a kind without one.

        Raises:
            UnprovenError: if it belongs to no criterion of the model.
        """
        if called in self._known:
            return None
        for name, criterion, owner, attribute in _first_parts(running.model):
            part = getattr(owner, attribute, None)
            if owner is not called and part is not called and getattr(part, "stock", None) is not called:
                continue
            if isinstance(part, Part) or self.is_equipped(criterion, name):
                self._known.add(called)
                return None
            self.equip(running.role, criterion, name)
            self._known.add(called)
            part = getattr(owner, attribute)
            return part if isinstance(part, Part) else None
        raise UnprovenError(
            f"{PREFIX}{self.settings.describe()} is set, but the loss of this batch calls a {type(called).__name__} of"
            " a criterion that is no attribute of the model and would train a stock loss: make it one, or equip it with"
            " yolo_losses.equip(criterion, keys)"
        )

    # ------------------------------------------------------------------------------------------------------- the proof

    @property
    def calls_begun(self) -> int:
        """Number of calls of the criteria in training."""
        return sum(branch.ledger.batches for branch in self.branches.values())

    @property
    def calls_proven(self) -> int:
        """Number of settled calls with objects."""
        return sum(branch.ledger.calls for branch in self.branches.values())

    def settle(self, stepping: bool) -> None:
        """Check what the calls since the last time have shown; see `Branch.settle`."""
        for branch in self.branches.values():
            branch.settle(stepping)

    def discard(self) -> None:
        """Drop what the calls of a batch that was given up have shown."""
        for branch in self.branches.values():
            branch.ledger.discard()

    def newly_proven(self) -> bool:
        """Return whether a branch was proven since this was last asked."""
        proven = [path for path, b in self.branches.items() if not b.settings.swaps_nothing and b.proven]
        if proven == self.proven:
            return False
        self.proven = proven
        return True

    def commit(self, joined: bool) -> None:
        """Commit the state that the batch's calls collected; with `joined` every rank has to call this."""
        commit_collected((module for branch in self.branches.values() for module in branch.stateful()), joined)

    def clear(self) -> None:
        """Note that the gradients of the model were set to zero."""
        for branch in self.branches.values():
            branch.ledger.clear()

    def recheck(self) -> None:
        """Have the gradients of the next batch with objects followed again."""
        for branch in self.branches.values():
            branch.ledger.due = True

    def trains(self, optimizer: Any) -> bool:
        """Return whether an optimizer has parameters of the model."""
        if not any(branch.ledger.records for branch in self.branches.values()):
            return False
        model = self._model()
        own = {id(parameter) for parameter in model.parameters()} if model is not None else set()
        return any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"])

    def check_called(self, calls_before: int, loss: Any) -> None:
        """Raise if a loss was computed without the criteria that are equipped.

        Raises:
            UnprovenError: that says so.
        """
        if self.calls_begun == calls_before and float(torch.as_tensor(loss).detach().abs().sum()) > 0:
            raise UnprovenError(
                f"{PREFIX}{self.settings.describe()} is set, but the loss of this batch was computed without the"
                " criterion that holds it: the model's 'loss' or its criterion was replaced"
            )


def _first_parts(model: Any) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield the part that each criterion of a model calls first.

    Yields:
        The attribute of the model, "" for its `criterion`; its value; the criterion in it; the name of the part.
    """
    held = {**vars(model), **getattr(model, "_modules", {})}
    held = {"": getattr(model, "criterion", None), **held}
    for name, value in held.items():
        if name in ("criterion", "model", "args", "_modules", "yaml", "names"):
            continue
        kind = criteria.kind_of(value)
        for _, owner, attribute in kind.first_parts(value) if kind is not None else ():
            yield name, value, owner, attribute
