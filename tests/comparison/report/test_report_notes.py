"""Notes of a report on runs that are missing, copied, not comparable or have learned nothing."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest
from made_up_reports import ERROR, fill, summary, text, verdict
from made_up_runs import write_run

from yolo_losses.comparison.report import build_report
from yolo_losses.comparison.stats.analysis import ALL_SETS

pytest_plugins = ("few_resamples",)
pytestmark = pytest.mark.usefixtures("few_resamples")


pytest.importorskip("scipy")


def test_runs_made_by_hand_are_grouped_by_their_settings(tmp_path):
    for loss, skill in (("bce", 1.0), ("focal", 0.3)):
        for seed in range(3):
            how = {"loss_stats": True} if seed else {}  # which changes no training
            write_run(tmp_path, {"cls_loss": loss}, seed, skill=skill, by_hand=True, settings=how)
    table = build_report(tmp_path)
    row = verdict(table, "cls_loss=focal")
    assert row["verdict"] == "worse"
    assert (row["seeds"], row["images"]) == (3, None)
    assert "no validation.npz" in text(tmp_path)
    assert "map75" not in {r["metric"] for r in summary(tmp_path)["comparisons"]}


def test_a_seed_without_a_partner_enters_no_difference(tmp_path):
    fill(tmp_path)
    shutil.rmtree(tmp_path / "runs" / "cls_loss=focal+my" / "seed1")
    before = verdict(build_report(tmp_path), "cls_loss=focal")
    write_run(tmp_path, {"cls_loss": "focal"}, 7, skill=0.9)
    row = verdict(build_report(tmp_path), "cls_loss=focal")
    assert (row["seeds"], row["runs"]) == (2, 3)
    assert row["difference"] == pytest.approx(before["difference"])


def test_one_seed_is_inconclusive(tmp_path):
    table = build_report(fill(tmp_path, seeds=1))
    row = verdict(table, "cls_loss=focal")
    assert row["verdict"] == "inconclusive"
    assert row["low"] is None
    assert "one seed" in row["sentence"]
    assert "fewer than three seeds" in text(tmp_path)
    assert "About 3 seeds" in text(tmp_path)


def test_identical_results_are_noted(tmp_path):
    fill(tmp_path)
    for seed in range(3):
        path = tmp_path / f"runs/cls_loss=slide+my/seed{seed}"
        other = tmp_path / f"runs/cls_loss=bce+my/seed{seed}"
        record = json.loads((path / "record.json").read_text())
        record |= {k: json.loads((other / "record.json").read_text())[k] for k in ("best", "last")}
        (path / "record.json").write_text(json.dumps(record))
        shutil.copy(other / "validation.npz", path)
    row = verdict(build_report(tmp_path), "cls_loss=slide")
    assert row["verdict"] == "practically equal"
    assert "identical with each of the 3 seeds" in row["sentence"]


def unlearn(folder, highest):
    """Change the runs of a folder as if they had learned nothing: the metric is between 0 and `highest`."""
    for number, path in enumerate(sorted(folder.rglob("record.json"))):
        record = json.loads(path.read_text())
        for which in ("best", "last"):
            record[which] |= {"map50_95": highest * (number % 4) / 3}
        path.write_text(json.dumps(record))
        (path.parent / "validation.npz").unlink()


@pytest.mark.parametrize(("highest", "language"), [(0.0, "en"), (0.004, "en"), (0.0, "zh")])
def test_runs_that_learned_nothing_have_no_result(tmp_path, highest, language):
    unlearn(fill(tmp_path), highest)
    table = build_report(tmp_path, language=language)
    row = verdict(table, "cls_loss=focal")
    assert row["verdict"] == "no result"
    assert ("at most 0.4 points in every run" if highest else "0 in every run") in row["sentence"]
    assert table.schema["seeds_needed"] == pl.Int64
    assert table.schema["low"] == pl.Float64
    said = text(tmp_path).partition("## ")[0]
    assert ("No result: focal, slide." if language == "en" else "无结果：focal、slide。") in said  # noqa: RUF001
    assert ("Train for more epochs, or from pretrained weights" if language == "en" else "多训练一些 epoch") in said
    for word in ("nconclusive", "ractically", "worth", "How sure", "无法判断", "实际相当", "不值得", "多大把握"):
        assert word not in said
    assert not (tmp_path / "figures" / "intervals.svg").exists()
    finer = verdict(build_report(tmp_path, rope=0.001), "cls_loss=focal")["verdict"] if highest else "inconclusive"
    assert finer == "inconclusive"


def test_a_data_set_on_which_nothing_was_learned_is_left_out_of_the_mean(tmp_path):
    for data in ("one.yaml", "two.yaml", "three.yaml"):
        for loss, skill in (("bce", 1.0), ("focal", 0.4)):
            for seed in range(2):
                write_run(tmp_path / data[:3], {"cls_loss": loss}, seed, skill=skill, data=data, images=20)
    unlearn(tmp_path / "thr", 0.0)
    over = verdict(build_report(tmp_path), "cls_loss=focal", ALL_SETS)
    assert over["seeds"] == 2
    assert over["difference"] < -0.02
    for part in ("one", "two"):
        unlearn(tmp_path / part, 0.0)
    assert verdict(build_report(tmp_path), "cls_loss=focal", ALL_SETS)["verdict"] == "no result"


def test_a_configuration_without_a_finished_run_is_noted(tmp_path):
    fill(tmp_path)
    write_run(tmp_path, {"cls_loss": "vfl"}, 0, error=ERROR)
    table = build_report(tmp_path)
    assert verdict(table, "cls_loss=vfl")["sentence"] == "no result: every run failed"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_configuration_that_always_fails_gets_advice_and_no_more_seeds(tmp_path, language):
    """The others are inconclusive with one seed, and are advised to have three."""
    fill(tmp_path, seeds=1)
    for seed in range(3):
        write_run(tmp_path, {"l1_loss": "l1"}, seed, error=ERROR)
    build_report(tmp_path, language=language)
    opening = text(tmp_path).partition("![")[0]
    for expected in {
        "en": ("no result: l1", "why every run of l1 failed", "About 3 seeds would decide focal"),
        "zh": ("无结果：l1", "先查清 l1 为什么", "大约要 3 个种子才能判断 focal"),  # noqa: RUF001
    }[language]:
        assert expected in opening
    assert "decide l1" not in opening
    assert "判断 l1" not in opening


def test_a_failing_baseline_comes_first_in_the_advice(tmp_path):
    fill(tmp_path, seeds=2)
    shutil.rmtree(tmp_path / "runs" / "cls_loss=bce+my")
    write_run(tmp_path, {"cls_loss": "bce"}, 0, error=ERROR)
    table = build_report(tmp_path)
    assert verdict(table, "cls_loss=focal")["sentence"] == "no result: every run of the baseline failed"
    opening = text(tmp_path).partition("> ")[0]
    assert "why every run of bce failed" in opening
    assert "seeds would decide" not in opening
    assert "How sure" not in opening


def test_failed_configurations_are_not_counted_among_the_intervals(tmp_path):
    write_run(fill(tmp_path), {"cls_loss": "vfl"}, 0, error=ERROR)
    build_report(tmp_path)
    assert "3 configurations against bce" in text(tmp_path)
    assert "the 2 intervals hold" in text(tmp_path)
    assert "the largest of 2 correlated |t|" in text(tmp_path)


def test_a_failure_on_one_data_set_is_noted_for_that_data_set(tmp_path):
    for data in ("one.yaml", "two.yaml"):
        for loss in ("bce", "focal"):
            for seed in range(2):
                error = ERROR if (loss, data) == ("focal", "two.yaml") else None
                write_run(tmp_path, {"cls_loss": loss}, seed, data=data, images=20, error=error)
    build_report(tmp_path)
    assert "why every run of focal on two.yaml failed" in text(tmp_path)


@pytest.mark.parametrize("losses", [["bce"], ["bce", "focal"]])
def test_a_report_without_a_finished_run_of_the_baseline_is_written(tmp_path, losses):
    write_run(tmp_path, {"cls_loss": "bce"}, 0, error=ERROR)
    for loss in losses[1:]:
        write_run(tmp_path, {"cls_loss": loss}, 0)
    table = build_report(tmp_path, baseline={"cls_loss": "bce"})
    assert table.is_empty() or verdict(table, "cls_loss=focal")["verdict"] == "no result"
    assert "out of memory" in text(tmp_path)


def test_one_configuration_alone_is_described(tmp_path):
    for seed in range(2):
        write_run(tmp_path, {"cls_loss": "bce"}, seed)
    assert build_report(tmp_path)["verdict"].to_list() == [None] * 3
    assert "no other configuration" in text(tmp_path)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"data_hash": "other"}, "changed between runs"),
        ({"order_hash": "other"}, "The runs of seed 0 do not all see the same batches"),
        ({"weights_hash": "other"}, "The runs of seed 0 do not all start from the same weights"),
        ({"versions": {"torch": "1.0"}}, "several versions of torch: 1.0, 2.14.0"),
        ({"device": "NVIDIA"}, "several devices"),
    ],
)
def test_threats_to_a_comparison_are_noted(tmp_path, changes, note):
    write_run(tmp_path, {"cls_loss": "vfl"}, 0, **changes)
    build_report(fill(tmp_path, seeds=2))
    assert note in text(tmp_path)
    assert note in text(tmp_path, "report.html")


def test_seeds_with_equal_image_orders_are_noted(tmp_path):
    for loss in ("bce", "focal"):
        for seed in range(3):
            write_run(tmp_path, {"cls_loss": loss}, seed, order_hash="the same")
    build_report(tmp_path)
    assert "Seeds of focal saw the same images in the same order" in text(tmp_path)


def test_a_repeated_seed_counts_once(tmp_path):
    fill(tmp_path)
    shutil.copytree(tmp_path / "runs/cls_loss=focal+my/seed0", tmp_path / "runs/again")
    assert verdict(build_report(tmp_path), "cls_loss=focal")["runs"] == 3
    assert "1 further runs of the same configuration and seed are left out" in text(tmp_path)


def test_keys_that_differ_without_being_an_axis_are_shown(tmp_path):
    fill(tmp_path, seeds=2)
    for seed in range(2):
        path = tmp_path / f"runs/cls_loss=focal+my/seed{seed}/args.yaml"
        path.write_text(path.read_text() + "lr0: 0.02\n")
    build_report(tmp_path)
    assert "| `lr0` (not an axis) | – | 0.02 | – |" in text(tmp_path)  # noqa: RUF001
