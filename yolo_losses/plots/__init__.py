"""Pictures of losses: what `yolo-losses show` draws.

This works for every registered loss, since only its module and its declared keys are used.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from yolo_losses import registry
from yolo_losses.plots import (
    angles,
    boxes,
    classification,
    classify,
    distances,
    keypoints,
    masks,
    rotated,
    visibility,
)
from yolo_losses.plots.choice import Selection, choose
from yolo_losses.plots.sheet import SHEET_STYLE
from yolo_losses.plots.style import svg_element, svg_file
from yolo_losses.registry import LossSpec

Draw = Callable[[Selection, Figure], None]
SHEETS: Mapping[str, Draw] = {
    "class": classification.draw,
    "box": boxes.draw,
    "rotated": rotated.draw,
    "mask": masks.draw,
    "classify": classify.draw,
    "pixel": classify.draw,
    "region": masks.draw,
    "l1": distances.draw,
    "angle": angles.draw,
    "auxiliary": masks.draw,
    "keypoint": keypoints.draw,
    "visibility": visibility.draw,
}
COLUMNS: Mapping[str, Draw] = {
    "class": classification.column,
    "box": boxes.column,
    "rotated": rotated.column,
    "mask": masks.column,
    "classify": classify.column,
    "pixel": classify.column,
    "region": masks.column,
    "l1": distances.column,
    "angle": angles.column,
    "auxiliary": masks.column,
    "keypoint": keypoints.column,
    "visibility": visibility.column,
}
FILE_BACKENDS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")
FORMATS = (".png", ".svg", ".pdf")
PIXELS_PER_POINT = 2.4  # a page shows an SVG larger than a column of a paper does


def show(*names: str, **keys: Any) -> Figure:
    """Draw losses of one kind and their gradients, as `yolo-losses show` does; a notebook shows the result.

    Args:
        *names: their names, such as `"focal"` or `"inner_siou"`, with `seg_` in front of a mask loss.
        **keys: their training keys, such as `focal_gamma=2.0`; a list of values gives a curve for each.

    Returns:
        A figure, which `figure.savefig("loss.png")` writes.

    Raises:
        ValueError: if a name or key is unknown, a value is out of range, or the losses are of several kinds.

    Example:
        >>> from yolo_losses import show
        >>> figure = show("focal", focal_gamma=[1.0, 2.0])
        >>> len(figure.axes) > 0
        True
    """
    if not names:
        raise ValueError("no loss is named: try show('slide'). `list_losses()` returns all names")
    return draw(names, {key: value if isinstance(value, list | tuple) else [value] for key, value in keys.items()})


def draw(
    names: Sequence[str],
    keys: Mapping[str, Sequence[Any]] | None = None,
    figure: Figure | None = None,
    *,
    column: bool = False,
) -> Figure:
    """Draw losses of one kind.

    Args:
        names: their names, with any modifiers; `seg_` in front of a mask loss.
        keys: their training keys, each with its values; several values give several curves.
        figure: the figure to draw on; by default a new one.
        column: draw only two panels and a legend, for a column of a paper.

    Raises:
        ValueError: if a name or key is unknown, a value is out of range, or the losses are of several kinds.
    """
    selection = choose(names, keys or {})
    with mpl.rc_context(SHEET_STYLE):
        figure = figure or Figure()
        (COLUMNS if column else SHEETS)[selection.kind](selection, figure)
    return figure


def window(names: Sequence[str], keys: Mapping[str, Sequence[Any]] | None = None, *, column: bool = False) -> None:
    """Draw losses as `draw` does, in a window, and return when it is closed.

    Raises:
        ValueError: as in `draw`, or if no window can be opened.
    """
    choose(names, keys or {})  # report errors before a window opens
    import matplotlib.pyplot as plt

    try:
        if plt.get_backend().lower() in FILE_BACKENDS:
            raise ImportError
        with mpl.rc_context(SHEET_STYLE):
            draw(names, keys, plt.figure(" ".join(names)), column=column)
            plt.show()
    except ImportError:
        raise ValueError(f"no window can be opened here: write a file with --out, as --out {names[0]}.png") from None


def save(figure: Figure, path: Path, title: str) -> None:
    """Write a figure as PNG, SVG or PDF, reproducibly; the SVG suits light and dark pages.

    Raises:
        ValueError: if the suffix is not one of these, or the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"'--out {path}' is not valid: allowed are names that end in {', '.join(FORMATS)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(SHEET_STYLE):
            if path.suffix.lower() == ".svg":
                path.write_text(_svg(figure, title), encoding="utf-8")
            else:
                dateless = {"Software": None} if path.suffix.lower() == ".png" else {"CreationDate": None}
                figure.savefig(path, metadata={"Title": title, **dateless})
    except OSError as error:
        raise ValueError(f"'{path}' cannot be written: {error.strerror or error}") from error


