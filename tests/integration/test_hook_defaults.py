"""No touch by default: a run with every key at its default is, bit for bit, a run without the package."""

from __future__ import annotations

import csv
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY, pairs, start_without_plugin, start_yolo

from yolo_losses.config import settings

pytestmark = pytest.mark.slow

ENTRY = "from ultralytics.cfg import entrypoint\nentrypoint()"
WEIGHTS = ("best.pt", "last.pt", "epoch0.pt")  # the last one as it was mid-run, optimizer and all
KEYS = settings.default_keys()


@dataclass
class Kept:
    """What a run left behind."""

    rows: list[dict[str, str]]
    arguments: dict[str, Any]
    strings: dict[str, set[str]]
    folder: Path


def keep(folder: Path) -> Kept:
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["time"]
    arguments = yaml.safe_load((folder / "args.yaml").read_text())
    for key in ("name", "save_dir"):
        del arguments[key]
    return Kept(rows, arguments, {name: strings(folder / "weights" / name) for name in WEIGHTS}, folder)


def strings(checkpoint: Path) -> set[str]:
    """Return every piece of text that a checkpoint's pickle holds: names of classes and modules, keys, values."""
    with zipfile.ZipFile(checkpoint) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return {arg for _, arg, _ in pickletools.genops(archive.read(name)) if isinstance(arg, str)}


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kept]:
    """Train the same two epochs in four ways, two at a time."""
    folder = tmp_path_factory.mktemp("defaults")

    def line(name: str) -> list[str]:
        keys = {**TINY, "epochs": 2, "save_period": 1, "seed": 7, "data": data, "project": folder, "name": name}
        return ["train", "model=yolov8n.yaml", *pairs(**keys)]

    stock = ["cls_loss=stock", "box_loss=Stock", "dfl_loss=stock", "cls_target=none", "cls_scale=1", "focal_gamma=1.5"]
    for pair in (
        (start_without_plugin(ENTRY, *line("without")), start_yolo(*line("default"))),
        (start_yolo(*line("explicit"), *stock), start_yolo(*line("disabled"), YOLO_LOSSES_DISABLE="1")),
    ):
        for wait in pair:
            wait().check()
    return {name: keep(folder / name) for name in ("without", "default", "explicit", "disabled")}


@pytest.mark.parametrize("name", ["default", "explicit", "disabled"])
def test_results_are_equal_bit_for_bit(name: str, runs: dict[str, Kept]) -> None:
    assert len(runs["without"].rows) == 2
    assert float(runs["without"].rows[-1]["train/cls_loss"]) > 0
    assert runs[name].rows == runs["without"].rows


@pytest.mark.parametrize("name", ["default", "explicit", "disabled"])
def test_args_and_checkpoints_do_not_mention_the_package(name: str, runs: dict[str, Kept]) -> None:
    assert runs[name].arguments == runs["without"].arguments
    for weights in WEIGHTS:
        found, wanted = runs[name].strings[weights], runs["without"].strings[weights]
        # Ultralytics stores the path of the repository that it trains in, whatever its name.
        assert not [text for text in found - wanted if "yolo_losses" in text]
        # `cls_loss` and its like are names of Ultralytics' own log as well.
        assert found & set(KEYS) == wanted & set(KEYS) <= {"box_loss", "cls_loss", "dfl_loss"}


def test_a_default_run_resumes_without_the_package(runs: dict[str, Kept]) -> None:
    folder = runs["default"].folder
    before = (folder / "results.csv").read_text()
    result = start_without_plugin(ENTRY, "train", "resume", f"model={folder / 'weights' / 'epoch0.pt'}")().check()
    assert result.saying("Resuming training")
    assert (folder / "results.csv").read_text() != before
