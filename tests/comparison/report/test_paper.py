"""`--paper`: table, figure, methods and references hold the numbers of the report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_up_runs import write_run

pytest.importorskip("scipy")

from yolo_losses.comparison.report import build_report
from yolo_losses.comparison.report.paper import COLUMN_WIDTH, _signed

CONFIGURATIONS = [
    {"cls_loss": "bce", "box_loss": "ciou"},
    {"cls_loss": "slide", "box_loss": "ciou"},
    {"cls_loss": "vfl", "box_loss": "focaler_inner_siou"},
]


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the paper's files; the report is beside it."""
    folder = tmp_path_factory.mktemp("comparison")
    for configuration in CONFIGURATIONS:
        for seed in range(3):
            write_run(folder, configuration, seed, skill=0.2 if configuration["cls_loss"] == "vfl" else 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yolo_losses.comparison.stats.analysis.RESAMPLES", 50)
        build_report(folder, paper=folder / "paper").write_csv(folder / "verdicts.csv")
    return folder / "paper"


def test_the_table_has_the_numbers_of_the_verdicts(paper: Path) -> None:
    import polars as pl

    text = (paper / "table.tex").read_text()
    rows = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if " & " in line][1:]
    verdicts = pl.read_csv(paper.parent / "verdicts.csv").filter(weights="best")
    assert len(rows) == len(verdicts) == 3
    for cells, row in zip(rows, verdicts.iter_rows(named=True), strict=True):
        assert cells[1:3] == [f"{row['mean'] * 100:.1f}", f"{row['sd'] * 100:.1f}"]
        if row["difference"] is None:
            assert cells[3:] == ["--"] * 3
            continue
        assert cells[3] == f"${row['difference'] * 100:+.1f}$"
        assert cells[4] == f"[${row['low'] * 100:+.1f}$, ${row['high'] * 100:+.1f}$]"
    assert rows[2][0] == r"vfl focaler\_inner\_siou"
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


@pytest.mark.parametrize(("value", "text"), [(-0.0002, "$0.0$"), (-0.012, "$-1.2$"), (0.012, "$+1.2$")])
def test_a_difference_that_rounds_to_zero_has_no_sign_as_in_the_report(value: float, text: str) -> None:
    assert _signed(value) == text


def test_every_loss_and_the_method_are_cited_and_in_the_bibliography(paper: Path) -> None:
    bib = (paper / "references.bib").read_text()
    keys = re.findall(r"^@\w+\{(\w+),", bib, flags=re.MULTILINE)
    cited = {
        key
        for group in re.findall(r"\\cite\{([^}]+)\}", (paper / "methods.tex").read_text())
        for key in group.split(",")
    }
    assert cited == set(keys)
    assert len(keys) == len(set(keys))
    for identifier in ("2208.02019", "2008.13367", "2205.12740", "2311.02877", "2401.10525", "1911.08287"):
        assert identifier in bib, "slide, vfl, siou, inner, focaler, ciou"
    assert "2104" not in bib
    assert "% bce: torch BCEWithLogitsLoss" in bib


def test_the_methods_have_the_numbers_of_the_comparison(paper: Path) -> None:
    text = (paper / "methods.tex").read_text()
    for words in (
        "3 configurations of yolov8n.yaml on my for 12 epochs with 3 random seeds each, 9 runs in total",
        "Ultralytics 8.4.190, PyTorch 2.14.0, yolo-losses 0.1.0",
        "The intervals of the 2 differences are simultaneous",
        "The variance over the 60 validation images",
        r"Differences within $\pm$0.5 points",
    ):
        assert words in text
    assert "Runs of one seed share" in text
    assert not re.search(r"(?<!\\)[%#&_]", re.sub(r"\\cite\{[^}]+\}|\$[^$]+\$", "", text)), "not escaped for LaTeX"


@pytest.mark.parametrize("by_hand", [False, True])
def test_single_items_are_in_the_singular_and_a_data_set_is_named_after_its_folder(
    tmp_path: Path, by_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolo_losses.comparison.stats.analysis.RESAMPLES", 50)
    for loss in ("bce", "focal"):
        write_run(tmp_path, {"cls_loss": loss}, 0, data="sets/pcb_5/data.yaml", epochs=1, by_hand=by_hand)
    write_run(tmp_path, {"cls_loss": "vfl"}, 0, data="sets/pcb_5/data.yaml", error="out of memory")
    build_report(tmp_path, paper=tmp_path / "paper")
    text = (tmp_path / "paper" / "methods.tex").read_text()
    assert r"2 configurations of yolov8n.yaml on pcb\_5 for 1 epoch with 1 random seed each, 2 runs in total" in text
    assert "interval" not in text, "one seed has none"
    assert text.count("focal~") == 1
    assert "bce~" not in text, "that of classify has a paper"
    assert "vfl" not in text, "which failed"
    assert ("Runs of one seed share" in text) is not by_hand, "of which nothing is recorded by hand"
    assert "nan" not in (tmp_path / "paper" / "table.tex").read_text()
    assert ", on pcb_5/data.yaml;" in (tmp_path / "report.md").read_text()


def test_the_opening_says_that_the_intervals_hold_for_seeds_and_images(paper: Path) -> None:
    assert (
        "intervals hold for new seeds and other validation images at once" in (paper.parent / "report.md").read_text()
    )


def test_a_summary_alone_makes_a_report_and_a_paper(paper: Path, tmp_path: Path) -> None:
    header, *runs = (paper.parent / "summary.csv").read_text().splitlines()
    (tmp_path / "summary.csv").write_text("\n".join([f"{header},remark", *(f"{run},kept" for run in runs)]))
    before = (tmp_path / "summary.csv").read_bytes()
    build_report(tmp_path, paper=tmp_path / "paper")
    assert "3 configurations of the model on my for 12 epochs" in (tmp_path / "paper" / "methods.tex").read_text()
    rows, of_runs = ((p / "table.tex").read_text().splitlines() for p in (tmp_path / "paper", paper))
    assert [row.split(" & ")[:4] for row in rows] == [row.split(" & ")[:4] for row in of_runs]
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "summary.csv").read_bytes() == before
    assert not (tmp_path / "curves.csv").exists()
    (tmp_path / "summary.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"summary.csv is not the summary of a comparison: it lacks the column 'name'"):
        build_report(tmp_path)


def test_the_figure_is_as_wide_as_a_column(paper: Path) -> None:
    found = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", (paper / "intervals.pdf").read_bytes())
    assert found is not None
    assert float(found[1]) == pytest.approx(72 * COLUMN_WIDTH, abs=1)
