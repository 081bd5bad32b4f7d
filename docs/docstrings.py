"""What a docstring of the package says, by its sections."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import griffe

from yolo_losses.registry import LossSpec


@dataclass(frozen=True)
class Doc:
    """A docstring.

    Attributes:
        summary: its first paragraph.
        text: the paragraphs after it.
        fields: names and descriptions of arguments or attributes.
        raises: names and descriptions of exceptions.
        parts: the text of the other sections by their lower-case names: `returns`, `formula`, `example`, `source`,
            `see also`; empty where there is none.
    """

    summary: str = ""
    text: str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)
    raises: list[tuple[str, str]] = field(default_factory=list)
    parts: Mapping[str, str] = field(default_factory=lambda: defaultdict(str))


def read(what: Any) -> Doc:
    """Return the docstring of a function or class."""
    paragraphs: list[str] = []
    fields: list[tuple[str, str]] = []
    raises: list[tuple[str, str]] = []
    parts: dict[str, str] = defaultdict(str)
    for section in griffe.parse_google(griffe.Docstring(inspect.getdoc(what) or ""), warnings=False):
        value = section.value
        match section.kind.value:
            case "text":
                paragraphs += value.split("\n\n")
            case "admonition":
                parts[(section.title or "").lower()] = value.description
            case "parameters" | "attributes":
                fields += [(each.name.replace("\\", ""), _line(each.description)) for each in value]
            case "raises":
                raises += [(each.annotation, _line(each.description)) for each in value]
            case "returns":
                parts["returns"] = " ".join(_line(each.description) for each in value)
            case "examples":
                parts["example"] = "\n\n".join(text for _, text in value)
    return Doc(paragraphs[0] if paragraphs else "", "\n\n".join(paragraphs[1:]), fields, raises, parts)


def of_loss(spec: LossSpec) -> Doc:
    """Return the docstring of a loss: its function's, with what its class adds, or its class's alone."""
    own = read(spec.module)
    if spec.module.formula is None:
        return own
    function = read(spec.module.formula)
    text = "\n\n".join(part for part in (function.text, own.text) if part)
    return Doc(
        function.summary, text, function.fields, function.raises, defaultdict(str, {**function.parts, **own.parts})
    )


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
