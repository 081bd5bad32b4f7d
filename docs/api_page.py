"""The reference of the public names, from their signatures and docstrings."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from page_markdown import render, title

import yolo_losses
from yolo_losses import functional
from yolo_losses.commands.list_ import grouped
from yolo_losses.plots import stem
from yolo_losses.registry import LossSpec


@dataclass(frozen=True)
class Section:
    """A part of the API page: its heading, what it says first, and the names that it documents."""

    heading: str
    lead: str
    names: tuple[str, ...]


API = (
    Section(
        "Criteria",
        "Ultralytics' criteria with the chosen losses, and the same swap on a criterion that exists already.",
        ("equip", "DetectionLoss", "SegmentationLoss", "PoseLoss", "OBBLoss"),
    ),
    Section(
        "Losses by name",
        "",
        (
            *("list_losses", "make_cls_loss", "make_classify_loss", "make_box_loss", "make_seg_loss"),
            *("make_pixel_loss", "make_region_loss", "make_loss", "show"),
        ),
    ),
    Section("Settings", "", ("LossSettings",)),
    Section(
        "Losses of your own",
        "See [a loss of your own](your-own-loss.md).",
        ("register_cls_loss", "register_box_loss", "register_seg_loss", "Param"),
    ),
    Section("Comparison", "See [compare](compare.md).", ("compare",)),
    Section("Recommendation", "See [which loss for my data?](recommend.md)", ("recommend",)),
    Section("The plugin", "Importing `yolo_losses` installs it; both are idempotent.", ("install", "uninstall")),
)


def api_page(specs: Sequence[LossSpec]) -> str:
    """Return the reference of the public names, from their docstrings."""
    ordered = [spec for members in grouped(list(specs)).values() for spec in members]
    functions: dict[str, LossSpec | None] = {}
    for spec in ordered:
        if spec.module.formula is not None:
            functions.setdefault(spec.module.formula.__name__, spec)
    functions |= {name: None for name in functional.__dir__() if name not in functions}
    modules = [
        (
            f"`{s.module.__name__}`",
            f"[{title(s)}](losses/{stem(s)}.md)",
            ", ".join(f"`{p.name}={p.default!r}`" for p in s.parameters),
        )
        for s in ordered
        if s.kind != "modifier"
    ]
    return render(
        "api.md",
        sections=API,
        functions=functions.items(),
        modules=modules,
        signature=signature,
        public=lambda name: getattr(yolo_losses, name),
        functional=lambda name: getattr(functional, name),
    )


def signature(name: str, what: Any) -> str:
    """Return a call of a public name with its defaults, without annotations."""
    found = inspect.signature(what)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    text = str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    if len(name + text) > 100:
        text = "(\n" + textwrap.fill(text[1:-1], 96, initial_indent="    ", subsequent_indent="    ") + "\n)"
    return f"{name}{text}"
