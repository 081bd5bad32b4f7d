"""The report, on folders of made-up runs."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import statistics
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_up_runs import write_run

pytest.importorskip("scipy")

from yolo_losses.comparison.record import RunRecord
from yolo_losses.comparison.report import build_report, write
from yolo_losses.comparison.report.figures import intervals
from yolo_losses.comparison.report.tables import read_summary
from yolo_losses.comparison.stats.analysis import ALL_SETS, Analysis, analyse
from yolo_losses.plots.style import INK

ROOT = Path(__file__).parents[3]
SKILLS = {"bce": 1.0, "focal": 0.4, "slide": 1.0}
ERROR = 'Traceback (most recent call last):\n  File "<string>"\ntorch.OutOfMemoryError: out of memory'


def fill(folder: Path, seeds: int = 3, **options) -> Path:
    for loss, skill in SKILLS.items():
        for seed in range(seeds):
            write_run(folder, {"cls_loss": loss}, seed, skill=skill, **options)
    cells = [{"name": f"cls_loss={loss}", "data": options.get("data", "my.yaml")} for loss in SKILLS]
    plan = {"command": "yolo-losses compare data=my.yaml cls_loss=bce,focal,slide", "cells": cells, "options": {}}
    (folder / "comparison.json").write_text(json.dumps({**plan, "options": {"baseline": {"cls_loss": "bce"}}}))
    return folder


@pytest.fixture(autouse=True, scope="module")
def few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yolo_losses.comparison.stats.analysis.RESAMPLES", 100)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, few_resamples):
    made = fill(tmp_path_factory.mktemp("comparison"))
    write_run(made, {"cls_loss": "slide"}, 3, error=ERROR)
    build_report(made)
    return made


def text(folder: Path, name: str = "report.md") -> str:
    return (folder / name).read_text(encoding="utf-8")


def summary(folder: Path) -> dict:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text(folder, "summary.json"), parse_constant=refuse)


def verdict(table: pl.DataFrame, name: str, data: str = "my.yaml", weights: str = "best") -> dict:
    return table.row(
        by_predicate=(pl.col("configuration") == name) & (pl.col("data") == data) & (pl.col("weights") == weights),
        named=True,
    )


def test_the_table_holds_the_verdicts(folder):
    table = build_report(folder)
    assert verdict(table, "cls_loss=focal")["verdict"] == "worse"
    assert verdict(table, "cls_loss=focal", weights="last")["verdict"] == "worse"
    assert verdict(table, "cls_loss=slide")["verdict"] == "inconclusive"
    assert verdict(table, "cls_loss=bce")["verdict"] is None
    assert len(table) == 9


def test_every_metric_has_every_number_at_both_epochs(folder):
    rows = summary(folder)["comparisons"]
    expected = {"map50_95", "map50", "map75", "precision", "recall"}
    expected |= {f"{c}:{m}" for c in ("car", "person", "sign") for m in ("map50_95", "map50")}
    for which in ("best", "last"):
        own = [r for r in rows if (r["configuration"], r["weights"]) == ("cls_loss=focal", which)]
        assert {r["metric"] for r in own} == expected
        for row in own:
            assert list(row["differences"]) == ["0", "1", "2"]
            assert row["own_low"] < row["difference"] < row["own_high"]
            if row["metric"] == "map50_95":
                assert row["low"] < row["own_low"] < row["own_high"] < row["high"]
                assert 0 <= row["p_adjusted"] <= 1


def test_the_numbers_are_those_of_the_records(folder):
    records = {
        loss: [json.loads((folder / f"runs/cls_loss={loss}+my/seed{s}/record.json").read_text()) for s in range(3)]
        for loss in ("bce", "focal")
    }
    for which in ("best", "last"):
        bce, focal = ([r[which]["map75"] for r in records[loss]] for loss in ("bce", "focal"))
        row = next(
            r
            for r in summary(folder)["comparisons"]
            if (r["configuration"], r["weights"], r["metric"]) == ("cls_loss=focal", which, "map75")
        )
        assert row["mean"] == pytest.approx(statistics.fmean(focal))
        assert row["sd"] == pytest.approx(statistics.stdev(focal))
        assert row["difference"] == pytest.approx(statistics.fmean(focal) - statistics.fmean(bce))


def test_summary_csv_has_a_row_for_each_run(folder):
    table = pl.read_csv(folder / "summary.csv")
    assert len(table) == 10
    assert table["status"].to_list().count("failed") == 1
    assert table.filter(pl.col("status") == "failed")["error"][0].endswith("out of memory")
    assert table["best_map50_95"].null_count() == 1
    assert {"best_map50_sign", "seconds_per_epoch", "peak_memory_mb", "weights_hash", "order_hash"} <= {*table.columns}


def test_the_report_says_what_a_reviewer_asks_for(folder):
    for page in (text(folder), text(folder, "report.html")):
        for expected in (
            "yolo-losses compare data=my.yaml",  # the command
            "8.4.190",
            "3f1c77aa90b2d4e1",  # the data set
            "What was tried",
            "What came out",
            "How sure",
            "What to run next",
            "seed=0-",  # with the seeds filled in
            "seed 3",  # of the failed run
            "out of memory",
            "initial weights the same",
            "cls_loss",
            "p, adjusted",
        ):
            assert expected.lower() in page.lower(), expected
    html = text(folder, "report.html")
    assert html.index("Worse: focal") < html.index("<svg")  # what came out comes first


class Page(HTMLParser):
    """What a page loads and names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("src", "href", "xlink:href"):
                self.links.append(value)


