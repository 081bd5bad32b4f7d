"""Make what is said of the committed comparisons from their runs, the `summary.csv` of each set.

    python examples/evidence/make.py            # or: make evidence
    python examples/evidence/make.py --check    # says what is not current

Written are each set's `report.md` and figures; `verdicts.csv`, which the pages of the losses and `yolo-losses
recommend` read; the tables in this folder's README; and the figure of the project's README with its caption.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

from yolo_losses.comparison.language import translate
from yolo_losses.comparison.report import write
from yolo_losses.comparison.report.figures import intervals
from yolo_losses.comparison.report.notes import notes
from yolo_losses.comparison.report.tables import read_summary
from yolo_losses.comparison.stats.analysis import Analysis, Comparison, analyse
from yolo_losses.comparison.stats.differences import Estimate
from yolo_losses.comparison.stats.verdict import OUTCOMES, Outcome, Verdict, format_points
from yolo_losses.plots.style import STYLE, svg_element, svg_file

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
SHOWN = "neu_det"  # the set of the README's figure
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
CHINESE_NUMBERS = "零一两三四五六七八九十"  # both up to ten, as a sentence has them
CHINESE_CAPTION = """

*`compare` 的结论：在 480 张钢材表面照片上微调，三个随机种子；{total}种分类损失的改动与 BCE 相比：{counted}。\
[全部实验和解读](examples/evidence/README.md)。*"""  # noqa: RUF001


def sets() -> dict[str, Analysis]:
    """Return the results of each set, by the name of its folder; the first configuration is the baseline."""
    found = {}
    for path in sorted(FOLDER.glob("*/summary.csv")):
        records = read_summary(path)
        result = analyse(records, records[0].name, 0.005, "map50_95")
        result.notes += notes(result)
        found[path.parent.name] = result
    return found


def command_of(name: str) -> str | None:
    """Return the command of a set, which stands in a comment at the head of its settings."""
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        return None
    found = re.search(r"^# +(yolo-losses compare .*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return found[1] if found else None


def files() -> Iterator[tuple[Path, str]]:
    """Yield every file and its text."""
    results = sets()
    for name, result in results.items():
        with tempfile.TemporaryDirectory() as place:
            write(Path(place), result, {"command": command_of(name)})
            yield FOLDER / name / "report.md", (Path(place) / "report.md").read_text(encoding="utf-8")
            for figure in sorted((Path(place) / "figures").glob("*.svg")):
                yield FOLDER / name / "figures" / figure.name, figure.read_text(encoding="utf-8")
    table = verdicts(results)
    yield FOLDER / "verdicts.csv", table
    yield ROOT / "yolo_losses" / "recommendation" / "verdicts.csv", table
    yield FOLDER / "README.md", between(FOLDER / "README.md", "verdicts", "\n\n".join(tables(results)))
    shown = results[SHOWN]
    labels = {r.name: r.name.removeprefix("cls_loss=") for r in shown.records}
    with mpl.rc_context(STYLE):
        drawn = intervals.draw(shown, shown.sets[0], labels=labels)
        assert drawn is not None
        yield FOLDER / "verdict.svg", svg_file(svg_element(drawn, "verdict", bbox_inches="tight", pad_inches=0.05))
    english, chinese = captions(shown, labels)
    yield ROOT / "README.md", between(ROOT / "README.md", "figure", english)
    yield ROOT / "README.zh-CN.md", between(ROOT / "README.zh-CN.md", "figure", chinese)


def verdicts(results: Mapping[str, Analysis]) -> str:
    """Return the verdicts as a table: differences and simultaneous intervals in points."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("set", "config", "difference", "low", "high", "word", "seeds"))
    for name, result in results.items():
        for c, estimate, verdict in judged(result):
            numbers = (f"{100 * value:.5f}" for value in (estimate.mean, *estimate.interval))
            writer.writerow((name, c.name, *numbers, verdict.word, estimate.n))
    return out.getvalue()


