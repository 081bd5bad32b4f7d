"""Traits of made-up data sets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from made_up_sets import LARGE, SMALL, Lines, write

from yolo_losses.recommendation import reader, traits

IMGSZ = 200
NETWORK: Any = SimpleNamespace(stride=8.0, end_to_end=False, queries=False, finer="")
SQUARE = "0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6"
LONG_AT_45 = "0.10 0.12 0.12 0.10 0.30 0.28 0.28 0.30"
TRIANGLE = "0.2 0.2 0.6 0.2 0.2 0.6"


def measured(folder: Path, lines: Lines, task: str | None = None, imgsz: int = IMGSZ, **more: Any) -> traits.Traits:
    return traits.measure(reader.read(str(write(folder, lines, **more)), task, imgsz), NETWORK, imgsz)


def large_and(*others: str) -> Lines:
    """Return lines of one large box, and of others, in each image."""
    return lambda number: [f"0 {LARGE}", *(f"0 {other}" for other in others)]


CASES: dict[str, tuple[Lines, dict[str, Any]]] = {
    "sizes": (
        large_and(SMALL, "0.8 0.8 0.06 0.06", "0.8 0.2 0.15 0.15"),
        {
            "small": 0.5,
            "tiny": 0.25,
            "size_shares": {
                "below 8": 0.25,
                "8 to 16": 0.25,
                "16 to 32": 0.25,
                "32 to 96": 0.25,
                "96 and above": 0.0,
            },
            "mean_side": (40 + 8**0.5 + 12 + 30) / 4,
            "median_side": 21.0,
        },
    ),
    "strides": (large_and(SMALL, "0.8 0.8 0.07 0.5"), {"below_stride": 1 / 3, "below_two_strides": 2 / 3}),
    "crowding": (large_and("0.34 0.3 0.2 0.2", "0.8 0.8 0.1 0.1"), {"per_image": 3.0, "overlapping": 2 / 3}),
    "boxes that only touch": (large_and("0.5 0.3 0.2 0.2"), {"overlapping": 0.0}),
    "labelled twice": (large_and("0.301 0.3 0.2 0.2", "0.301 0.3 0.2 0.2"), {"duplicates": 8}),
    "the same box of two classes": (lambda n: [f"0 {LARGE}", f"1 {LARGE}"], {"duplicates": 0, "overlapping": 1.0}),
    "shape": (large_and("0.5 0.8 0.5 0.05"), {"aspect": 5.5, "elongated": 0.5}),
    "border": (large_and("0.05 0.5 0.1 0.2"), {"at_border": 0.5}),
    "no height": (
        large_and("0.8 0.8 0.48 0", "0.8 0.5 0.3 0"),
        {"flat": 8, "degenerate": 0, "aspect": 1.0, "elongated": 0.0, "small": 0.0, "median_side": 40.0},
    ),
    "nothing but lines": (
        lambda n: ["0 0.8 0.8 0.48 0", "0 0.8 0.5 0 0"],
        {"flat": 8, "aspect": None, "elongated": None, "small": None},
    ),
    "less than a pixel": (large_and("0.8 0.8 0.2 0.004"), {"flat": 0, "degenerate": 4, "aspect": 25.5}),
    "images without objects": (lambda n: [f"0 {LARGE}"] if n else None, {"empty": 0.25, "per_image": 1.0}),
    "counts": (
        lambda n: [f"0 {LARGE}", f"0 {SMALL}", f"0 {LARGE[:-1]}1", *([f"1 {LARGE}"] if n == 0 else [])],
        {
            "class_counts": {"screw": 12, "crack": 1},
            "class_ratio": 12.0,
            "smallest_class": 1,
            "rare": ["crack"],
            "most_per_image": 4,
            "objects": 13,
            "images": 4,
            "val_images": 4,
        },
    ),
    "a class without labels": (large_and(), {"absent": ["crack"], "labelled_classes": 1, "class_ratio": 1.0}),
    "unreadable": (
        lambda n: [f"0 {LARGE}"] if n else ["0 0.5 0.5"],
        {"unreadable": 1, "unreadable_example": "0.png: labels require 5 columns, 3 columns detected"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_boxes(case: str, tmp_path: Path) -> None:
    lines, expected = CASES[case]
    found = vars(measured(tmp_path, lines))
    assert {name: found[name] for name in expected} == {
        name: pytest.approx(value) if isinstance(value, float) or name == "size_shares" else value
        for name, value in expected.items()
    }


def test_a_set_is_measured_the_same_from_ultralytics_cache(tmp_path: Path) -> None:
    path = write(tmp_path, lambda n: [f"0 {LARGE}", f"0 {LARGE}"] if n else ["0 0.5 0.5"])
    first, second = (traits.measure(reader.read(str(path), None, IMGSZ), NETWORK, IMGSZ) for _ in range(2))
    assert (tmp_path / "labels" / "train.cache").is_file()
    assert first == second
    assert (first.duplicates, first.unreadable) == (3, 1)


def test_lengths_are_those_of_the_training_image(tmp_path: Path) -> None:
    found = measured(tmp_path, large_and(), imgsz=400, size=(200, 100))
    assert found.enlarged == 2
    assert found.median_side == pytest.approx((80 * 40) ** 0.5)


def test_validation_is_compared_with_training(tmp_path: Path) -> None:
    path = write(tmp_path, lambda n: [f"{n % 2} {LARGE}"], splits=("train",), val="images/train")
    found = traits.measure(reader.read(str(path), None, IMGSZ), NETWORK, IMGSZ)
    assert found.shared_images == 4
    for number in (1, 3):  # the images with class 1
        (tmp_path / "images" / "val").mkdir(exist_ok=True)
        (tmp_path / "labels" / "val").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / "val" / f"{number}.png"), np.zeros((200, 200, 3), np.uint8))
        (tmp_path / "labels" / "val" / f"{number}.txt").write_text(f"1 {LARGE}")
    path.write_text(path.read_text().replace("val: images/train", "val: images/val"))
    found = traits.measure(reader.read(str(path), None, IMGSZ), NETWORK, IMGSZ)
    assert (found.shared_images, found.val_absent) == (0, ["screw"])


def test_rotated_boxes(tmp_path: Path) -> None:
    found = measured(tmp_path, lambda n: [f"0 {SQUARE}", f"0 {LONG_AT_45}"])
    assert found.task == "obb"
    assert (found.squares, found.upright, found.elongated) == (0.5, 0.5, 0.5)
    assert found.angle_shares is not None
    assert found.angle_shares["0 to 45"] + found.angle_shares["45 to 90"] == 1  # one of them: it is at 45 degrees


def test_masks(tmp_path: Path) -> None:
    found = measured(tmp_path, lambda n: [f"0 {TRIANGLE}"])
    assert found.task == "segment"
    assert found.mask_of_box == pytest.approx(0.5, abs=1e-4)
    assert found.mask_of_image == pytest.approx(0.08, abs=1e-4)


def test_masks_read_as_boxes(tmp_path: Path) -> None:
    found = measured(tmp_path, lambda n: [f"0 {TRIANGLE}"], task="detect")
    assert (found.task, found.mask_of_box) == ("detect", None)
    assert found.median_side == pytest.approx(80, abs=0.1)


def test_keypoints(tmp_path: Path) -> None:
    seen, hidden, none = "0.3 0.3 2", "0.3 0.3 1", "0 0 0"
    found = measured(tmp_path, lambda n: [f"0 {LARGE} {seen} {hidden} {none} {seen}"], kpt_shape=[4, 3])
    assert found.task == "pose"
    assert found.hidden == pytest.approx(1 / 3)
    assert (found.unmarked, found.rare_keypoints) == (0.25, [2])


def test_folders_of_classes(tmp_path: Path) -> None:
    for name, count in (("train/cat", 3), ("train/dog", 1), ("val/cat", 2)):
        (tmp_path / name).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), np.zeros((8, 8, 3), np.uint8))
    found = traits.measure(reader.read(str(tmp_path), None, IMGSZ), NETWORK, IMGSZ)
    assert found.task == "classify"
    assert found.class_counts == {"cat": 3, "dog": 1}
    assert (found.images, found.val_images, found.val_absent, found.small) == (4, 2, ["dog"], None)


def test_overlaps_of_many_objects_are_those_of_few(tmp_path: Path) -> None:  # they are counted a thousand at a time
    centres = [f"0 {0.01 + 0.98 * n / 1100:.5f} 0.5 0.0004 0.4" for n in range(1100)]
    found = measured(tmp_path, lambda n: [*centres, f"0 {centres[-1][2:-3]}0.39"], images=1)
    assert found.overlapping == pytest.approx(2 / 1101)
    assert found.duplicates == 1
