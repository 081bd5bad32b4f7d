"""A comparison for a paper: a table, a figure, a paragraph on the method, and the references."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yolo_losses import registry
from yolo_losses.comparison.record import EPOCHS, METRICS, RunRecord
from yolo_losses.comparison.report import notes
from yolo_losses.comparison.stats.analysis import ALL_SETS, RESAMPLES, UNNAMED, Analysis, Comparison
from yolo_losses.comparison.stats.verdict import format_points
from yolo_losses.registry import LossSpec, bibliography

COLUMN_WIDTH = 3.35  # inches, of a page with two columns
VERSIONS = {"ultralytics": "Ultralytics", "torch": "PyTorch", "yolo_losses": "yolo-losses"}
METHODS_BIB = """\
@article{smyth2004linear,
  author = {Gordon K. Smyth},
  title = {Linear Models and Empirical {Bayes} Methods for Assessing Differential Expression in Microarray Experiments},
  journal = {Statistical Applications in Genetics and Molecular Biology},
  volume = {3},
  number = {1},
  year = {2004},
  doi = {10.2202/1544-6115.1027}
}

@article{dunnett1955multiple,
  author = {Charles W. Dunnett},
  title = {A Multiple Comparison Procedure for Comparing Several Treatments with a Control},
  journal = {Journal of the American Statistical Association},
  volume = {50},
  number = {272},
  pages = {1096--1121},
  year = {1955},
  doi = {10.1080/01621459.1955.10501294}
}
"""


def write_paper(folder: Path, result: Analysis) -> None:
    """Write `table.tex`, `intervals.pdf`, `methods.tex` and `references.bib` into a folder.

    The table needs the LaTeX package `booktabs`; all numbers are those of the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.tex").write_text(table(result), encoding="utf-8")
    (folder / "methods.tex").write_text(methods(result), encoding="utf-8")
    (folder / "references.bib").write_text(references(result), encoding="utf-8")
    draw_intervals(result, folder / "intervals.pdf")


def table(result: Analysis) -> str:
    """Return a booktabs table: mean, standard deviation, difference, simultaneous interval and adjusted p."""
    lines = [
        r"\begin{tabular}{lrrrrr}",
        r"\toprule",
        rf"Configuration & {_escape(METRICS[result.metric])} & SD & $\Delta$ & 95\,\% interval & $p_\mathrm{{adj}}$ \\",
    ]
    for data in result.sets:
        lines.append(r"\midrule")
        if len(result.sets) > 1:
            lines.append(rf"\multicolumn{{6}}{{l}}{{\textit{{{_escape(data_names(result)[data])}}}}} \\")
        for name in result.names:
            found = result.get(data, name)
            if found is None:
                continue
            cells = [_escape(result.labels[name]), _number(found.mean * 100), _number(found.sd * 100)]
            if found.estimate is None:  # the baseline
                cells += ["--", "--", "--"]
            else:
                low, high = found.estimate.interval
                cells.append(_signed(found.estimate.mean))
                cells.append("--" if math.isnan(low) else f"[{_signed(low)}, {_signed(high)}]")
                cells.append(_p_value(found.estimate.p_adjusted))
            lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def methods(result: Analysis) -> str:
    """Return a paragraph on what was trained and how it was compared, with the numbers of this comparison."""
    finished = [r for r in result.records if r.status == "finished"]
    names = [name for name in result.names if any(r.name == name for r in finished)]
    seeds = sorted({n for data in result.sets for name in names if (n := len(result.finished(data, name)))})
    images = sorted({c.estimate.images for c in _judged(result) if c.estimate and c.estimate.images})
    models = _values(finished, "model")
    epochs = sorted({r.planned_epochs or r.epochs for r in finished})
    versions = {key: sorted({str(r.versions[key]) for r in finished if key in r.versions}) for key in VERSIONS}
    made_with = ", ".join(f"{VERSIONS[key]} {_joined(found)}" for key, found in versions.items() if found)
    count = max((len(notes.with_interval(result, data)) for data in result.sets), default=0)
    sentences = [
        f"We trained {_counted([len(names)], 'configuration')} of {_escape(_joined(models) or 'the model')} on "
        f"{_escape(_joined([data_names(result)[data] for data in result.sets]))} for {_counted(epochs, 'epoch')} with "
        f"{_counted(seeds, 'random seed', 'to')} each, {_counted([len(finished)], 'run')} in total"
        f"{f' ({_escape(made_with)})' if made_with else ''}."
    ]
    if all(notes.have_same_hash(result, key) for key in ("weights_hash", "order_hash")):
        sentences.append(
            "Runs of one seed share their initial weights and the order and augmentation of the training images."
        )
    sentences += [
        f"We report {_escape(METRICS[result.metric])} on the validation split at {EPOCHS[result.epochs]}, in points.",
        f"Differences from the baseline, {_escape(result.labels[result.baseline])}, were estimated with a linear model "
        r"with seeds as blocks; the spread of each configuration was moderated toward the pooled one "
        rf"\cite{{smyth2004linear}}{_spreads(result)}.",
    ]
    if count == 1:
        sentences.append(r"The interval of the difference is at 95\,\%.")
    elif count:
        sentences.append(
            f"The intervals of the {count} differences are simultaneous at 95\\,\\% "
            r"\cite{dunnett1955multiple}, and $p_\mathrm{adj}$ is adjusted accordingly."
        )
    if result.decisions:
        sentences.append(
            r"Seeds were added in rounds until a configuration was decided, and the 5\,\% spent over the rounds."
        )
    if images:
        sentences.append(
            f"The variance over the {_counted(images, 'validation image')}, from {RESAMPLES:,} bootstrap resamples "
            "common to all runs, is part of the standard errors."
        )
    sentences.append(f"Differences within $\\pm${result.rope * 100:g} points were regarded as practically equal.")
    cited = [f"{_escape(spec.name)}~\\cite{{{','.join(keys)}}}" for spec in losses(result) if (keys := _keys(spec))]
    if cited:
        sentences.append(f"Sources of the losses: {_joined(cited)}.")
    return "\n".join([*sentences, ""])


