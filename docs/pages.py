"""The pages that follow from the declarations and docstrings: a page for each loss, the gallery, the keys, the API.

`docs/tables.py` writes them (`make tables`) and checks that they are current; what a page looks like is in
`docs/templates/`. A picture beside a page, `focal.svg` beside `focal.md`, is shown where it exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import chinese
import measured
import yaml
from api_page import api_page
from loss_page import FOLDER, GROUPS, loss_page, published
from page_markdown import REPOSITORY, WRITTEN, display_name, links, render, table

from yolo_losses import registry
from yolo_losses.commands.list_ import grouped
from yolo_losses.config.logged import WITHOUT_KEY
from yolo_losses.plots import stem
from yolo_losses.registry import LossSpec

DOCS = Path(__file__).resolve().parent
SITE = DOCS.parent / "mkdocs.yml"
EVIDENCE = DOCS.parent / "examples" / "evidence"


def pages() -> dict[Path, str]:
    """Return the text of every page that is written or has a written part, by its path."""
    specs = [spec for spec in registry.specs() if spec.built_in]
    found = {FOLDER / f"{stem(spec)}.md": loss_page(spec) for spec in specs}
    found[FOLDER / "index.md"] = render("index.md", groups=gallery(specs))
    found[DOCS / "api.md"] = api_page(specs)
    cost = table(*measured.cost_rows())
    results = {name: published(measured.by_group(name), notes=False) for name in ("class", "box", "rotated")}
    with_keys = {name: own for name, own in grouped(specs).items() if any(spec.parameters for spec in own)}
    without_key = [(f"`{name}`", what) for name, what in WITHOUT_KEY.items()]
    parts = {
        DOCS / "keys.md": {f"keys:{name}": keys_table(members) for name, members in with_keys.items()}
        | {"logged": table(("logged", "what it is"), without_key)},
        DOCS / "speed.md": {"costs": cost, "pasted": table(*measured.pasted_rows())},
        DOCS / "which-loss.md": {f"published:{name}": table(*found) for name, found in results.items()}
        | {"fine-tuned": table(*measured.fine_tuned_rows())},
        chinese.FOLDER / "losses.md": {
            f"losses:{name}": chinese.losses(members, pictures) for name, members in grouped(specs).items()
        },
        chinese.FOLDER / "keys.md": {f"keys:{name}": chinese.keys_table(members) for name, members in with_keys.items()}
        | {"logged": chinese.logged(without_key)},
        chinese.FOLDER / "which-loss.md": {
            f"published:{name}": chinese.published(rows) for name, (_, rows) in results.items()
        }
        | {"fine-tuned": chinese.fine_tuned(measured.fine_tuned_rows()[1])},
        chinese.FOLDER / "evidence.md": {
            "verdicts": chinese.evidence((EVIDENCE / "README.md").read_text(encoding="utf-8"))
        },
    }
    for path, texts in parts.items():
        apart = {name: f"\n{text}\n\n" for name, text in texts.items()}
        found[path] = filled(path.read_text(encoding="utf-8"), apart, path.name)
    found[DOCS / "verdict.svg"] = (EVIDENCE / "verdict.svg").read_text(encoding="utf-8")
    found[DOCS / "evidence.md"] = evidence()
    found[SITE] = filled(SITE.read_text(encoding="utf-8"), {"losses": navigation(specs) + "\n"}, SITE.name)
    found[DOCS / "llms.txt"] = llms(found)
    return found


def filled(text: str, parts: Mapping[str, str], name: str) -> str:
    """Return a text whose marked parts, `<!-- NAME -->` to `<!-- /NAME -->` (`# NAME` to `# /NAME`), are replaced.

    Raises:
        ValueError: if a part has no place in the text.
    """
    for part, content in parts.items():
        mark = rf"^[ \t]*(?:<!-- {{}}{part} -->|# {{}}{part})$"
        place = re.search(rf"{mark.format('', '')}\n(.*?){mark.format('/', '/')}", text, flags=re.DOTALL | re.MULTILINE)
        if place is None:
            raise ValueError(f"{name} has no place for '{part}'")
        text = text[: place.start(1)] + content + text[place.end(1) :]
    return text


def gallery(specs: Sequence[LossSpec]) -> list[dict[str, Any]]:
    """Return what the page with all losses shows of each group."""
    return [
        {
            "title": GROUPS[name].title,
            "lead": GROUPS[name].lead,
            "pictures": pictures(members),
            "rows": [(f"[`{display_name(s)}`]({stem(s)}.md)", s.summary, links(s.source)) for s in members],
        }
        for name, members in grouped(list(specs)).items()
    ]


def pictures(specs: Sequence[LossSpec], folder: str = "") -> str:
    """Return small pictures of losses, each a link to its page; a loss without one has no place."""
    # In HTML, since Markdown knows no width; the host of the repository shows pictures in full size otherwise.
    picture = '[<img src="{0}-column.svg" alt="Curves of {1}" width="320" loading="lazy">]({0}.md)'
    drawn = [spec for spec in specs if (FOLDER / f"{stem(spec)}-column.svg").is_file()]
    return "\n".join(picture.format(f"{folder}{stem(spec)}", display_name(spec)) for spec in drawn)


def evidence() -> str:
    """Return `examples/evidence/README.md` as a page: what is not in `docs/` is linked in the repository."""

    def moved(link: re.Match[str]) -> str:
        path, _, anchor = link[1].partition("#")
        file = (EVIDENCE / path).resolve()
        inside = file.is_relative_to(DOCS)
        target = file.relative_to(DOCS) if inside else f"{REPOSITORY}/{file.relative_to(DOCS.parent)}"
        return f"]({target}{'#' + anchor if anchor else ''})"

    text = (EVIDENCE / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", moved, text)
    return WRITTEN + re.sub(r"^# .*\n", r"\g<0>\n[中文](zh/evidence.md)\n", text, count=1)


def llms(written: Mapping[Path, str]) -> str:
    """Return the site's pages as `llms.txt` lists them (https://llmstxt.org): each with its first sentence."""
    site = yaml.load(written[SITE], yaml.BaseLoader)  # which reads over tags
    lines = [f"# {site['site_name']}", f"> {site['site_description']}"]

    def add(entries: Sequence[Any]) -> None:
        for entry in entries:
            title, inside = next(iter(entry.items())) if isinstance(entry, dict) else ("All losses", entry)
            if not isinstance(inside, str):
                lines.append(f"## {title}")
                add(inside)
                continue
            url = f"{site['site_url']}{inside.removesuffix('.md')}.html"
            text = written.get(DOCS / inside) or (DOCS / inside).read_text(encoding="utf-8")
            lines.append(f"- [{title}]({url}): {first_sentence(text)}")

    add(site["nav"])
    return re.sub(r"\n\n(?=- )", "\n", "\n\n".join(lines)).replace("\n- ", "\n\n- ", 1) + "\n"


def first_sentence(text: str) -> str:
    """Return the first sentence of a page below its title."""
    paragraphs = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE).split("\n\n")
    prose = next(part.strip() for part in paragraphs if part.strip() and part.strip()[0] not in "#<[|*!")
    return re.split(r"(?<=\.)\s|(?<=。)", " ".join(prose.split()))[0]


def navigation(specs: Sequence[LossSpec]) -> str:
    """Return the part of the site's navigation that lists the losses."""
    lines = []
    for name, members in grouped(list(specs)).items():
        lines.append(f"      - {GROUPS[name].title}:")
        lines += [f"          - {display_name(spec)}: losses/{stem(spec)}.md" for spec in members]
    return "\n".join(lines)


def keys_table(specs: Sequence[LossSpec]) -> str:
    """Return the parameters of a group of losses, a key a row."""
    rows = [
        (f"`{p.key}`", f"`{p.default}`", p.allowed, p.limits.help, f"[{display_name(s)}](losses/{stem(s)}.md)")
        for s in specs
        for p in s.parameters
    ]
    return table(("key", "default", "allowed", "meaning", "loss"), rows)
