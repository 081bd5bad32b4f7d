"""The figures of a report agree with its verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up_reports import text

from yolo_losses.comparison.record import RunRecord
from yolo_losses.comparison.report import write
from yolo_losses.comparison.report.figures import intervals
from yolo_losses.comparison.report.tables import read_summary
from yolo_losses.comparison.stats.analysis import Analysis, analyse

pytest_plugins = ("few_resamples",)
pytestmark = pytest.mark.usefixtures("few_resamples")


pytest.importorskip("scipy")


ROOT = Path(__file__).parents[3]


def word_of_bar(low: float, high: float, own: tuple[float, float], rope: float) -> str:
    """Return the outcomes that a reader of the figure would see."""
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
        for y, (name, written) in enumerate(zip(result.candidates, texts, strict=True)):
            c = result.get(scope, name)
            word = written.removeprefix(f"{result.labels[name]}: ")
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
