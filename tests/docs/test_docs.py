"""What the pages say exists: links, navigation, commands, options, keys, values and names; their Python blocks run."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import site_builder as site
import yaml
from conftest import ROOT

import yolo_losses
from yolo_losses import commands, registry
from yolo_losses.config import settings

DOCS = ROOT / "docs"
REPOSITORY = "https://github.com/yolo-losses/yolo-losses/"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
OTHERS = ("README*.md", "CONTRIBUTING.md", "CHANGELOG.md", "patches/*.md", "examples/**/*.md")
MARKDOWN = [*PAGES, *(path for pattern in OTHERS for path in sorted(ROOT.glob(pattern)))]
API = "docs/api.md"

every_page = pytest.mark.parametrize("name", TEXTS)
every_page_by_hand = pytest.mark.parametrize("name", [n for n, text in TEXTS.items() if "Written by `make" not in text])


def without_code(text: str) -> str:
    """Return Markdown without its code, in blocks and in lines."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as the repository's host and the site's generator make them alike."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


# --- links and navigation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path: Path) -> None:
    text = without_code(path.read_text(encoding="utf-8"))
    for link in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r"src=\"([^\"]+)\"", text)]:
        target, _, anchor = link.partition("#")
        if target.startswith(f"{REPOSITORY}blob/main/"):
            file = ROOT / target.removeprefix(f"{REPOSITORY}blob/main/")
        elif "://" in target:
            continue
        else:
            file = (path.parent / target).resolve() if target else path
            inside = file.is_relative_to(DOCS) or not path.is_relative_to(DOCS)
            assert inside, f"{link} leaves docs/, where the site has no page: link to {REPOSITORY}blob/main/"
        assert file.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{link}: no such heading"


def test_every_page_is_in_the_navigation_once() -> None:
    def pages(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for inner in entry.values() if isinstance(entry, dict) else entry:
                yield from pages(inner)

    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), yaml.BaseLoader)  # which reads over tags
    listed = [page for page in pages(site["nav"]) if "://" not in page]
    assert sorted(listed) == [page.relative_to(DOCS).as_posix() for page in PAGES]


def test_the_last_part_of_the_navigation_is_chinese() -> None:  # the site's style shows one language by that
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), yaml.BaseLoader)
    assert list(site["nav"][-1]) == ["中文"]
    assert all(path.startswith("zh/") for entry in site["nav"][-1]["中文"] for path in entry.values())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    pytest.importorskip("zensical", reason="the site's generator is not installed")
    root = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", root)
    shutil.copytree(DOCS, root / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "docs/site_builder.py"], cwd=root, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return root / "build" / "site"


def test_the_site_loads_nothing_from_elsewhere(built: Path) -> None:
    pages = sorted(built.rglob("*.html"))
    assert len(pages) == len(PAGES) + 1  # and the one for what is not found
    for page in pages:
        text = re.sub(r'<link rel="canonical"[^>]*>', "", page.read_text(encoding="utf-8"))
        assert not re.findall(r"<(?:script|img|link)\b[^>]*\b(?:src|href)=[\"']?https?:", text), page.name
        assert 'data-md-component="source"' not in text, "the theme asks the repository's host for its stars"


def test_formulas_of_the_site_are_mathml(built: Path) -> None:
    for page in sorted((DOCS / "losses").glob("*.md")):
        blocks = page.read_text(encoding="utf-8").count("```math")
        html = (built / "losses" / f"{page.stem}.html").read_text(encoding="utf-8")
        assert html.count("<math ") == blocks
        assert "\\begin{" not in html


def test_each_page_has_its_language(built: Path) -> None:
    for page in built.rglob("*.html"):
        language = "zh" if page.parent.name == "zh" else "en"
        assert f'<html lang="{language}"' in page.read_text(encoding="utf-8"), page


def test_the_switch_of_languages_leads_to_the_same_page(built: Path) -> None:
    for chinese in sorted((DOCS / "zh").glob("*.md")):
        (english,) = re.findall(r"^\[English\]\((\S+)\.md\)$", chinese.read_text(encoding="utf-8"), flags=re.MULTILINE)
        page = built / "zh" / f"{chinese.stem}.html"
        twin = (page.parent / f"{english}.html").resolve()
        for here, there, language in ((page, twin, "en"), (twin, page, "zh")):
            switch = rf'href="([^"]*)" hreflang="{language}" class="md-select__link"'
            (link,) = re.findall(switch, here.read_text(encoding="utf-8"))
            assert (here.parent / link).resolve() == there


