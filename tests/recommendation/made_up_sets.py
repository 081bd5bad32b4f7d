"""Small data sets whose labels are given line by line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

Lines = Callable[[int], Sequence[str] | None]

SMALL, LARGE = "0.5 0.5 0.01 0.02", "0.3 0.3 0.2 0.2"  # 2 x 4 and 40 x 40 of 200 pixels


def write(
    folder: Path,
    lines: Lines,
    images: int = 4,
    names: Sequence[str] = ("screw", "crack"),
    size: tuple[int, int] = (200, 200),
    splits: Sequence[str] = ("train", "val"),
    **more: Any,
) -> Path:
    """Write a data set of grey images and return its YAML file.

    Args:
        folder: where to.
        lines: the lines of an image's label file by its number; `None`: it has no file.
        images: of each split.
        names: of the classes.
        size: width and height.
        splits: that there are.
        **more: other entries of the YAML file.
    """
    for split in splits:
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for number in range(images):
            cv2.imwrite(str(folder / "images" / split / f"{number}.png"), np.full((size[1], size[0], 3), 90, np.uint8))
            found = lines(number)
            if found is not None:
                (folder / "labels" / split / f"{number}.txt").write_text("\n".join(found), encoding="utf-8")
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({**{s: f"images/{s}" for s in splits}, "names": list(names), **more}))
    return path


def story(folder: Path) -> Path:
    """Write a set of which a tenth of the objects is narrower than a stride, and one class is rare."""
    large = [f"0 {x / 4 + 0.1} {y / 4 + 0.1} 0.2 0.2" for x in range(3) for y in range(3)]
    return write(folder, lambda n: [*large, f"0 {SMALL}"] if n else [*large[1:], f"0 {SMALL}", f"1 {LARGE}"], images=8)
