"""The pages that follow from the declarations and docstrings: a page for each loss, the gallery, the keys, the API.

`docs/tables.py` writes them (`make tables`) and checks that they are current. A picture beside a page, `focal.svg`
beside `focal.md`, is shown where it exists; `examples/bench/*.json`, `examples/evidence/*/summary.csv` and
`docs/published.yaml` are what the pages know of measurements.
"""

from __future__ import annotations

import csv
import functools
import inspect
import json
import re
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import yolo_losses
from yolo_losses import functional, registry
from yolo_losses.commands.list_ import group, grouped
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria import queries
from yolo_losses.plots import stem
from yolo_losses.registry import TERM_KEYS, LossSpec

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
LOSSES = DOCS / "losses"
CHINESE = DOCS / "zh"
BENCH = ROOT / "examples" / "bench"
EVIDENCE = ROOT / "examples" / "evidence"
REPOSITORY = "https://github.com/yolo-losses/yolo-losses/blob/main"
WRITTEN = "<!-- Written by `make tables` from the declarations and docstrings: edit those. -->\n\n"

TITLES = {
    "class": "Class losses",
    "box": "Box losses",
    "rotated": "Losses of rotated boxes",
    "mask": "Mask losses",
    "modifiers": "Modifiers of box losses",
}
NOTATION = {
    "class": "`z` is a logit, `p = sigmoid(z)`, `t` its target, `BCE = -(t log p + (1-t) log(1-p))` and"
    " `p_t = t p + (1-t)(1-p)`. An element is an anchor and a class.",
    "box": "`I` is the IoU of the two boxes; `w` and `h` are the sides of the predicted box, `w'` and `h'` those of the"
    " target.",
    "mask": "`z` is a pixel's logit, `p = sigmoid(z)` and `t` its target. A mask is cropped to its object's box.",
    "modifiers": "`I` is the IoU of the two boxes.",
}
MODELS = {"rotated": "yolov8n-obb.yaml", "mask": "yolov8n-seg.yaml"}
SIZES = {"16 x 640 x 80": "16 x 640 px, 80 classes", "16 x 640 x 3": "16 x 640 px, 3 classes"}


def pages() -> dict[Path, str]:
    """Return the text of every page that is written or has a written part, by its path."""
    specs = [spec for spec in registry.specs() if spec.built_in]
    found = {LOSSES / f"{stem(spec)}.md": loss_page(spec) for spec in specs}
    found[LOSSES / "index.md"] = gallery(specs)
    found[DOCS / "api.md"] = api(specs)
    parts = {
        CHINESE / "losses.md": {f"losses:{name}": apart(chinese(members)) for name, members in grouped(specs).items()},
        DOCS / "keys.md": {f"keys:{name}": apart(keys_table(members)) for name, members in grouped(specs).items()},
        DOCS / "speed.md": {"costs": apart(costs_table())},
        DOCS / "which-loss.md": {
            f"published:{name}": apart(published_table(name)) for name in ("class", "box", "rotated")
        },
        ROOT / "mkdocs.yml": {"losses": navigation(specs) + "\n"},
    }
    for path, texts in parts.items():
        found[path] = filled(path.read_text(encoding="utf-8"), texts, path.name)
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


# --- the page of a loss ----------------------------------------------------------------------------------------------


def shown(spec: LossSpec) -> str:
    """Return the name of a loss as it is written: `inner_` for a modifier."""
    return f"{spec.name}_" if spec.kind == "modifier" else spec.name


def title(spec: LossSpec) -> str:
    """Return the heading of a loss's page."""
    if spec.kind == "modifier":
        return f"{spec.name}_"
    return f"{TERM_KEYS[spec.kind]}={spec.name}"


