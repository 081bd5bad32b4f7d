"""The report in Chinese: every text is translated, and no English sentence remains."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from made_up_runs import write_run

pytest.importorskip("scipy")

import yolo_losses.comparison
from yolo_losses.comparison.language import Text, catalogue, translate
from yolo_losses.comparison.options import Options
from yolo_losses.comparison.report import build_report

PACKAGE = Path(yolo_losses.comparison.__file__).parent
WORDS = catalogue("zh")


def constants(node: ast.AST | None, known: dict[str, list[str]]) -> list[str]:
    """Return the texts that an expression may be; a name is what the function assigns to it."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp():
            return [*constants(node.body, known), *constants(node.orelse, known)]
        case ast.Name():
            return known.get(node.id, [])
    return []


def templates(path: Path) -> Iterator[str]:
    """Yield the templates of a module's texts."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef | ast.Module):
            continue
        known: dict[str, list[str]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                known.setdefault(node.targets[0].id, []).extend(constants(node.value, {}))
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Text", "translate", "counted"):
                yield from constants(node.args[-1 if node.func.id == "counted" else 0], known)  # type: ignore[attr-defined]


def test_every_template_of_the_reports_is_translated() -> None:
    found = {text for path in PACKAGE.rglob("*.py") for text in templates(path)}
    found |= set(re.findall(r'_\("([^"]+)"', (PACKAGE / "report" / "report.md.jinja").read_text(encoding="utf-8")))
    with_words = {text for text in found if re.search("[a-z]", re.sub(r"{\w+}", "", text))}
    missing = {text for text in with_words if not {text, f"{{n}} {text}"} & WORDS.keys()}
    assert len(found) > 100
    assert not missing


@pytest.mark.parametrize("template", WORDS)
def test_translations_have_the_placeholders_of_their_template(template: str) -> None:
    def names(text: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    assert names(WORDS[template]) == names(template)


def test_a_text_equals_its_english_and_is_translated_with_its_values() -> None:
    text = Text("{label} seed {seed}", label="bce", seed=3)
    assert text == "bce seed 3"
    assert translate(text, "en") == text
    assert translate(text, "zh") == "bce 种子 3"
    several = Text("{word}: {names}", word=Text("better"), names=["a", "{b}"])
    assert several == "better: a, {b}"
    assert translate(several, "zh") == "更好\uff1aa、{b}"
    assert translate("what no catalogue has", "zh") == "what no catalogue has"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two data sets, a failed run, a copy, a set that changed, two seeds of one configuration."""
    monkeypatch.setattr("yolo_losses.comparison.stats.analysis.RESAMPLES", 100)
    for data in ("my.yaml", "other.yaml"):
        for loss, skill in {"bce": 1.0, "focal": 0.4, "slide": 1.0}.items():
            for seed in range(3):
                write_run(tmp_path, {"cls_loss": loss}, seed, skill=skill, data=data)
    write_run(tmp_path, {"cls_loss": "slide"}, 3, error="out of memory", data="my.yaml")
    return tmp_path


ENGLISH = r"(?<![\w`./=-])[a-z]{3,} [a-z]{2,} [a-z]{2,}"


@pytest.mark.parametrize("metric", ["map50_95", "map50@last"])
def test_no_sentence_of_a_chinese_report_is_english(folder: Path, metric: str) -> None:
    name, _, epochs = metric.partition("@")
    build_report(folder, metric=name, epochs=epochs or "best", language="zh")
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", markdown, flags=re.DOTALL | re.MULTILINE)
    assert not re.findall(ENGLISH, prose)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<html lang="zh">' in page
    assert 'class="worse">更差</td>' in page
    drawn = re.sub(r"<(?:style|title|code|pre).*?</(?:style|title|code|pre)>", "", page, flags=re.DOTALL)
    assert not re.findall(ENGLISH, " ".join(re.findall(r">([^<>]+)<", drawn)))


def test_punctuation_beside_chinese_characters_is_chinese(folder: Path) -> None:
    build_report(folder, language="zh")
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```|^\|--.*?$|\]\(figures/", "", markdown, flags=re.DOTALL | re.MULTILINE)
    drawn = " ".join(re.findall(r">([^<>]+)<", (folder / "report.html").read_text(encoding="utf-8")))
    for text in (prose, drawn, *WORDS.values()):
        assert not re.findall("[\u4e00-\u9fff][*`]*[,:;?!()].{0,9}|.{0,9}[,:;?!()][*` ]*[\u4e00-\u9fff]", text)
    assert "| 种子数 |" in markdown
    assert "| 数据集数 |" in markdown


def test_the_tables_of_both_reports_have_the_same_numbers(folder: Path) -> None:
    found: list[Any] = []
    for language in ("en", "zh"):
        build_report(folder, language=language)
        rows = [line for line in (folder / "report.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
        numbers = [re.findall(r"[-+\u2212]?\d+(?:\.\d+)?", re.sub("95 ?% ?", "", row)) for row in rows]
        found.append([row for row in numbers if row])
    assert found[0] == found[1]


def test_files_for_programs_are_english_in_every_language(folder: Path) -> None:
    tables = [build_report(folder, language=language) for language in ("en", "zh")]
    assert tables[0].equals(tables[1])
    assert not re.search("[\u4e00-\u9fff]", (folder / "summary.json").read_text(encoding="utf-8"))


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^'--language fr': allowed are en, zh$"):
        Options(language="fr")


def test_the_page_says_which_languages_there_are() -> None:
    assert "`--language zh`" in (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
