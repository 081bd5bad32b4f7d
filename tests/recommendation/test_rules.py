"""Every rule depends on a trait, has its evidence on a page, and uses keys of this version."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from yolo_losses.config.keys import CLASS_TASKS
from yolo_losses.config.settings import LossSettings, declared_parameters, default_keys
from yolo_losses.recommendation import rules, verdicts
from yolo_losses.recommendation.candidates import choose
from yolo_losses.recommendation.plan import make
from yolo_losses.recommendation.rules import Rule
from yolo_losses.recommendation.traits import Traits
from yolo_losses.recommendation.verdicts import Verdict

RULES = rules.load()

ANNOUNCED = {"tal_overlap"}  # keys that a later version has
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
every_candidate = pytest.mark.parametrize("rule", [r for r in RULES if r.kind == "try"], ids=lambda rule: rule.id)

# A set that nothing speaks about: of each trait a value that no rule asks for.
PLAIN = Traits(
    task="detect", imgsz=640, stride=8.0, end_to_end=False, queries=False, finer="",
    images=1000, objects=5000, val_images=200,
    class_counts={"a": 1500, "b": 300}, labelled_classes=2, absent=[], val_absent=[], rare=[], class_ratio=5.0,
    smallest_class=300, shared_images=0, empty=0.0, unreadable=0, unreadable_example="", duplicates=0,
    flat=0, degenerate=0,
    per_image=5.0, most_per_image=20, overlapping=0.0, enlarged=0.5, mean_side=60.0, median_side=50.0,
    size_shares={"below 8": 1.0}, tiny=0.0, small=0.05, below_stride=0.0, below_two_strides=0.05, aspect=1.5,
    elongated=0.0, at_border=0.0, squares=0.0, upright=0.0, angle_shares={}, hidden=0.0, unmarked=0.0,
    rare_keypoints=[], mask_of_box=0.7, mask_of_image=0.2,
)  # fmt: skip


def with_trait(rule: Rule, traits: Traits = PLAIN) -> Traits:
    """Return traits that a rule applies to, at the bounds of its conditions."""
    changed: dict[str, Any] = {"task": rule.tasks[0] if rule.tasks else traits.task}
    for name, bounds in rule.when.items():
        number = bounds if isinstance(bounds, bool) else bounds[0] if bounds[0] is not None else bounds[1]
        names = isinstance(getattr(traits, name), list)
        changed[name] = [f"class {n}" for n in range(number)] if names else number
    return dataclasses.replace(traits, **changed)


def test_names_of_rules_are_unique() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)


@every_rule
def test_a_rule_applies_at_the_bounds_of_its_traits_and_not_beyond(rule: Rule) -> None:
    assert rule.when
    assert set(rule.tasks) <= set(CLASS_TASKS)
    traits = with_trait(rule)
    assert rule.applies(traits)
    for name, bounds in rule.when.items():
        value = getattr(traits, name)
        if isinstance(bounds, bool):
            others: list[Any] = [not bounds]
        else:
            beyond = [None if bounds[0] is None else bounds[0] - 0.01, None if bounds[1] is None else bounds[1] + 0.01]
            others = [[]] if isinstance(value, list) else [number for number in beyond if number is not None]
        for other in [*others, None]:
            assert not rule.applies(dataclasses.replace(traits, **{name: other})), (name, other)


@every_rule
def test_the_reason_names_the_trait(rule: Rule) -> None:
    text = rule.reason(with_trait(rule))
    assert "{" not in text
    assert "\n" not in text
    assert "best" not in f"{text} {rule.what} {rule.evidence}"
    if rule.kind != "avoid":
        assert set(re.findall(r"{(\w+)}", rule.why)) & rule.when.keys()


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@every_rule
def test_the_evidence_is_on_its_page(rule: Rule) -> None:
    if rule.evidence is None:
        assert rule.kind == "check", "only what the labels themselves say needs no evidence"
        return
    page, _, anchor = rule.evidence.page.partition("#")
    text = (ROOT / page).read_text(encoding="utf-8")
    assert anchor in anchors(text)
    said = re.sub(r"\b[A-Za-z][\w-]*\d[\w.-]*", " ", rule.evidence.says)  # numbers in names, such as YOLOv6-N
    for number in re.findall(r"\d+(?:\.\d+)?", said):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", text), f"{number} is not in {page}"
    source = rule.evidence.source
    for paper in re.findall(r"\d{4}\.\d{4,5}|10\.\d{4}/\S+", source):
        losses = [ROOT / "docs" / "losses" / f"{value}.md" for value in rule.keys.values()]
        pages = [text, *(path.read_text(encoding="utf-8") for path in losses if path.is_file())]
        assert any(paper.lower() in each.lower() for each in pages), f"{paper} is not in {page}"


@every_candidate
def test_a_candidate_is_one_choice_with_its_own_parameters(rule: Rule) -> None:
    choices = [key for key in rule.keys if key not in declared_parameters()]
    assert choices == [rule.choice]
    assert rule.grade in rules.GRADES
    unknown = set(choices) - default_keys().keys()
    assert unknown <= ANNOUNCED
    traits = with_trait(rule)
    for task in [*rule.tasks] if not unknown else []:
        settings = LossSettings.from_mapping(rule.chosen_keys(traits))  # and not a ValueError
        settings.check_task(task)
        assert not settings.unused
        assert rule.is_available(task)


@every_candidate
def test_a_candidate_that_this_version_lacks_is_not_offered(rule: Rule) -> None:
    unknown = dataclasses.replace(rule, keys={"no_such_key": "nwd"})
    assert choose(with_trait(rule), [unknown], [])[0] == []
    unknown = dataclasses.replace(rule, keys={rule.choice: "no_such_loss"})
    assert choose(with_trait(rule), [unknown], [])[0] == []


def test_without_a_matching_rule_stock_is_recommended() -> None:
    candidates, checks, _ = choose(PLAIN, RULES, [])
    assert (candidates, checks) == ([], [])
    assert make(candidates, {"epochs": 1}, PLAIN, 1.0) is None


def test_at_most_four_candidates_with_turns_between_keys() -> None:
    every = dataclasses.replace(PLAIN, small=0.5, tiny=0.5, class_ratio=50.0, smallest_class=9, rare=["b"])
    candidates, _, avoided = choose(every, RULES, [])
    assert len(candidates) == 4
    assert {candidate.choice for candidate in candidates} >= {"cls_weights", "cls_loss", "box_loss"}
    assert len(avoided) <= 4


def test_two_traits_that_suggest_one_loss_are_one_candidate() -> None:
    both = dataclasses.replace(PLAIN, task="segment", mask_of_box=0.3, small=0.2)
    masks = [candidate for candidate in choose(both, RULES, [])[0] if candidate.choice == "seg_loss"]
    assert [len(candidate.reasons) for candidate in masks] == [2]


# --- verdicts ---------------------------------------------------------------------------------------------------------

RARE = dataclasses.replace(PLAIN, class_ratio=20.0, smallest_class=9, rare=["b"])


def verdict(word: str, config: str = "cls_loss=efl", difference: float = 1.5) -> Verdict:
    return Verdict("neu_det_longtail", config, difference, difference - 1, difference + 1, word, 3)


def test_a_candidate_that_was_decided_better_comes_first() -> None:
    first = choose(RARE, RULES, [verdict("better")])[0][0]
    assert (first.words, first.grade) == ("cls_loss=efl", "measured here, decided")
    assert str(first.verdict) == ("measured here on neu_det_longtail: better (+1.5 points, +0.5 to +2.5, 3 seeds)")


def test_a_loss_that_was_decided_worse_is_avoided() -> None:
    candidates, _, avoided = choose(RARE, RULES, [verdict("worse", difference=-3)])
    assert "cls_loss=efl" not in [candidate.words for candidate in candidates]
    assert avoided[0].what == "cls_loss=efl"
    assert "worse (-3.0 points" in str(avoided[0].verdict)


def test_a_loss_that_leans_better_comes_first_of_its_key_and_one_that_leans_worse_is_avoided() -> None:
    small = dataclasses.replace(RARE, small=0.5)
    known = [
        Verdict("deep_pcb_again", "box_loss=gcd", 2.0, -0.5, 4.4, "leans better", 3),
        verdict("leans worse", difference=-0.5),
        verdict("worse", "cls_loss=eqfl", difference=-3),
    ]
    candidates, _, avoided = choose(small, RULES, known)
    words = [candidate.words for candidate in candidates]
    assert words[:2] == ["box_loss=gcd", "cls_weights=balanced"]
    assert [candidate.choice for candidate in candidates[2:]] == ["box_loss"]
    assert [note.what for note in avoided[:2]] == ["cls_loss=eqfl", "cls_loss=efl"]


def test_candidates_take_turns_between_keys_behind_all_that_was_found_better() -> None:
    traits = dataclasses.replace(RARE, small=0.5, below_stride=0.1)

    def choices(*known: Verdict) -> list[str]:
        return [candidate.choice for candidate in choose(traits, RULES, [*known])[0]]

    nwd = Verdict("deep_pcb", "box_loss=nwd", 2.0, 1.0, 3.0, "better", 3)
    gcd = Verdict("deep_pcb_again", "box_loss=gcd", 2.0, 1.0, 3.0, "better", 3)
    assert choices() == ["cls_weights", "cls_loss", "box_loss", "tal_overlap"]
    assert choices(nwd, gcd) == ["box_loss", "box_loss", "cls_weights", "cls_loss"]
    assert choices(dataclasses.replace(gcd, word="leans better")) == [
        "box_loss",
        "cls_weights",
        "cls_loss",
        "tal_overlap",
    ]


def test_an_inconclusive_verdict_is_shown_and_keeps_the_grade() -> None:
    found = next(c for c in choose(RARE, RULES, [verdict("inconclusive")])[0] if c.words == "cls_loss=efl")
    assert found.grade == "measured by its authors"
    assert "inconclusive" in str(found.verdict)


def test_a_verdict_is_found_whatever_its_parameters_and_not_for_another_loss() -> None:
    known = [
        verdict("worse", "cls_loss=bce box_loss=nwd nwd_constant=17"),
        verdict("better", "cls_loss=efl cls_scale=auto"),
    ]
    assert verdicts.find(known, "neu_det_longtail", "box_loss=nwd") is known[0]
    assert verdicts.find(known, "deep_pcb", "box_loss=nwd") is None
    assert verdicts.find(known, "neu_det_longtail", "cls_loss=efl") is None  # that has another scale
    assert verdicts.find(known, "neu_det_longtail", "box_loss=gcd") is None


def test_the_verdicts_in_the_package_are_those_of_the_evidence() -> None:
    ours = ROOT / "examples" / "evidence" / "verdicts.csv"
    if not ours.is_file():
        pytest.skip("no verdicts are published yet")
    assert Path(verdicts.PATH).read_text() == ours.read_text(), f"copy {ours} to {verdicts.PATH}"
    assert verdicts.load()


def test_every_rule_that_was_measured_here_names_a_set_and_a_configuration() -> None:
    for rule in RULES:
        if rule.measured is not None:
            assert rule.measured.keys() == {"set", "config"}, rule.id
            key, _, value = rule.measured["config"].partition("=")
            assert key in default_keys().keys() | ANNOUNCED, rule.id
            assert rule.kind == "avoid" or rule.keys[key] == value, rule.id
            assert verdicts.find(verdicts.load(), rule.measured["set"], rule.measured["config"]), rule.id


def test_the_file_is_in_the_package() -> None:
    assert yaml.safe_load(rules.PATH.read_text(encoding="utf-8"))
    assert rules.PATH.parent == verdicts.PATH.parent == ROOT / "yolo_losses" / "recommendation"


def test_the_page_lists_what_the_rules_offer() -> None:
    text = (ROOT / "docs" / "recommend.md").read_text(encoding="utf-8")
    table = text[text.index("| trait | speaks for |") :].partition("\n\n")[0]
    offered = {f"{r.choice}={r.keys[r.choice]}" for r in RULES if r.kind == "try" and r.choice in default_keys()}
    assert set(re.findall(r"`(\w+=\w+)`", table)) == offered
