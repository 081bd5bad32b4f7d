"""`yolo-losses compare` as a whole."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import KEYS, compare
from conftest import Result, start

from yolo_losses.comparison.reader import read_runs
from yolo_losses.comparison.record import RunRecord

pytest.importorskip("rich")
pytest.importorskip("scipy")
pytestmark = pytest.mark.slow

BROKEN = """
from yolo_losses import register_cls_loss

@register_cls_loss("broken")
def broken_loss(logits, targets):
    '''A loss that fails on a whole batch, which no check has.'''
    if logits.numel() > 1000:
        raise RuntimeError("this loss is broken")
    return logits - targets
"""


@dataclass(frozen=True)
class Done:
    """A comparison that ran: bce, focal and one that fails, two seeds."""

    out: Path
    result: Result
    data: Path
    plugin: str

    def records(self) -> dict[tuple[str, int], RunRecord]:
        """Return the records by configuration and seed."""
        return {(r.name, r.seed): r for r in read_runs(self.out).records}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Done:
    folder = tmp_path_factory.mktemp("compare")
    plugin = folder / "broken.py"
    plugin.write_text(BROKEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_LOSSES_PLUGINS", str(plugin))
        result = compare(
            data, folder / "out", "seed=0,1", "--jobs", "2", cls_loss="bce,broken,focal", focal_gamma=1.0, epochs=2
        )
    return Done(folder / "out", result, data, str(plugin))


def test_it_trains_every_cell_with_every_seed_and_reports(done: Done) -> None:
    assert done.result.code == 3, done.result.text[-3000:]
    assert "2 of the runs failed" in done.result.lines[-1]
    records = done.records()
    names = ("cls_loss=bce", "cls_loss=broken", "cls_loss=focal")
    assert sorted(records) == [(name, seed) for name in names for seed in (0, 1)]
    for name in ("summary.csv", "summary.json", "report.md", "report.html"):
        assert (done.out / name).is_file()
    (verdict,) = done.result.saying("cls_loss=focal: ")
    told = json.loads((done.out / "summary.json").read_text(encoding="utf-8"))["comparisons"]
    sentences = [row["sentence"] or "" for row in told if row["weights"] == "best"]
    assert verdict.partition(": ")[2] in [sentence.replace("\u2212", "-") for sentence in sentences]


def test_a_failing_run_is_reported_with_its_last_lines_and_the_rest_goes_on(done: Done) -> None:
    assert len(done.result.saying("FAILED")) == 2
    assert len(done.result.saying("this loss is broken")) == 2
    for (name, _), record in done.records().items():
        assert record.status == ("failed" if "broken" in name else "finished")
    assert "this loss is broken" in (done.records()["cls_loss=broken", 0].error or "")


def test_runs_of_one_seed_are_pairs_and_seeds_are_different_experiments(done: Done) -> None:
    records = done.records()
    for kind in ("weights_hash", "order_hash"):
        hashes = {key: getattr(record, kind) for key, record in records.items() if record.status == "finished"}
        assert all(hashes.values())
        for seed in (0, 1):
            assert hashes["cls_loss=bce", seed] == hashes["cls_loss=focal", seed]
        assert hashes["cls_loss=bce", 0] != hashes["cls_loss=bce", 1]


def test_each_run_is_a_training_of_its_settings_in_its_own_folder(done: Done) -> None:
    for record in done.records().values():
        if record.status == "finished":
            args = yaml.safe_load((record.folder / "args.yaml").read_text())
            assert args["cls_loss"] == record.configuration["cls_loss"]
            assert args.get("focal_gamma") == (1.0 if args["cls_loss"] == "focal" else None)
            assert args["seed"] == record.seed
            assert all(args[key] == value for key, value in KEYS.items() if key not in ("epochs", "device"))
            assert record.epochs == args["epochs"] == 2
            assert (record.folder / "weights" / "best.pt").is_file()
            assert not (record.folder / "weights" / "snapshot.pt").exists()
            assert "Starting training" in (record.folder / "log.txt").read_text()


def test_a_record_has_all_that_a_report_needs(done: Done) -> None:
    record = done.records()["cls_loss=bce", 0]
    assert record.classes == ["disc", "tile", "star"]
    assert set(record.versions) == {"ultralytics", "torch", "yolo_losses", "python"}
    assert record.seconds_per_epoch
    assert record.peak_memory_mb
    for metrics in (record.best, record.last):
        assert metrics is not None
        assert set(metrics) == {"map50_95", "map50", "map75", "precision", "recall", "per_class", "pr"}
        assert metrics["pr"] is None or len(metrics["pr"]["recall"]) == len(metrics["pr"]["precision"]) == 101
    found = np.load(record.folder / "validation.npz")
    assert int(found["images"]) == 4
    for which in ("best", "last"):
        count = len(found[f"{which}_conf"])
        assert found[f"{which}_tp"].shape == (count, 10)
        assert len(found[f"{which}_cls"]) == len(found[f"{which}_image"]) == count
        assert set(found[f"{which}_image"]) <= {0, 1, 2, 3}
    labels = sorted((done.data.parent / "labels" / "val").glob("*.txt"))
    per_image = [sum(found["target_image"] == i) for i in range(4)]
    assert sorted(per_image) == sorted(len(path.read_text().splitlines()) for path in labels)


def test_more_seeds_run_only_what_is_new(done: Done) -> None:
    before = {key: (record.folder / "record.json").stat().st_mtime_ns for key, record in done.records().items()}
    again = compare(done.data, done.out, "seed=2", cls_loss="bce", focal_gamma=1.0, epochs=2)
    assert again.code == 1  # `focal_gamma` has no use without focal
    again = compare(done.data, done.out, "seed=0,2", cls_loss="bce,focal", focal_gamma=1.0, epochs=2).check()
    assert len(again.saying("started")) == 2
    assert again.saying("2 of 4 runs are finished already")
    after = done.records()
    assert {("cls_loss=bce", 2), ("cls_loss=focal", 2)} == set(after) - set(before)
    assert all((after[key].folder / "record.json").stat().st_mtime_ns == time for key, time in before.items())
    plan = json.loads((done.out / "comparison.json").read_text())
    assert plan["seeds"] == [0, 1, 2]
    assert plan["axes"]["cls_loss"] == ["bce", "broken", "focal"]


def test_the_report_is_rebuilt_without_training(done: Done) -> None:
    (done.out / "report.html").unlink()
    start(sys.executable, "-m", "yolo_losses", "compare", "--out", done.out, "--report-only")().check()
    assert (done.out / "report.html").is_file()


def test_a_wrong_value_is_refused_in_one_line_before_the_first_run(tmp_path: Path, data: Path) -> None:
    result = compare(data, tmp_path / "out", cls_loss="bce,focl")
    assert result.code == 1
    assert result.lines[-1].startswith("'cls_loss=focl' is not valid")
    assert not (tmp_path / "out").exists()
