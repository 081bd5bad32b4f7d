"""The made-up data set: what the demo trains on, and what tests of the other tasks can use."""

from __future__ import annotations

from pathlib import Path

import cv2
import make_dataset
import numpy as np
import pytest
import yaml

VALUES_PER_LINE = {"detect": {4}, "segment": {8, 20, 48}, "pose": {4 + 4 * 3}, "obb": {8}}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def labels(lines: list[str]) -> tuple[list[int], list[np.ndarray]]:
    rows = [[float(value) for value in line.split()] for line in lines]
    return [int(row[0]) for row in rows], [np.array(row[1:]) for row in rows]


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        make_dataset.make_dataset(tmp_path / name, train=3, val=2, imgsz=64, seed=seed)
    assert files(tmp_path / "one") == files(tmp_path / "same")
    assert files(tmp_path / "one") != files(tmp_path / "other")


def test_an_image_does_not_depend_on_the_number_of_images(tmp_path):
    make_dataset.make_dataset(tmp_path / "few", train=2, val=1, imgsz=64)
    make_dataset.make_dataset(tmp_path / "many", train=4, val=3, imgsz=64)
    few, many = files(tmp_path / "few"), files(tmp_path / "many")
    assert few.items() <= many.items()


def test_the_layout_is_what_data_yaml_says(tmp_path):
    data_yaml = make_dataset.make_dataset(tmp_path / "set", train=3, val=2, imgsz=96, task="pose")
    data = yaml.safe_load(data_yaml.read_text())
    assert data["kpt_shape"] == [4, 3]
    assert sorted(data["flip_idx"]) == [0, 1, 2, 3]
    for split, count in (("train", 3), ("val", 2)):
        images = sorted((data_yaml.parent / data[split]).glob("*.jpg"))
        assert len(images) == count
        for image in images:
            assert cv2.imread(str(image)).shape == (96, 96, 3)
            assert (data_yaml.parent / "labels" / split / f"{image.stem}.txt").is_file()


def test_for_classify_an_image_lies_in_the_folder_of_its_class_and_one_class_is_rare(tmp_path):
    folder = make_dataset.make_dataset(tmp_path, train=45, val=6, imgsz=64, task="classify")
    train, val = (
        {name: len(list((folder / split / name).glob("*.jpg"))) for name in make_dataset.CLASSES}
        for split in ("train", "val")
    )
    assert sum(train.values()) == 45
    assert train["disc"] > train["tile"] > train["star"] > 0
    assert set(val.values()) == {2}
    first, name = make_dataset.make_image_of(None, 64, [0, 0, 0])
    again, _ = make_dataset.make_image_of(name, 64, [0, 0, 0])
    other, other_name = make_dataset.make_image_of("star" if name != "star" else "disc", 64, [0, 0, 0])
    assert (first == again).all()
    assert other_name != name
    assert (first != other).any()


@pytest.mark.parametrize("task", sorted(VALUES_PER_LINE))
def test_labels_are_in_range_and_of_the_tasks_form(task):
    for number in range(20):
        _, lines = make_dataset.make_image(128, [0, 0, number], task)
        classes, values = labels(lines)
        assert set(classes) <= set(range(len(make_dataset.CLASSES)))
        for row in values:
            assert len(row) in VALUES_PER_LINE[task]
            coordinates = np.delete(row, [6, 9, 12, 15]) if task == "pose" else row
            assert 0 <= coordinates.min() <= coordinates.max() <= 1


def test_the_task_changes_the_labels_and_not_the_image():
    images = [make_dataset.make_image(128, [0, 0, 7], task)[0] for task in VALUES_PER_LINE]
    assert all(np.array_equal(images[0], image) for image in images[1:])


def test_box_polygon_and_rotated_box_describe_the_same_object():
    for number in range(10):
        (_, boxes), (_, polygons), (_, corners), (_, poses) = (
            labels(make_dataset.make_image(128, [0, 0, number], task)[1])
            for task in ("detect", "segment", "obb", "pose")
        )
        for box, polygon, corner, pose in zip(boxes, polygons, corners, poses, strict=True):
            points, frame = polygon.reshape(-1, 2), corner.reshape(-1, 2)
            low, high = points.min(axis=0), points.max(axis=0)
            np.testing.assert_allclose(box, np.concatenate(((low + high) / 2, high - low)), atol=1e-5)
            assert (frame.min(axis=0) <= low + 1e-5).all()
            assert (frame.max(axis=0) >= high - 1e-5).all()
            np.testing.assert_allclose(pose[:4], box, atol=1e-5)
            keypoints = pose[4:].reshape(4, 3)
            assert (np.abs(keypoints[:, :2] - box[:2]) <= box[2:] / 2).all()
            assert set(keypoints[:, 2]) <= {1, 2}


def test_an_object_is_where_its_label_says(monkeypatch):
    monkeypatch.setattr(make_dataset, "STRENGTH", (1, 1))
    rng = np.random.default_rng(0)
    shape = make_dataset.Shape("disc", np.array([(40.0, 70.0)]), np.array([(20.0, 12.0)]), 0.0)
    ground = np.full((128, 128, 3), 60, dtype=np.float32)
    image = ground.copy()
    make_dataset._paint(image, shape, rng)
    y, x = np.nonzero((image - ground).max(axis=2) > 20)
    assert (x.min(), x.max() + 1, y.min(), y.max() + 1) == pytest.approx((20, 60, 58, 82), abs=2)


def test_the_rarest_class_is_a_tenth_of_the_commonest(tmp_path):
    make_dataset.make_dataset(tmp_path, train=400, val=0, imgsz=64)
    text = "".join(path.read_text() for path in (tmp_path / "labels" / "train").glob("*.txt"))
    count = np.bincount([int(line.split()[0]) for line in text.splitlines()])
    assert list(count) == sorted(count, reverse=True)
    assert 6 < count[0] / count[-1] < 14


@pytest.mark.parametrize("task", sorted(VALUES_PER_LINE))
def test_ultralytics_reads_it_without_a_complaint(task, tmp_path):
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(
        str(make_dataset.make_dataset(tmp_path, train=6, val=6, imgsz=64, task=task)), autodownload=False
    )
    dataset = build_yolo_dataset(get_cfg(overrides={"task": task, "imgsz": 64}), data["val"], 2, data, mode="val")
    written = [len((tmp_path / "labels" / "val" / f"{i:05d}.txt").read_text().splitlines()) for i in range(6)]
    assert [len(label["cls"]) for label in sorted(dataset.labels, key=lambda label: label["im_file"])] == written
