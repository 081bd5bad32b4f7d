"""The parts of the Chinese pages that are written: tables as in English, in the words of `zh/losses.yaml`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from page_markdown import REPOSITORY, display_name, links, table

from yolo_losses.comparison.language import translate
from yolo_losses.comparison.stats.verdict import OUTCOMES
from yolo_losses.plots import stem
from yolo_losses.registry import LossSpec

FOLDER = Path(__file__).resolve().parent / "zh"
WORDS: dict[str, Any] = yaml.safe_load((FOLDER / "losses.yaml").read_text(encoding="utf-8"))


def translated(text: str, phrases: str = "words") -> str:
    """Return a text whose known phrases are Chinese."""
    for english, own in WORDS[phrases].items():
        text = text.replace(english, own)
    return text


def losses(specs: Sequence[LossSpec], pictures: Callable[[Sequence[LossSpec], str], str]) -> str:
    """Return pictures and table of losses, in English where a loss has no Chinese sentence yet."""
    rows = []
    for spec in specs:
        sentence = WORDS["losses"].get(stem(spec), spec.summary)
        parameters = ", ".join(f"`{p.key}` {p.default}" for p in spec.parameters)
        name = f"[`{display_name(spec)}`](../losses/{stem(spec)}.md)"
        rows.append((name, sentence, parameters, links(translated(spec.source, "sources"))))
    parts = [pictures(specs, "../losses/"), table(WORDS["head"], rows)]
    return "\n\n".join(part for part in parts if part)


def keys_table(specs: Sequence[LossSpec]) -> str:
    """Return the parameters of a group of losses, a key a row."""
    rows = []
    for spec in specs:
        page = f"[{display_name(spec)}](../losses/{stem(spec)}.md)"
        for p in spec.parameters:
            meaning = WORDS["help"].get(p.limits.help, p.limits.help)
            rows.append((f"`{p.key}`", f"`{p.default}`", translated(p.allowed), meaning, page))
    return table(("配置项", "默认值", "取值范围", "含义", "损失"), rows)


def logged(rows: Sequence[tuple[str, str]]) -> str:
    """Return the table of the logged terms that have no key of their name."""
    return table(("日志里的名字", "是什么"), [(name, translated(what)) for name, what in rows])


def published(rows: Sequence[Sequence[str]]) -> str:
    """Return published comparisons."""
    return table(("模型和数据", "结果", "出处"), [[translated(cell) for cell in row] for row in rows])


def fine_tuned(rows: Sequence[Sequence[str]]) -> str:
    """Return the differences of class losses from BCE in the fine-tunings on steel."""
    head = ("与 `cls_loss=bce` 相比", "480 张钢材照片，类别均衡", "313 张，类别呈长尾分布")  # noqa: RUF001
    return table(head, [[_outcome(cell) for cell in row] for row in rows])


def _outcome(cell: str) -> str:
    """Return a difference with its interval and its verdict."""
    found = re.fullmatch(r"(.*) \((.*) to (.*)\) (.*)", cell)
    return f"{found[1]}（{found[2]} 到 {found[3]}）{translate(found[4], 'zh')}" if found else cell  # noqa: RUF001


def evidence(text: str) -> str:
    """Return the tables of the verdicts among the page on the comparisons, `examples/evidence/README.md`."""
    found = re.search(r"<!-- verdicts: make evidence -->\n(.*?)\n<!-- /verdicts -->", text, flags=re.DOTALL)
    assert found is not None
    head = r"^\*\*\[(\w+)\]\(([^)]+)\)\*\*, against `([^`]+)`, (\S+) points:$"
    page = re.sub(
        head,
        rf"**[\1]({REPOSITORY}/examples/evidence/\2)**，基线为 `\3`，mAP50-95 为 \4：",  # noqa: RUF001
        found[1],
        flags=re.MULTILINE,
    )
    columns = "| 配置 | mAP50-95 | 差值 | 95% 区间，同时成立 | 结论 | 种子数 |"  # noqa: RUF001
    page = re.sub(r"^\| configuration \|.*$", columns, page, flags=re.MULTILINE)
    page = re.sub(r"(\d) to (?=[-+−\d])", r"\1 到 ", page)  # noqa: RUF001
    for word in OUTCOMES:
        page = page.replace(f"| {word} |", f"| {translate(word, 'zh')} |")
    return page
