"""Build the site of docs/ into build/site (`make docs`), with no missing link or anchor.

    python docs/site_builder.py

Zensical builds it from `mkdocs.yml`. What is left to do here, since this site has two languages: its search takes one,
and its switch of languages leads to the home of the other one, not to the same page.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]


def main(root: Path = ROOT) -> int:
    """Build, and return 1 where a page cannot be built or a link leads nowhere."""
    path = os.pathsep.join([str(root / "docs"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    if subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": path}, check=False).returncode:
        return 1
    site = root / "build" / "site"
    add_search_language(site / "search.json", "zh")
    link_twins(site)
    missing = missing_links(site)
    for line in missing:
        print(line, file=sys.stderr)
    return 1 if missing else 0


def add_search_language(index: Path, language: str) -> None:
    """Have the search divide text of a language without spaces into words."""
    content = json.loads(index.read_text(encoding="utf-8"))
    content["config"]["lang"].append(language)
    index.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def link_twins(site: Path) -> None:
    """Have the switch of languages lead to the same page in the other language, where there is one."""
    chinese = {_twin(path.relative_to(site)): path for path in (site / "zh").glob("*.html")}
    twins = {site / english: own for english, own in chinese.items()} | {
        own: site / english for english, own in chinese.items()
    }
    for page, twin in twins.items():
        language = "zh" if twin.parent.name == "zh" else "en"
        link = Path(os.path.relpath(twin, page.parent)).as_posix()
        switch = rf'(<a href=")[^"]*(" hreflang="{language}" class="md-select__link")'
        text, found = re.subn(switch, rf"\g<1>{link}\g<2>", page.read_text(encoding="utf-8"))
        if not found:
            raise ValueError(f"{page.relative_to(site)} has no switch of languages")
        page.write_text(text, encoding="utf-8")


def _twin(chinese: Path) -> Path:
    """Return the English page of a Chinese one: `losses/index.html` of `zh/losses.html`, which lists them."""
    return Path("losses/index.html") if chinese.name == "losses.html" else Path(chinese.name)


class _Page(HTMLParser):
    """The anchors and links of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name"):
                self.ids.add(value or "")
            elif name in ("href", "src"):
                self.links.append(value or "")


def missing_links(site: Path) -> list[str]:
    """Return a line for each link or anchor inside the site that is not there."""
    pages = {path: _Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or parts.path.startswith("/"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].ids):
                found.append(f"{path.relative_to(site)}: {link} leads nowhere")
    return found


if __name__ == "__main__":
    sys.exit(main())
