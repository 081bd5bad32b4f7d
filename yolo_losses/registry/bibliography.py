"""BibTeX entries of the papers, which losses refer to by arXiv number or DOI."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from yolo_losses.registry.specification import LossSpec

IDENTIFIER = re.compile(r"arXiv (\d{4}\.\d{4,5})|doi (10\.\S+?)(?=[;,]|\.?$|\s)")


def references_file() -> Path:
    """Return the path of `references.bib`, in the package or in the docs of a checkout."""
    inside = Path(__file__).parents[1] / "references.bib"
    return inside if inside.is_file() else Path(__file__).parents[2] / "docs" / "references.bib"


@functools.cache
def entries() -> dict[str, str]:
    """Return the text of each entry by its arXiv number or DOI."""
    found = {}
    for entry in re.findall(
        r"^@\w+\{.*?^\}", references_file().read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    ):
        for identifier in re.findall(r"^\s*(?:eprint|doi)\s*=\s*\{(.+?)\}", entry, flags=re.MULTILINE):
            found[identifier] = entry
    return found


def cited(spec: LossSpec) -> list[str]:
    """Return the arXiv numbers and DOIs in the source of a loss."""
    return [number or doi for number, doi in IDENTIFIER.findall(spec.source)]


def bibtex(spec: LossSpec) -> str:
    """Return the BibTeX entries of the papers of a loss that are in the file."""
    return "\n\n".join(dict.fromkeys(entries()[number] for number in cited(spec) if number in entries()))
