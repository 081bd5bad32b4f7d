"""The labels of a data set, read by Ultralytics' own reader and flattened into arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_losses.recommendation.errors import errors_in_one_line

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

CORRUPT = "ignoring corrupt image/label: "


@dataclass(frozen=True)
class Labels:
    """The labels of one split; N objects on I images, K keypoints each. Lengths are pixels of the training image.

    Attributes:
        files: the images, I of them.
        shapes: width and height of each image as it is trained, shape (I, 2).
        scales: that size over the file's, shape (I,).
        image: number of the image of each object, ascending, shape (N,).
        classes: number of the class of each object, shape (N,).
        boxes: centre x, centre y, width, height, shape (N, 4); of rotated boxes the upright box around them.
        rotated: long side, short side and angle of the long side in degrees, from 0 up to 180, shape (N, 3).
        mask_areas: areas of the polygons, shape (N,).
        visible: keypoints that are marked as visible, shape (N, K); labelled but hidden ones are not.
        marked: keypoints that have a position, visible or hidden, shape (N, K).
        duplicates: label lines that the reader left out as duplicates.
        problems: a message for each image that the reader left out as unreadable.
    """

    files: Sequence[str]
    shapes: Floats
    scales: Floats
    image: Integers
    classes: Integers
    boxes: Floats
    rotated: Floats | None = None
    mask_areas: Floats | None = None
    visible: Booleans | None = None
    marked: Booleans | None = None
    duplicates: int = 0
    problems: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class DataSet:
    """A data set as its labels describe it.

    Attributes:
        name: the name, as given.
        task: task of its labels.
        inferred: how the task was inferred; empty if it was given, or a model determines it.
        names: names of the classes, in order.
        train, val: the splits; in the task classify, each image is an object without a box.
    """

    name: str
    task: str
    inferred: str
    names: Sequence[str]
    train: Labels
    val: Labels | None


def read(data: str, task: str | None, imgsz: int) -> DataSet:
    """Read the labels of a data set, through the cache file that Ultralytics keeps beside them.

    Args:
        data: the YAML file that describes the set, or the folder of a set for classification.
        task: task of the labels; `None`: inferred from them.
        imgsz: the longer side of a training image in pixels.

    Raises:
        ValueError: if the set cannot be read or has no labels.
    """
    folder = Path(data)
    if task == "classify" or (task is None and folder.is_dir() and not list(folder.glob("*.y*ml"))):
        return _read_folders(data, "" if task else "a folder of folders")
    with errors_in_one_line(f"'data={data}'"):
        from ultralytics.data.utils import check_det_dataset

        description = check_det_dataset(data)
    inferred = ""
    if task is None:
        task, inferred = _task_of_yaml(description)
    train = _read_split(data, description, "train", task or "detect", imgsz)
    if task is None:
        task, inferred = _task_of_labels(train)
    names = [str(name) for _, name in sorted(description["names"].items())]
    if not len(train.classes):
        where = Path(_label_files(train.files[:1])[0]).parent
        raise ValueError(f"'data={data}': none of its {len(train.files)} training images has labels: looked in {where}")
    if task in ("segment", "obb") and train.mask_areas is None:
        raise ValueError(f"'data={data}': the task {task} needs labels that are polygons, and these are boxes")
    val = _read_split(data, description, "val", task, imgsz) if description.get("val") else None
    return DataSet(data, task, inferred, names, train, val)


def _task_of_yaml(description: Mapping[str, Any]) -> tuple[str | None, str]:
    if description.get("kpt_shape"):
        return "pose", "the file has kpt_shape"
    return None, ""


def _task_of_labels(labels: Labels) -> tuple[str, str]:
    if labels.mask_areas is None:
        return "detect", "the labels are boxes"
    if labels.rotated is not None:
        return "obb", "every label has four corners"
    return "segment", "the labels are polygons"


def _read_split(data: str, description: Mapping[str, Any], split: str, task: str, imgsz: int) -> Labels:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import load_dataset_cache_file

    class Reader(YOLODataset):
        """A data set that keeps the messages of the scan of its labels, which Ultralytics only logs."""

        scan: Mapping[str, Any] | None = None

        def cache_labels(self, path: Path = Path("./labels.cache")) -> dict[str, Any]:
            cache: dict[str, Any] = super().cache_labels(path)
            self.scan = {"msgs": list(cache["msgs"])}
            if not cache["labels"]:  # older releases continue with an empty data set
                raise ValueError(f"No valid images found: {next(map(_problem, cache['msgs']), 'there are none')}")
            return cache

    with errors_in_one_line(f"'data={data}'"):
        reader = Reader(
            img_path=description[split],
            data=dict(description),
            task=task,
            imgsz=imgsz,
            augment=False,
            prefix=f"{split}: ",
        )
        scan = reader.scan
        if scan is None:  # there was a cache file
            scan = load_dataset_cache_file(Path(_label_files(reader.im_files[:1])[0]).parent.with_suffix(".cache"))
        if not reader.labels:
            raise ValueError(f"no image of the split '{split}' can be read")
    return _flatten(reader.labels, task, imgsz, scan["msgs"])


def _label_files(images: Sequence[str]) -> list[str]:
    from ultralytics.data.utils import img2label_paths

    return list(img2label_paths(list(images)))


def _flatten(labels: Sequence[Mapping[str, Any]], task: str, imgsz: int, messages: Sequence[str]) -> Labels:
    sizes = np.array([label["shape"][::-1] for label in labels], dtype=float)
    scales = imgsz / sizes.max(1)
    shapes = sizes * scales[:, None]
    counts = [len(label["cls"]) for label in labels]
    image = np.repeat(np.arange(len(labels)), counts)
    boxes = np.concatenate([label["bboxes"] for label in labels]).astype(float) * np.tile(shapes, 2)[image]
    polygons = [p * shapes[i] for i, label in enumerate(labels) for p in label["segments"]]
    outlined = bool(polygons) and len(polygons) == len(boxes)
    corners = outlined and all(len(polygon) == 4 for polygon in polygons)
    keypoints = [label["keypoints"] for label in labels] if task == "pose" else []
    points = np.concatenate(keypoints) if keypoints else None
    # Visibility is 0 where a keypoint is not labelled, 1 where it is hidden, 2 where it is seen; data sets with two
    # numbers per keypoint have 1 for every keypoint inside the image.
    marked = points[..., 2] > 0 if points is not None else None
    visible = points[..., 2] > (1 if points[..., 2].max(initial=0) > 1 else 0) if points is not None else None
    removed = (re.search(r"(\d+) duplicate labels removed", message) for message in messages)
    return Labels(
        files=[str(label["im_file"]) for label in labels],
        shapes=shapes,
        scales=scales,
        image=image,
        classes=np.concatenate([label["cls"][:, 0] for label in labels]).astype(np.int64),
        boxes=boxes,
        rotated=_rotated(polygons) if corners and task != "segment" else None,
        mask_areas=np.array([_area(polygon) for polygon in polygons]) if outlined else None,
        visible=visible,
        marked=marked,
        duplicates=sum(int(found[1]) for found in removed if found),
        problems=[_problem(message) for message in messages if CORRUPT in message],
    )


def _problem(message: str) -> str:
    """Return the reason from a message about an image, without the text that all messages share."""
    path, _, reason = message.partition(f": {CORRUPT}")
    return f"{Path(path).name}: {reason}"


def _area(polygon: Floats) -> float:
    x, y = polygon.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _rotated(polygons: Sequence[Floats]) -> Floats:
    """Return long side, short side and the long side's angle of boxes that are given by their corners."""
    from ultralytics.utils.ops import xyxyxyxy2xywhr

    boxes = np.asarray(xyxyxyxy2xywhr(np.array([p.reshape(-1) for p in polygons], dtype=np.float32)), dtype=float)
    width, height, angle = boxes[:, 2], boxes[:, 3], np.degrees(boxes[:, 4])
    angle = np.where(width >= height, angle, angle + 90) % 180
    return np.stack([np.maximum(width, height), np.minimum(width, height), angle], 1)