def _spreads(result: Analysis) -> str:
    """Return the pooled standard deviations with their degrees of freedom."""
    found = [
        f"{spreads.pooled * 100:.2f} points with {_counted([f'{spreads.df:.3g}'], 'degree')} of freedom"
        + (f" on {_escape(data_names(result)[data])}" if len(result.spreads) > 1 else "")
        for data, spreads in result.spreads.items()
        if data != ALL_SETS
    ]
    return f" (pooled standard deviation {_joined(found)})" if found else ""


def references(result: Analysis) -> str:
    """Return the BibTeX of the losses that were compared, and of the method."""
    entries = [entry for spec in losses(result) if (entry := bibliography.bibtex(spec))]
    unknown = [f"% {spec.name}: {spec.source}" for spec in losses(result) if not bibliography.bibtex(spec)]
    return "\n\n".join([*unknown, *dict.fromkeys(entries), METHODS_BIB])


def losses(result: Analysis) -> list[LossSpec]:
    """Return the losses of all configurations that finished a run, modifiers among them, each once."""
    found: dict[tuple[str, str], LossSpec] = {}
    for record in result.records:
        for spec in _specs(record.configuration) if record.status == "finished" else ():
            found.setdefault((spec.kind, spec.name), spec)
    return list(found.values())


def _specs(configuration: Mapping[str, Any]) -> Iterator[LossSpec]:
    for kind, key in registry.TERM_KEYS.items():
        name = str(configuration.get(key, "stock"))
        if name in registry.RESERVED or kind == "classify":  # a task that is not compared
            continue
        if kind == "box":
            modifiers, base = registry.split_box_name(name)
            yield from [*modifiers, base]
        elif spec := registry.find(kind, name):
            yield spec


def data_names(result: Analysis) -> dict[str, str]:
    """Return a name for each data set: that of its file, or of its folder if the file is `data.yaml`."""
    paths = {data: Path(data) for data in result.sets}
    names = {data: path.stem if path.stem not in UNNAMED else path.parent.name for data, path in paths.items()}
    distinct = all(names.values()) and len(set(names.values())) == len(names)
    return names if distinct else {data: result.titles[data] for data in result.sets}


def draw_intervals(result: Analysis, path: Path) -> None:
    """Draw the simultaneous intervals, as wide as a column."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from yolo_losses.plots.style import STYLE

    judged = [(c, c.estimate) for c in _judged(result) if c.estimate and not math.isnan(c.estimate.interval[0])]
    style = {**STYLE, "text.color": "black", "axes.edgecolor": "black", "axes.labelcolor": "black", "font.size": 8}
    style |= {"xtick.color": "black", "ytick.color": "black", "grid.color": "black", "axes.titlesize": 8}
    with mpl.rc_context(style):
        figure = Figure(figsize=(COLUMN_WIDTH, 0.7 + 0.2 * len(judged)), layout="constrained")
        axes = figure.subplots()
        if result.rope:
            axes.axvspan(-100 * result.rope, 100 * result.rope, color="0.9", lw=0)
        axes.axvline(0, color="0.5", lw=0.8)
        for row, (_, estimate) in enumerate(judged):
            low, high = estimate.interval
            axes.plot([100 * low, 100 * high], [row, row], color="black", lw=1)
            axes.plot(100 * estimate.mean, row, "o", color="black", ms=3)
        several = len(result.sets) > 1
        axes.set_yticks(
            range(len(judged)),
            [result.labels[c.name] + (f", {data_names(result)[c.data]}" if several else "") for c, _ in judged],
        )
        axes.invert_yaxis()
        figure.supxlabel(f"{METRICS[result.metric]} minus that of {result.labels[result.baseline]}, points", fontsize=8)
        figure.savefig(path, format="pdf", metadata={"CreationDate": None})


def _judged(result: Analysis) -> list[Comparison]:
    found = [result.get(data, name) for data in result.sets for name in result.candidates]
    return [c for c in found if c is not None]


def _values(records: Sequence[RunRecord], key: str) -> list[str]:
    return sorted({str(r.arguments[key]) for r in records if key in r.arguments})


def _keys(spec: LossSpec) -> list[str]:
    return [entry.partition("{")[2].partition(",")[0] for entry in bibliography.bibtex(spec).split("\n\n") if entry]


def _counted(numbers: Sequence[object], noun: str, last: str = "and") -> str:
    """Return numbers with their noun: `1 epoch`, `3 to 5 random seeds`."""
    words = [*map(str, numbers)]
    return f"{_joined(words, last)} {noun}{'' if words == ['1'] else 's'}"


def _joined(words: Sequence[str], last: str = "and") -> str:
    if last == "to" and len(words) > 1:
        return f"{words[0]} to {words[-1]}"
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _escape(text: str) -> str:
    """Escape LaTeX."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def _number(value: float) -> str:
    return "--" if math.isnan(value) else f"{value:.1f}"


def _signed(value: float) -> str:
    return "--" if math.isnan(value) else f"${format_points(value).replace('−', '-')}$"  # noqa: RUF001


def _p_value(value: float) -> str:
    return "--" if math.isnan(value) else "$<$0.001" if value < 0.001 else f"{value:.3f}"
