"""Make a small data set of painted shapes, so that a training can be tried with nothing to download.

    python examples/make_dataset.py OUT --task detect --train 400 --val 120 --imgsz 128 --seed 0

Discs, tiles and stars lie on textured grounds under uneven light. One class is ten times as common as the
rarest; some objects are tiny, some hardly differ from their ground, some lie half under others. Each carries a dot at
its tip, so that its direction can be seen. Same arguments, same bytes (on one machine), and image number ``i`` is the
same one whatever the size of the set. Labels are in YOLO format for any of the tasks detect, segment, pose and obb; for
classify each image has one object and lies in the folder of its class, whose images for validation are as many as those
of the others.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
import yaml

Task = Literal["detect", "segment", "pose", "obb", "classify"]
Points = npt.NDArray[np.float64]  # (n, 2), x and y
Image = npt.NDArray[np.float32]  # (height, width, channels); colours from 0 to 255

CLASSES = {"disc": 10, "tile": 4, "star": 1}  # name -> how often, relatively
COLOURS = {"disc": (70, 80, 190), "tile": (180, 120, 60), "star": (60, 200, 90)}  # BGR, what each tends to
SPLITS = ("train", "val")
HALF_LENGTH = (0.06, 0.24)  # of the image's side
STRENGTH = (0.4, 1.0)  # how far an object's colour is from that of the ground under it: the hard and the easy ones
SUBPIXEL_BITS = 4  # cv2 draws at whole pixels unless coordinates come as fixed-point numbers

# In an object's own frame both axes run from -1 to 1, and its tip points along x.
CORNERS = np.array([(1, -1), (1, 1), (-1, 1), (-1, -1)], dtype=float)
KEYPOINTS = np.array([(0.7, 0), (-0.7, 0), (-0.3, -0.45), (-0.3, 0.45)])
KEYPOINT_FLIP = [0, 1, 3, 2]  # mirrored, left is right
DOT = np.array([(0.55, 0)])


def _outline(name: str) -> Points:
    """Return a class's outline in the frame of the object, filling it."""
    if name == "tile":
        return CORNERS
    corners, radii = (24, (1.0, 1.0)) if name == "disc" else (10, (1.0, 0.45))
    angle = np.arange(corners) * 2 * np.pi / corners
    points = np.stack((np.cos(angle), np.sin(angle)), axis=1) * np.resize(radii, corners)[:, None]
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / ((high - low) / 2)


OUTLINES = {name: _outline(name) for name in CLASSES}


