"""The proof that the parts of a criterion ran: each was called, and a nonzero gradient reached its output.

A call of a criterion in training opens a record, in which each part records its output. In calls that are *compared*,
the first with objects and the first of each epoch, a tensor hook records on the device whether the output received a
nonzero gradient. Records are settled before the optimizer's step, or at the end of a batch without a step.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

MOST_OPEN = 64  # records that no step of an optimizer has settled; older ones are dropped


class UnprovenError(RuntimeError):
    """A chosen loss that did not run, or whose gradient was not used."""


def is_recomputing() -> bool:
    """Return whether a backward pass is running: a call within it, as in activation checkpointing, is no new batch."""
    current: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)
    return current() != -1


class Flag(Protocol):
    """An object with a truth value; evaluating a tensor on a GPU synchronizes."""

    def __bool__(self) -> bool: ...


class Record:
    """The record of one call of a criterion in training.

    Attributes:
        called: the terms whose part was called.
        trained: the called terms whose output requires a gradient.
        reached: whether a nonzero gradient reached the output, by term, on the device.
        cleared: whether the gradients were set to zero since, as after a step that a gradient scaler skipped.

    Args:
        objects: whether there are positives with a score, a scalar on the device or a bool.
        required: whether a part that was not called is an error; false for a model in eval mode.
        compared: whether gradients are tracked.
    """

    def __init__(self, objects: Flag, required: bool, compared: bool) -> None:
        self._objects = objects
        self.required = required
        self.compared = compared
        self.called: set[str] = set()
        self.trained: set[str] = set()
        self.reached: dict[str, Tensor] = {}
        self.cleared = False

    @cached_property
    def has_objects(self) -> bool:
        """Whether there are positives with a score; this synchronizes."""
        return bool(self._objects)

    def enter(self, term: str, output: Tensor) -> None:
        """Record that the part of a term was called and returned `output`."""
        self.called.add(term)
        if output.requires_grad:
            self.trained.add(term)
            if self.compared:
                output.register_hook(functools.partial(self._arrived, term))

    def _arrived(self, term: str, gradient: Tensor) -> None:
        flag = (gradient.detach() != 0).any()  # NaN and infinity count: the gradient scaler handles an overflow
        self.reached[term] = self.reached[term] | flag if term in self.reached else flag

    def clear(self) -> None:
        """Record that the gradients were set to zero."""
        self.cleared = self.cleared or bool(self.reached)
        self.reached.clear()

    def without_gradient(self) -> list[str]:
        """Return the terms that no gradient reached; this synchronizes."""
        return [term for term in sorted(self.trained) if not bool(self.reached.get(term, False))]


@dataclass
class Ledger:
    """The records of a branch's calls.

    Attributes:
        expected: the terms whose part was replaced.
        batches: number of calls in training.
        validations: number of calls without gradients.
        calls: number of settled calls with objects in which every part was called and received a gradient.
        due: whether calls are compared, until one with objects has been.
        untrained: the terms that the last settled call did not train, because no gradient is required or the gain is 0.
        gain: returns the gain of a term; a term with gain 0 needs no gradient.
        records: the open records.
        current: the record of the current call.
    """

    expected: tuple[str, ...] = ()
    batches: int = 0
    validations: int = 0
    calls: int = 0
    due: bool = True
    untrained: tuple[str, ...] = ()
    gain: Callable[[str], float] = field(default=lambda term: 1.0)
    records: deque[Record] = field(default_factory=lambda: deque(maxlen=MOST_OPEN))
    current: Record | None = None

    def open(self, objects: Callable[[bool], Flag], required: bool) -> None:
        """Begin a call of the criterion.

        Args:
            objects: returns whether there are objects; called with whether the call is compared.
            required: see `Record`.
        """
        if not torch.is_grad_enabled():
            self.current = None
            self.validations += 1
        elif not (is_recomputing() and self.records):
            self.batches += 1
            self._discard(lambda record: record.cleared)  # as in sharpness-aware minimization, which steps by this call
            self.current = Record(objects(self.due), required, self.due)
            self.records.append(self.current)

    def enter(self, term: str, output: Tensor) -> None:
        """Record in the current call that the part of a term returned `output`."""
        if self.current is not None:
            self.current.enter(term, output)

    def not_called(self) -> str:
        """Return a term whose part should have been called in the current call and was not, or ""."""
        record = self.current
        missing = [] if record is None else [term for term in self.expected if term not in record.called]
        return missing[0] if record is not None and record.required and missing and record.has_objects else ""

    def discard(self) -> None:
        """Drop the open records of a batch that was aborted."""
        self.records.clear()
        self.current = None

    def discard_unused(self) -> None:
        """Drop the open records that do not contribute to the next step, as another batch begins.

        Their gradients were set to zero, or none has arrived: a loop may skip a batch whose loss is not finite.
        """
        self._discard(lambda record: record.compared)

    def _discard(self, dropped: Callable[[Record], bool]) -> None:
        """Drop the open records among these that no gradient has reached, or none since it was set to zero."""
        for record in [record for record in self.records if dropped(record) and not record.reached]:
            self.records.remove(record)

    def clear(self) -> None:
        """Record that the gradients were set to zero."""
        for record in self.records:
            record.clear()

    def settle(self, stepping: bool, allow_unused: bool = False) -> tuple[str, str] | None:
        """Close the open records.

        Args:
            stepping: whether the optimizer is about to step.
            allow_unused: whether to accept a call whose result was not used; it does not count as a proof.

        Returns:
            The term that failed and the reason, `not called` or `no gradient`; `None` if none did.
        """
        records, self.current = list(self.records), None
        self.records.clear()
        for record in records:
            problem = self._problem(record, stepping, allow_unused)
            if problem:
                return problem
        return None

    def _problem(self, record: Record, stepping: bool, allow_unused: bool) -> tuple[str, str] | None:
        missing = [term for term in self.expected if term not in record.called]
        if not (missing or record.compared) or not record.has_objects:
            return None  # without objects, a criterion may skip a term
        if missing:
            return (missing[0], "not called") if record.required else None
        idle = [term for term in record.without_gradient() if term in self.expected and self.gain(term)]
        if idle:
            harmless = allow_unused or not record.required or (record.cleared and not stepping)
            return None if harmless else (idle[0], "no gradient")
        self.calls += 1
        self.due = False
        terms = [term for term in self.expected if term != "assigner"]  # it has no gradient
        self.untrained = tuple(t for t in terms if t not in record.trained or not self.gain(t))
        return None
