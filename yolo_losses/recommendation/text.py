"""The text of a recommendation, as the command prints it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yolo_losses.recommendation.candidates import Candidate, Note
from yolo_losses.recommendation.plan import SEEDS, Plan
from yolo_losses.recommendation.rules import REPOSITORY, format_traits, percent
from yolo_losses.recommendation.traits import ELONGATED, Traits

if TYPE_CHECKING:
    from yolo_losses.recommendation.result import Recommendation

WIDTH = 110
MAX_NAMES = 5
LABEL = 14  # width of the column of labels
CLASSIFY = f"{REPOSITORY}examples/classify.py"


def report(found: Recommendation) -> str:
    """Return traits, candidates, what to avoid and the command to run, as plain text."""
    traits = found.traits
    blocks = [
        [_title(found)],
        [*_table(_rows(traits))],
        *([["Look at this first", *_notes(found.checks)]] if found.checks else []),
        [*_stock(found)],
        *(
            [["Worth a comparison, each because of the named trait", *_candidates(found.candidates, traits.task)]]
            if found.candidates
            else []
        ),
        *([["What not to try", *_notes(found.avoided)]] if found.avoided else []),
        *([[*_decision(found)]] if found.candidates else []),
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _title(found: Recommendation) -> str:
    traits = found.traits
    stride = f", finest stride {traits.stride:g} px" if traits.stride else ""
    task = f"task {traits.task}" + (f" ({found.inferred})" if found.inferred else "")
    size = f" at imgsz={traits.imgsz}" if traits.size_shares is not None else ""
    return f"{found.data}: {task}; {Path(found.model).name}{size}{stride}"


# --- the table --------------------------------------------------------------------------------------------------------


def _rows(traits: Traits) -> Iterator[tuple[str, str]]:
    text = format_traits(traits)
    each = "" if traits.task == "classify" else f" with {text['objects']} objects"
    val = f"{text['val_images']} to validate" if traits.val_images else "no validation split"
    yield "images", f"{text['images']} to train{each}, {val}"
    yield "classes", _classes(traits)
    if traits.rare:
        yield "rare", f"{_rare(traits)}: less than a tenth of the labels of the largest class"
    if traits.size_shares is not None:
        shares = ", ".join(f"{percent(share)} {name}" for name, share in traits.size_shares.items())
        yield "side, px", f"{shares}; median {text['median_side']} (the root of the area, in training pixels)"
        if traits.below_stride is not None and traits.stride is not None:
            one, two = f"{traits.stride:g}", f"{2 * traits.stride:g}"
            below = f"{text['below_stride']} are narrower than one stride ({one} px), {text['below_two_strides']}"
            yield "strides", f"{below} than two ({two} px), by their shorter side"
        if traits.enlarged is not None and traits.enlarged > 1.1:
            yield "pixels", f"the files are enlarged {text['enlarged']} times to imgsz: they hold no finer detail"
        crowd = f"{text['per_image']} objects per image, at most {text['most_per_image']}"
        yield "crowding", f"{crowd}; {text['overlapping']} overlap another one by half or more (IoU)"
        shape = f"long side over short {text['aspect']} in the median"
        yield "shape", f"{shape}; {text['elongated']} are at least {ELONGATED:g} times as long as wide"
    if traits.squares is not None and traits.angle_shares is not None:
        angles = ", ".join(f"{percent(share)} {name}" for name, share in traits.angle_shares.items())
        yield "angles", f"{angles} degrees; {text['upright']} upright to 5 degrees; {text['squares']} are square"
    if traits.mask_of_box is not None:
        yield "masks", f"cover {text['mask_of_box']} of their box in the median, {text['mask_of_image']} of the image"
    if traits.hidden is not None:
        yield "keypoints", f"{text['unmarked']} have no position; of the others {text['hidden']} are marked as hidden"
    if traits.at_border is not None:
        empty = f"{text['empty']} of the images have no object"
        yield "labels", f"{text['at_border']} touch the border; {empty}; {text['duplicates']} repeated"


def _rare(traits: Traits) -> str:
    more = len(traits.rare) - MAX_NAMES
    names = [f"{name} ({traits.class_counts[name]:,})" for name in traits.rare[:MAX_NAMES]]
    return ", ".join(names) + (f" and {more:,} more" if more > 0 else "")


def _classes(traits: Traits) -> str:
    counts = {name: count for name, count in traits.class_counts.items() if count}
    least, most = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    number = len(traits.class_counts)
    if number == 1:
        return f"1, {most}"
    absent = f", {len(traits.absent):,} of them without a label" if traits.absent else ""
    if len(counts) == 1:
        return f"{number:,}{absent}; all labels are {most}"
    if counts[least] == counts[most]:
        return f"{number:,}{absent}; {counts[most]:,} labels each"
    ratio = format_traits(traits)["class_ratio"]
    return f"{number:,}{absent}; from {most} ({counts[most]:,}) to {least} ({counts[least]:,}): {ratio} to 1"


def _table(rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    for label, text in rows:
        yield from _entry(label, text, "  ")


def _entry(label: str, text: str, indent: str) -> list[str]:
    first = f"{indent}{label:<{LABEL - len(indent)}}"
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False)


# --- the recommendation ----------------------------------------------------------------------------------------------


def _stock(found: Recommendation) -> Iterator[str]:
    yield "1. Start with the stock losses: change no key"
    if not found.candidates:
        text = (
            "No trait of the labels suggests another loss: keep them. Most swaps change mAP by less than another seed"
            " does."
        )
    else:
        text = "They are a strong baseline, with which everything below is compared."
    yield from textwrap.wrap(text, WIDTH, initial_indent="   ", subsequent_indent="   ")


def _candidates(candidates: Sequence[Candidate], task: str) -> Iterator[str]:
    for number, candidate in enumerate(candidates, 2):
        yield f"{number}. {candidate.words}"
        yield from _entry("why", "; ".join(candidate.reasons), "   ")
        evidence = candidate.evidence
        source = f" ({evidence.source})" if evidence.source else ""
        yield from _entry("evidence", f"{candidate.grade}: {evidence.says}{source}", "   ")
        if candidate.verdict is not None:
            yield from _entry("", str(candidate.verdict), "   ")
        yield _entry("", evidence.url, "   ")[0]
        yield from _entry("cost", _cost(candidate.choice, task), "   ")


def _cost(choice: str, task: str) -> str:
    """Return the cost of losses that a key chooses, as measured in docs/speed.md; losses of rotated boxes are not."""
    if choice == "cls_loss":
        return "a training step takes as long as with stock"
    if choice == "box_loss" and task != "obb":
        return "the criterion, a small part of a training step, takes as long as with stock"
    return "not measured"


def _notes(notes: Sequence[Note]) -> Iterator[str]:
    for note in notes:
        more = [
            note.why,
            *([str(note.verdict)] if note.verdict else []),
            *([note.evidence.says] if note.evidence else []),
        ]
        yield from textwrap.wrap(
            f"- {note.what}: {'; '.join(more)}",
            WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )


def _decision(found: Recommendation) -> Iterator[str]:
    yield "The comparison that decides on this data"
    if found.plan is None:
        text = f"Trainings of each with three seeds; `compare` does not train classifiers. An example: {CLASSIFY}"
        yield from textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    else:
        yield from _command(found.plan, found.device)


def _command(plan: Plan, device: str) -> Iterator[str]:
    time = (
        f", about {format_duration(plan.seconds)} one after the other on {device}" if plan.seconds is not None else ""
    )
    yield f"  # {plan.configurations} configurations x {len(SEEDS)} seeds = {plan.runs} trainings{time}"
    yield f"  {plan.command}"


def format_duration(seconds: float) -> str:
    """Return a duration as text."""
    for size, unit in ((172_800, 86_400), (5400, 3600), (90, 60)):
        if seconds >= size:
            number = seconds / unit
            return f"{number:.0f} {({86_400: 'days', 3600: 'h', 60: 'min'})[unit]}"
    return f"{seconds:.0f} s"
