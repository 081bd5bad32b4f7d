"""The report, on folders of made-up runs."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import statistics
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import polars as pl
import pytest
from conftest import ROOT
from made_up_reports import ERROR, SKILLS, fill, summary, text, verdict
from made_up_runs import write_run

from yolo_losses.comparison.report import build_report
from yolo_losses.comparison.report.tables import read_summary
from yolo_losses.comparison.stats.analysis import ALL_SETS
from yolo_losses.plots.style import INK

pytest_plugins = ("few_resamples",)
pytestmark = pytest.mark.usefixtures("few_resamples")


pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, few_resamples):
    made = fill(tmp_path_factory.mktemp("comparison"))
    write_run(made, {"cls_loss": "slide"}, 3, error=ERROR)
    build_report(made)
    return made


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


def test_time_and_memory_are_compared_on_the_seeds_that_both_have(tmp_path):
    for seed, factor in enumerate((1, 2, 30)):  # the machine was busy with something else during the third
        write_run(tmp_path, {"cls_loss": "bce"}, seed, seconds_per_epoch=10.0 * factor, peak_memory_mb=100.0 * factor)
    for seed in range(2):
        write_run(tmp_path, {"cls_loss": "focal"}, seed, seconds_per_epoch=15.0, peak_memory_mb=120.0)
    build_report(tmp_path)
    row = re.search(r"^\| focal \| 15.00 .*$", text(tmp_path), flags=re.MULTILINE)
    assert row is not None
    assert row[0] == "| focal | 15.00 ± 0.00 | 1.00 | 120 ± 0 | 0.80 |"


def test_summary_csv_has_a_row_for_each_run(folder):
    table = pl.read_csv(folder / "summary.csv")
    assert len(table) == 10
    assert table["status"].to_list().count("failed") == 1
    assert table.filter(pl.col("status") == "failed")["error"][0].endswith("out of memory")
    assert table["best_map50_95"].null_count() == 1
    assert {"best_map50_sign", "seconds_per_epoch", "peak_memory_mb", "weights_hash", "order_hash"} <= {*table.columns}


@pytest.mark.parametrize("page", ["docs/compare.md", "docs/zh/compare.md"])
def test_every_column_of_the_tables_is_on_the_page(folder, page):
    known = set(re.findall(r"`(\w+)`", (ROOT / page).read_text(encoding="utf-8")))
    for name in ("summary.csv", "curves.csv"):
        columns = {re.sub("_(car|person|sign)$", "_CLASS", column) for column in pl.read_csv(folder / name).columns}
        assert {column.replace("last_", "best_", 1) for column in columns} <= known


def test_the_report_has_what_a_reviewer_asks_for(folder):
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
    """The tags, ids and links of a page."""

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


def test_the_report_is_reproducible(folder, tmp_path):
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


@pytest.mark.parametrize("branches", [[""], ["one2many", "one2one"]])
def test_loss_stats_are_shown_if_runs_have_them(branches, tmp_path):
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


def test_loss_stats_are_not_mentioned_if_no_run_has_them(folder):
    assert not list((folder / "figures").glob("loss-stats*"))
    for name in ("report.md", "report.html"):
        assert "loss_stats" not in text(folder, name)


def test_a_summary_keeps_the_keys_that_only_some_configurations_have(tmp_path):
    chosen = [{"cls_loss": "bce"}, {"cls_loss": "focal", "cls_scale": "auto"}]
    for configuration in chosen:
        for seed in range(2):
            write_run(tmp_path, configuration, seed)
    build_report(tmp_path)
    found = read_summary(tmp_path / "summary.csv")
    assert len(found) == 4
    assert {record.name: record.configuration for record in found} == {
        "cls_loss=bce": chosen[0],
        "cls_loss=focal cls_scale=auto": chosen[1],
    }


def test_a_summary_may_lack_optional_columns_and_have_late_values_of_another_type(tmp_path):
    lines = ["data,name,cls_loss,cls_scale,seed,status,epochs,best_map50_95"]
    lines += [f"x.yaml,cls_loss=focal cls_scale=1,focal,1,{seed},finished,9,0.3" for seed in range(120)]
    lines += ["x.yaml,cls_loss=focal cls_scale=auto,focal,auto,0,finished,9,0.4"]
    (tmp_path / "summary.csv").write_text("\n".join(lines))
    found = read_summary(tmp_path / "summary.csv")
    assert len(found) == 121
    assert found[-1].configuration == {"cls_loss": "focal", "cls_scale": "auto"}