@dataclass(frozen=True)
class Shape:
    """One object: what it is and where it lies, in pixels."""

    name: str
    centre: Points
    half_size: Points  # half its length and half its width
    angle: float  # of its tip, in radians

    def to_image(self, points: Points) -> Points:
        """Bring points from the object's frame to the image."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return points * self.half_size @ np.array([(cos, sin), (-sin, cos)]) + self.centre


def _coverage(polygon: Points, height: int, width: int) -> Image:
    """Return how much of each pixel the polygon covers, 0 to 1, ``(height, width, 1)``."""
    canvas = np.zeros((height, width), dtype=np.uint8)
    fixed_point = np.round((polygon - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)  # cv2 counts from a pixel's middle
    cv2.fillPoly(canvas, [fixed_point], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return canvas[..., None].astype(np.float32) / np.float32(255)


def _clouds(rng: np.random.Generator, height: int, width: int, cells: tuple[int, ...]) -> Image:
    """Return smooth noise about 0, ``(height, width, 1)``: a random grid per number of cells, finer ones fainter."""
    total = np.zeros((height, width), dtype=np.float32)
    for octave, cell in enumerate(cells):
        grid = rng.standard_normal((cell, cell), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / (octave + 1)
    return total[..., None] / np.float32(len(cells))


def _ground(rng: np.random.Generator, imgsz: int) -> Image:
    """Paint a ground: two related colours mixed by noise, with a weave on some."""
    base = np.clip(rng.uniform(40, 200) + rng.normal(0, 20, 3), 20, 230).astype(np.float32)
    other = np.clip(base + rng.normal(0, 30, 3), 20, 230).astype(np.float32)
    mix = 0.5 + 0.6 * _clouds(rng, imgsz, imgsz, (3, 8, 24, 64))
    if rng.random() < 0.4:
        direction, turns = rng.uniform(0, np.pi), rng.uniform(8, 20)
        y, x = np.mgrid[:imgsz, :imgsz].astype(np.float32) * (2 * np.pi * turns / imgsz)
        mix += rng.uniform(0.1, 0.3) * np.sin(x * np.cos(direction) + y * np.sin(direction))[..., None]
    return base + (other - base) * np.clip(mix, 0, 1)


def _paint(image: Image, shape: Shape, rng: np.random.Generator) -> None:
    """Paint one object onto the image: its shadow, its body, its dot."""
    reach = max(1.0, 0.12 * float(shape.half_size.min()))
    corners = shape.to_image(CORNERS)
    left, top = np.maximum(corners.min(axis=0) - 1, 0).astype(int)
    right, bottom = (corners.max(axis=0) + 4 * reach + 1).astype(int)
    window = image[top:bottom, left:right]  # a view: only what changes is worked on
    height, width = window.shape[:2]
    outline = shape.to_image(OUTLINES[shape.name]) - (left, top)
    mask = _coverage(outline, height, width)
    shadow = cv2.GaussianBlur(_coverage(outline + reach, height, width), (0, 0), reach)
    window *= 1 - 0.45 * shadow[..., None]

    under = (window * mask).sum(axis=(0, 1)) / max(float(mask.sum()), 1.0)
    own = np.array(COLOURS[shape.name]) + rng.normal(0, 25, 3)
    colour = np.clip(under + (own - under) * rng.uniform(*STRENGTH), 5, 250).astype(np.float32)
    body = colour + 14 * _clouds(rng, height, width, (3, 9))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    body *= 1 - 0.18 * ((x + y) / (height + width) * 2 - 1)[..., None]  # lit from above and from the left
    window += (body - window) * mask

    radius = max(0.8, 0.14 * float(shape.half_size.min()))
    circle = OUTLINES["disc"] * radius + shape.to_image(DOT) - (left, top)
    window += ((20 if colour.mean() > 110 else 235) - window) * _coverage(circle, height, width)


def _random_shape(rng: np.random.Generator, imgsz: int, near: Shape | None) -> Shape:
    weights = np.array(list(CLASSES.values()), dtype=float)
    name = str(rng.choice(list(CLASSES), p=weights / weights.sum()))
    length = np.exp(rng.uniform(*np.log(HALF_LENGTH))) * imgsz
    half_size = np.array([(length, length * rng.uniform(0.6, 1.0))])
    if near is None:
        centre = rng.uniform(0, imgsz, (1, 2))
    else:  # beside or over another one
        centre = near.centre + rng.normal(0, 0.8, (1, 2)) * (near.half_size.max() + length) / 2
    return Shape(name, centre, half_size, float(rng.uniform(-np.pi, np.pi)))


def _arrange(rng: np.random.Generator, imgsz: int) -> tuple[list[Shape], npt.NDArray[np.int_]]:
    """Lay out one image's objects, the last on top; return them with the number of the visible one at each pixel.

    All lie wholly inside the image, and none is hidden by more than half: what is labelled can be seen.
    """
    shapes: list[Shape] = []
    areas: list[int] = []
    visible: npt.NDArray[np.int_] = np.full((imgsz, imgsz), -1)
    wanted = int(rng.integers(2, 7))
    for _ in range(4 * wanted):
        near = shapes[int(rng.integers(len(shapes)))] if shapes and rng.random() < 0.35 else None
        shape = _random_shape(rng, imgsz, near)
        corners = shape.to_image(CORNERS)
        if corners.min() < 0 or corners.max() > imgsz:
            continue
        inside = _coverage(shape.to_image(OUTLINES[shape.name]), imgsz, imgsz)[..., 0] > 0.5
        after = np.where(inside, len(shapes), visible)
        if any((after == i).sum() < 0.5 * area for i, area in enumerate(areas)):
            continue
        shapes.append(shape)
        areas.append(int(inside.sum()))
        visible = after
        if len(shapes) == wanted:
            break
    return shapes, visible


def _label(shape: Shape, number: int, visible: npt.NDArray[np.int_], task: Task) -> str:
    """Return the object's line in a label file."""
    imgsz = len(visible)
    outline = shape.to_image(OUTLINES[shape.name]) / imgsz
    low, high = outline.min(axis=0), outline.max(axis=0)
    box = np.concatenate(((low + high) / 2, high - low))
    if task == "segment":
        values = outline.ravel()
    elif task == "obb":
        values = (shape.to_image(CORNERS) / imgsz).ravel()
    elif task == "pose":
        points = shape.to_image(KEYPOINTS)
        x, y = points.astype(int).T
        seen = np.where(visible[y, x] == number, 2, 1)  # 1: there, but under another object
        values = np.concatenate((box, np.column_stack((points / imgsz, seen)).ravel()))
    else:
        values = box
    return " ".join((str(list(CLASSES).index(shape.name)), *(f"{value:.6g}" for value in values)))


