"""Numbers that describe a data set as far as losses depend on it: counts, sizes, overlaps and shapes."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolo_losses.recommendation.network import Network
from yolo_losses.recommendation.reader import Booleans, DataSet, Floats, Integers, Labels

# The bins of the side of an object, the square root of its area in pixels of the training image; 16, 32 and 96 are
# those of `loss_stats`.
SIZE_EDGES = (8, 16, 32, 96)
RARE = 0.1  # of the largest class's labels: a class with fewer is called rare
OVERLAP = 0.5  # IoU from which two objects of an image count as overlapping
DUPLICATE = 0.9  # IoU from which two objects of one class count as one that was labelled twice
FLAT = 1e-3  # pixels; a side up to this length counts as zero
ELONGATED = 5.0  # long side over short side
SQUARE = 1.1  # a rotated box up to this ratio of its sides counts as square
MANY_IMAGES = 2000  # progress is shown from this number on


@dataclass(frozen=True)
class Traits:
    """The traits of a training split. A share is from 0 to 1; `None` if it does not apply to the task or the model.

    Attributes:
        task: task of the labels.
        imgsz: the longer side of a training image in pixels; all lengths are of training images.
        stride: stride of the model's finest grid, in pixels.
        end_to_end: whether the model has a one-to-one branch.
        queries: whether the model matches queries, as RT-DETR does.
        finer: name of a network of the model's family with a finer grid, empty if there is none.
        images, objects: their numbers in the training split; in the task classify an object is an image.
        val_images: number of images in the validation split, 0 without one.
        class_counts: objects by class.
        labelled_classes: classes with an object in the training split.
        absent: classes without an object in the training split.
        val_absent: other classes without an object in the validation split.
        rare: classes with less than a tenth of the largest class's objects.
        class_ratio: objects of the largest class over those of the smallest that has any.
        smallest_class: objects of the smallest class that has any.
        shared_images: images of the validation split that the training split has too.
        empty: share of images without objects.
        unreadable: images that Ultralytics leaves out since it cannot read them or their labels.
        unreadable_example: the message for the first of them.
        duplicates: label lines that repeat another one, which Ultralytics drops, and objects of one class whose boxes
            have an IoU of at least 0.9.
        flat: objects without a width or a height, which the traits of sides and shapes leave out.
        degenerate: other objects whose shorter side is below one pixel.
        per_image: mean number of objects of an image that has any.
        most_per_image: largest number of objects of an image.
        overlapping: share of objects with an IoU of at least 0.5 with another object of their image.
        enlarged: median of the longer side of a training image over that of its file.
        mean_side, median_side: mean and median of the side, the square root of the box's area.
        size_shares: share of objects by that side.
        tiny, small: share of objects with a side below 8 and below 16 pixels.
        below_stride, below_two_strides: share of objects whose shorter side is below one and two strides.
        aspect: median of long side over short side.
        elongated: share of objects for which this ratio is at least 5.
        at_border: share of objects whose box is within a pixel of the image's border.
        squares: share of rotated boxes whose sides differ by at most a tenth.
        upright: share of rotated boxes within 5 degrees of the axes.
        angle_shares: share of the rotated boxes that are not square by the angle of the long side, in degrees.
        hidden: share of keypoints with a position that are marked as hidden.
        unmarked: share of keypoints without a position.
        rare_keypoints: numbers of keypoints that have a position in less than a tenth of the objects.
        mask_of_box: median share of the box that its mask covers.
        mask_of_image: mean share of the image that all masks cover, counted twice where they overlap.
    """

    task: str
    imgsz: int
    stride: float | None
    end_to_end: bool
    queries: bool
    finer: str
    images: int
    objects: int
    val_images: int
    class_counts: Mapping[str, int]
    labelled_classes: int
    absent: Sequence[str]
    val_absent: Sequence[str]
    rare: Sequence[str]
    class_ratio: float
    smallest_class: int
    shared_images: int
    empty: float
    unreadable: int
    unreadable_example: str
    duplicates: int | None = None
    flat: int | None = None
    degenerate: int | None = None
    per_image: float | None = None
    most_per_image: int | None = None
    overlapping: float | None = None
    enlarged: float | None = None
    mean_side: float | None = None
    median_side: float | None = None
    size_shares: Mapping[str, float] | None = None
    tiny: float | None = None
    small: float | None = None
    below_stride: float | None = None
    below_two_strides: float | None = None
    aspect: float | None = None
    elongated: float | None = None
    at_border: float | None = None
    squares: float | None = None
    upright: float | None = None
    angle_shares: Mapping[str, float] | None = None
    hidden: float | None = None
    unmarked: float | None = None
    rare_keypoints: Sequence[int] | None = None
    mask_of_box: float | None = None
    mask_of_image: float | None = None


def measure(data: DataSet, network: Network, imgsz: int) -> Traits:
    """Return the traits of a data set, which has an object in its training split, for a model."""
    labels = data.train
    objects = len(labels.classes)
    common: dict[str, Any] = {
        "task": data.task,
        "imgsz": imgsz,
        "stride": network.stride,
        "end_to_end": network.end_to_end,
        "queries": network.queries,
        "finer": network.finer,
        "images": len(labels.files),
        "objects": objects,
        "val_images": len(data.val.files) if data.val else 0,
        "shared_images": len(set(labels.files) & set(data.val.files)) if data.val else 0,
        "empty": 1 - len(set(labels.image.tolist())) / len(labels.files),
        "unreadable": len(labels.problems),
        "unreadable_example": labels.problems[0] if labels.problems else "",
        **_classes(data),
    }
    if data.task == "classify":
        return Traits(**common)
    return Traits(**common, **_boxes(labels, network.stride, data.task), **_parts(labels, data.task))


def _classes(data: DataSet) -> dict[str, Any]:
    def count(labels: Labels) -> list[int]:
        return [int(n) for n in np.bincount(labels.classes, minlength=len(data.names))]

    train = count(data.train)
    present = [number for number in train if number]
    # Classes with the same name are distinguished by their index.
    names = [n if data.names.count(n) == 1 else f"{n} ({i})" for i, n in enumerate(data.names)]
    val = count(data.val) if data.val else train
    order = sorted(range(len(names)), key=lambda i: train[i])
    return {
        "class_counts": dict(zip(names, train, strict=True)),
        "labelled_classes": len(present),
        "absent": [names[i] for i in order if not train[i]],
        "val_absent": [names[i] for i in order if train[i] and not val[i]],
        "rare": [names[i] for i in order if 0 < train[i] < RARE * max(train)],
        "class_ratio": max(present) / min(present),
        "smallest_class": min(present),
    }


def _boxes(labels: Labels, stride: float | None, task: str) -> dict[str, Any]:
    """Return the traits of the boxes; those of rotated boxes are of their own sides."""
    rotated = labels.rotated if task == "obb" else None
    sides = rotated[:, :2] if rotated is not None else np.sort(labels.boxes[:, 2:], axis=1)[:, ::-1]
    flat = sides[:, 1] <= FLAT
    low = labels.boxes[:, :2] - labels.boxes[:, 2:] / 2
    high = labels.shapes[labels.image] - labels.boxes[:, :2] - labels.boxes[:, 2:] / 2
    overlapping, duplicates = _overlaps(labels)
    with_objects = np.bincount(labels.image)
    return {
        "duplicates": labels.duplicates + duplicates,
        "flat": int(flat.sum()),
        "degenerate": int((~flat & (sides[:, 1] < 1)).sum()),
        "per_image": float(with_objects[with_objects > 0].mean()),
        "most_per_image": int(with_objects.max()),
        "overlapping": overlapping,
        "enlarged": float(np.median(labels.scales)),
        "at_border": _share((np.minimum(low, high) <= 1).any(1)),
        **({} if flat.all() else _sizes(sides[~flat], stride)),
        **(_angles(rotated) if rotated is not None else {}),
    }


def _sizes(sides: Floats, stride: float | None) -> dict[str, Any]:
    """Return the traits of the long and the short sides of boxes, shape (N, 2)."""
    side, shorter = np.sqrt(sides.prod(1)), sides[:, 1]
    aspect = sides[:, 0] / shorter
    bins = np.bincount(np.digitize(side, SIZE_EDGES), minlength=len(SIZE_EDGES) + 1) / len(side)
    names = [f"below {SIZE_EDGES[0]}", *_ranges(SIZE_EDGES), f"{SIZE_EDGES[-1]} and above"]
    return {
        "mean_side": float(side.mean()),
        "median_side": float(np.median(side)),
        "size_shares": dict(zip(names, map(float, bins), strict=True)),
        "tiny": _share(side < 8),
        "small": _share(side < 16),
        "below_stride": None if stride is None else _share(shorter < stride),
        "below_two_strides": None if stride is None else _share(shorter < 2 * stride),
        "aspect": float(np.median(aspect)),
        "elongated": _share(aspect >= ELONGATED),
    }


def _angles(rotated: Floats) -> dict[str, Any]:
    ratio = rotated[:, 0] / np.maximum(rotated[:, 1], 1e-3)
    angles = rotated[ratio > SQUARE, 2]
    edges = np.arange(0, 181, 45)
    shares = np.histogram(angles, edges)[0] / max(len(angles), 1)
    return {
        "squares": _share(ratio <= SQUARE),
        "upright": _share(np.minimum(rotated[:, 2] % 90, 90 - rotated[:, 2] % 90) <= 5),
        "angle_shares": dict(zip(_ranges(edges.tolist()), map(float, shares), strict=True)),
    }


def _parts(labels: Labels, task: str) -> dict[str, Any]:
    """Return the traits of keypoints and masks."""
    if labels.marked is not None and labels.visible is not None:
        marked = labels.marked
        return {
            "hidden": float((marked & ~labels.visible).sum() / max(marked.sum(), 1)),
            "unmarked": _share(~marked),
            "rare_keypoints": np.flatnonzero(marked.mean(0) < RARE).tolist(),
        }
    if task == "segment" and labels.mask_areas is not None:
        areas = np.maximum(labels.boxes[:, 2:].prod(1), 1e-6)
        return {
            "mask_of_box": float(np.median(labels.mask_areas / areas)),
            "mask_of_image": float(labels.mask_areas.sum() / labels.shapes.prod(1).sum()),
        }
    return {}


def _overlaps(labels: Labels) -> tuple[float, int]:
    """Return the share of objects that overlap another one of their image, and the number of duplicates in a class."""
    overlapping = duplicates = 0
    for boxes, classes in _per_image(labels):
        if len(boxes) < 2:
            continue
        low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
        areas = boxes[:, 2:].prod(1)
        for start in range(0, len(boxes), 1000):  # a thousand rows at a time, to limit the memory
            rows = slice(start, start + 1000)
            sides = np.minimum(high[rows, None], high) - np.maximum(low[rows, None], low)
            shared = sides.clip(0).prod(2)
            iou = shared / np.maximum(areas[rows, None] + areas - shared, 1e-9)
            own = np.arange(len(iou))
            iou[own, start + own] = 0
            overlapping += int((iou >= OVERLAP).any(1).sum())
            later = np.arange(len(boxes)) > start + own[:, None]
            duplicates += int(((iou >= DUPLICATE) & (classes[rows, None] == classes) & later).any(0).sum())
    return overlapping / len(labels.boxes), duplicates


def _per_image(labels: Labels) -> Iterator[tuple[Floats, Integers]]:
    from ultralytics.utils import TQDM

    starts = np.flatnonzero(np.diff(labels.image, prepend=-1))
    ends = np.append(starts[1:], len(labels.image))
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    if len(starts) >= MANY_IMAGES:
        pairs = TQDM(pairs, desc="overlaps", total=len(starts), file=sys.stderr)
    for start, end in pairs:
        yield labels.boxes[start:end], labels.classes[start:end]


def _ranges(edges: Sequence[int]) -> list[str]:
    return [f"{a} to {b}" for a, b in itertools.pairwise(edges)]


def _share(which: Booleans | np.bool_) -> float:
    return float(which.mean())
