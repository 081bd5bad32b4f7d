"""The page of a loss has what a reader looks for: formula, example, papers, related losses, what was measured."""

from __future__ import annotations

import doctest
import re

import by_hand
import docstrings
import loss_page
import maths
import measured
import pytest
from conftest import ROOT

from yolo_losses import registry
from yolo_losses.plots import stem
from yolo_losses.registry import LossSpec, bibliography

BUILT_IN = [spec for spec in registry.specs() if spec.built_in]
every_loss = pytest.mark.parametrize("spec", BUILT_IN, ids=stem)


def test_nothing_of_a_loss_is_left_to_be_written_by_hand() -> None:
    assert by_hand.missing() == []


@every_loss
def test_every_loss_has_a_formula_that_reads_as_maths(spec: LossSpec) -> None:
    formula = docstrings.of_loss(spec).parts["formula"]
    assert re.match(r"(L =|IoU <-) ", formula)
    page = (ROOT / "docs" / "losses" / f"{stem(spec)}.md").read_text(encoding="utf-8")
    assert f"```math\n{maths.latex(formula)}\n```" in page


@every_loss
def test_the_letters_of_a_formula_are_parameters_or_explained(spec: LossSpec) -> None:
    doc = docstrings.of_loss(spec)
    shared = loss_page.GROUPS[spec.group]
    defined = re.findall(
        r"^(\w+'?)(?:\^2|\(i\))? (?:=|<-)", f"{doc.parts['formula']}\n{shared.notation}", flags=re.MULTILINE
    )
    explained = set(re.findall(r"[A-Za-z_0-9]+", f"{doc.summary} {doc.text} {shared.words}"))
    parameters = {p.name.rstrip("_") for p in spec.parameters}
    known = {*defined, *explained, *parameters, *maths.GREEK, *maths.FUNCTIONS, *maths.OPERATORS, *maths.NAMED}
    used = {name.replace("'", "") for name in re.findall(r"[A-Za-z]\w*'?(?:_\w+)?", doc.parts["formula"])}
    words = {"L", "L_base", "e", "sqrt", "if", "otherwise", *(other.name for other in BUILT_IN)}
    unknown = {name for name in used if not {name, name.partition("_")[0]} & (known | words)}
    assert not unknown


@every_loss
def test_every_loss_has_an_example_that_is_true_on_its_page(spec: LossSpec) -> None:
    example = docstrings.of_loss(spec).parts["example"]
    page = (ROOT / "docs" / "losses" / f"{stem(spec)}.md").read_text(encoding="utf-8")
    assert f"```pycon\n{example}\n```" in page
    test = doctest.DocTestParser().get_doctest(f"{example}\n", {}, spec.name, None, 0)
    assert any(call.want for call in test.examples)
    assert not doctest.DocTestRunner().run(test).failed


@every_loss
def test_related_losses_have_pages(spec: LossSpec) -> None:
    related = loss_page.related(docstrings.of_loss(spec).parts["see also"])
    assert spec not in [other for other, _ in related]
    assert all(why for _, why in related)


def test_a_related_loss_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="names 'qlf'"):
        loss_page.related("qlf: a slip")


def test_the_bibliography_has_the_papers_that_a_loss_names_and_no_others() -> None:
    named = {identifier for spec in BUILT_IN for identifier in bibliography.cited(spec)}
    assert set(bibliography.entries()) <= named
    text = bibliography.references_file().read_text(encoding="utf-8")
    assert text.count("\n@") == len(set(bibliography.entries().values()))
    assert all(entry.count("{") == entry.count("}") for entry in bibliography.entries().values())


def test_bibtex_is_on_the_page_where_there_is_a_paper() -> None:
    for spec in BUILT_IN:
        page = (ROOT / "docs" / "losses" / f"{stem(spec)}.md").read_text(encoding="utf-8")
        assert page.count("```bibtex") == bool(bibliography.cited(spec))


@pytest.mark.parametrize(
    ("config", "pages"),
    [
        ("cls_loss=focal cls_scale=auto", ["focal"]),
        ("cls_loss=bce box_loss=focaler_inner_ciou", ["bce", "ciou", "focaler", "inner"]),
        ("box_loss=stock seg_loss=dice", ["seg_dice"]),
    ],
)
def test_a_verdict_is_shown_with_every_loss_of_its_configuration(config: str, pages: list[str]) -> None:
    assert sorted(stem(spec) for spec in BUILT_IN if measured.uses(config, spec)) == pages


def test_a_verdict_has_its_difference_interval_and_word() -> None:
    row = {"set": "shapes", "config": "cls_loss=focal", "difference": "-8.86", "low": "-14", "high": "-3.72"}
    cells = loss_page.verdict({**row, "word": "worse", "seeds": "3"})
    assert cells[1:] == ("`cls_loss=focal`", "\u22128.9 (\u221214.0 to \u22123.7)", "worse", "3")
    assert cells[0].endswith("/examples/evidence/shapes/report.md)")
