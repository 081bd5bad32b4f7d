"""A Chinese page says what its English twin says: the same commands, keys, log lines, tables, numbers and links."""

from __future__ import annotations

import re

import pytest
import yaml
from conftest import ROOT

from yolo_losses import registry
from yolo_losses.comparison.language import translate
from yolo_losses.comparison.stats.verdict import OUTCOMES

TWINS = {
    "docs/zh/index.md": "docs/index.md",
    "docs/zh/losses.md": "docs/losses/index.md",
    "docs/zh/did-it-run.md": "docs/did-it-run.md",
    "docs/zh/collapsed.md": "docs/collapsed.md",
    "docs/zh/compare.md": "docs/compare.md",
    "docs/zh/assigner.md": "docs/assigner.md",
    "docs/zh/recommend.md": "docs/recommend.md",
    "docs/zh/which-loss.md": "docs/which-loss.md",
    "docs/zh/keys.md": "docs/keys.md",
    "docs/zh/evidence.md": "docs/evidence.md",
    "docs/zh/from-tutorials.md": "docs/from-tutorials.md",
    "docs/zh/old-answers.md": "docs/old-answers.md",
    "docs/zh/where-it-runs.md": "docs/where-it-runs.md",
    "docs/zh/integrations.md": "docs/integrations.md",
    "docs/zh/loss-stats.md": "docs/loss-stats.md",
    "docs/zh/python.md": "docs/python.md",
    "docs/zh/traps.md": "docs/traps.md",
    "README.zh-CN.md": "README.md",
}
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in (*TWINS, *TWINS.values())}
EVIDENCE = "docs/zh/evidence.md"  # shorter than its twin: how to read the tables, and the tables
PAGES = [name for name in TWINS if name.startswith("docs/") and name != EVIDENCE]
BY_HAND = [name for name in PAGES if name != "docs/zh/losses.md"]  # whose table has the parameters too

WORDS = yaml.safe_load((ROOT / "docs" / "zh" / "losses.yaml").read_text(encoding="utf-8"))

every_text = pytest.mark.parametrize("name", TWINS)
every_page_by_hand = pytest.mark.parametrize("name", BY_HAND)
every_page = pytest.mark.parametrize("name", PAGES)
every_page_and_readme = pytest.mark.parametrize("name", [*PAGES, "README.zh-CN.md"])

BLOCK = re.compile(r"^```\w*\n(.*?)^```$|((?:^ {4}\S[^\n]*\n)+)", flags=re.DOTALL | re.MULTILINE)
CHINESE = r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"


def blocks(text: str) -> list[list[str]]:
    """Return the lines of each block of code, fenced or indented, without comments."""
    found = [(fenced or indented).splitlines() for fenced, indented in BLOCK.findall(text)]
    return [[re.sub(r"\s+# .*", "", line.strip()) for line in lines if line.strip()] for lines in found]


def prose(text: str) -> str:
    """Return a page without its blocks of code."""
    return BLOCK.sub("", text)


def tables(text: str) -> list[list[list[str]]]:
    """Return the rows of each table below its heading, each as its cells."""
    found = re.findall(r"^\|.*\n\|[ :|-]+\|\n((?:\|.*\n)*)", prose(text), flags=re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", row)[1:-1] for row in rows.splitlines()] for rows in found]


def code(text: str) -> list[str]:
    """Return the code in lines of text."""
    return sorted(re.findall(r"`([^`\n]+)`", text))


def numbers(text: str) -> list[str]:
    """Return the numbers in a text outside code and addresses."""
    text = re.sub(r"`[^`\n]+`|\]\([^)]*\)", " ", text)
    return sorted(re.findall(r"(?<![A-Za-z\d.])\d+(?:\.\d+)*(?:e-\d+)?", text))


def links(name: str) -> set[str]:
    """Return where a page leads to, apart from its twin; a Chinese page counts as the English one."""
    found = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[name]))} - {""}
    inside = {
        ((ROOT / name).parent / link).resolve().relative_to(ROOT).as_posix() for link in found if "://" not in link
    }
    english = {TWINS.get(path, path) for path in inside} - {TWINS.get(name, name)}
    return english | {link for link in found if "://" in link}


@every_text
def test_each_leads_to_its_twin_below_the_title(name: str) -> None:
    for page, other, word in ((name, TWINS[name], "English"), (TWINS[name], name, "中文")):
        line = re.split(r"^# .*\n\n", TEXTS[page], maxsplit=1, flags=re.MULTILINE)[1].partition("\n")[0]
        found = re.match(rf"\[{word}\]\((\S+)\)", line)
        assert found, f"{page}: '{line}'"
        assert ((ROOT / page).parent / found[1]).resolve() == ROOT / other


