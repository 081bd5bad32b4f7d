"""From traits to candidates: which rules apply, and what is known of the losses that they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from yolo_losses.recommendation.rules import GRADES, Evidence, Rule
from yolo_losses.recommendation.traits import Traits
from yolo_losses.recommendation.verdicts import Verdict, find

IN_FAVOUR = ("better", "leans better")  # verdicts, the strongest first
AGAINST = ("worse", "leans worse")
AT_MOST = 4  # candidates beside stock
AT_MOST_AVOIDED = 4


@dataclass(frozen=True)
class Candidate:
    """A loss that is worth a comparison on a data set.

    Attributes:
        choice: the key that chooses it.
        keys: its training keys, `choice` among them.
        reasons: the traits that speak for it, in words.
        grade: of the evidence, in words.
        evidence: what is known.
        verdict: what was measured here, if anything was.
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
        why: the trait, in words.
        evidence: what is known; none if the labels say it.
        verdict: what was measured here, if anything was.
    """

    what: str
    why: str
    evidence: Evidence | None = None
    verdict: Verdict | None = None


def choose(
    traits: Traits, rules: Sequence[Rule], verdicts: list[Verdict]
) -> tuple[list[Candidate], list[Note], list[Note]]:
    """Return candidates, what to look at first, and what not to try.

    A candidate that came out better here, or leans so, comes first; one that came out worse, or leans so, is one not to
    try. What was decided here comes first among these.
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
    return _in_order(list(found.values()))[:AT_MOST], checks, not_to_try[:AT_MOST_AVOIDED]


def _rank(verdict: Verdict | None, words: Sequence[str]) -> int:
    """Return the place of a verdict among words, the number of them for any other verdict and for none."""
    return words.index(verdict.word) if verdict is not None and verdict.word in words else len(words)


def _in_order(candidates: list[Candidate]) -> list[Candidate]:
    """Return what came out better here first; then the first of each key, so that no key takes all places.

    Of one key, what leans better comes first.
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