def loss_page(spec: LossSpec) -> str:
    """Return the page of a loss."""
    parts = [f"# {title(spec)}", f"{spec.summary}.", block("bash", command(spec))]
    if (LOSSES / f"{stem(spec)}.svg").is_file():
        parts.append(f"![Curves of {spec.summary.partition(':')[0]}]({stem(spec)}.svg)")
    parts += formula(spec)
    parts += ["## Parameters", parameters(spec)]
    parts += ["## In a training", bullets(in_training(spec))]
    source = " ".join(sections(documented(spec)).get("Source", "").split())
    paper = re.search(r"arXiv [\d.]+|doi \S+", spec.source, flags=re.IGNORECASE)
    named = paper is not None and paper[0].lower() in source.lower()
    parts += ["## Source, and where published codes differ", "" if named else links(f"{spec.source}."), links(source)]
    parts += ["## What was measured", *measured(spec)]
    parts += ["## In Python", *in_python(spec)]
    return WRITTEN + "\n\n".join(part for part in parts if part) + "\n"


def command(spec: LossSpec) -> str:
    """Return a training with the loss, and with one of its parameters."""
    words = [f"{TERM_KEYS[spec.kind]}={spec.name}"] if spec.kind != "modifier" else [f"box_loss={example(spec)}"]
    words += [f"{p.key}={p.default}" for p in spec.parameters[:1]]
    return f"yolo train model={MODELS.get(group(spec), 'yolov8n.yaml')} data=my.yaml {' '.join(words)}"


def example(modifier: LossSpec) -> str:
    """Return a box loss with a modifier."""
    return f"{modifier.name}_{'ciou' if modifier.module.fits('ciou', False) else bases(modifier)[0]}"


def bases(modifier: LossSpec) -> list[str]:
    """Return the box losses that a modifier applies to."""
    return [s.name for s in registry.specs("box") if modifier.module.fits(s.name, s.rotated)]


def documented(spec: LossSpec) -> str:
    """Return the docstring of the formula, or of the class where there is none."""
    return inspect.getdoc(spec.module.formula or spec.module) or ""


def sections(doc: str) -> dict[str, str]:
    """Return a docstring's sections by name, its prose under an empty one."""
    pieces = re.split(r"^(Args|Returns|Raises|Source|Attributes):\n", doc, flags=re.MULTILINE)
    named = zip(pieces[1::2], pieces[2::2], strict=True)
    return {"": pieces[0].strip(), **{name: textwrap.dedent(text).strip() for name, text in named}}


def formula(spec: LossSpec) -> list[str]:
    """Return formula and range, from the docstrings: the formula's own, and what the class adds to it."""
    own = sections(documented(spec))
    prose = own[""]
    display = re.match(r"([^`]*?):\s+`([^`]+)`[,.]?\s*", prose)
    if display:
        rest = prose[display.end() :]
        prose = f"{display[1]}:\n\n{block('text', ' '.join(display[2].split()))}\n\n{rest}"
    if prose.startswith(f"{spec.summary}.\n"):
        prose = prose.partition("\n\n")[2]
    parts = ["## Formula", prose]
    if spec.module.formula is not None:
        parts.append(sections(inspect.getdoc(spec.module) or "")[""].partition("\n\n")[2])
    parts.append(NOTATION.get(group(spec), ""))
    if "Returns" in own:
        parts.append("Value: " + lower(own["Returns"]))
    return parts


def lower(text: str) -> str:
    """Return a sentence as the continuation of another."""
    return text[:1].lower() + text[1:]


def parameters(spec: LossSpec) -> str:
    """Return the parameters of a loss as a table."""
    if not spec.parameters:
        return "None."
    rows = [(f"`{p.key}`", f"`{p.default}`", p.allowed, p.limits.help) for p in spec.parameters]
    return table(("key", "default", "allowed", "meaning"), rows)


