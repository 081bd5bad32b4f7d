"""The chosen losses in the criteria of one model: equipping, the proof that they ran, and one update per batch."""

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

ROLES = ("training", "validation")  # of the criteria of the model and of its EMA


class Equipment:
    """The chosen losses of one model.

    Args:
        model: the model that is trained.
        settings: the parsed keys; class weights may be given by name.
        names: names of the classes by index.
        image_size: side of the training images in pixels.

    Raises:
        ValueError: if the head lacks a chosen term.

    Attributes:
        equipped: the settings with class weights by index.
        branches: the branches by path; the path of an additional criterion starts with the name of its attribute.
        criteria: the criteria of the model and of its EMA, by role.
        proven: the paths of the branches that have been logged as proven.
        arguments: this package's keys among the model's `args` when it was equipped.
        steps: number of steps of the optimizer, in a custom training loop.
    """

    def __init__(self, model: Any, settings: LossSettings, names: Sequence[str], image_size: float) -> None:
        semantic_mask_part.check_head(model, settings)
        self.settings = settings
        weights = settings.cls_weights
        self.names = list(names) if weights != class_weights.NONE else []
        if isinstance(weights, tuple) and not self.names:  # a model without names of its classes
            self.names = [str(number) for number in range(len(weights))]
        self.equipped = settings.weighted_by(class_weights.by_class(settings.cls_weights, self.names))
        self.image_size = image_size
        self.branches: dict[str, Branch] = {}
        self.criteria: dict[str, Any] = {}
        self.proven: list[str] = []
        self._paths: dict[str, dict[str, str]] = {}  # by attribute: path in the criterion -> path in `branches`
        self._model = weakref.ref(model)
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self.arguments: Mapping[str, Any] = {}
        self.steps = 0

    def equip(self, role: str, criterion: Any, name: str = "") -> None:
        """Equip a criterion. All criteria of the model share losses and state.

        Args:
            role: `training` or `validation`.
            criterion: the criterion.
            name: name of the model's attribute that refers to it, if it is not `criterion`.
        """
        found = criteria.equip(criterion, self.equipped, self._branches_at(name), self.image_size)
        self._paths[name] = {path: f"{name}.{path}".strip(".") for path in found}
        for path, branch in found.items():
            branch.join_training()
            self.branches[self._paths[name][path]] = branch
        if not name:
            self.criteria[role] = criterion

    def is_equipped(self, criterion: Any, name: str = "") -> bool:
        """Return whether a criterion is equipped with the branches of this model."""
        found, wanted = criteria.branches_of(criterion), self._branches_at(name)
        return bool(found) and found.keys() == wanted.keys() and all(found[path] is wanted[path] for path in found)

    def _branches_at(self, name: str) -> dict[str, Branch]:
        """Return the branches of the criterion in an attribute of the model."""
        paths = self._paths.get(name, {})
        return {path: self.branches[whole] for path, whole in paths.items()}

    # ------------------------------------------------------------------------------------------- unknown criteria

    def equip_called(self, running: Context, called: Any) -> Any:
        """Equip the criterion whose stock part is being called, and return the part to call instead.

        A model may build its criterion in the first batch, or have a second one.

        Args:
            running: the model whose loss is being computed.
            called: the assigner, or the criterion if its kind has no assigner.

        Returns:
            The part, or `None` if the stock one is to be called.

        Raises:
            UnprovenError: if `called` belongs to no criterion of the model.
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
            " a criterion that is not an attribute of the model and would train a stock loss: make it an attribute, or"
            " equip it with yolo_losses.equip(criterion, keys)"
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
        """Check the calls since the last time; see `Branch.settle`."""
        for branch in self.branches.values():
            branch.settle(stepping)

    def discard(self) -> None:
        """Drop the records of a batch that was aborted."""
        for branch in self.branches.values():
            branch.ledger.discard()

    def newly_proven(self) -> bool:
        """Return whether a branch was proven since the last call of this method."""
        proven = [path for path, b in self.branches.items() if not b.settings.swaps_nothing and b.proven]
        if proven == self.proven:
            return False
        self.proven = proven
        return True

    def commit(self, joined: bool) -> None:
        """Commit the state that the calls of a batch collected; with `joined`, every rank must call this."""
        commit_collected((module for branch in self.branches.values() for module in branch.stateful()), joined)

    def clear(self) -> None:
        """Record that the gradients of the model were set to zero."""
        for branch in self.branches.values():
            branch.ledger.clear()

    def recheck(self) -> None:
        """Track the gradients of the next batch with objects again."""
        for branch in self.branches.values():
            branch.ledger.due = True

    def trains(self, optimizer: Any) -> bool:
        """Return whether an optimizer has parameters of the model, and there are open records."""
        if not any(branch.ledger.records for branch in self.branches.values()):
            return False
        model = self._model()
        own = {id(parameter) for parameter in model.parameters()} if model is not None else set()
        return any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"])

    def check_called(self, calls_before: int, loss: Any) -> None:
        """Raise an `UnprovenError` if a loss was computed without the equipped criteria.

        Args:
            calls_before: `calls_begun` before the loss was computed.
            loss: the loss.
        """
        if self.calls_begun == calls_before and float(torch.as_tensor(loss).detach().abs().sum()) > 0:
            raise UnprovenError(
                f"{PREFIX}{self.settings.describe()} is set, but the loss of this batch was computed without the"
                " criterion that holds it: the model's 'loss' or its criterion was replaced"
            )


def _first_parts(model: Any) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield the parts that the criteria of a model call first.

    Yields:
        The name of the model's attribute, "" for `criterion`; its value; the criterion in it; the name of the part.
    """
    held = {**vars(model), **getattr(model, "_modules", {})}
    held = {"": getattr(model, "criterion", None), **held}
    for name, value in held.items():
        if name in ("criterion", "model", "args", "_modules", "yaml", "names"):
            continue
        kind = criteria.kind_of(value)
        for _, owner, attribute in kind.first_parts(value) if kind is not None else ():
            yield name, value, owner, attribute
