"""The report of a folder as the command makes it: odd folders, the epochs of the metric, JSON for programs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from made_up_runs import write_run

pytest.importorskip("rich")
pytest.importorskip("scipy")

from yolo_losses.commands import main
from yolo_losses.comparison.driver import write_report
from yolo_losses.comparison.options import Options


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yolo_losses.comparison.stats.analysis.RESAMPLES", 50)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of two losses."""
    out = tmp_path_factory.mktemp("comparison")
    for loss in ("bce", "slide"):
        for seed in range(3):
            write_run(out, {"cls_loss": loss}, seed)
    return out


def test_a_folder_with_everything_wrong_in_it_is_reported_and_the_rest_is_compared(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    for seed, (file, text) in enumerate(
        [("record.json", ""), ("args.yaml", "a: !!python/object:x.Y 1"), ("args.yaml", "task: detect\nmode: tr")], 3
    ):
        write_run(out, {"cls_loss": "bce"}, seed)
        next(out.rglob(f"cls_loss=bce*/seed{seed}")).joinpath(file).write_text(text)
    (out / "comparison.json").write_text("")
    table = write_report(Options(out=out, baseline="cls_loss=BCE"))
    assert table.filter(weights="best")["runs"].to_list() == [3, 3]
    report = (out / "report.md").read_text(encoding="utf-8")
    for words in (
        "unreadable: comparison.json",
        "seed3: unreadable: record.json",
        "seed4: unreadable: args.yaml",
        "seed5: unreadable: args.yaml",
    ):
        assert words in report


def test_a_folder_in_which_nothing_can_be_read_is_refused_in_one_line_with_the_reasons(tmp_path: Path) -> None:
    write_run(tmp_path, {"cls_loss": "bce"}, 0)
    next(tmp_path.rglob("record.json")).write_text("{")
    with pytest.raises(ValueError, match=r"there are no runs to report on.*unreadable: record\.json") as refusal:
        write_report(Options(out=tmp_path))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("epochs", ["best", "last", "mean"])
def test_the_verdicts_are_on_the_epochs_that_the_metric_names(folder: Path, tmp_path: Path, epochs: str) -> None:
    shutil.copytree(folder, tmp_path / "out")
    table = write_report(Options(out=tmp_path / "out", metric=f"map50_95@{epochs}"))
    rows = {row["weights"]: row for row in table.filter(configuration="cls_loss=slide").iter_rows(named=True)}
    assert rows[epochs]["verdict"]
    assert rows[epochs]["low"] < rows[epochs]["difference"] < rows[epochs]["high"]
    curves = (tmp_path / "out" / "curves.csv").read_text().splitlines()
    assert curves[0] == "data,name,seed,epoch,map50_95,map50,precision,recall"
    assert len(curves) == 1 + 6 * 12, "a row for each epoch of each run"


def test_json_is_all_that_is_printed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder, tmp_path / "out")
    assert main(["compare", "--report-only", "--json", "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metric"] == "map50_95"
    assert {row["configuration"] for row in found["comparisons"]} == {"cls_loss=bce", "cls_loss=slide"}