def in_training(spec: LossSpec) -> list[str]:
    """Return what holds of the loss in a training."""
    facts = []
    if spec.kind == "cls":
        target = (
            "IoU of the predicted box with its object" if spec.module.default_target == "iou" else "assigner's score"
        )
        facts.append(
            f"`cls_target=auto` means `{spec.module.default_target}`: positives are trained toward the {target}."
        )
        facts.append(
            "RT-DETR takes it."
            if on_queries(spec)
            else "RT-DETR refuses it: its meaning depends on the batch's anchors."
        )
    elif spec.kind == "box":
        fitting = [f"`{m.name}_`" for m in registry.specs("modifier") if m.module.fits(spec.name, spec.rotated)]
        facts.append(f"Modifiers: {', '.join(fitting)}." if fitting else "No modifier applies to it.")
        facts.append(
            "For the task `obb`." if spec.rotated else "For every task but `obb`, and for RT-DETR in place of GIoU."
        )
    elif spec.kind == "modifier":
        facts.append(f"Applies to {', '.join(f'`{name}`' for name in bases(spec))}.")
        facts.append(
            "Several modifiers may be combined, each once and in any order; one canonical name is shown:"
            f" `{'_'.join(m.name for m in registry.split_box_name('inner_focaler_ciou')[0])}_ciou`."
        )
    else:
        facts.append("For the task `segment`. `seg_scale` multiplies the term.")
    if stateful(spec):
        facts.append(
            "It has state, which is updated in training only, shared with the validation's criterion, and kept in"
            " `yolo_losses_state.pt` beside `last.pt` for a resumed run."
        )
    if warning := getattr(spec.module, "one2one_warning", ""):
        facts.append(f"Warning on end-to-end heads: {warning}.")
    names = [name for name in spec.aliases if not name.replace("_", "").endswith("loss")]
    if names:
        facts.append(f"Other names that are understood: {', '.join(f'`{name}`' for name in names)}.")
    if spec.kind != "modifier":
        facts.append(f"Shipped config: `yolo-losses config {stem(spec)}` prints its path.")
    return facts


def on_queries(spec: LossSpec) -> bool:
    """Return whether RT-DETR takes a class loss."""
    try:
        queries.check(LossSettings.from_mapping({"cls_loss": spec.name}))
    except ValueError:
        return False
    return True


def stateful(spec: LossSpec) -> bool:
    """Return whether a loss has state."""
    module = spec.build()
    if hasattr(module, "set_classes"):
        module.set_classes(2)
    return bool(module.state_dict())


def measured(spec: LossSpec) -> list[str]:
    """Return what is known of the loss: our trainings, published ones, and what it costs."""
    comparisons = f"[our comparisons]({REPOSITORY}/examples/evidence/README.md)"
    parts = trained(spec) or [f"No training with this loss is among {comparisons} yet."]
    rows = [
        (entry["what"], results(entry), f"[{entry['source']}]({entry['url']})", entry.get("note", ""))
        for entry in published()
        if any(stem(spec) in name.split(" + ") for name in entry["results"])
    ]
    if rows:
        notes = any(row[-1] for row in rows)
        head = ("model and data", "result", "source", "note")
        parts += [
            "Published, by others:",
            table(head if notes else head[:-1], rows if notes else [r[:-1] for r in rows]),
        ]
    else:
        parts.append("No published comparison on a one-stage detector is listed here.")
    if spec.kind in ("cls", "box") and (cost := costs(spec.name)):
        parts.append(cost)
    return parts


@functools.cache
def published() -> list[dict[str, Any]]:
    """Return the published comparisons."""
    found: list[dict[str, Any]] = yaml.safe_load((DOCS / "published.yaml").read_text(encoding="utf-8"))
    return found


def results(entry: Mapping[str, Any]) -> str:
    """Return the results of a published comparison on one line."""
    digits = max(len(str(value).partition(".")[2]) for value in entry["results"].values())
    return f"{entry['metric']}: " + ", ".join(f"{name} {value:.{digits}f}" for name, value in entry["results"].items())


def published_table(name: str) -> str:
    """Return the published comparisons of a group of losses."""
    members = {stem(spec) for spec in registry.specs() if group(spec) == name}
    rows = [
        (entry["what"], results(entry), f"[{entry['source']}]({entry['url']})")
        for entry in published()
        if members.intersection(part for key in entry["results"] for part in key.split(" + "))
    ]
    return table(("model and data", "result", "source"), rows)


@functools.cache
def bench() -> dict[str, Any]:
    """Return the committed benchmark."""
    found: dict[str, Any] = json.loads((BENCH / "bench.json").read_text(encoding="utf-8"))
    return found


