"""The losses of one branch of a head, their state, and the records of its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from yolo_losses._log import PREFIX
from yolo_losses.config.keys import BOX_TASKS, LossKey
from yolo_losses.config.settings import KEYS, LossSettings
from yolo_losses.integration import context
from yolo_losses.integration.criteria.ledger import Flag, Ledger, UnprovenError, is_recomputing
from yolo_losses.integration.criteria.scale import ClassScale
from yolo_losses.losses import build as factory
from yolo_losses.losses._state import Stateful, commit_collected
from yolo_losses.losses.boxes._base import BoxLoss
from yolo_losses.losses.classification._base import ClassificationLoss
from yolo_losses.losses.masks._base import MaskLoss
from yolo_losses.monitor.gather import Statistics

B = TypeVar("B", bound="Branch")
TARGET_NAMES = {"tal": "assigner score", "iou": "IoU", "ciou": "CIoU", "hard": "1"}
STATE_NAMES = {"class": "cls", "mask": "seg"}  # what state files call the module of a term, where not by its name


@dataclass
class Branch:
    """The losses of one branch of a head, their state, and the records of its calls.

    The parts of a criterion refer to it. The criteria of a model and of its EMA share it.

    Attributes:
        settings: the parsed keys.
        losses: the module of each term for which a loss was chosen. The other terms keep the stock part.
        scale: the running factor of `cls_scale=auto`, `None` for a fixed factor.
        weights: weights of the classes, shape `(C,)`, or `None`.
        statistics: what `loss_stats` gathers, `None` if it is off.
        expected: the terms whose part was replaced, named as in `LossSettings.terms`.
        joined: whether statistics are all-reduced over ranks.
        name: the qualified name of the criterion's class, for error messages.
        in_training: whether a training loop settles the calls and commits the state. Otherwise each call commits
            immediately and is settled by the next one.
        training: whether the current call updates the state of the losses.
        ledger: the records of its calls.
        ratios: the class term over the reference on the same predictions, in the first batch with objects: the ratio
            `value`, and `gradient`, that of the gradient norms on the positives.
        assigner: the values of the assigner that differ from stock, for the log.
        positives_per_object: in the first batch with objects, if the assigner is not stock.
        always_logged: the terms in the start line, even if they are stock.
    """

    settings: LossSettings
    losses: dict[str, nn.Module] = field(default_factory=dict)
    scale: ClassScale | None = None
    weights: Tensor | None = None
    statistics: Statistics | None = None
    expected: tuple[str, ...] = ()
    joined: bool = True
    name: str = ""
    in_training: bool = False
    training: bool = False
    ledger: Ledger = field(default_factory=Ledger)
    ratios: dict[str, float] = field(default_factory=dict)
    assigner: str = ""
    positives_per_object: float | None = None
    always_logged: tuple[str, ...] = ("class", "box")

    reference: ClassVar[str] = "BCE"  # the stock class loss of this kind of head, for which the gains were tuned
    tasks: ClassVar[tuple[str, ...]] = BOX_TASKS  # the Ultralytics tasks with this kind of head
    can_scale: ClassVar[bool] = True  # whether `cls_scale=auto` is allowed
    where_compared: ClassVar[str] = " on the positives"  # where the gradients are compared, for the log

    def __post_init__(self) -> None:
        self.ledger.expected = self.expected

    @classmethod
    def build(cls: type[B], settings: LossSettings, criterion: Any, *, plain_bce: bool = True, **options: Any) -> B:
        """Return a new branch with modules built from the parsed keys.

        Args:
            settings: the parsed keys.
            criterion: the criterion, for error messages.
            plain_bce: whether the stock class term is plain BCE, which the loss `bce` equals.
            **options: further fields.

        Raises:
            ValueError: if a third-party loss cannot be used; the message names it.
        """
        losses: dict[str, nn.Module] = {}
        class_loss = cls.build_class_loss(settings, plain_bce)
        if class_loss is not None:
            losses["class"] = class_loss
        for name, key in KEYS.items():
            if not isinstance(key, LossKey) or key.term == "class":
                continue
            specs = key.losses(getattr(settings, name), settings.task)
            if key.term == "box" and specs:
                *modifiers, base = specs
                losses["box"] = box_loss = factory.build_box_loss(modifiers, base, settings.parameters)
                if not all(spec.built_in for spec in specs):
                    factory.check_box_loss(base, box_loss)
            elif specs:
                losses[key.term] = specs[0].build(settings.parameters)
        scale = ClassScale() if settings.cls_scale == "auto" else None
        weights = torch.tensor(settings.cls_weights) if isinstance(settings.cls_weights, tuple) else None
        statistics = Statistics() if settings.loss_stats else None
        kind = type(criterion)
        name = f"{kind.__module__}.{kind.__qualname__}"
        return cls(settings, losses, scale, weights, statistics, name=name, **options)

    @classmethod
    def build_class_loss(cls, settings: LossSettings, plain_bce: bool) -> nn.Module | None:
        """Return the module of the class term, `None` if the stock part is kept."""
        # A factor or weights only multiply the output of the stock part; a target or `auto` requires a loss.
        needs_loss = settings.cls_loss != "stock" or (
            plain_bce and (settings.cls_target != "auto" or settings.cls_scale == "auto")
        )
        if not needs_loss:
            return None
        spec = settings.cls_spec
        loss: ClassificationLoss = spec.build(settings.parameters)
        if not spec.built_in:
            factory.check_cls_loss(spec, loss)
        return loss

    @property
    def cls(self) -> ClassificationLoss | None:
        """The module of the class term, `None` if the stock part is kept."""
        return cast("ClassificationLoss | None", self.losses.get("class"))

    @property
    def box(self) -> BoxLoss | None:
        """The module of the box term, `None` if the stock part is kept."""
        return cast("BoxLoss | None", self.losses.get("box"))

    @property
    def seg(self) -> MaskLoss | None:
        """The module of the mask term, `None` if the stock method is kept."""
        return cast("MaskLoss | None", self.losses.get("mask"))

    def __deepcopy__(self, memo: dict[int, Any]) -> Branch:
        return self

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules of the losses and of the running factor; their buffers are the state of the branch."""
        found = {STATE_NAMES.get(term, term): module for term, module in self.losses.items()}
        return found if self.scale is None else {**found, "scale": self.scale}

    def stateful(self) -> Iterator[Stateful]:
        """Yield the modules whose state is updated once per step, in the same order on every rank."""
        for module in self.modules.values():
            yield from (inner for inner in module.modules() if isinstance(inner, Stateful))

    def join_training(self) -> None:
        """Let a training loop settle the calls and commit the state."""
        self.in_training = True
        for module in self.stateful():
            module.deferred = True

    def describe_term(self, term: str) -> list[str]:
        """Return what the start line says about a term in addition to its loss and its keys."""
        if term == "class" and isinstance(self.cls, ClassificationLoss):
            return [f"target: {TARGET_NAMES[self.settings.target]}"]
        note = getattr(self.losses.get(term), "note", "")
        return [note] if note else []

    @property
    def needs_image_size(self) -> bool:
        """Whether `image_size` must be set before each batch, for a loss in pixels that the criterion does not know."""
        return False

    @property
    def cls_factor(self) -> Tensor | float:
        """The factor on the class term; a running factor is a tensor on the device."""
        return float(self.settings.cls_scale) if self.scale is None else self.scale.factor

    def class_weights(self, like: Tensor) -> Tensor | None:
        """Return the weights of the classes on the device of a tensor."""
        if self.weights is not None:
            self.weights = self.weights.to(like.device)
        return self.weights

    def weighted(self, loss: Tensor) -> Tensor:
        """Multiply a class loss, whose last dimension is the classes, by the weights of the classes."""
        weights = self.class_weights(loss)
        return loss if weights is None else loss * weights

    # ------------------------------------------------------------------------------------------------ the calls

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Begin an epoch. Its first batch is compared with the reference.

        Args:
            epoch: index of the epoch, from 0.
            epochs: number of epochs of the training.
        """
        self.ledger.due = True
        if self.statistics is not None:
            self.statistics.begin_epoch()

    def begin(self, objects: Callable[[bool], Flag]) -> None:
        """Begin a call of the criterion.

        Args:
            objects: returns whether there are objects, as a bool or a tensor; called with whether the call is compared.
        """
        required = context.is_training_mode()
        if not self.in_training and not is_recomputing():
            self.settle(stepping=False, allow_unused=True)
        if context.current() is None and not is_recomputing():  # called directly: each call is a batch
            self.ledger.discard_unused()
        self.ledger.open(objects, required)
        # A module that commits immediately must not see a batch twice.
        again = not self.in_training and is_recomputing()
        self.training = torch.is_grad_enabled() and required and not again
        if self.statistics is not None:
            self.statistics.begin()

    @property
    def compares(self) -> bool:
        """Whether the current call has objects and is compared with the reference; synchronizes if it is compared."""
        record = self.ledger.current
        return record is not None and torch.is_grad_enabled() and record.compared and record.has_objects

    def record(self, term: str, output: Tensor) -> Tensor:
        """Record the output of the part of a term, and return it."""
        self.ledger.enter(term, output)
        return output

    def end(self) -> None:
        """End a call of the criterion, if no training loop settles it.

        Raises:
            UnprovenError: if a part did not run.
        """
        term = "" if self.in_training else self.ledger.not_called()
        if term:
            self.ledger.discard()
            raise UnprovenError(self._unproven(term, "not called"))

    def settle(self, stepping: bool, allow_unused: bool = False) -> None:
        """Close the open records, before the optimizer's step or at the end of a batch without one.

        Args:
            stepping: whether the optimizer is about to step.
            allow_unused: whether to accept a call whose result was not used.

        Raises:
            UnprovenError: if a part did not run, or its result was not used.
        """
        problem = self.ledger.settle(stepping, allow_unused)
        if problem is not None:
            raise UnprovenError(self._unproven(*problem))
        if self.cls is not None and not self.ratios:
            self.ledger.due = True  # the batch overflowed: compare the next one

    def commit(self, joined: bool = True) -> None:
        """Commit what the losses collected in a batch; with `joined`, every rank must call this."""
        commit_collected(self.stateful(), joined)

    @property
    def calls(self) -> int:
        """Number of training calls with objects in which every replaced part ran and its result was used."""
        if not self.in_training:
            self.settle(stepping=False, allow_unused=True)
        return self.ledger.calls

    @property
    def proven(self) -> bool:
        """Whether every replaced part ran in a batch with objects, and the class term was compared."""
        return self.calls > 0 and (self.cls is None or bool(self.ratios))

    def key_of(self, term: str) -> str:
        """Return the key that a term was chosen by, with its value."""
        chosen = self.settings.non_default()
        own = [name for name, key in KEYS.items() if key.term == term]
        name = next((name for name in own if name in chosen), own[0])
        return f"{name}={getattr(self.settings, name)}"

    def _unproven(self, term: str, why: str) -> str:
        what = self.key_of(term)
        if why == "not called":
            return (
                f"{PREFIX}{self.name} computed its {term} term without the part for {what}, which did not run: a"
                " subclass or a fork computes the term differently, or the part was replaced after set-up. Remove that"
                f" change, or leave {what.partition('=')[0]} at its default"
            )
        return (
            f"{PREFIX}the {term} term with {what} was computed in {self.name}, but no gradient reached it before"
            " the optimizer's step: it was detached, replaced, multiplied by 0, or its gradient set to zero. Remove"
            f" that change, or leave {what.partition('=')[0]} at its default"
        )