def test_the_page_stands_alone(folder):
    html = text(folder, "report.html")
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object"} & {*page.tags}
    assert all(link.startswith("#") for link in page.links)
    assert "@import" not in html
    assert "url(http" not in html
    assert page.tags.count("svg") == len(list((folder / "figures").glob("*.svg"))) == 3
    # Ids of one figure are not another's: a clip path or a marker would be taken from it.
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} | set(re.findall(r"url\(#([^)]+)\)", html)) <= set(page.ids)


def test_figures_follow_the_pages_colours(folder):
    for path in (folder / "figures").glob("*.svg"):
        svg = path.read_text(encoding="utf-8")
        ElementTree.fromstring(svg)
        assert "currentColor" in svg
        assert INK not in svg
        assert "#000000" not in svg
        assert "prefers-color-scheme" in svg
    assert "prefers-color-scheme:dark" in text(folder, "report.html")


def test_the_report_is_the_same_twice(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    build_report(tmp_path / "copy")
    for name in ("report.html", "report.md", "summary.csv", "summary.json", "figures/intervals.svg"):
        assert text(folder, name) == text(tmp_path / "copy", name), name


def test_markdown_tables_are_whole(folder):
    lines = text(folder).splitlines()
    for above, line in itertools.pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            assert above.count("|") == line.count("|"), line
    assert sum(line.startswith("|--") for line in lines) == 6


def test_names_and_messages_are_escaped(tmp_path):
    fill(tmp_path, seeds=2)
    write_run(tmp_path, {"cls_loss": "<b>&"}, 0, error="<script>alert(1)</script>")
    build_report(tmp_path)
    html = text(tmp_path, "report.html")
    assert "<script>" not in html
    assert "&lt;b&gt;&amp;" in html


def test_configurations_come_in_the_order_of_the_grid(tmp_path):
    fill(tmp_path, seeds=2)
    plan = json.loads((tmp_path / "comparison.json").read_text())
    plan["cells"].reverse()
    (tmp_path / "comparison.json").write_text(json.dumps(plan))
    table = build_report(tmp_path)
    assert table["configuration"].unique(maintain_order=True).to_list() == [
        "cls_loss=bce",
        "cls_loss=slide",
        "cls_loss=focal",
    ]


def test_another_baseline_and_metric(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    table = build_report(tmp_path / "copy", baseline={"cls_loss": "focal"}, metric="map50")
    row = verdict(table, "cls_loss=bce")
    assert row["metric"] == "map50"
    assert row["difference"] > 0.01
    assert table["configuration"][0] == "cls_loss=focal"
    assert "compared with focal" in text(tmp_path / "copy")


def test_a_baseline_that_is_not_there_is_refused_in_one_line(folder):
    with pytest.raises(ValueError, match="cls_loss=vfl") as refusal:
        build_report(folder, baseline={"cls_loss": "vfl"})
    assert "\n" not in str(refusal.value)


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no runs"):
        build_report(tmp_path)


# --- what is not as it should be -------------------------------------------------------------------------------------


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


def test_identical_results_are_said(tmp_path):
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


def test_runs_that_learned_nothing_are_inconclusive(tmp_path):
    fill(tmp_path, seeds=2)
    for path in tmp_path.rglob("record.json"):
        record = json.loads(path.read_text())
        for which in ("best", "last"):
            record[which] |= {"map50_95": 0.0}
        path.write_text(json.dumps(record))
    table = build_report(tmp_path)
    assert "0 in every run" in verdict(table, "cls_loss=focal")["sentence"]
    assert "no difference from the baseline varies" in text(tmp_path)
    assert "With one seed" not in text(tmp_path)
    assert table.schema["seeds_needed"] == pl.Int64
    assert table.schema["low"] == pl.Float64


def test_a_configuration_without_a_finished_run_is_said(tmp_path):
    fill(tmp_path)
    write_run(tmp_path, {"cls_loss": "vfl"}, 0, error=ERROR)
    table = build_report(tmp_path)
    assert verdict(table, "cls_loss=vfl")["sentence"] == "inconclusive: no seed has a finished run of both"


@pytest.mark.parametrize("losses", [["bce"], ["bce", "focal"]])
def test_a_report_without_a_finished_run_of_the_baseline_is_written(tmp_path, losses):
    write_run(tmp_path, {"cls_loss": "bce"}, 0, error=ERROR)
    for loss in losses[1:]:
        write_run(tmp_path, {"cls_loss": loss}, 0)
    table = build_report(tmp_path, baseline={"cls_loss": "bce"})
    assert table.is_empty() or verdict(table, "cls_loss=focal")["verdict"] == "inconclusive"
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
def test_what_spoils_a_comparison_is_said(tmp_path, changes, note):
    write_run(tmp_path, {"cls_loss": "vfl"}, 0, **changes)
    build_report(fill(tmp_path, seeds=2))
    assert note in text(tmp_path)
    assert note in text(tmp_path, "report.html")


def test_seeds_that_are_none_are_said(tmp_path):
    for loss in ("bce", "focal"):
        for seed in range(3):
            write_run(tmp_path, {"cls_loss": loss}, seed, order_hash="the same")
    build_report(tmp_path)
    assert "Seeds of focal saw the same images in the same order" in text(tmp_path)


def test_a_seed_that_is_there_twice_counts_once(tmp_path):
    fill(tmp_path)
    shutil.copytree(tmp_path / "runs/cls_loss=focal+my/seed0", tmp_path / "runs/again")
    assert verdict(build_report(tmp_path), "cls_loss=focal")["runs"] == 3
    assert "1 further runs of the same configuration and seed are left out" in text(tmp_path)


def test_keys_that_differ_though_no_axis_are_shown(tmp_path):
    fill(tmp_path, seeds=2)
    for seed in range(2):
        path = tmp_path / f"runs/cls_loss=focal+my/seed{seed}/args.yaml"
        path.write_text(path.read_text() + "lr0: 0.02\n")
    build_report(tmp_path)
    assert "| `lr0` (not an axis) | – | 0.02 | – |" in text(tmp_path)  # noqa: RUF001


# --- several data sets -----------------------------------------------------------------------------------------------


def test_several_data_sets_have_a_verdict_each_and_one_over_all(tmp_path):
    for data in ("one/my.yaml", "two/my.yaml", "three/my.yaml"):
        for loss in ("bce", "focal"):
            for seed in range(3):
                write_run(tmp_path / data[:3], {"cls_loss": loss}, seed, skill=SKILLS[loss], data=data, images=30)
    table = build_report(tmp_path)
    assert table["data"].unique().sort().to_list() == sorted([ALL_SETS, "one/my.yaml", "two/my.yaml", "three/my.yaml"])
    over = verdict(table, "cls_loss=focal", ALL_SETS)
    each = [verdict(table, "cls_loss=focal", f"{name}/my.yaml")["difference"] for name in ("one", "two", "three")]
    assert over["difference"] == pytest.approx(sum(each) / 3)
    assert over["seeds"] == 3
    assert over["verdict"] == "worse"
    assert "## On two/my.yaml" in text(tmp_path)
    assert Page(text(tmp_path, "report.html")).tags.count("svg") == 1 + 3 * 3


# --- what is comparable ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("branches", [[""], ["one2many", "one2one"]])
def test_what_the_losses_did_is_shown_where_runs_have_it(branches, tmp_path):
    for loss in ("bce", "focal"):
        for seed in range(2):
            write_run(tmp_path, {"cls_loss": loss}, seed, statistics=branches)
    write_run(tmp_path, {"cls_loss": "slide"}, 0)  # without
    build_report(tmp_path)
    names = [f"loss-stats-{branch}" if branch else "loss-stats" for branch in branches]
    assert sorted(path.stem for path in (tmp_path / "figures").glob("loss-stats*")) == sorted(names)
    for name in names:
        assert f"(figures/{name}.svg)" in text(tmp_path)
        svg = text(tmp_path / "figures", f"{name}.svg")
        assert ">focal<" in svg
        assert ">slide<" not in svg
        assert "factor, cls_scale=auto" in svg
        assert "objects below 16 px without a positive" in svg
        assert "their mean target" not in svg  # of which no epoch has a value
    assert "What the class term did" in text(tmp_path, "report.html")


def test_without_loss_stats_the_report_has_no_word_of_it(folder):
    assert not list((folder / "figures").glob("loss-stats*"))
    for name in ("report.md", "report.html"):
        assert "loss_stats" not in text(folder, name)


# --- figures and words -----------------------------------------------------------------------------------------------


def word_of_bar(low: float, high: float, own: tuple[float, float], rope: float) -> str:
    """Return what a reader of the figure would say."""
    if -rope <= low and high <= rope:
        return "practically equal"
    if low > 0 or high < 0:
        return "better" if low > 0 else "worse"
    return "leans better" if own[0] > 0 else "leans worse" if own[1] < 0 else "inconclusive"


def assert_figure_says_what_words_say(result: Analysis, markdown: str) -> None:
    for scope in result.scopes:
        figure = intervals.draw(result, scope)
        assert figure is not None
        (axes,) = figure.axes
        texts = [t.get_text() for t in axes.texts]
        bars = {width: [] for width in (1.6, 5.5)}
        for line in axes.lines:
            if line.get_linewidth() in bars and len(line.get_xdata()) == 2:
                bars[line.get_linewidth()].append((line.get_ydata()[0], *line.get_xdata()))
        assert len(texts) == len(result.candidates)
        for y, (name, text) in enumerate(zip(result.candidates, texts, strict=True)):
            c = result.get(scope, name)
            word = text.removeprefix(f"{result.labels[name]}: ")
            assert word == c.verdict.word
            assert c.verdict.sentence.startswith(word)
            assert f"| {result.labels[name]} | {word} |" in markdown
            thin, thick = ([bar[1:] for bar in bars[width] if bar[0] == y] for width in (1.6, 5.5))
            if thin:
                assert word_of_bar(*thin[0], thick[0], 100 * result.rope) == word


@pytest.mark.parametrize("seed", range(3))
def test_no_figure_and_no_word_disagree_on_made_up_runs(seed, tmp_path):
    rng = np.random.default_rng(seed)
    records = [
        RunRecord({"cls_loss": f"loss{i}"}, f"cls_loss=loss{i}", s, "my.yaml", best=values, last=values)
        for i, effect in enumerate([0, 0.08, -0.05, 0.02, -0.02, 0.001])
        for s in range(2 + seed)
        for values in [{"map50_95": 0.4 + effect + rng.normal(0, [0.001, 0.01, 0.02][seed]), "per_class": {}}]
    ]
    result = analyse(records, "cls_loss=loss0", 0.005, "map50_95")
    write(tmp_path, result, {})
    assert_figure_says_what_words_say(result, text(tmp_path))


def test_no_figure_and_no_word_disagree_on_committed_runs(tmp_path):
    folders = sorted(path.parent for path in (ROOT / "examples" / "evidence").glob("*/summary.csv"))
    assert folders
    for folder in folders:
        records = read_summary(folder / "summary.csv")
        result = analyse(records, records[0].name, 0.005, "map50_95")
        write(tmp_path, result, {})
        assert_figure_says_what_words_say(result, text(tmp_path))
