"""Reading folders of runs: copies and truncated or broken runs are reported, and all others are used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_up_runs import results_csv, write_run

from yolo_losses.comparison.reader import read_runs
from yolo_losses.comparison.record import METRIC_COLUMNS, PLAN_FILE

METRICS = dict.fromkeys(METRIC_COLUMNS, 0.4)


def by_hand(folder: Path, *, seed: int = 0, epochs: int = 50, rows: int | None = None, **args: object) -> Path:
    """Write the files of a run of `yolo train`, except its checkpoints."""
    folder.mkdir(parents=True)
    values = {"data": "my.yaml", "epochs": epochs, "patience": 100, "seed": seed, **args, "save_dir": str(folder)}
    (folder / "args.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    rng = np.random.default_rng(abs(hash((folder.name, seed))) % 2**32)
    (folder / "results.csv").write_text(results_csv(METRICS, rows or epochs, rng))
    return folder


def edit_args(folder: Path, **changes: object) -> None:
    path = folder / "args.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}, sort_keys=False))


BREAKAGES = {
    "empty record": ("record.json", lambda text: "", "record.json"),
    "a list for a record": ("record.json", lambda text: "[]", "record.json, it lacks configuration"),
    "NaN metric": (
        "record.json",
        lambda text: json.dumps({**json.loads(text), "best": {**json.loads(text)["best"], "map50_95": float("nan")}}),
        "record.json, 'map50_95' of 'best' is nan",
    ),
    "no metrics": (
        "record.json",
        lambda text: json.dumps({**json.loads(text), "last": None}),
        "record.json, 'map50_95' of 'last' is None",
    ),
    "odd tag": ("args.yaml", lambda text: text + "lr: !!python/object:numpy.float64 1\n", "args.yaml, could not"),
    "cut off in a line": ("args.yaml", lambda text: text[: text.index("seed:") + 3], "args.yaml, "),
    "cut off between lines": (
        "args.yaml",
        lambda text: text[: text.index("save_dir:")],
        "args.yaml, it lacks save_dir",
    ),
    "binary": ("args.yaml", lambda text: "\x00\x01", "args.yaml, "),
    "no rows": ("results.csv", lambda text: text.splitlines()[0], "results.csv, it has no epoch"),
    "a missing row": (
        "results.csv",
        lambda text: "\n".join(line for line in text.splitlines() if not line.startswith("7,")),
        "results.csv, epoch 7 is missing",
    ),
    "NaN in the curve": (
        "results.csv",
        lambda text: "\n".join(
            ",".join([*line.split(",")[:8], "nan", *line.split(",")[9:]]) if line.startswith("7,") else line
            for line in text.splitlines()
        ),
        "results.csv, 'metrics/mAP50-95(B)' of epoch 7 is nan",
    ),
    "not an archive": ("validation.npz", lambda text: "PK", "validation.npz, "),
}


@pytest.mark.parametrize("case", BREAKAGES)
def test_a_run_that_cannot_be_read_is_named_with_its_file_and_the_reason_and_the_rest_is_used(
    tmp_path: Path, case: str
) -> None:
    for seed in (0, 1):
        write_run(tmp_path, {"cls_loss": "bce"}, seed)
    file, change, message = BREAKAGES[case]
    path = next(tmp_path.rglob("seed0")) / file
    path.write_text(change(path.read_text(errors="replace")))
    found = read_runs(tmp_path)
    assert [record.seed for record in found.records] == [1]
    (problem,) = found.problems
    assert problem.startswith(f"{path.parent.relative_to(tmp_path).as_posix()}: unreadable: {message}")
    assert "\n" not in problem


def test_arrays_of_a_validation_are_checked(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path, {"cls_loss": "bce"}, seed)
    folders = sorted(tmp_path.rglob("seed?"))
    for folder, drop in zip(folders, ("last_tp", "one"), strict=False):
        arrays = dict(np.load(folder / "validation.npz"))
        if drop == "one":
            arrays["best_conf"] = arrays["best_conf"][1:]
        else:
            del arrays[drop]
        np.savez_compressed(folder / "validation.npz", **arrays)
    found = read_runs(tmp_path)
    assert [record.seed for record in found.records] == [2]
    assert "unreadable: validation.npz, last_tp is not a file in the archive" in found.problems[0]
    assert "unreadable: validation.npz, its arrays are of different lengths" in found.problems[1]


@pytest.mark.parametrize(
    ("written", "resolved", "name"),
    [({"cls_weights": "balanced"}, {"cls_weights": [0.2, 1.8]}, "cls_weights=balanced"), ({}, {}, "cls_loss=stock")],
)
def test_a_comparison_of_one_configuration_keeps_its_name_beside_others(
    tmp_path: Path, written: dict[str, object], resolved: dict[str, object], name: str
) -> None:
    for loss in ("bce", "focal"):
        write_run(tmp_path / "grid", {"cls_loss": loss}, 0)
    for seed in (0, 1):
        write_run(tmp_path / "alone", {}, seed, name="default", settings=resolved)
        folder = next((tmp_path / "alone").rglob(f"seed{seed}"))
        (folder / PLAN_FILE).write_text(json.dumps({"settings": {"data": "my.yaml", **written}}))
    assert [r.name for r in read_runs(tmp_path / "alone").records] == ["default"] * 2
    found = read_runs(tmp_path)
    assert [r.name for r in found.records] == [name, name, "cls_loss=bce", "cls_loss=focal"]
    assert not found.problems


def test_balanced_weights_of_two_data_sets_are_one_configuration(tmp_path: Path) -> None:
    for number, data in enumerate(("one.yaml", "two.yaml"), 1):
        for weights in ("none", "balanced"):
            settings = {} if weights == "none" else {"cls_weights": [1.0, number]}
            place = tmp_path / data[:3] / weights
            write_run(place, {}, 0, name="default", data=data, settings=settings)
            folder = next(place.rglob("seed0"))
            (folder / PLAN_FILE).write_text(json.dumps({"settings": {"cls_weights": weights}}))
    assert {r.name for r in read_runs(tmp_path).records} == {"cls_weights=none", "cls_weights=balanced"}


def test_a_run_that_was_not_finished_is_left_out(tmp_path: Path) -> None:
    by_hand(tmp_path / "whole")
    by_hand(tmp_path / "short", rows=20)
    by_hand(tmp_path / "long", rows=60)
    found = read_runs(tmp_path)
    assert [record.folder.name for record in found.records] == ["whole"]
    assert found.problems == [
        "long: results.csv has 60 epochs, and args.yaml asks for 50",
        "short: not finished: 20 of 50 epochs",
    ]


def test_a_run_that_patience_stopped_counts_and_is_marked(tmp_path: Path) -> None:
    folder = by_hand(tmp_path / "early", rows=30, patience=10)
    lines = (folder / "results.csv").read_text().splitlines()
    best = [
        ",".join([*line.split(",")[:8], "0.9" if i == 20 else "0.3", *line.split(",")[9:]])
        for i, line in enumerate(lines)
    ]
    (folder / "results.csv").write_text("\n".join([lines[0], *best[1:], ""]))
    (record,) = read_runs(tmp_path).records
    assert record.stopped_early
    assert (record.epochs, record.planned_epochs) == (30, 50)
    assert "stopped early by patience" in " ".join(read_runs(tmp_path).problems)
    edit_args(folder, patience=11)
    assert not read_runs(tmp_path).records
    edit_args(folder, time=1.5)
    assert [r.planned_epochs for r in read_runs(tmp_path).records] == [None], "a run by hours has no planned number"


def test_the_last_row_of_a_repeated_epoch_counts(tmp_path: Path) -> None:
    folder = by_hand(tmp_path / "resumed", epochs=4)
    header, *lines = (folder / "results.csv").read_text().splitlines()
    again = ",".join(["3", *lines[0].split(",")[1:]])
    (folder / "results.csv").write_text("\n".join([header, *lines[:3], again, lines[3], ""]))
    (record,) = read_runs(tmp_path).records
    column = METRIC_COLUMNS["map50_95"]
    assert [row["epoch"] for row in record.curve] == [1, 2, 3, 4]
    assert record.curve[2][column] == record.curve[0][column]


def test_copies_of_a_run_under_other_seeds_are_one_run(tmp_path: Path) -> None:
    for loss in ("bce", "focal"):
        for seed in (0, 1):
            source = by_hand(tmp_path / f"{loss}{seed}", seed=seed, cls_loss=loss)
            for copy in (1, 2):
                target = tmp_path / f"{source.name}_copy{copy}"
                shutil.copytree(source, target)
                edit_args(target, seed=seed + 10 * copy, save_dir=str(target))
    found = read_runs(tmp_path)
    assert [(r.name, r.seed) for r in found.records] == [(f"cls_loss={x}", s) for x in ("bce", "focal") for s in (0, 1)]
    assert sum("is a copy" in line for line in found.problems) == 8
    assert "bce0_copy1 (seed 10) is a copy: its results equal those of bce0 (seed 0) in every epoch." in found.problems


def test_equal_results_of_two_configurations_are_reported(tmp_path: Path) -> None:
    source = by_hand(tmp_path / "stock", cls_loss="stock")
    shutil.copytree(source, tmp_path / "focal")
    edit_args(tmp_path / "focal", cls_loss="focal", save_dir="runs/focal")
    found = read_runs(tmp_path)
    assert len(found.records) == 2
    assert found.problems == [
        "stock has the same results as focal: it is a copy, or the keys that differ have no effect."
    ]


def test_a_renamed_run_is_reported(tmp_path: Path) -> None:
    by_hand(tmp_path / "train3").rename(tmp_path / "slide")
    (problem,) = read_runs(tmp_path).problems
    assert "slide was renamed or copied: its args.yaml was written for the folder 'train3'" in problem


def test_the_mean_of_the_last_epochs_is_over_a_tenth_of_them_and_three_at_least(tmp_path: Path) -> None:
    column = METRIC_COLUMNS["map50_95"]
    for epochs, last in ((2, 2), (14, 3), (50, 5)):
        by_hand(tmp_path / f"of{epochs}", epochs=epochs)
        (record,) = read_runs(tmp_path / f"of{epochs}").records
        mean = record.metrics("mean")
        assert mean is not None
        assert mean["map50_95"] == pytest.approx(np.mean([row[column] for row in record.curve[-last:]]))
        assert record.metrics("last") == record.last
        assert record.metrics("best") == record.best


def test_runs_made_by_hand_are_configured_by_the_keys_that_differ(tmp_path: Path) -> None:
    for name, loss, seed in (("a", None, 0), ("b", "focal", 0), ("c", "focal", 1)):
        folder = tmp_path / name
        folder.mkdir()
        lines = [
            "epochs: 2",
            f"seed: {seed}",
            "data: my.yaml",
            f"name: {name}",
            f"save_dir: runs/{name}",
            *([f"cls_loss: {loss}"] if loss else []),
        ]
        (folder / "args.yaml").write_text("\n".join(lines))
        header = "epoch,time,metrics/precision(B),metrics/recall(B),metrics/mAP50(B),metrics/mAP50-95(B)"
        (folder / "results.csv").write_text(f"{header}\n1,2.0,.1,.2,.3,.{25 + seed}\n2,4.0,.2,.3,.4,.2\n3,")
    open_run = tmp_path / "open"
    open_run.mkdir()
    for name in (PLAN_FILE, "args.yaml", "results.csv"):
        (open_run / name).write_text((tmp_path / "a" / name).read_text() if name != PLAN_FILE else "{}")
    records = read_runs(tmp_path).records
    assert [(r.configuration, r.seed) for r in records] == [
        ({"cls_loss": "stock"}, 0),
        ({"cls_loss": "focal"}, 0),
        ({"cls_loss": "focal"}, 1),
    ]
    assert records[0].name == "cls_loss=stock"
    assert (records[0].epochs, records[0].seconds_per_epoch) == (2, 2.0)
    assert records[0].best is not None
    assert records[0].last is not None
    assert (records[0].best["map50_95"], records[0].last["map50_95"]) == (0.25, 0.2)


def test_runs_of_several_comparisons_are_distinguished_by_the_keys_that_differ(tmp_path: Path) -> None:
    for scale, lr0 in ((1.0, 0.01), ("auto", 0.02)):
        for loss in ("bce", "focal"):
            write_run(tmp_path / str(scale), {"cls_loss": loss}, 0, settings={"cls_scale": scale, "lr0": lr0})
    assert [record.name for record in read_runs(tmp_path).records] == [
        "cls_loss=bce cls_scale=1.0 lr0=0.01",
        "cls_loss=focal cls_scale=1.0 lr0=0.01",
        "cls_loss=bce cls_scale=auto lr0=0.02",
        "cls_loss=focal cls_scale=auto lr0=0.02",
    ]
    assert [record.name for record in read_runs(tmp_path / "auto").records] == ["cls_loss=bce", "cls_loss=focal"]
    axes = {"cls_loss": "focal", "cls_scale": "auto", "lr0": 0.02}
    write_run(tmp_path / "hard", axes, 0, settings={"cls_target": "hard"})
    names = [record.name for record in read_runs(tmp_path).records]
    assert len(set(names)) == 5
    assert "cls_loss=focal cls_scale=auto lr0=0.02 cls_target=hard" in names


def test_a_failed_seed_has_the_name_of_the_others_of_its_configuration(tmp_path: Path) -> None:
    """Beside other comparisons, runs are named by their arguments, which a failed run lacks."""
    for loss in ("bce", "focal"):
        for seed in range(2):
            write_run(tmp_path / "grid", {"cls_loss": loss}, seed)
    for seed in range(3):
        error = "boom" if seed == 2 else None
        write_run(tmp_path / "single", {}, seed, name="default", settings={"box_loss": "siou"}, error=error)
    found = read_runs(tmp_path).records
    (name,) = {record.name for record in found if "single" in record.folder.parts}
    assert "box_loss=siou" in name
    assert {record.name for record in found if record.status == "failed"} == {name}
