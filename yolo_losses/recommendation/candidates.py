"""Selection of candidates: the rules that apply to the traits of a data set, and the evidence for their losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from yolo_losses.recommendation.rules import GRADES, Evidence, Rule
from yolo_losses.recommendation.traits import Traits
from yolo_losses.recommendation.verdicts import Verdict, find

IN_FAVOUR = ("better", "leans better")  # verdicts, the strongest first
AGAINST = ("worse", "leans worse")
MAX_CANDIDATES = 4  # besides the stock losses
MAX_AVOIDED = 4


@dataclass(frozen=True)
class Candidate:
    """A loss that is worth a comparison on a data set.

    Attributes:
        choice: the key that chooses it.
        keys: its training keys, `choice` among them.
        reasons: sentences on the traits that make it a candidate.
        grade: the grade of the evidence, one of `GRADES`, or that it was decided by a comparison of this project.
        evidence: the evidence for it.
        verdict: the verdict of a comparison of this project, if there is one.
    """

    choice: str
    keys: dict[str, Any]
    reasons: tuple[str, ...]
    grade: str
    evidence: Evidence
    verdict: Verdict | None

    @property
    def words(self) -> str:
        """The keys as words of `yolo train`."""
        return " ".join(f"{key}={value}" for key, value in self.keys.items())


@dataclass(frozen=True)
class Note:
    """Something to look at first, or not to try.

    Attributes:
        what: what to look at or to avoid.
        why: a sentence on the trait.
        evidence: the evidence for it; `None` if the labels themselves are.
        verdict: the verdict of a comparison of this project, if there is one.
    """

    what: str
    why: str
    evidence: Evidence | None = None
    verdict: Verdict | None = None


def choose(
    traits: Traits, rules: Sequence[Rule], verdicts: list[Verdict]
) -> tuple[list[Candidate], list[Note], list[Note]]:
    """Return candidates, what to look at first, and what not to try.

    Candidates that a comparison of this project found better, or leaning better, come first; those that it found worse,
    or leaning worse, are among those not to try, ahead of the others.
    """
    found: dict[str, Candidate] = {}
    checks, avoided, lost = [], [], []
    for rule in rules:
        if not rule.applies(traits):
            continue
        measured = rule.measured
        verdict = find(verdicts, measured["set"], measured["config"]) if measured else None
        if rule.kind == "check":
            checks.append(Note(rule.what, rule.reason(traits), rule.evidence))
        elif rule.kind == "avoid":
            if verdict is None or verdict.word != "better":
                avoided.append(Note(rule.what, rule.reason(traits), rule.evidence, verdict))
        elif rule.is_available(traits.task):
            candidate = _candidate(rule, traits, verdict)
            if verdict is not None and verdict.word in AGAINST:
                lost.append(Note(candidate.words, f"although {candidate.reasons[0]}", rule.evidence, verdict))
            elif candidate.words in found:
                first = found[candidate.words]
                found[candidate.words] = Candidate(**{**vars(first), "reasons": first.reasons + candidate.reasons})
            else:
                found[candidate.words] = candidate
    not_to_try = sorted([*lost, *avoided], key=lambda note: _rank(note.verdict, AGAINST))
    return _sort_candidates(list(found.values()))[:MAX_CANDIDATES], checks, not_to_try[:MAX_AVOIDED]


def _rank(verdict: Verdict | None, words: Sequence[str]) -> int:
    """Return the index of a verdict's word in `words`; `len(words)` if it is not among them or there is no verdict."""
    return words.index(verdict.word) if verdict is not None and verdict.word in words else len(words)


def _sort_candidates(candidates: list[Candidate]) -> list[Candidate]:
    """Sort candidates: those found better first, then the others, taking turns between keys.

    Among candidates of one key, those that lean better come first.
    """
    by_rank = sorted(candidates, key=lambda candidate: _rank(candidate.verdict, IN_FAVOUR))
    choices = [candidate.choice for candidate in by_rank]
    turns = [choices[:place].count(choice) for place, choice in enumerate(choices)]
    order = sorted(range(len(by_rank)), key=lambda place: (_rank(by_rank[place].verdict, IN_FAVOUR) > 0, turns[place]))
    return [by_rank[place] for place in order]


def _candidate(rule: Rule, traits: Traits, verdict: Verdict | None) -> Candidate:
    assert rule.evidence is not None
    grade = "measured here, decided" if verdict is not None and verdict.decided else GRADES[rule.grade]
    keys = rule.chosen_keys(traits)
    return Candidate(rule.choice, keys, (rule.reason(traits),), grade, rule.evidence, verdict)