def judged(result: Analysis) -> list[tuple[Comparison, Estimate, Verdict]]:
    """Return the comparisons with the baseline that have an interval."""
    found = [result.get(result.sets[0], name) for name in result.candidates]
    return [(c, c.estimate, c.verdict) for c in found if c and c.estimate and c.verdict and c.estimate.se > 0]


def tables(results: Mapping[str, Analysis]) -> Iterator[str]:
    """Yield a table for each set."""
    for name, result in results.items():
        base = result.get(result.sets[0], result.baseline)
        assert base is not None
        level = format_points(base.mean, sign=False)
        head = f"**[{name}]({name}/report.md)**, against `{result.baseline}`, {level} points:"
        columns = "configuration | mAP50-95 | difference | 95 %, all together | verdict | seeds"
        lines = [f"| {columns} |", "|---|--:|--:|---|---|--:|"]
        for c, estimate, verdict in judged(result):
            low, high = (format_points(end) for end in estimate.interval)
            cells = (f"`{c.name}`", format_points(c.mean, sign=False), format_points(estimate.mean), f"{low} to {high}")
            lines.append(f"| {' | '.join(cells)} | {verdict.word} | {estimate.n} |")
        yield head + "\n\n" + "\n".join(lines)


def captions(result: Analysis, labels: Mapping[str, str]) -> tuple[str, str]:
    """Return the figure of the README with its caption, in English and in Chinese."""
    words = [verdict.word for c, _, verdict in judged(result) if c.name in labels]
    counts: dict[Outcome, int] = {word: words.count(word) for word in OUTCOMES if word in words}
    said = ", ".join(
        f"{spell(count)} {word.replace('leans', 'lean') if count > 1 else word}" for word, count in counts.items()
    )
    counted = "、".join(f"{spell(count, CHINESE_NUMBERS)}种{translate(word, 'zh')}" for word, count in counts.items())
    image = '<a href="examples/evidence/README.md"><img src="examples/evidence/verdict.svg" alt="{}" width="420"></a>'
    english = (
        image.format("Differences in mAP50-95 of class losses to BCE, with their intervals and verdicts")
        + f"\n\n*What `compare` says of {spell(len(words))} changes of the class loss against BCE, in a fine-tuning"
        f" on 480 photographs of steel with three seeds:\n{said}."
        " [All comparisons, and how to read them](examples/evidence/README.md).*"
    )
    chinese = image.format("各分类损失相对 BCE 的 mAP50-95 差值、置信区间和结论") + CHINESE_CAPTION.format(
        total=spell(len(words), CHINESE_NUMBERS), counted=counted
    )
    return english, chinese


def spell(number: int, words: Sequence[str] = NUMBERS) -> str:
    """Return a number as a word, or in digits above ten."""
    return words[number] if number < len(words) else f"{number}" if words is NUMBERS else f" {number} "


def between(path: Path, name: str, text: str) -> str:
    """Return a page with the text between its markers of a name."""
    page = path.read_text(encoding="utf-8")
    pattern = re.compile(f"(<!-- {name}: make evidence -->\n).*?(\n<!-- /{name} -->)", re.S)
    if not pattern.search(page):
        raise ValueError(f"{path} has no markers '{name}: make evidence'")
    return pattern.sub(lambda found: found[1] + text + found[2], page)


def main() -> int:
    """Write the files, or say which are not current."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not current")
    check = parser.parse_args().check
    stale = []
    expected = dict(files())
    for path, text in expected.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
    figures = {p for path in FOLDER.glob("*/figures/*.svg") for p in (path,)} - expected.keys()
    for path in (*stale, *figures):
        print(path.relative_to(ROOT), "is not current" if check else "written" if path in stale else "removed")
    if check:
        return int(bool(stale or figures))
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(expected[path], encoding="utf-8")
    for path in figures:
        path.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