def costs(name: str) -> str:
    """Return what a loss costs, by the committed benchmark."""
    measured = {words: bench()["criterion"][size].get(name) for size, words in SIZES.items()}
    times = ", ".join(f"{row['time']:.2f} ({words})" for words, row in measured.items() if row)
    return f"Time of the whole criterion against stock's: {times}. See [speed](../speed.md)." if times else ""


def costs_table() -> str:
    """Return operations, time and memory of every loss against stock."""
    operations = json.loads((BENCH / "operations.json").read_text(encoding="utf-8"))["v8"]
    alone, sizes = bench()["tables"]["class term alone, 80 classes"], bench()["criterion"]
    rows = []
    for name in next(iter(sizes.values())):
        own = alone.get(name)
        cells = [f"{operations[name] / operations['stock']:.2f}"]
        cells += [f"{rows_[name]['time']:.2f}" for rows_ in sizes.values()]
        cells += [f"{own['time']:.2f}", f"{own['memory']:.2f}"] if own else ["", ""]
        rows.append((f"`{name}`", *cells))
    return table(("loss", "operations", *sizes, "class term alone: time", "memory"), rows)


def trained(spec: LossSpec) -> list[str]:
    """Return our own comparisons that have the loss: every configuration with it, and the one it is compared with."""
    parts = []
    for path in sorted(EVIDENCE.glob("*/summary.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            runs = [row for row in csv.DictReader(file) if row["status"] == "finished"]
        for data in dict.fromkeys(run["data"] for run in runs):
            by_name: dict[str, list[dict[str, str]]] = {}
            for run in runs:
                if run["data"] == data:
                    by_name.setdefault(run["name"], []).append(run)
            chosen = [name for name, members in by_name.items() if uses(members[0], spec)]
            if chosen:
                first = next(iter(by_name))  # the baseline stands first
                rows = [outcome(name, by_name[name]) for name in dict.fromkeys((first, *chosen))]
                where = f"{REPOSITORY}/examples/evidence/{path.parent.name}/report.md"
                parts.append(f"[{path.parent.name}]({where}), validation split of `{data}`:")
                parts.append(table(("configuration", "seeds", "mAP50-95", "mAP50"), rows))
    return parts


def uses(run: Mapping[str, str], spec: LossSpec) -> bool:
    """Return whether a run has the loss."""
    if spec.kind in ("cls", "seg"):
        return run.get(TERM_KEYS[spec.kind]) == spec.name
    name = run.get("box_loss") or "stock"
    if name == "stock":
        return False
    modifiers, base = registry.split_box_name(name)
    return spec in (*modifiers, base)


def outcome(name: str, runs: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return mean and standard deviation over the seeds of a configuration, at the best epoch."""
    cells = []
    for metric in ("best_map50_95", "best_map50"):
        values = [100 * float(run[metric]) for run in runs if run[metric]]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.1f}{spread}" if values else "")
    return (f"`{name}`", str(len(runs)), *cells)


def in_python(spec: LossSpec) -> list[str]:
    """Return how the loss is called in Python."""
    values = [f"{p.key}={json.dumps(p.default) if p.type is str else p.default}" for p in spec.parameters[:1]]
    made = {"cls": ("make_cls_loss", spec.name), "seg": (spec.module.__name__, "")}
    name, first = made.get(spec.kind) or ("make_box_loss", example(spec) if spec.kind == "modifier" else spec.name)
    call = ", ".join([f'"{first}"', *values] if first else ['reduction="none"'])
    loss = {"cls": "(logits, targets) -> loss per element", "seg": "(logits, targets) -> loss per mask"}
    result = loss.get(spec.kind, "(pred, target) -> loss per pair")
    code = f"from yolo_losses import {name}\n\nloss = {name}({call})  # {result}"
    file = spec.module.__module__.replace(".", "/") + ".py"
    home = f"Its file: [`{file}`]({REPOSITORY}/{file})."
    if spec.module.formula is not None:
        function = spec.module.formula.__name__
        home = f"As a pure function: [`yolo_losses.functional.{function}`](../api.md#{function}). {home}"
    return [block("python", code), home]


# --- pages over all losses -------------------------------------------------------------------------------------------


def gallery(specs: Sequence[LossSpec]) -> str:
    """Return the page with all losses, by group: pictures where there are any, and a table."""
    intro = (
        "Every loss has a page with its formula, picture, parameters, source, and what was measured."
        " [Which loss for what?](../which-loss.md) says what evidence there is. `yolo-losses list` prints these tables,"
        " `yolo-losses show focal vfl` draws any of the pictures with parameters of your choice."
    )
    parts = ["# The losses", "[中文](../zh/losses.md)", intro]
    for name, members in grouped(list(specs)).items():
        rows = [(f"[`{shown(s)}`]({stem(s)}.md)", s.summary, links(s.source)) for s in members]
        parts += [f"## {TITLES[name]}", LEADS[name], pictures(members)]
        parts.append(table(("name", "what it computes", "source"), rows))
    return WRITTEN + "\n\n".join(part for part in parts if part) + "\n"


def pictures(specs: Sequence[LossSpec], folder: str = "") -> str:
    """Return the pictures of losses, three in a row, each a link to its page; a loss without one has no place."""
    # In HTML, since Markdown knows no width; the host of the repository shows pictures in full size otherwise.
    picture = '[<img src="{0}.svg" alt="Curves of {1}" width="220"><br>`{1}`]({0}.md)'
    drawn = [spec for spec in specs if (LOSSES / f"{stem(spec)}.svg").is_file()]
    cells = [picture.format(f"{folder}{stem(spec)}", shown(spec)) for spec in drawn]
    cells += [""] * (-len(cells) % 3)
    return table(("", "", ""), [tuple(cells[i : i + 3]) for i in range(0, len(cells), 3)]) if cells else ""


def chinese(specs: Sequence[LossSpec]) -> str:
    """Return pictures and table of losses for the Chinese page, in English where a loss has no Chinese sentence yet."""
    words = yaml.safe_load((CHINESE / "losses.yaml").read_text(encoding="utf-8"))
    rows = []
    for spec in specs:
        sentence, source = words["losses"].get(stem(spec), spec.summary), spec.source
        for english, own in words["sources"].items():
            source = source.replace(english, own)
        parameters = ", ".join(f"`{p.key}` {p.default}" for p in spec.parameters)
        name = f"[`{shown(spec)}`](../losses/{stem(spec)}.md)"
        rows.append((name, sentence, parameters, links(source)))
    parts = [pictures(specs, "../losses/"), table(words["head"], rows)]
    return "\n\n".join(part for part in parts if part)


LEADS = {
    "class": "`cls_loss=NAME`. `stock`, the default, leaves the term to Ultralytics.",
    "box": "`box_loss=NAME`, for every task but `obb`.",
    "rotated": "`box_loss=NAME`, for the task `obb`.",
    "mask": "`seg_loss=NAME`, for the task `segment`.",
    "modifiers": "Prefixes of a box loss, in any order: `box_loss=focaler_inner_ciou`.",
}


def navigation(specs: Sequence[LossSpec]) -> str:
    """Return the part of the site's navigation that lists the losses."""
    lines = []
    for name, members in grouped(list(specs)).items():
        lines.append(f"      - {TITLES[name]}:")
        lines += [f"          - {shown(spec)}: losses/{stem(spec)}.md" for spec in members]
    return "\n".join(lines)


def keys_table(specs: Sequence[LossSpec]) -> str:
    """Return the parameters of a group of losses, a key a row."""
    rows = [
        (f"`{p.key}`", f"`{p.default}`", p.allowed, p.limits.help, f"[{shown(s)}](losses/{stem(s)}.md)")
        for s in specs
        for p in s.parameters
    ]
    return table(("key", "default", "allowed", "meaning", "loss"), rows)


# --- API -------------------------------------------------------------------------------------------------------------


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
    Section("Modules by name", "", ("make_cls_loss", "make_box_loss")),
    Section("Settings", "", ("LossSettings",)),
    Section(
        "Losses of your own",
        "See [a loss of your own](your-own-loss.md).",
        ("register_cls_loss", "register_box_loss", "register_seg_loss", "Param"),
    ),
    Section("Comparison", "See [compare](compare.md).", ("compare",)),
    Section("The plugin", "Importing `yolo_losses` installs it; both are idempotent.", ("install", "uninstall")),
)


def api(specs: Sequence[LossSpec]) -> str:
    """Return the reference of the public names, from their docstrings."""
    intro = (
        "Everything here is imported from `yolo_losses`; the functions of a formula from `yolo_losses.functional`."
        " They return the loss per element, per pair of boxes or per mask, or reduced by"
        ' `reduction="none" | "mean" | "sum"`; `weight` and `avg_factor` have MMDetection\'s meaning. They compute in'
        " float32 or float64, whatever autocast says."
    )
    parts = ["# API reference", intro]
    for section in API:
        parts += [f"## {section.heading}", section.lead]
        for name in section.names:
            parts += reference(name, getattr(yolo_losses, name))
    parts.append("## Functions")
    seen = set()
    for spec in (spec for members in grouped(list(specs)).values() for spec in members):
        function = spec.module.formula
        if function is not None and function.__name__ not in seen:
            seen.add(function.__name__)
            parts += reference(function.__name__, function)
            parts.append(f"Source, and how other codes differ: [{title(spec)}](losses/{stem(spec)}.md).")
    for name in functional.__dir__():
        if name not in seen:
            parts += reference(name, getattr(functional, name))
    parts += ["## Modules", MODULES]
    rows = [
        (
            f"`{s.module.__name__}`",
            f"[{title(s)}](losses/{stem(s)}.md)",
            ", ".join(f"`{p.name}={p.default!r}`" for p in s.parameters),
        )
        for members in grouped([s for s in specs if s.kind != "modifier"]).values()
        for s in members
    ]
    parts.append(table(("class", "loss", "parameters"), rows))
    return WRITTEN + "\n\n".join(part for part in parts if part) + "\n"


MODULES = """
Each loss is an `nn.Module` as well, called as MMDetection's are:
`loss(pred, target, weight=None, avg_factor=None, reduction_override=None)`. All take `reduction` (default `mean`) and
`loss_weight`, class losses also `activated=True` for probabilities in place of logits. `DistributionFocalLoss` is the
module of `distribution_focal_loss`.
""".strip()


def reference(name: str, what: Any) -> list[str]:
    """Return heading, signature and docstring of a public name."""
    own = sections(inspect.getdoc(what) or "")
    parts = [f"### {name}", block("text", signature(name, what)), own[""]]
    for heading in ("Args", "Attributes"):
        if heading in own:
            parts.append(bullets(f"`{key}`: {text}" for key, text in arguments(own[heading])))
    if "Returns" in own:
        parts.append(f"Returns: {lower(' '.join(own['Returns'].split()))}")
    if "Raises" in own:
        parts += ["Raises:", bullets(f"`{error}`: {text}" for error, text in arguments(own["Raises"]))]
    return parts


def signature(name: str, what: Any) -> str:
    """Return a call of a public name with its defaults, without annotations."""
    found = inspect.signature(what)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    text = str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    if len(name + text) > 100:
        text = "(\n" + textwrap.fill(text[1:-1], 96, initial_indent="    ", subsequent_indent="    ") + "\n)"
    return f"{name}{text}"


def arguments(text: str) -> list[tuple[str, str]]:
    """Return the names and descriptions of an `Args:` section."""
    entries = re.split(r"^(?=\S+:)", text, flags=re.MULTILINE)
    pairs = [entry.partition(":") for entry in entries if entry.strip()]
    return [(name.strip().replace("\\", ""), " ".join(rest.split())) for name, _, rest in pairs]


# --- Markdown --------------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a bar in a cell, such as that of an absolute value, does not end it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def apart(text: str) -> str:
    """Return a text with an empty line before and after."""
    return f"\n{text}\n\n"


def bullets(items: Iterable[str]) -> str:
    """Return a list."""
    return "\n".join(f"- {item}" for item in items)


def block(language: str, code: str) -> str:
    """Return a code block."""
    return f"```{language}\n{code}\n```"


def links(text: str) -> str:
    """Return a text whose arXiv numbers are links."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
