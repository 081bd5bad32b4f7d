"""The results of a comparison: every configuration against the baseline, on every metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from yolo_losses.comparison.language import Text
from yolo_losses.comparison.record import EPOCHS, METRICS, RunRecord
from yolo_losses.comparison.stats.differences import Estimate, Spreads, Values, estimate_differences, highest
from yolo_losses.comparison.stats.model import LEVEL, Array
from yolo_losses.comparison.stats.resampling import Detections, bootstrap_weights, resample
from yolo_losses.comparison.stats.rounds import Decision, decide, restrict
from yolo_losses.comparison.stats.verdict import Verdict, judge, verdict_if_untrained

PER_CLASS = ("map50_95", "map50")
UNNAMED = ("data", "dataset")  # stems of files that are named after no data set
RESAMPLES = 1000
ALL_SETS = "mean over data sets"
FAILED = Verdict("no result", Text("no result: every run failed"))
BASELINE_FAILED = Verdict("no result", Text("no result: every run of the baseline failed"))

Key = tuple[str, str, str, str]
Samples = dict[str, Array]  # metric -> its value on each resample of the validation images


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        record: its record.
        values: its metrics by epochs (`best`, `last`, `mean`); `class:metric` is the metric of a class.
        samples: the same on each resample of the validation images; empty if the detections are unknown.
        images: number of validation images, 0 if the detections are unknown.
    """

    record: RunRecord
    values: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, Samples]
    images: int


