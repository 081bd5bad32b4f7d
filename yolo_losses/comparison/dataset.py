"""The data set of a comparison: its description, and a hash to detect changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from yolo_losses.comparison.words import errors_in_one_line


def read_data(data: str, split: str = "val") -> dict[str, Any]:
    """Return the description of a data set, downloaded as by Ultralytics if necessary."""
    from ultralytics.data.utils import check_det_dataset

    with errors_in_one_line(f"'data={data}'"):
        description: dict[str, Any] = check_det_dataset(data)
        if not description.get(split):
            raise ValueError(f"there is no split '{split}'")
        return description


def data_hash(description: Mapping[str, Any], split: str = "val") -> str:
    """Return a hash of a data set: its classes, the names and sizes of the images, and the labels."""
    digest = hashlib.sha256(repr(sorted(dict(description["names"]).items())).encode())
    for part in dict.fromkeys(("train", split)):
        for image in _images(description.get(part)):
            digest.update(f"{image.name} {image.stat().st_size}".encode())
            label = _label_of(image)
            if label.is_file():
                digest.update(label.read_bytes())
    return digest.hexdigest()[:16]


def count_images(description: Mapping[str, Any], split: str) -> int:
    """Return the number of images of a split."""
    return sum(1 for _ in _images(description.get(split)))


def count_trained(images: int, fraction: Any) -> int:
    """Return the number of training images that `fraction` selects: a share, a number above 1, or a list by split."""
    if isinstance(fraction, list):
        fraction = fraction[0] if fraction else 1.0
    return min(images, fraction if fraction > 1 else max(1, round(images * fraction)))


def _images(where: Any) -> Iterator[Path]:
    for path in [where] if isinstance(where, str) else where or []:
        folder = Path(path)
        if folder.is_file():  # a list of images
            for line in folder.read_text(encoding="utf-8").splitlines():
                image = Path(line.strip())
                image = image if image.is_absolute() else folder.parent / image
                if line.strip() and image.is_file():
                    yield image
        else:
            yield from sorted(
                p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".txt", ".npy", ".cache")
            )


def _label_of(image: Path) -> Path:
    """Return where Ultralytics looks for an image's labels."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")
