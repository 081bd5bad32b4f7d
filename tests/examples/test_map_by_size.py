"""`examples/evidence/map_by_size.py` on detections whose mAP is known."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import ROOT, SIZE


@pytest.fixture(scope="module")
def by_size() -> ModuleType:
    path = ROOT / "examples" / "evidence" / "map_by_size.py"
    spec = importlib.util.spec_from_file_location("map_by_size", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["map_by_size"] = module
    spec.loader.exec_module(module)
    return module


SMALL, OTHER, LARGE = [0, 0, 10, 10], [50, 50, 62, 60], [100, 100, 200, 220]


def test_sizes_do_not_disturb_each_other(by_size: ModuleType) -> None:
    def found(boxes: list[list[int]], objects: list[list[int]]) -> list[tuple[int, object]]:
        arrays = (np.array(b, float).reshape(-1, 4) for b in (boxes, objects))
        detected, labelled = arrays
        return [(0, by_size.Found(detected, np.linspace(0.9, 0.5, len(detected)), labelled))]

    perfect = found([SMALL, OTHER, LARGE], [SMALL, OTHER, LARGE])
    assert by_size.mean_ap(perfect, "0-16") == pytest.approx(0.995, abs=0.01)
    assert by_size.mean_ap(perfect, "over 96") == pytest.approx(0.995, abs=0.01)
    assert math.isnan(by_size.mean_ap(perfect, "16-32"))
    missed = found([SMALL, LARGE], [SMALL, OTHER, LARGE])
    assert by_size.mean_ap(missed, "0-16") == pytest.approx(0.5, abs=0.01)
    assert by_size.mean_ap(missed, "over 96") == by_size.mean_ap(perfect, "over 96")
    wrong = found([OTHER, SMALL, LARGE], [SMALL, LARGE])  # the surest detection is a small one where nothing is
    assert by_size.mean_ap(wrong, "0-16") == pytest.approx(0.5, abs=0.01)
    assert by_size.mean_ap(wrong, "over 96") == by_size.mean_ap(perfect, "over 96")
    loose = found([[0, 0, 10, 13]], [SMALL])  # an IoU of 0.77: six of ten thresholds
    assert by_size.mean_ap(loose, "0-16") == pytest.approx(0.6, abs=0.01)


def test_the_labels_of_a_data_set_are_all_counted(by_size: ModuleType, data: Path, tmp_path: Path) -> None:
    from ultralytics import YOLO

    YOLO("yolov8n.yaml").save(tmp_path / "yolov8n.pt")
    images = sorted((data.parent / "images" / "val").iterdir())
    found = by_size.detections(str(tmp_path / "yolov8n.pt"), images, SIZE)
    labels = [line for path in (data.parent / "labels" / "val").glob("*.txt") for line in path.open()]
    assert sum(len(each.objects) for _, each in found) == len(labels)
    assert all((each.objects <= SIZE + 1).all() for _, each in found)
