"""`--until-decided`: rounds of seeds through the driver, with made-up runs in place of trainings."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import write_run

from yolo_losses.comparison import driver, folders
from yolo_losses.comparison.options import Options
from yolo_losses.comparison.words import read_words

pytest.importorskip("scipy")
pytest.importorskip("rich")

SKILLS = {"bce": 1.0, "focal": 0.2, "slide": 1.0}
COUNT = itertools.count()


@pytest.fixture
def rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, int]]]:
    """Replace trainings; return the runs of each round."""
    done: list[list[tuple[str, int]]] = []

    def carry_out(runs: list[Any], *rest: Any) -> None:
        done.append([(run.cell.configuration["cls_loss"], run.seed) for run in runs])
        for run in runs:
            place = tmp_path / f"made{next(COUNT)}"
            loss = run.cell.configuration["cls_loss"]
            write_run(place, {"cls_loss": loss}, run.seed, skill=SKILLS[loss], data=run.cell.data, images=20, epochs=3)
            (made,) = place.glob("runs/*/*")
            folders.write_run_plan(run, 1, "")
            shutil.copytree(made, run.folder, dirs_exist_ok=True)
            args = run.folder / "args.yaml"
            args.write_text(args.read_text().replace(str(made), str(run.folder)))

    monkeypatch.setattr(driver, "carry_out", carry_out)
    monkeypatch.setattr("yolo_losses.comparison.stats.analysis.RESAMPLES", 50)
    return done


def test_what_is_decided_gets_no_more_seeds_and_a_repeated_command_trains_nothing(
    tmp_path: Path, data: Path, rounds: list[list[tuple[str, int]]]
) -> None:
    out = tmp_path / "out"
    words = [f"data={data}", "model=yolov8n.yaml", "epochs=3", "cls_loss=bce,focal,slide", "seed=5,6"]
    options = Options(out=out, until_decided=True, max_seeds=5)
    assert "the first round" in driver.dry_run(read_words(words), options)
    assert not driver.train(read_words(words), options, "yolo-losses compare")
    table = driver.write_report(options)
    assert rounds[0] == [(loss, seed) for seed in (5, 6, 0) for loss in SKILLS]
    assert all(loss != "focal" for own in rounds[1:] for loss, _ in own)  # which lost by far
    assert {seed for own in rounds for _, seed in own} <= {5, 6, 0, 1, 2}
    words_of = dict(table.filter(weights="best").select("configuration", "verdict").iter_rows())
    assert words_of["cls_loss=focal"] == "worse"
    report = (out / "report.md").read_text()
    assert "Rounds of seeds" in report
    assert "| decided |" in report
    assert json.loads((out / "summary.json").read_text())["rounds"]
    before = len(rounds)
    assert not driver.train(read_words(words), options, "yolo-losses compare")
    assert driver.write_report(options).equals(table)
    assert len(rounds) == before
    later = out / "runs" / "cls_loss=slide" / "seed2"  # of the last round, for which it may have been too clear
    shutil.copytree(later.with_name("seed5"), later, dirs_exist_ok=True)
    record = json.loads((later / "record.json").read_text())
    (later / "record.json").write_text(json.dumps(record | {"seed": 2, "status": "failed", "error": "out of memory"}))
    assert not driver.train(read_words(words), options, "yolo-losses compare")
    assert rounds[before:] == [[("slide", 2)]]
    with pytest.raises(ValueError, match="--until-decided"):
        driver.train(read_words(words), Options(out=out), "yolo-losses compare")


def test_too_few_seeds_to_look_at_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'--max-seeds 2': allowed is a number from 3"):
        Options(until_decided=True, max_seeds=2)
