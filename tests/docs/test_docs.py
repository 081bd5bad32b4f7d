"""What the pages say exists: links, navigation, commands, options, keys, values and names; their Python blocks run."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import itertools
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
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


@pytest.mark.skipif(importlib.util.find_spec("zensical") is None, reason="the site's generator is not installed")
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs")
    done = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    built = sorted((tmp_path / "build" / "site").rglob("*.html"))
    assert len(built) == len(PAGES) + 1  # and the one for what is not found
    for page in built:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|link)\b[^>]*\b(?:src|href)=[\"']?https?:", text), page.name


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
    from ultralytics.utils import DEFAULT_CFG_DICT

    for words in command_lines(TEXTS[name]):
        keys = keys_of(words)
        assert set(keys) <= {*DEFAULT_CFG_DICT, *settings.default_keys()}, " ".join(words)
        own = {key: value for key, value in keys.items() if key in settings.default_keys()}
        grid = "compare" in words[:2]
        for values in itertools.product(*(v.split(",") if grid else [v] for v in own.values())):
            settings.LossSettings.from_mapping(dict(zip(own, map(smart_value, values), strict=True)))


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
    first = re.findall(r"^\| `(\w+)` \|", TEXTS["docs/keys.md"], flags=re.MULTILINE)
    assert set(settings.default_keys()) <= set(first)


# --- Python ----------------------------------------------------------------------------------------------------------


@every_page
def test_the_python_blocks_run(name: str) -> None:
    from ultralytics.utils import DEFAULT_CFG_DICT

    known = {*DEFAULT_CFG_DICT, *settings.default_keys(), *inspect.signature(yolo_losses.compare).parameters}
    registry.load()
    before = registry.snapshot()
    try:
        for block in blocks(TEXTS[name], "python"):
            calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
            trains = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr in ("train", "compare")]
            trains = [call for call in trains if call.keywords]
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
