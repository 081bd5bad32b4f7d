"""What a loss needs besides its own file and what `make loss` writes: `missing` names what is not there yet."""

from __future__ import annotations

from collections.abc import Iterator

import chinese
import curves
import docstrings
from loss_page import FOLDER

from yolo_losses import registry
from yolo_losses.plots import stem
from yolo_losses.registry import LossSpec, bibliography

SECTIONS = ("Formula", "Example", "See also")  # of the docstring; others depend on the loss
WITHOUT_CURVES = {"ghm"}  # whose value depends on the batch


def has_curves(spec: LossSpec) -> bool:
    """Return whether the page of a loss has curves with sliders: class losses and losses of upright boxes."""
    return spec.kind in ("cls", "box", "modifier") and not spec.rotated and spec.name not in WITHOUT_CURVES


def missing() -> list[str]:
    """Return one line for each thing that is missing, which begins with the file that it belongs in."""
    return [line for spec in registry.specs() if spec.built_in for line in _missing(spec)]


def _missing(spec: LossSpec) -> Iterator[str]:
    page = stem(spec)
    parts = docstrings.of_loss(spec).parts
    for section in SECTIONS:
        if not parts[section.lower()]:
            yield f"{spec.module.__module__.replace('.', '/')}.py: the docstring has no section '{section}:'"
    for identifier in bibliography.cited(spec):
        if identifier not in bibliography.entries():
            yield f"docs/references.bib: no entry for {identifier}, the source of {page}"
    if has_curves(spec) and curves.sliders(spec) is None:
        tables = "CLASS" if spec.kind == "cls" else "MODIFIER" if spec.kind == "modifier" else "PENALTIES or BOX"
        yield f"docs/curves.js: {tables} has no '{spec.name}', for the curves on its page"
    if page not in chinese.WORDS["losses"]:
        yield f"docs/zh/losses.yaml: 'losses' has no sentence for {page}"
    for parameter in spec.parameters:
        if parameter.limits.help not in chinese.WORDS["help"]:
            yield f"docs/zh/losses.yaml: 'help' has no translation of '{parameter.limits.help}' ({parameter.key})"
    if not (FOLDER / f"{page}.svg").is_file():
        yield f"docs/losses/{page}.svg: not drawn yet: run `make loss`"