@every_page_and_readme
def test_blocks_of_code_are_equal_but_for_comments(name: str) -> None:
    assert blocks(TEXTS[name]) == blocks(TEXTS[TWINS[name]])


def test_blocks_are_found() -> None:
    assert sum(len(blocks(TEXTS[name])) for name in PAGES) > 20


@every_page_and_readme
def test_pictures_are_the_same(name: str) -> None:
    def pictures(page: str) -> list[str]:
        return re.findall(r"(?:!\[[^]]*\]\(|src=\")([^)\"]+)", TEXTS[page])

    assert [path.rpartition("/")[2] for path in pictures(name)] == [p.rpartition("/")[2] for p in pictures(TWINS[name])]


@every_page_and_readme
def test_sections_are_the_same(name: str) -> None:
    levels, twin = (re.findall(r"^#+(?= )", prose(TEXTS[page]), flags=re.MULTILINE) for page in (name, TWINS[name]))
    assert levels == twin


@every_page_by_hand
def test_code_in_lines_is_the_same(name: str) -> None:
    assert set(code(prose(TEXTS[name]))) == set(code(prose(TEXTS[TWINS[name]])))


@every_page
def test_tables_have_the_same_rows_and_numbers(name: str) -> None:
    ours, theirs = tables(TEXTS[name]), tables(TEXTS[TWINS[name]])
    assert [len(rows) for rows in ours] == [len(rows) for rows in theirs]
    for rows, twins in zip(ours, theirs, strict=True):
        for row, twin in zip(rows, twins, strict=True):
            assert code(row[0]) == code(twin[0])
            assert re.findall(r"/?(\w+\.md)", row[0]) == re.findall(r"/?(\w+\.md)", twin[0])
            if name not in BY_HAND and len(row) == 4:  # the column of the parameters
                row = [*row[:2], *row[3:]]
            assert numbers(" ".join(row)) == numbers(" ".join(twin)), row
            assert set(code(" ".join(row))) == set(code(" ".join(twin))), row


@every_page_by_hand
def test_numbers_in_the_text_are_the_same(name: str) -> None:
    assert numbers(prose(TEXTS[name])) == numbers(prose(TEXTS[TWINS[name]]))


@every_page
def test_links_are_the_same(name: str) -> None:
    assert links(name) == links(TWINS[name])


@every_text
def test_no_line_of_chinese_is_wrapped(name: str) -> None:  # a line break in a paragraph is shown as a space
    assert not re.findall(rf"{CHINESE}\n *{CHINESE}.*", prose(TEXTS[name]))


def test_the_verdicts_are_the_same() -> None:
    ours, theirs = tables(TEXTS[EVIDENCE]), tables(TEXTS[TWINS[EVIDENCE]])
    theirs = [rows for rows in theirs if len(rows[0]) == 6 and rows[0][4].strip() in OUTCOMES]
    assert ours
    for rows, twins in zip(ours, theirs, strict=True):
        for row, twin in zip(rows, twins, strict=True):
            assert [*row[:3], row[5]] == [*twin[:3], twin[5]]
            assert numbers(row[3]) == numbers(twin[3])
            assert row[4].strip() == translate(twin[4].strip(), "zh")


def test_the_meanings_of_parameters_are_chinese_with_the_same_numbers() -> None:
    meanings = {p.limits.help for spec in registry.specs() if spec.built_in for p in spec.parameters}
    assert set(WORDS["help"]) <= meanings
    for english, own in WORDS["help"].items():
        assert re.search(CHINESE, own)
        assert numbers(own) == numbers(english), own


def test_no_phrase_of_a_written_table_is_left_in_english() -> None:
    text = "".join(re.findall(r"<!-- \w+:?\w* -->(.*?)<!-- /", TEXTS["docs/zh/keys.md"], flags=re.DOTALL))
    assert not re.findall(r"(?:\| |\. )(?:a|an|the|no|or) \w+", text)


def test_the_sentences_of_losses_are_chinese() -> None:
    words = WORDS
    pages = re.findall(r"^\| \[`\w+`\]\(\.\./losses/(\w+)\.md\)", TEXTS["docs/zh/losses.md"], flags=re.MULTILINE)
    assert set(words["losses"]) <= set(pages)
    assert all(re.search(CHINESE, sentence) for sentence in words["losses"].values())
    sources = " ".join(spec.source for spec in registry.specs())
    assert all(phrase in sources for phrase in words["sources"])