def _svg(figure: Figure, title: str) -> str:
    """Return a figure as a small SVG file: coordinates to a hundredth of a point, each common style once."""
    svg = svg_element(figure)
    svg = re.sub(r' d="([^"]*)"', lambda found: f' d="{_short_path(found[1])}"', svg)
    svg = re.sub(r'(?<= [xy]=")-?[\d.]+', lambda found: f"{round(float(found[0]), 2):g}", svg)
    svg = re.sub(r"\n\s*", "\n", re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL))
    svg = re.sub(r'<g id="[\w.]+">', "<g>", svg).replace("<g>\n</g>\n", "")
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    styles = Counter(re.findall(r' style="([^"]*)"', svg))
    common = [style for style, count in styles.items() if count > 2]
    for i, style in enumerate(common):
        svg = svg.replace(f' style="{style}"', f' class="s{i}"')
    svg = svg.replace("</style>", "".join(f" .s{i}{{{style}}}" for i, style in enumerate(common)) + "</style>", 1)
    svg = re.sub(
        r'width="([\d.]+)pt" height="([\d.]+)pt"',
        lambda found: 'width="{:.0f}" height="{:.0f}"'.format(
            *(PIXELS_PER_POINT * float(side) for side in found.groups())
        ),
        svg,
        count=1,
    )
    head, rest = svg.split(">", 1)
    return svg_file(f'{head} role="img"><!-- matplotlib {mpl.__version__} --><title>{html.escape(title)}</title>{rest}')


def _short_path(path: str) -> str:
    """Return a path with coordinates to a hundredth, and those of lines relative to the previous point."""
    if re.search(r"[^\sMLze\d.-]", path):
        return re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", path)
    short, before = [], ""
    x = y = 0
    for command, *numbers in re.findall(r"([MLz])(?: (\S+) (\S+))?", path):
        if command == "z":
            short.append("z")
        else:
            to = [round(100 * float(number)) for number in numbers]
            by = to if command == "M" else [to[0] - x, to[1] - y]
            letter = command.lower() if command == "L" else "M"
            short.append(("" if letter == before == "l" else letter) + " ".join(f"{n / 100:g}" for n in by))
            x, y = to
        before = command.lower() if command == "L" else command
    return re.sub(r" (?=[Mlz-])|(?<=[Mlz]) ", "", " ".join(short))


def gallery(folder: Path) -> list[Path]:
    """Write a picture of every registered loss and modifier, and one for a column beside it, and return the files."""
    paths = []
    for spec in registry.specs():
        for column in (False, True):
            path = folder / f"{stem(spec)}{'-column' if column else ''}.svg"
            save(draw([_name(spec)], column=column), path, spec.summary)
            paths.append(path)
    return paths


def stem(spec: LossSpec) -> str:
    """Return the name of a loss's picture and page: that of its config, or a modifier's own if no loss has it."""
    if spec.kind == "modifier":
        taken = {stem(other) for other in registry.specs() if other.kind != "modifier"}
        return f"{spec.name}_iou" if spec.name in taken else spec.name
    return registry.page_name(spec.kind, spec.name)


def _name(spec: LossSpec) -> str:
    """Return the name to draw: a modifier is drawn in front of a base loss."""
    return f"{spec.name}_{registry.example_base(spec)}" if spec.kind == "modifier" else stem(spec)