def make_image(imgsz: int, seed: list[int], task: Task = "detect") -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Paint one image and write its labels.

    Args:
        imgsz: Side of the square image in pixels.
        seed: Numbers that decide everything about the image.
        task: Which kind of labels.

    Returns:
        The image, ``(imgsz, imgsz, 3)``, and the lines of its label file.
    """
    rng = np.random.default_rng(seed)
    shapes, visible = _arrange(rng, imgsz)
    labels = [_label(shape, number, visible, task) for number, shape in enumerate(shapes)]
    return _scene(rng, imgsz, shapes), labels


def make_image_of(name: str | None, imgsz: int, seed: list[int]) -> tuple[npt.NDArray[np.uint8], str]:
    """Paint an image of one object.

    Args:
        name: Its class; `None`: any, as often as `CLASSES` says.
        imgsz: Side of the square image in pixels.
        seed: Numbers that decide everything about the image.

    Returns:
        The image, ``(imgsz, imgsz, 3)``, and the class.
    """
    rng = np.random.default_rng(seed)
    shape = _random_shape(rng, imgsz, None)
    while (corners := shape.to_image(CORNERS)).min() < 0 or corners.max() > imgsz:
        shape = replace(_random_shape(rng, imgsz, None), name=shape.name)
    shape = replace(shape, name=name or shape.name)
    return _scene(rng, imgsz, [shape]), shape.name


def _scene(rng: np.random.Generator, imgsz: int, shapes: list[Shape]) -> npt.NDArray[np.uint8]:
    """Paint a ground and objects on it, under uneven light."""
    image = _ground(rng, imgsz)
    for shape in shapes:
        _paint(image, shape, rng)
    image *= 1 + 0.25 * _clouds(rng, imgsz, imgsz, (2,)) + rng.uniform(-0.15, 0.15)
    image += rng.uniform(2, 8) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def make_dataset(
    folder: str | Path, train: int = 400, val: int = 120, imgsz: int = 128, seed: int = 0, task: Task = "detect"
) -> Path:
    """Write a data set and return what a training takes as ``data``: its ``data.yaml``, for classify the folder.

    Args:
        folder: Where to; made if it is not there, files of the same names are overwritten.
        train: Number of images to train on.
        val: Number of images to validate on.
        imgsz: Side of the square images in pixels.
        seed: Another seed makes another data set.
        task: Which kind of labels: boxes, polygons, boxes with four keypoints, rotated boxes, or a folder a class.
    """
    folder = Path(folder)
    if task == "classify":
        for split_number, (split, count) in enumerate(zip(SPLITS, (train, val), strict=True)):
            for number in range(count):
                wanted = list(CLASSES)[number % len(CLASSES)] if split == "val" else None
                image, name = make_image_of(wanted, imgsz, [seed, split_number, number])
                _write(folder / split / name / f"{number:05d}.jpg", image)
        return folder
    for split_number, (split, count) in enumerate(zip(SPLITS, (train, val), strict=True)):
        images, labels = folder / "images" / split, folder / "labels" / split
        labels.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, lines = make_image(imgsz, [seed, split_number, number], task)
            _write(images / f"{number:05d}.jpg", image)
            (labels / f"{number:05d}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    # No `path`: Ultralytics then looks beside the file, and the folder can be moved.
    data: dict[str, object] = {split: f"images/{split}" for split in SPLITS}
    data["names"] = dict(enumerate(CLASSES))
    if task == "pose":
        data.update(kpt_shape=[len(KEYPOINTS), 3], flip_idx=KEYPOINT_FLIP)
    data_yaml = folder / "data.yaml"
    data_yaml.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return data_yaml


def _write(path: Path, image: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 92])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument("--task", choices=get_args(Task), default="detect", help="kind of labels (default: detect)")
    for name, default in (("train", 400), ("val", 120), ("imgsz", 128), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"default: {default}")
    print(make_dataset(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