@dataclass(frozen=True)
class Comparison:
    """One configuration against the baseline, on one metric of one data set.

    Attributes:
        data: the data set, or `ALL_SETS`.
        name: the configuration.
        which: the epochs: `best`, `last` or `mean`.
        metric: the metric, or `class:metric` for a class.
        values: the metric by seed; for `ALL_SETS`, the mean difference by data set.
        differences: the differences by seed, or by data set.
        estimate: the estimated difference, `None` for the baseline.
        verdict: the verdict, for the chosen metric.
    """

    data: str
    name: str
    which: str
    metric: str
    values: Mapping[Any, float]
    differences: Mapping[Any, float]
    estimate: Estimate | None = None
    verdict: Verdict | None = None

    @property
    def mean(self) -> float:
        """Mean of the metric over all seeds of the configuration."""
        return float(np.mean(list(self.values.values()))) if self.values else math.nan

    @property
    def sd(self) -> float:
        """Standard deviation of the metric over seeds."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else math.nan


@dataclass
class Analysis:
    """The results of a comparison.

    Attributes:
        records: records of all runs.
        baseline: name of the baseline.
        rope: the largest difference that does not matter.
        metric: the metric of the verdicts.
        epochs: the epochs of the verdicts.
        names: the configurations, the baseline first.
        sets: the data sets.
        classes: the classes of each data set.
        comparisons: by data set, configuration, epochs and metric, including those of the baseline.
        spreads: the spreads that the verdicts of each data set are based on.
        decisions: decisions by data set, if seeds were added in rounds.
        next_seeds: the runs of the next round by data set.
        notes: notes that precede the numbers.
    """

    records: list[RunRecord]
    baseline: str
    rope: float
    metric: str
    epochs: str = "best"
    names: list[str] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    classes: dict[str, list[str]] = field(default_factory=dict)
    comparisons: dict[Key, Comparison] = field(default_factory=dict)
    spreads: dict[str, Spreads] = field(default_factory=dict)
    decisions: dict[str, dict[str, Decision]] = field(default_factory=dict)
    next_seeds: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def get(self, data: str, name: str, which: str | None = None, metric: str | None = None) -> Comparison | None:
        """Return one comparison, `None` if there is none."""
        return self.comparisons.get((data, name, which or self.epochs, metric or self.metric))

    @cached_property
    def labels(self) -> dict[str, str]:
        """Short names of the configurations: the keys in which they differ, for losses only the value."""
        configurations = {r.name: r.configuration for r in self.records}
        keys = dict.fromkeys(key for configuration in configurations.values() for key in configuration)
        varying = [key for key in keys if len({str(c.get(key)) for c in configurations.values()}) > 1]
        short = {
            name: " ".join(str(c[k]) if k.endswith("_loss") else f"{k}={c[k]}" for k in varying if k in c) or name
            for name, c in configurations.items()
        }
        return short if len(set(short.values())) == len(short) else {name: name for name in short}

    @cached_property
    def titles(self) -> dict[str, str]:
        """Short names of the data sets: paths shortened as long as they stay distinct, `data.yaml` with its folder."""
        parts = {data: Path(data).parts for data in self.sets}
        first = 2 if any(Path(data).stem in UNNAMED for data in self.sets) else 1
        for length in range(first, first + max(map(len, parts.values()), default=0)):
            short = {data: "/".join(own[-length:]) for data, own in parts.items()}
            if len(set(short.values())) == len(short):
                return {ALL_SETS: ALL_SETS, **short}
        return {ALL_SETS: ALL_SETS, **{data: data for data in self.sets}}

    @property
    def scopes(self) -> list[str]:
        """The data sets, preceded by their mean if there are several without decisions in rounds."""
        return [ALL_SETS, *self.sets] if len(self.sets) > 1 and not self.decisions else self.sets

    @property
    def candidates(self) -> list[str]:
        """The configurations without the baseline."""
        return self.names[1:]

    def highest(self, scope: str, which: str, metric: str) -> float:
        """Return the metric of the best run on a data set, or on all of them."""
        sets = self.sets if scope == ALL_SETS else [scope]
        found = [self.get(data, name, which, metric) for data in sets for name in self.names]
        return max((value for c in found if c is not None for value in c.values.values()), default=0.0)

    def failed(self, scope: str) -> set[str]:
        """Return the configurations whose runs on a data set all failed; for `ALL_SETS`, on every data set."""
        own = [r for r in self.records if scope in (ALL_SETS, r.data)]
        return {r.name for r in own} - {r.name for r in own if r.status == "finished"}

    def finished(self, data: str, name: str) -> list[RunRecord]:
        """Return the records of the finished runs of a configuration, by seed."""
        found = [r for r in self.records if (r.data, r.name, r.status) == (data, name, "finished")]
        return sorted(found, key=lambda record: record.seed)


def analyse(
    records: Sequence[RunRecord],
    baseline: str,
    rope: float,
    metric: str,
    epochs: str = "best",
    plan: Sequence[int] = (),
) -> Analysis:
    """Return the results of a comparison.

    Args:
        records: the records of its runs.
        baseline: name of the configuration that the others are compared with.
        rope: the largest difference of `metric` that does not matter.
        metric: the metric of the verdicts.
        epochs: the epochs of the verdicts: `best`, `last` or `mean`.
        plan: if seeds are added in rounds, all seeds that may be run, in order.
    """
    result = Analysis([*records], baseline, rope, metric, epochs)
    result.names = [*dict.fromkeys([baseline, *(r.name for r in records)])]
    result.sets = list(dict.fromkeys(r.data for r in records))
    runs = _finished_runs(result)
    for data in result.sets:
        own = [run for run in runs if run.record.data == data]
        result.classes[data] = [*dict.fromkeys(c for r in own for c in (r.record.best or {}).get("per_class", ()))]
        _compare(result, data, own, plan)
    if len(result.scopes) > len(result.sets):
        _compare_over_sets(result)
    return result


def _finished_runs(result: Analysis) -> list[Run]:
    """Return the finished runs with their metrics on resamples of the images; a repeated seed counts once."""
    weights: dict[int, Array] = {}
    runs: dict[tuple[str, str, int], Run] = {}
    repeated: list[str] = []
    for record in result.records:
        if record.status != "finished" or not record.best or not record.last:
            continue
        key = (record.data, record.name, record.seed)
        if key in runs:
            repeated.append(Text("{label} seed {seed}", label=result.labels[record.name], seed=record.seed))
            continue
        values, samples, images = {}, {}, 0
        path = record.folder / "validation.npz"
        for which in EPOCHS:
            values[which] = dict(_flatten(record.metrics(which) or {}))  # type: ignore[arg-type]
            if path.is_file() and which != "mean":
                detections = Detections.load(path, which)
                images = detections.images
                if images not in weights:
                    weights[images] = bootstrap_weights(images, RESAMPLES)
                samples[which] = _samples(detections, weights[images], record.classes)
        runs[key] = Run(record, values, samples, images)
    if repeated:
        text = (
            "{n} further runs of the same configuration and seed are left out: a repeated seed is not a new"
            " sample ({titles})."
        )
        result.notes.append(Text(text, n=len(repeated), titles=list(dict.fromkeys(repeated))))
    return list(runs.values())


def _flatten(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name in METRICS:
        if metrics.get(name) is not None:
            yield name, float(metrics[name])
    for label, own in metrics.get("per_class", {}).items():
        for name in PER_CLASS:
            if own.get(name) is not None:
                yield f"{label}:{name}", float(own[name])


def _samples(detections: Detections, weights: Array, classes: Sequence[str]) -> Samples:
    resampled = resample(detections, weights)
    samples = {name: resampled.metric(name) for name in METRICS}
    for index, label in enumerate(resampled.classes):
        name = classes[label] if label < len(classes) else str(label)
        samples[f"{name}:map50_95"] = resampled.ap[index].mean(0)
        samples[f"{name}:map50"] = resampled.ap[index, 0]
    return samples


def _compare(result: Analysis, data: str, runs: list[Run], plan: Sequence[int]) -> None:
    """Add the comparisons on one data set."""
    ended_seeds: dict[str, set[Any]] = {name: set() for name in result.names}
    for record in result.records:
        if record.data == data:
            ended_seeds[record.name].add(record.seed)
    names = [name for name in result.names if ended_seeds[name]]
    metrics = [*METRICS, *(f"{c}:{m}" for c in result.classes[data] for m in PER_CLASS)]

    def select(which: str, metric: str) -> tuple[dict[str, dict[Any, float]], dict[tuple[str, Any], Array] | None, int]:
        """Return the values by configuration and seed, the samples if all runs have them, and the number of images."""
        own = sorted((r for r in runs if metric in r.values[which]), key=lambda r: r.record.seed)
        values: dict[str, dict[Any, float]] = {name: {} for name in names}
        for run in own:
            values[run.record.name][run.record.seed] = run.values[which][metric]
        images = {run.images if metric in run.samples.get(which, {}) else 0 for run in own}
        if len(images) != 1 or images == {0}:
            return values, None, 0
        samples = {(r.record.name, r.record.seed): r.samples[which][metric] for r in own}
        return values, samples, images.pop()

    if plan:
        values, samples, images = select(result.epochs, result.metric)
        result.decisions[data], result.next_seeds[data] = decide(
            values, result.baseline, result.rope, plan, {name: ended_seeds[name] for name in names}, samples, images
        )
    for which in EPOCHS:
        for metric in metrics:
            values, samples, images = select(which, metric)
            if not any(values.values()):  # mAP75 and classes are unknown for runs of `yolo train` and for `mean`
                continue
            chosen = metric == result.metric
            estimates, spreads = estimate_differences(
                values, result.baseline, samples, images, level=LEVEL if chosen else None
            )
            if chosen:
                for decision in set(result.decisions.get(data, {}).values()):
                    part = restrict(values, decision.seeds)
                    at_look, _ = estimate_differences(part, result.baseline, samples, images, decision.level)
                    estimates |= {n: e for n, e in at_look.items() if result.decisions[data][n] == decision}
                if which == result.epochs and spreads is not None:
                    result.spreads[data] = spreads
            _add(result, data, which, metric, values, estimates, highest(values))


def _compare_over_sets(result: Analysis) -> None:
    """Add the mean over data sets, with data sets as blocks and the differences on them as values.

    The intervals therefore hold for further data sets: they include the variance between and within data sets. A data
    set on which nothing was learned is left out, unless there are no others.
    """
    for which in EPOCHS:
        for metric in METRICS:
            values: dict[str, dict[Any, float]] = {name: {} for name in result.names}
            learned = [
                d for d in result.sets if not verdict_if_untrained(result.highest(d, which, metric), result.rope)
            ]
            for data in learned or result.sets:
                for name in result.candidates:
                    c = result.get(data, name, which, metric)
                    if c is not None and c.estimate is not None and not math.isnan(c.estimate.mean):
                        values[name][data] = c.estimate.mean
                        values[result.baseline][data] = 0.0
            if any(values.values()):
                level = LEVEL if metric == result.metric else None
                estimates, spreads = estimate_differences(values, result.baseline, level=level)
                if level and which == result.epochs and spreads is not None:
                    result.spreads[ALL_SETS] = spreads
                own = {name: values[name] for name in result.candidates}
                _add(result, ALL_SETS, which, metric, own, estimates, result.highest(ALL_SETS, which, metric))


def _add(
    result: Analysis,
    data: str,
    which: str,
    metric: str,
    values: Values,
    estimates: Mapping[str, Estimate],
    best: float,
) -> None:
    """Add the comparisons of one metric, with verdicts for the chosen metric; `best` is the metric of the best run."""
    base = values.get(result.baseline, {})
    for name, own in values.items():
        differences = own if data == ALL_SETS else {seed: own[seed] - base[seed] for seed in own if seed in base}
        estimate, verdict = estimates.get(name), None
        if estimate is not None and metric == result.metric:
            verdict = _verdict(result, data, name, estimate, best)
        if name == result.baseline:
            differences = {}
            if not own:
                continue
        result.comparisons[data, name, which, metric] = Comparison(
            data, name, which, metric, own, differences, estimate, verdict
        )


def _verdict(result: Analysis, data: str, name: str, estimate: Estimate, best: float) -> Verdict:
    failed = result.failed(data)
    if name in failed:
        return FAILED
    if result.baseline in failed:
        return BASELINE_FAILED
    unit = "data set" if data == ALL_SETS else "seed"
    return verdict_if_untrained(best, result.rope) or judge(estimate, result.rope, unit)
