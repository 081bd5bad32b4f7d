"""BibTeX of the papers: `references.bib` has each once, and a loss names its own by arXiv number or DOI."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from yolo_losses.registry.specification import LossSpec

IDENTIFIER = re.compile(r"arXiv (\d{4}\.\d{4,5})|doi (10\.\S+?)(?=[;,]|\.?$|\s)")


def file() -> Path:
    """Return the path of the file: in the package, or in the documentation of a checkout."""
    inside = Path(__file__).parents[1] / "references.bib"
    return inside if inside.is_file() else Path(__file__).parents[2] / "docs" / "references.bib"


@functools.cache
def entries() -> dict[str, str]:
    """Return the text of each entry by its arXiv number or DOI."""
    found = {}
    for entry in re.findall(r"^@\w+\{.*?^\}", file().read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE):
        for identifier in re.findall(r"^\s*(?:eprint|doi)\s*=\s*\{(.+?)\}", entry, flags=re.MULTILINE):
            found[identifier] = entry
    return found


def cited(spec: LossSpec) -> list[str]:
    """Return the arXiv numbers and DOIs that the declaration of a loss names as its source."""
    return [number or doi for number, doi in IDENTIFIER.findall(spec.source)]


def bibtex(spec: LossSpec) -> str:
    """Return the entries of a loss's papers, as far as the file has them."""
    return "\n\n".join(dict.fromkeys(entries()[number] for number in cited(spec) if number in entries()))
