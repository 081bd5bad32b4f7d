"""BibTeX of the papers: `docs/references.bib` has each once, and a loss names its own by arXiv number or DOI."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from yolo_losses.registry import LossSpec

FILE = Path(__file__).parent / "references.bib"
IDENTIFIER = re.compile(r"arXiv (\d{4}\.\d{4,5})|doi (10\.\S+?)(?=[;,]|\.?$|\s)")


@functools.cache
def entries() -> dict[str, str]:
    """Return the text of each entry by its arXiv number or DOI."""
    found = {}
    for entry in re.findall(r"^@\w+\{.*?^\}", FILE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE):
        for identifier in re.findall(r"^\s*(?:eprint|doi)\s*=\s*\{(.+?)\}", entry, flags=re.MULTILINE):
            found[identifier] = entry
    return found


def cited(spec: LossSpec) -> list[str]:
    """Return the arXiv numbers and DOIs that the declaration of a loss names as its source."""
    return [number or doi for number, doi in IDENTIFIER.findall(spec.source)]


def bibtex(spec: LossSpec) -> str:
    """Return the entries of a loss's papers, as far as the file has them."""
    return "\n\n".join(dict.fromkeys(entries()[number] for number in cited(spec) if number in entries()))