def _read_folders(data: str, inferred: str) -> DataSet:
    """Read a set for classification: a folder of images for each class, in a folder for each split."""
    from ultralytics.data.utils import IMG_FORMATS

    def split(folder: Path) -> Labels:
        files = sorted(p for p in folder.rglob("*") if p.suffix[1:].lower() in IMG_FORMATS)
        classes = [
            names.index(p.relative_to(folder).parts[0]) for p in files if p.relative_to(folder).parts[0] in names
        ]
        none = np.zeros((len(files), 4))
        return Labels(
            files=[str(p) for p in files],
            shapes=none[:, :2],
            scales=none[:, 0],
            image=np.arange(len(classes)),
            classes=np.array(classes, np.int64),
            boxes=none,
        )

    folder = Path(data)
    if not folder.is_dir():
        raise ValueError(f"'data={data}': the task classify needs a folder with 'train' and 'val' in it")
    if not (folder / "train").is_dir():
        raise ValueError(f"'data={data}': there is no folder '{folder / 'train'}'")
    names = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    train = split(folder / "train")
    if not len(train.classes):
        raise ValueError(f"'data={data}': there are no images in the folders of '{folder / 'train'}'")
    val = next((folder / name for name in ("val", "validation", "valid", "test") if (folder / name).is_dir()), None)
    return DataSet(data, "classify", inferred, names, train, split(val) if val else None)
