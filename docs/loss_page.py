"""The page of a loss."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import curves
import docstrings
import maths
import measured
from page_markdown import REPOSITORY, render, title

from yolo_losses import registry
from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria import queries
from yolo_losses.plots import stem
from yolo_losses.registry import TERM_KEYS, LossSpec, bibliography

FOLDER = Path(__file__).parent / "losses"
# A model with the head of each group's losses; of the others `yolov8n.yaml`.
MODELS = {
    "rotated": "yolov8n-obb.yaml",
    "mask": "yolov8n-seg.yaml",
    "classify": "yolov8n-cls.yaml",
    "pixel": "yolo26n-sem.yaml",
    "region": "yolo26n-sem.yaml",
    "l1": "yolo26n.yaml",
    "angle": "yolo26n-obb.yaml",
    "auxiliary": "yolo26n-seg.yaml",
    "keypoint": "yolov8n-pose.yaml",
    "visibility": "yolov8n-pose.yaml",
}


@dataclass(frozen=True)
class Group:
    """A group of losses on the pages.

    Attributes:
        title: its heading.
        lead: how one is chosen.
        words: what the letters of its formulas mean.
        notation: formulas of what they share.
    """

    title: str
    lead: str
    words: str = ""
    notation: str = ""


BOXES = (
    "`IoU` is that of the two boxes. The predicted box has the sides `w` and `h`, the centre `x`, `y` and the edges"
    " `x_1`, `x_2`, `y_1` and `y_2`; a prime marks those of the target. The smallest box around both has the sides"
    " `c_w` and `c_h`; `dx` and `dy` lie between the centres:"
)
GROUPS = {
    "class": Group(
        "Class losses",
        "`cls_loss=NAME`. `stock`, the default, leaves the term to Ultralytics.",
        "An element is an anchor and a class, with the logit `z` and the target `t`:",
        "p = sigmoid(z)\np_t = t p + (1-t) (1-p)\nBCE = -t log(p) - (1-t) log(1-p)",
    ),
    "box": Group(
        "Box losses", "`box_loss=NAME`, for every task but `obb`.", BOXES, "r^2 = dx^2 + dy^2\nc^2 = c_w^2 + c_h^2"
    ),
    "rotated": Group(
        "Losses of rotated boxes",
        "`box_loss=NAME`, for the task `obb`.",
        "`dx` and `dy` lie between the centres; a prime marks what belongs to the target.",
    ),
    "mask": Group(
        "Mask losses",
        "`seg_loss=NAME`, for the task `segment`.",
        "A pixel has the logit `z` and the target `t`; a mask of `N` pixels is cropped to its object's box:",
        "p = sigmoid(z)\np_t = t p + (1-t) (1-p)\nBCE = -t log(p) - (1-t) log(1-p)",
    ),
    "classify": Group(
        "Losses of the task classify",
        "`cls_loss=NAME` in the task `classify`. `stock`, the default, leaves the loss to Ultralytics.",
        "`p` is the softmax of the logits `z`, `t` the label as probabilities, smoothed by `cls_smoothing`, `w` the"
        " weight of a class (`cls_weights`), `C` the number of classes; the sum is over the classes:",
        "p = softmax(z)",
    ),
    "pixel": Group(
        "Losses per pixel of the task semantic",
        "`ce_loss=NAME` in the task `semantic`, for the head and the auxiliary head. `stock`, the default, leaves the"
        " term to Ultralytics.",
        "`p_y` is the probability of a pixel's label, by the softmax of its logits (of one class by its sigmoid), `w`"
        " the weight of the label's class (`cls_weights`):",
        "p = softmax(z)",
    ),
    "region": Group(
        "Losses of regions of the task semantic",
        "`dice_loss=NAME` in the task `semantic`; `off` for no such term. `stock`, the default, leaves the term to"
        " Ultralytics.",
        "Of a class, `p` is a pixel's probability by the softmax of its logits (of one class by its sigmoid), `t` is 1"
        " at the pixels of the class, 0 elsewhere; the sums are over the valid pixels of a batch:",
        "TP = sum(p t)\nFP = sum(p (1-t))\nFN = sum((1-p) t)",
    ),
    "l1": Group(
        "Losses of box distances",
        "`l1_loss=NAME`, for heads that predict no distribution: YOLO26 and RT-DETR.",
        "`d` is the error of one side, as a share of the image's side: of its distance to the anchor on YOLO26; of"
        " centre, width or height on RT-DETR.",
    ),
    "angle": Group(
        "Angle losses",
        "`angle_loss=NAME`, for the task `obb`.",
        "`w'` and `h'` are the sides of the object; `lambda` is `angle_lambda`, 3.0.",
    ),
    "auxiliary": Group(
        "Losses of auxiliary masks",
        "`sem_loss=NAME`, for the task `segment` on YOLO26, which trains a layer to tell the classes apart by pixel"
        " and drops it after training; `off` for no such term. `stock`, the default, leaves the term to Ultralytics.",
        "There is a mask per image and class. A pixel has the logit `z` and the target `t`, 1 where an object of the"
        " class covers it; a mask has `N` pixels:",
        "p = sigmoid(z)\np_t = t p + (1-t) (1-p)\nBCE = -t log(p) - (1-t) log(1-p)",
    ),
    "keypoint": Group(
        "Keypoint losses",
        "`pose_loss=NAME`, for the task `pose`. `stock`, the default, leaves the term to Ultralytics.",
        "`dx` and `dy` lie between a predicted keypoint and its object's, `area` is that of the object's box:",
        "distance^2 = dx^2 + dy^2",
    ),
    "visibility": Group(
        "Losses of the keypoints' visibility",
        "`kobj_loss=NAME`, for the task `pose`. `stock`, the default, leaves the term to Ultralytics.",
        "A keypoint has the logit `z` and the target `t`, 1 where it is visible:",
        "p = sigmoid(z)\np_t = t p + (1-t) (1-p)\nBCE = -t log(p) - (1-t) log(1-p)",
    ),
    "modifiers": Group(
        "Modifiers of box losses",
        "Prefixes of a box loss, in any order: `box_loss=focaler_inner_ciou`.",
        "`IoU` is that of the two boxes, `L_base` the loss that the modifier stands in front of.",
    ),
}


def loss_page(spec: LossSpec) -> str:
    """Return the page of a loss."""
    doc = docstrings.of_loss(spec)
    name = example(spec) if spec.kind == "modifier" else spec.name
    key = "box_loss" if spec.kind == "modifier" else TERM_KEYS[spec.kind]
    words = [f"{key}={name}", *(f"{p.key}={p.default}" for p in spec.parameters[:1])]
    shared = GROUPS[spec.group]
    source = doc.parts["source"]
    named = any(identifier in source for identifier in bibliography.cited(spec))
    others = published(measured.published_of(spec))
    return render(
        "loss.md",
        spec=spec,
        doc=doc,
        title=title(spec),
        stem=stem(spec),
        command=f"yolo train model={MODELS.get(spec.group, 'yolov8n.yaml')} data=my.yaml {' '.join(words)}",
        picture=(FOLDER / f"{stem(spec)}.svg").is_file(),
        sliders=curves.sliders(spec),
        formula=maths.latex(doc.parts["formula"]) if doc.parts["formula"] else "",
        shared=shared,
        parameters=[(f"`{p.key}`", f"`{p.default}`", p.allowed, p.limits.help) for p in spec.parameters],
        function=spec.module.formula.__name__ if spec.module.formula else "",
        file=spec.module.__module__.replace(".", "/") + ".py",
        example=doc.parts["example"],
        facts=in_training(spec),
        cost=measured.cost(spec),
        verdicts=[verdict(row) for row in measured.verdicts_of(spec)],
        published=others[1],
        classifiers=measured.classifiers(spec),
        notes="note" in others[0],
        named_source="" if named else f"{spec.source}.",
        bibtex=bibliography.bibtex(spec),
        related=related(doc.parts["see also"]),
        **in_python(spec, name),
    )


def example(modifier: LossSpec) -> str:
    """Return a box loss with a modifier."""
    return f"{modifier.name}_{registry.example_base(modifier)}"


def bases(modifier: LossSpec) -> list[str]:
    """Return the box losses that a modifier applies to."""
    return [s.name for s in registry.specs("box") if modifier.module.fits(s.name, s.rotated)]


def in_python(spec: LossSpec, name: str) -> dict[str, str]:
    """Return how the loss is made in Python: a function, its arguments, and what it returns."""
    values = [f"{p.key}={json.dumps(p.default) if p.type is str else p.default}" for p in spec.parameters[:1]]
    call = ", ".join([f'"{name}"', *values])
    match spec.kind:
        case "cls":
            return {"factory": "make_cls_loss", "arguments": call, "signature": "(logits, targets) -> loss per element"}
        case "classify":
            return {
                "factory": "make_classify_loss",
                "arguments": call,
                "signature": "(logits, targets) -> loss per image",
            }
        case "ce":
            return {"factory": "make_pixel_loss", "arguments": call, "signature": "(logits, targets) -> loss per pixel"}
        case "dice":
            return {
                "factory": "make_region_loss",
                "arguments": call,
                "signature": "(logits, targets) -> loss per class",
            }
        case "seg":
            return {"factory": "make_seg_loss", "arguments": call, "signature": "(logits, targets) -> loss per mask"}
        case "l1" | "angle" | "sem" | "pose" | "kobj":
            items = spec.module.family.items.removesuffix("s")
            call = f'"{TERM_KEYS[spec.kind]}", {call}'
            return {"factory": "make_loss", "arguments": call, "signature": f"(pred, target) -> loss per {items}"}
        case _:
            return {"factory": "make_box_loss", "arguments": call, "signature": "(pred, target) -> loss per pair"}


def in_training(spec: LossSpec) -> list[str]:
    """Return what holds of the loss in a training."""
    facts = []
    if spec.kind == "cls":
        target = spec.module.default_target
        toward = "IoU of the predicted box with its object" if target == "iou" else "assigner's score"
        facts.append(f"`cls_target=auto` means `{target}`: positives are trained toward the {toward}.")
        refused = "RT-DETR refuses it: its meaning depends on the batch's anchors."
        facts.append("RT-DETR takes it." if on_queries(spec) else refused)
    elif spec.kind == "box":
        fitting = [f"`{m.name}_`" for m in registry.specs("modifier") if m.module.fits(spec.name, spec.rotated)]
        facts.append(f"Modifiers: {', '.join(fitting)}." if fitting else "No modifier applies to it.")
        upright = "For every task but `obb`, and for RT-DETR in place of GIoU."
        facts.append("For the task `obb`." if spec.rotated else upright)
    elif spec.kind == "modifier":
        facts.append(f"Applies to {', '.join(f'`{name}`' for name in bases(spec))}.")
        canonical = "_".join(m.name for m in registry.split_box_name("inner_focaler_ciou")[0])
        facts.append(
            "Several modifiers may be combined, each once and in any order; one canonical name is shown:"
            f" `{canonical}_ciou`."
        )
    elif spec.kind == "classify":
        smoothing = "`cls_smoothing` is refused with it" if spec.name == "gce" else "`cls_smoothing` smooths the labels"
        facts.append(f"For the task `classify`. `cls_weights` weights the classes, {smoothing}.")
    elif spec.kind == "ce":
        facts.append(
            "For the task `semantic`: the mean over the valid pixels of a batch, by `cls_weights` a weighted one. The"
            " auxiliary head's term is of the same loss."
        )
    elif spec.kind == "dice":
        over = "the classes that have a pixel in the batch" if spec.name == "lovasz" else "all classes"
        facts.append(f"For the task `semantic`: the mean over {over}; with one class, that class's.")
    elif spec.kind == "l1":
        facts.append("For YOLO26, whose log calls the term `dfl_loss` in older releases of Ultralytics, and RT-DETR.")
        facts.append("The mean over the four sides on YOLO26, with the gain `dfl`; their sum on RT-DETR.")
        facts.append("`l1_loss=off` is no such term: a zero in the graph.")
    elif spec.kind == "angle":
        facts.append("For the task `obb`, in the releases of Ultralytics that log `angle_loss`.")
        facts.append("`angle_lambda` changes the weight, also of the stock loss; the gain is `angle`.")
        facts.append("`angle_loss=off` is no such term: a zero in the graph.")
        if spec.module.note:
            facts.append(f"The start line says: {spec.module.note}.")
    elif spec.kind == "pose":
        unit = "pixels" if spec.module.in_pixels else "units of the object's size"
        facts.append(
            f"For the task `pose`, in {unit}: the mean over an object's visible keypoints, then over the positives,"
            " times the gain `pose`. `pose_weights` weights the keypoints."
        )
    elif spec.kind == "kobj":
        facts.append("For heads that predict the visibility: the mean over all keypoints of the positives.")
    elif spec.kind == "sem":
        facts.append(
            "For YOLO26: the mean over images and classes, times the gain `box`. `sem_scale` multiplies the term. It"
            " trains by the one-to-many branch alone, so `loss_branches=one2one` is refused with it."
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


def related(text: str) -> list[tuple[LossSpec, str]]:
    """Return the losses of a `See also:` section, a line each: `qfl: for soft targets.`

    Raises:
        ValueError: on a name that is not a page's.
    """
    by_page = {stem(spec): spec for spec in registry.specs()}
    found = []
    for line in re.sub(r"\n\s+", " ", text).splitlines():
        name, _, why = line.partition(": ")
        if name not in by_page:
            raise ValueError(f"'See also:' names '{name}', which no loss's page has as its name")
        found.append((by_page[name], why))
    return found


def verdict(row: Mapping[str, str]) -> tuple[str, ...]:
    """Return a row of the table of verdicts."""
    link = f"[{row['set']}]({REPOSITORY}/examples/evidence/{row['set']}/report.md)"
    points = "{:+.1f} ({:+.1f} to {:+.1f})".format(*(float(row[key]) for key in ("difference", "low", "high")))
    return link, f"`{row['config']}`", points.replace("-", "\N{MINUS SIGN}"), row["word"], row["seeds"]


def published(entries: Sequence[Mapping[str, Any]], notes: bool = True) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return published comparisons as a table: its head, with notes where there are any, and its rows."""
    notes = notes and any("note" in entry for entry in entries)
    rows = [
        (e["what"], e["line"], f"[{e['source']}]({e['url']})", *([e.get("note", "")] if notes else [])) for e in entries
    ]
    return ["model and data", "result", "source", *(["note"] if notes else [])], rows