def test_the_page_for_what_is_not_found_works_below_a_path(built: Path) -> None:
    text = (built / "404.html").read_text(encoding="utf-8")
    links = re.findall(r'<(?:link|script)[^>]*(?:href|src)="([^"]*)"', text)
    assert links
    assert all(link.startswith("/yolo-losses/") for link in links)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_search_finds_words_of_both_languages(built: Path) -> None:
    words = ["小目标", "随机种子", "不平衡", "focal", "cls_scale"]
    done = subprocess.run(
        ["node", Path(__file__).with_name("search.js"), built, *words], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert all(found[word] for word in words), found
    assert all(place.startswith("zh/") for word in words[:3] for place in found[word])


def test_a_missing_anchor_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#there"></a><a href="b.html#not"></a><a href="c.html"></a>')
    (tmp_path / "b.html").write_text('<h1 id="there"></h1>')
    assert [line.split()[1] for line in site.missing_links(tmp_path)] == ["b.html#not", "c.html"]


# --- commands and keys -----------------------------------------------------------------------------------------------


def command_lines(text: str) -> Iterator[list[str]]:
    """Yield the words of each `yolo` and `yolo-losses` command in code, on a line of its own or within one."""
    lines = [line for block in blocks(text, "bash") for line in block.splitlines()]
    for line in [*lines, *re.findall(r"`([^`\n]+)`", text)]:
        line = re.sub(r"\$\((.*?)\)", "PATH", line).replace("python -m yolo_losses train", "yolo train")
        words = shlex.split(line, comments=True) if re.match(r"(\w+=\S+ )*yolo(-losses)? ", line) else []
        yield words[next((i for i, word in enumerate(words) if word.startswith("yolo")), 0) :]


def keys_of(words: list[str]) -> dict[str, str]:
    """Return the `key=value` words."""
    words = [word for word in words if re.match(r"[a-z]\w*=", word) and not word.startswith("key=")]
    return {key: value for key, _, value in (word.partition("=") for word in words)}


@pytest.fixture
def brier() -> Iterator[None]:
    """Register the loss of the examples for a test."""
    registry.load()
    before = registry.snapshot()
    importlib.import_module("custom_loss")
    yield
    registry.restore(before)
    sys.modules.pop("custom_loss", None)


@every_page
def test_every_command_exists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in command_lines(TEXTS[name]):
        if words[:1] == ["yolo-losses"] and len(words) > 1 and words[1] != "COMMAND":
            with pytest.raises(SystemExit) as stop:
                commands.main([words[1], "--help"])
            assert stop.value.code == 0, f"no command {words[1]}"
            known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", capsys.readouterr().out))
            assert {word.partition("=")[0] for word in words[2:] if word.startswith("-")} <= known, " ".join(words)


def test_every_command_is_in_the_pages() -> None:
    used = {words[1] for text in TEXTS.values() for words in command_lines(text) if words[:1] == ["yolo-losses"]}
    assert {path.stem.rstrip("_") for path in Path(commands.__file__).parent.glob("[a-z]*.py")} <= used


@every_page
def test_the_keys_of_every_command_are_accepted(name: str, brier: None) -> None:
    from ultralytics.cfg import smart_value
    from ultralytics.utils import DEFAULT_CFG_DICT, SETTINGS

    for words in command_lines(TEXTS[name]):
        keys = keys_of(words)
        if words[:2] == ["yolo", "settings"]:
            assert set(keys) <= set(SETTINGS), " ".join(words)
            continue
        assert set(keys) <= {*DEFAULT_CFG_DICT, *settings.default_keys()}, " ".join(words)
        own = {key: value for key, value in keys.items() if key in settings.default_keys()}
        grid = "compare" in words[:2]
        for values in itertools.product(*(v.split(",") if grid else [v] for v in own.values())):
            task = "classify" if "-cls" in keys.get("model", "") else ""
            settings.LossSettings.from_mapping(dict(zip(own, map(smart_value, values), strict=True)), task)


@every_page_by_hand
def test_every_key_in_the_text_exists_and_takes_its_value(name: str, brier: None) -> None:
    from ultralytics.cfg import smart_value
    from ultralytics.utils import DEFAULT_CFG_DICT

    for code in re.findall(r"`([^`\n]+)`", TEXTS[name]):
        words = code.split()
        if not all(re.fullmatch(r"[a-z]\w*=[^=(){}\"']*", word) for word in words):
            continue
        for key, value in keys_of(words).items():
            assert key in {*DEFAULT_CFG_DICT, *settings.default_keys()}, code
            if key in settings.default_keys() and not value.isupper():
                try:
                    settings.LossSettings.from_mapping({key: smart_value(value)})
                except ValueError as error:
                    assert "would change nothing" in str(error), error


def test_every_key_has_a_row() -> None:
    first = re.findall(r"^\| (`[^|]+`) \|", TEXTS["docs/keys.md"], flags=re.MULTILINE)
    assert set(settings.default_keys()) <= {name for cell in first for name in re.findall(r"`(\w+)`", cell)}


# --- Python ----------------------------------------------------------------------------------------------------------


@every_page
def test_the_python_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics import YOLO
    from ultralytics.utils import DEFAULT_CFG_DICT

    compared = tmp_path / "runs" / "compare"  # what a block on the results of `compare` reads
    compared.mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "evidence" / "shapes" / "summary.csv", compared)
    monkeypatch.chdir(tmp_path)
    known = {*DEFAULT_CFG_DICT, *settings.default_keys(), *inspect.signature(yolo_losses.compare).parameters}
    known |= set(inspect.signature(YOLO.tune).parameters) | {"space"}
    registry.load()
    before = registry.snapshot()
    try:
        for block in blocks(TEXTS[name], "python"):
            calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
            named = [call for call in calls if isinstance(call.func, ast.Attribute) and call.keywords]
            trains = [call for call in named if call.func.attr in ("train", "tune", "compare")]  # type: ignore[attr-defined]
            if trains:  # minutes; that the keys are understood is checked, test_readme.py has trainings
                assert {keyword.arg for call in trains for keyword in call.keywords} <= known
            else:
                exec(compile(block, name, "exec"), {"__name__": "__main__"})
    finally:
        registry.restore(before)


def test_every_public_name_is_in_the_reference() -> None:
    text = TEXTS[API]
    names = {n for n in dir(yolo_losses) if not n.startswith("_")} - {"functional"}
    for public in names | set(dir(yolo_losses.functional)):
        assert re.search(rf"^### {public}$|`{public}`", text, flags=re.MULTILINE), public
