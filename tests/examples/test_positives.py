"""`examples/evidence/positives.py` on a tiny data set."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT, SIZE

COLUMNS = ("0-16", "16-32", "32-96")


def test_every_setting_sees_the_same_objects_and_a_floor_gives_small_ones_more_positives(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics import YOLO

    spec = importlib.util.spec_from_file_location("positives", ROOT / "examples" / "evidence" / "positives.py")
    assert spec is not None
    assert spec.loader is not None
    positives = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(positives)
    monkeypatch.setattr(positives.gather, "EVERY", positives.gather.EVERY)  # put back
    YOLO("yolov8n.yaml").save(tmp_path / "yolov8n.pt")
    found = positives.table(str(tmp_path / "yolov8n.pt"), [str(data)], [SIZE])
    objects = found.pivot("setting", index="size", values="objects")
    assert all(objects[name].to_list() == objects["stock"].to_list() for name in positives.SETTINGS)
    labels = [line for path in (data.parent / "labels" / "train").glob("*.txt") for line in path.open()]
    assert objects["stock"].sum() == len(labels)
    (small,) = (
        found.filter(pl.col("size") == "0-16")
        .pivot("setting", index="size", values="positives_per_object")
        .iter_rows(named=True)
    )
    assert small["tal_min_side=32"] > small["stock"]


@pytest.mark.parametrize("page", ["docs/assigner.md", "docs/zh/assigner.md"])
def test_the_pages_have_the_numbers_of_the_table(page: str) -> None:
    table = pl.read_csv(ROOT / "examples" / "evidence" / "positives.csv")
    text = (ROOT / page).read_text(encoding="utf-8")
    names = {"deep_pcb": "DeepPCB", "bccd": "BCCD"}
    rows = []
    for (data, imgsz, setting), own in table.group_by("data", "imgsz", "setting", maintain_order=True):
        sizes = {row["size"]: row for row in own.iter_rows(named=True)}
        cells = [f"{sizes[size]['positives_per_object']:.1f}, {sizes[size]['mean_target']:.3f}" for size in COLUMNS]
        without = f"{100 * sizes['0-16']['without_positive']:.1f} %"
        rows.append(f"| {names[str(data)]}, {imgsz} | `{setting}` | {without} | {' | '.join(cells)} |")
    assert len(rows) == 24
    assert "\n".join(rows) in text
