"""Markdown as the pages have it: names, links, tables, and pages from the templates in `docs/templates/`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import docstrings
import jinja2
import maths

from yolo_losses.plots import stem
from yolo_losses.registry import TERM_KEYS, LossSpec

REPOSITORY = "https://github.com/yolo-losses/yolo-losses/blob/main"
WRITTEN = "<!-- Written by `make tables` from the declarations and docstrings: edit those. -->\n\n"


def display_name(spec: LossSpec) -> str:
    """Return the name of a loss as it is written: `inner_` for a modifier."""
    return f"{spec.name}_" if spec.kind == "modifier" else spec.name


def title(spec: LossSpec) -> str:
    """Return the heading of a loss's page."""
    if spec.kind == "modifier":
        return display_name(spec)
    return f"{TERM_KEYS[spec.kind]}={spec.name}" + (" in the task classify" if spec.kind == "classify" else "")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a bar in a cell, such as that of an absolute value, does not end it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def links(text: str) -> str:
    """Return a text whose arXiv numbers and DOIs are links."""
    text = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"doi (10\.[^\s;,]+[^\s;,.])", r"[doi \1](https://doi.org/\1)", text)


def render(template: str, **values: Any) -> str:
    """Return a page from its template in `docs/templates/`."""
    text = WRITTEN + _templates.get_template(f"{template}.jinja").render(values)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "links": links,
    "one_line": lambda text: " ".join(text.split()),
    "lower_first": lambda text: text[:1].lower() + text[1:],
    "display_name": display_name,
    "title": title,
    "stem": stem,
    "latex": maths.latex,
}
_templates.globals |= {"table": table, "repository": REPOSITORY, "read": docstrings.read}
