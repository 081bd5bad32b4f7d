"""The style of all figures, and SVG that is legible on light and dark pages: text and axes take the page's colour."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

from matplotlib.figure import Figure

INK = "#010203"  # stands for `currentColor`, which matplotlib does not know
GREY = "#8a8f98"
# Okabe and Ito's palette, distinct for colour-blind readers, without its black and its yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", "-.", ":")
STYLE: Any = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "svg.hashsalt": "yolo_losses",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "axes.titlesize": 10,
}
# Legible on white and on black, in case the page is dark but the browser prefers light, or the other way round.
SCHEMES = "<style>svg{color:#4f5761}@media(prefers-color-scheme:dark){svg{color:#a9b2bc}}</style>"


def installed_fonts(text: str) -> Any:
    """Return settings of matplotlib that draw every letter of a text for which some font is installed.

    Matplotlib's own font has Latin, Greek and Cyrillic letters; for others, such as Chinese, fonts of the system are
    added behind it. A picture is made with them by `rc_context({**STYLE, **installed_fonts(text)})`.

    Args:
        text: all text in the picture, such as the names of classes.
    """
    from matplotlib import font_manager, ft2font

    names = ["DejaVu Sans"]
    default = ft2font.FT2Font(font_manager.findfont(names[0])).get_charmap()
    missing = {ord(letter) for letter in text if letter.isprintable()} - default.keys()
    # The files themselves, since matplotlib's list of fonts may be older than a font; regular faces first.
    files = font_manager.findSystemFonts() if missing else []
    for file in sorted(files, key=lambda path: ("Regular" not in path, "Sans" not in path, path)):
        with contextlib.suppress(OSError, RuntimeError):  # a font that the library cannot read
            font = ft2font.FT2Font(file)
            if missing & font.get_charmap().keys():
                font_manager.fontManager.addfont(file)
                names.append(font.family_name)
                missing -= font.get_charmap().keys()
        if not missing:
            break
    return {"font.family": names}


def curve_style(index: int) -> dict[str, Any]:
    """Return colour, dashes and marker of a curve; the first is the reference, in grey."""
    if index == 0:
        return {"color": GREY, "ls": "-", "marker": "s"}
    turn, colour = divmod(index - 1, len(COLOURS))
    return {"color": COLOURS[colour], "ls": DASHES[turn % len(DASHES)], "marker": "oDv^"[turn % 4]}


def svg_element(figure: Figure, name: str = "", **options: Any) -> str:
    """Return a figure as an SVG element for a page, in its font and colours; its ids start with `name`."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None}, **options)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor")
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    if name:
        svg = re.sub(r'\bid="', f'id="{name}-', svg)
        svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    return svg


def scaled_to_page(svg: str) -> str:
    """Return an SVG element that is as wide as its container, at most as wide as it was drawn."""
    width = re.search(r'width="([\d.]+)pt"', svg)
    svg = re.sub(r' height="[\d.]+pt"', "", svg, count=1)
    style = f' style="width:100%;max-width:{float(width[1]) / 72:.2f}in"' if width else ""
    return re.sub(r' width="[\d.]+pt"', style, svg, count=1)


def svg_file(svg: str) -> str:
    """Return an SVG element as a file of its own, which follows the viewer's colour scheme."""
    head, rest = svg.split(">", 1)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}>{SCHEMES}{rest}'
