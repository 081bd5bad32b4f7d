"""The proof that the parts of a criterion ran: each was called, and a gradient that is not zero reached its output.

A call of a criterion in training opens a record. The parts enter what they return; in calls that are *compared*, the
first with objects and the first of each epoch, a tensor hook notes on the device whether a gradient that is not zero
came back. Records are settled before the optimizer's step, or at the batch's end where there was none.
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

MOST_OPEN = 64  # records that no optimizer's step has settled: older ones are dropped


class UnprovenError(RuntimeError):
    """A chosen loss that did not run, or whose gradient was not used."""


def is_recomputing() -> bool:
    """Return whether a backward pass is running: a call within it, as of activation checkpointing, is no new batch."""
    current: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)
    return current() != -1


class Flag(Protocol):
    """What has a truth value: of a tensor on a device, asking for it synchronises."""

    def __bool__(self) -> bool: ...


class Record:
    """What one call of a criterion in training has shown.

    Attributes:
        called: the terms whose part was called.
        trained: those of them whose output needs a gradient.
        reached: whether a gradient that is not zero reached the output, by term, on the device.
        cleared: whether the gradients were set to zero since, as after a step that a gradient scaler skipped.

    Args:
        objects: whether there are positives with a score, a scalar on the device or a bool.
        owes: whether a part that was not called is an error: not in a call of a model in eval mode.
        compared: whether gradients are followed.
    """

    def __init__(self, objects: Flag, owes: bool, compared: bool) -> None:
        self._objects = objects
        self.owes = owes
        self.compared = compared
        self.called: set[str] = set()
        self.trained: set[str] = set()
        self.reached: dict[str, Tensor] = {}
        self.cleared = False

    @cached_property
    def has_objects(self) -> bool:
        """Whether there are positives with a score; this synchronises."""
        return bool(self._objects)

    def enter(self, term: str, output: Tensor) -> None:
        """Note that the part of a term was called and returned `output`."""
        self.called.add(term)
        if output.requires_grad:
            self.trained.add(term)
            if self.compared:
                output.register_hook(functools.partial(self._arrived, term))

    def _arrived(self, term: str, gradient: Tensor) -> None:
        flag = (gradient.detach() != 0).any()  # true of NaN and infinity too: an overflow is the gradient scaler's
        self.reached[term] = self.reached[term] | flag if term in self.reached else flag

    def clear(self) -> None:
        """Note that the gradients that have arrived were set to zero."""
        self.cleared = self.cleared or bool(self.reached)
        self.reached.clear()

    def without_gradient(self) -> list[str]:
        """Return the terms that no gradient reached; this synchronises."""
        return [term for term in sorted(self.trained) if not bool(self.reached.get(term, False))]


@dataclass
class Ledger:
    """The records of a branch's calls.

    Attributes:
        expected: the swapped parts by the name of their term.
        batches: number of calls in training; `validations`, of calls without gradients.
        calls: number of settled calls with objects in which every part was called and got its gradient.
        due: whether the next calls are compared, until one with objects is.
        untrained: the terms that the last settled call did not train: no gradient is needed, or the gain is 0.
        gain: what the criterion multiplies a term by; a term whose gain is 0 owes no gradient.
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

    def open(self, objects: Callable[[bool], Flag], owes: bool) -> None:
        """Begin a call of the criterion.

        Args:
            objects: returns whether there are objects; called with whether the call is compared.
            owes: see `Record`.
        """
        if not torch.is_grad_enabled():
            self.current = None
            self.validations += 1
        elif not (is_recomputing() and self.records):
            self.batches += 1
            self.current = Record(objects(self.due), owes, self.due)
            self.records.append(self.current)

    def enter(self, term: str, output: Tensor) -> None:
        """Note in the record of the current call that the part of a term returned `output`."""
        if self.current is not None:
            self.current.enter(term, output)

    def not_called(self) -> str:
        """Return a term whose part the current call, which has ended, did not call though it owed it; else ""."""
        record = self.current
        missing = [] if record is None else [term for term in self.expected if term not in record.called]
        return missing[0] if record is not None and record.owes and missing and record.has_objects else ""

    def discard(self) -> None:
        """Drop the open records, of a batch that was given up."""
        self.records.clear()
        self.current = None

    def discard_cleared(self) -> None:
        """Drop the open records whose gradients were set to zero: they have no part in the next step."""
        for record in [record for record in self.records if record.cleared]:
            self.records.remove(record)

    def clear(self) -> None:
        """Note that the gradients were set to zero."""
        for record in self.records:
            record.clear()

    def settle(self, stepping: bool, lenient: bool = False) -> tuple[str, str] | None:
        """Close the open records.

        Args:
            stepping: whether the optimizer is about to step.
            lenient: whether a call whose result was not used is no error: it is no proof either.

        Returns:
            The term that is not proven, and why: `not called` or `no gradient`; `None` if all are.
        """
        records, self.current = list(self.records), None
        self.records.clear()
        for record in records:
            problem = self._problem(record, stepping, lenient)
            if problem:
                return problem
        return None

    def _problem(self, record: Record, stepping: bool, lenient: bool) -> tuple[str, str] | None:
        missing = [term for term in self.expected if term not in record.called]
        if not (missing or record.compared) or not record.has_objects:
            return None  # without objects a criterion may skip a term
        if missing:
            return (missing[0], "not called") if record.owes else None
        idle = [term for term in record.without_gradient() if term in self.expected and self.gain(term)]
        if idle:
            harmless = lenient or not record.owes or (record.cleared and not stepping)
            return None if harmless else (idle[0], "no gradient")
        self.calls += 1
        self.due = False
        terms = [term for term in self.expected if term != "assigner"]  # which has no gradient
        self.untrained = tuple(t for t in terms if t not in record.trained or not self.gain(t))
        return None
