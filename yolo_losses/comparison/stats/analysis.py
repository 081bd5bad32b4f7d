"""From the records of a comparison to its results: every configuration against the baseline, on every metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_losses.comparison.record import RunRecord
from yolo_losses.comparison.stats import statistics
from yolo_losses.comparison.stats.resampling import Detections, bootstrap_weights, resample
from yolo_losses.comparison.stats.statistics import Estimate, Verdict

METRICS: Mapping[str, str] = {
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "map75": "mAP75",
    "precision": "precision",
    "recall": "recall",
}
WEIGHTS: Mapping[str, str] = {"best": "best epoch", "last": "last epoch"}
PER_CLASS = ("map50_95", "map50")
RESAMPLES = 1000
ALL_SETS = "mean over data sets"

UNTRAINED = Verdict("undecided", "undecided: the metric is 0 in every run, so nothing has been learned yet")

Key = tuple[str, str, str, str]
Samples = dict[str, NDArray[Any]]  # metric -> its value on each resample of the validation images


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        record: its record.
        values: the metrics of the best and of the last weights, `class:metric` for those of one class.
        samples: the same on each resample of the validation images; empty where its detections are not known.
        images: number of validation images; 0 where its detections are not known.
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
        which: `best` or `last`.
        metric: the metric, `class:metric` for that of one class.
        values: the metric by seed; by data set the mean difference, over data sets.
        differences: the paired difference by seed, or by data set.
        seeds: the estimate over seeds; over data sets, that for these sets alone.
        decisive: the estimate that decides: over seeds and images where the images are known, otherwise over seeds;
            over data sets, that for new sets.
        images: number of validation images; 0 where they are not known.
        image_interval: the interval over images with the models fixed; NaNs where they are not known.
        correlation: between pairs.
        p_holm: `p_value` after Holm's correction for the number of configurations.
        verdict: what follows.
    """

    data: str
    name: str
    which: str
    metric: str
    values: Mapping[Any, float]
    differences: Mapping[Any, float]
    seeds: Estimate
    decisive: Estimate
    images: int = 0
    image_interval: tuple[float, float] = (math.nan, math.nan)
    correlation: float = math.nan
    p_holm: float = math.nan
    verdict: Verdict | None = None

    @property
    def p_value(self) -> float:
        """The p-value of no difference, before the correction."""
        return statistics.p_value_over_both(self.seeds, self.decisive) if self.images else self.decisive.p_value

    @property
    def mean(self) -> float:
        """Mean of the metric over all seeds of the configuration, those without a partner too."""
        return float(np.mean(list(self.values.values()))) if self.values else math.nan

    @property
    def sd(self) -> float:
        """Standard deviation of the metric over seeds."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else math.nan


@dataclass
class Analysis:
    """The results of a comparison.

    Attributes:
        records: of all runs.
        baseline: name of the baseline.
        rope: the largest difference that does not matter.
        metric: the metric that the verdicts are on.
        names: the configurations, the baseline first.
        sets: the data sets.
        classes: the classes of each data set.
        comparisons: by data set, configuration, weights and metric; the baseline's own numbers are among them.
        luck: by data set and kind of weights, the best difference to expect if no configuration differed.
        notes: what a reader has to know before the numbers.
    """

    records: list[RunRecord]
    baseline: str
    rope: float
    metric: str
    names: list[str] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    classes: dict[str, list[str]] = field(default_factory=dict)
    comparisons: dict[Key, Comparison] = field(default_factory=dict)
    luck: dict[tuple[str, str], float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def get(self, data: str, name: str, which: str = "best", metric: str | None = None) -> Comparison | None:
        """Return one comparison, `None` where there is none."""
        return self.comparisons.get((data, name, which, metric or self.metric))

    @cached_property
    def labels(self) -> dict[str, str]:
        """Short names of the configurations: what they do not all share, losses by their value alone."""
        configurations = {r.name: r.configuration for r in self.records}
        keys = dict.fromkeys(key for own in configurations.values() for key in own)
        varying = [key for key in keys if len({str(own.get(key)) for own in configurations.values()}) > 1]
        short = {
            name: " ".join(str(own[k]) if k.endswith("_loss") else f"{k}={own[k]}" for k in varying if k in own) or name
            for name, own in configurations.items()
        }
        return short if len(set(short.values())) == len(short) else {name: name for name in short}

    @cached_property
    def titles(self) -> dict[str, str]:
        """Short names of the data sets: of their paths as much as tells them apart."""
        parts = {data: Path(data).parts for data in self.sets}
        for length in range(1, 1 + max(map(len, parts.values()), default=0)):
            short = {data: "/".join(own[-length:]) for data, own in parts.items()}
            if len(set(short.values())) == len(short):
                return {ALL_SETS: ALL_SETS, **short}
        return {ALL_SETS: ALL_SETS, **{data: data for data in self.sets}}

    @property
    def scopes(self) -> list[str]:
        """The data sets, after their mean where there are several."""
        return [ALL_SETS, *self.sets] if len(self.sets) > 1 else self.sets

    @property
    def candidates(self) -> list[str]:
        """The configurations but the baseline."""
        return self.names[1:]

    def finished(self, data: str, name: str) -> list[RunRecord]:
        """Return the records of the finished runs of a configuration, by seed."""
        found = [r for r in self.records if (r.data, r.name, r.status) == (data, name, "finished")]
        return sorted(found, key=lambda record: record.seed)


def analyse(records: Sequence[RunRecord], baseline: Mapping[str, Any] | None, rope: float, metric: str) -> Analysis:
    """Return the results of a comparison.

    Args:
        records: of its runs.
        baseline: values that the baseline's configuration has; `None` is the first one.
        rope: the largest difference of `metric` that does not matter.
        metric: the metric that the verdicts are on.

    Raises:
        ValueError: if there are no runs, or on an invalid value; the message is one line naming key, value and allowed
            values.
    """
    if metric not in METRICS:
        raise ValueError(f"'--metric={metric}' is not valid: allowed is {', '.join(METRICS)}")
    if not rope >= 0:
        raise ValueError(f"'--rope={rope}' is not valid: allowed is a number >= 0")
    if not records:
        raise ValueError("there are no runs to report on")
    first = _baseline(records, baseline)
    result = Analysis([*records], first, rope, metric)
    result.names = [first, *dict.fromkeys(r.name for r in records if r.name != first)]
    result.sets = list(dict.fromkeys(r.data for r in records))
    runs = _finished_runs(result)
    for data in result.sets:
        own = [run for run in runs if run.record.data == data]
        classes = dict.fromkeys(c for run in own for c in (run.record.best or {}).get("per_class", ()))
        result.classes[data] = [*classes]
        names = [name for name in result.names if any((r.name, r.data) == (name, data) for r in records)]
        for which in WEIGHTS:
            for name in (*METRICS, *(f"{c}:{m}" for c in classes for m in PER_CLASS)):
                if not any(name in run.values[which] for run in own):  # mAP75 and classes of runs made by hand
                    continue
                compared = [_compare(own, first, c, data, which, name) for c in names]
                _judge(result, [c for c in compared if c is not None])
    if len(result.sets) > 1:
        for which in WEIGHTS:
            for name in METRICS:
                over = [_compare_over_sets(result, c, which, name) for c in result.candidates]
                _judge(result, [c for c in over if c is not None])
    result.notes += list(_notes(result))
    return result


def _baseline(records: Sequence[RunRecord], wanted: Mapping[str, Any] | None) -> str:
    for record in records:
        if all(str(record.configuration.get(key)) == str(value) for key, value in (wanted or {}).items()):
            return record.name
    words = " ".join(f"{k}={v}" for k, v in (wanted or {}).items())
    raise ValueError(f"'--baseline {words}' is not valid: there is {'; '.join(dict.fromkeys(r.name for r in records))}")


def _finished_runs(result: Analysis) -> list[Run]:
    """Return the finished runs, with their metrics on resamples of the images; a seed counts once."""
    weights: dict[int, NDArray[Any]] = {}
    runs: dict[tuple[str, str, int], Run] = {}
    twice = []
    for record in result.records:
        if record.status != "finished" or not record.best or not record.last:
            continue
        key = (record.data, record.name, record.seed)
        if key in runs:
            twice.append(_title(record, result.labels))
            continue
        values, samples, images = {}, {}, 0
        path = record.folder / "validation.npz"
        for which in WEIGHTS:
            metrics = getattr(record, which)
            values[which] = dict(_flat(metrics))
            if path.is_file():
                detections = Detections.load(path, which)
                images = detections.images
                if images not in weights:
                    weights[images] = bootstrap_weights(images, RESAMPLES)
                samples[which] = _samples(detections, weights[images], record.classes)
        runs[key] = Run(record, values, samples, images)
    if twice:
        result.notes.append(
            f"{len(twice)} further runs of the same configuration and seed are left out: a repeated seed is no new "
            f"sample ({', '.join(dict.fromkeys(twice))})."
        )
    return list(runs.values())


def _flat(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name in METRICS:
        if metrics.get(name) is not None:
            yield name, float(metrics[name])
    for label, own in metrics.get("per_class", {}).items():
        for name in PER_CLASS:
            if own.get(name) is not None:
                yield f"{label}:{name}", float(own[name])


def _samples(detections: Detections, weights: NDArray[Any], classes: Sequence[str]) -> Samples:
    resampled = resample(detections, weights)
    samples = {name: resampled.metric(name) for name in METRICS}
    for index, label in enumerate(resampled.classes):
        name = classes[label] if label < len(classes) else str(label)
        samples[f"{name}:map50_95"] = resampled.ap[index].mean(0)
        samples[f"{name}:map50"] = resampled.ap[index, 0]
    return samples


def _compare(runs: list[Run], baseline: str, name: str, data: str, which: str, metric: str) -> Comparison | None:
    """Return a configuration's numbers and its pairs with the baseline; the verdict comes later."""

    def by_seed(configuration: str) -> dict[int, Run]:
        own = [r for r in runs if r.record.name == configuration and metric in r.values[which]]
        return {run.record.seed: run for run in sorted(own, key=lambda run: run.record.seed)}

    own, base = by_seed(name), by_seed(baseline)
    values = {seed: run.values[which][metric] for seed, run in own.items()}
    if name == baseline:
        nothing = Estimate(math.nan, math.nan, math.nan, 0)
        return Comparison(data, name, which, metric, values, {}, nothing, nothing) if values else None
    pairs = [(own[seed], base[seed]) for seed in own if seed in base]
    candidate = [a.values[which][metric] for a, _ in pairs]
    reference = [b.values[which][metric] for _, b in pairs]
    seeds = statistics.paired_difference(candidate, reference)
    differences = {a.record.seed: x - y for (a, _), x, y in zip(pairs, candidate, reference, strict=True)}
    correlation = statistics.correlation(candidate, reference) if pairs else math.nan
    known = {run.images if metric in run.samples.get(which, {}) else 0 for pair in pairs for run in pair}
    if len(known) != 1 or known == {0}:
        return Comparison(data, name, which, metric, values, differences, seeds, seeds, correlation=correlation)
    images = known.pop()
    resampled = np.stack([a.samples[which][metric] - b.samples[which][metric] for a, b in pairs], axis=1)
    resampled = resampled[~np.isnan(resampled).any(1)]
    if len(resampled) < 2:  # hardly a resample has a label of the class
        return Comparison(data, name, which, metric, values, differences, seeds, seeds, correlation=correlation)
    return Comparison(
        data,
        name,
        which,
        metric,
        values,
        differences,
        seeds,
        statistics.over_seeds_and_images(seeds, resampled, images),
        images,
        statistics.percentile_interval(resampled.mean(1)),
        correlation,
    )


def _compare_over_sets(result: Analysis, name: str, which: str, metric: str) -> Comparison | None:
    found = [result.get(data, name, which, metric) for data in result.sets]
    per_set = {c.data: c for c in found if c is not None and c.differences}
    if not per_set:
        return None
    new, these = statistics.over_sets([c.decisive for c in per_set.values()])
    means = {data: c.mean for data, c in per_set.items()}
    return Comparison(
        ALL_SETS, name, which, metric, means, {d: c.decisive.mean for d, c in per_set.items()}, these, new
    )


def _judge(result: Analysis, compared: list[Comparison]) -> None:
    """Add the comparisons of one metric, with Holm's correction and, but for those of a class, the verdict."""
    tried = [c for c in compared if c.name != result.baseline]
    if tried and tried[0].metric == result.metric:
        luck = statistics.expected_best([c.decisive.se for c in tried])
        result.luck[tried[0].data, tried[0].which] = luck
    adjusted = dict(zip((c.name for c in tried), statistics.holm([c.p_value for c in tried]), strict=True))
    values = [value for c in compared for value in c.values.values() if c.data != ALL_SETS]
    nothing = bool(values) and not any(values)
    for c in compared:
        if c.name != result.baseline:
            c = replace(c, p_holm=adjusted[c.name])
            if c.metric in METRICS:
                c = replace(c, verdict=UNTRAINED if nothing else _verdict(c, result.rope, len(tried)))
        result.comparisons[c.data, c.name, c.which, c.metric] = c


def _verdict(c: Comparison, rope: float, comparisons: int) -> Verdict:
    over_sets = c.data == ALL_SETS
    return statistics.verdict(
        c.decisive,
        c.p_holm,
        rope=rope,
        comparisons=comparisons,
        seeds=None if over_sets else c.seeds,
        images=c.images,
        unit="data set" if over_sets else "seed",
    )


def _notes(result: Analysis) -> Iterator[str]:
    """Yield what would make the numbers mean less than they seem to."""
    records = result.records
    failed = [r for r in records if r.status != "finished"]
    if failed:
        titles = ", ".join(
            _title(r, result.labels) + (f" on {result.titles[r.data]}" if len(result.sets) > 1 else "") for r in failed
        )
        yield f"{len(failed)} of {len(records)} runs failed and are left out: {titles}."
    fewest = []
    for data in result.sets:
        where = f" on {result.titles[data]}" if len(result.sets) > 1 else ""
        seeds = {name: {r.seed for r in result.finished(data, name)} for name in result.names}
        if any(own != seeds[result.baseline] for own in seeds.values()):
            alone = [
                f"{result.labels[name]} seed {', '.join(map(str, sorted(own ^ seeds[result.baseline])))}"
                for name, own in seeds.items()
                if own != seeds[result.baseline]
            ]
            yield f"Seeds without a partner{where} do not enter the differences: {'; '.join(alone)}."
        fewest.append(min(map(len, seeds.values())))
        hashes = {r.data_hash for r in records if r.data == data and r.data_hash}
        if len(hashes) > 1:
            yield f"The data set{where} changed between runs ({len(hashes)} hashes): the runs are not comparable."
        orders = {(r.name, r.seed): r.order_hash for r in records if r.data == data and r.order_hash}
        for name in result.names:
            own = [order for (n, _), order in orders.items() if n == name]
            if len(set(own)) < len(own):
                yield (
                    f"Seeds of {result.labels[name]}{where} saw the same images in the same order: they are not "
                    "independent samples, and the intervals are too narrow."
                )
        rows = pairs(result, data)
        for what, key in (("start from the same weights", "same_weights"), ("see the same batches", "same_order")):
            if loose := [str(row["seed"]) for row in rows if row[key] is False]:
                yield (
                    f"The runs of seed {', '.join(loose)}{where} do not all {what}: they are pairs by number only, "
                    "which widens the intervals but leaves them valid."
                )
    if min(fewest) < 3:
        yield (
            "A configuration has fewer than three seeds: one gives no interval at all, and two give one of 12.7 "
            "standard errors on each side."
        )
    for key in ("ultralytics", "torch", "yolo_losses", "python"):
        versions = sorted({str(r.versions[key]) for r in records if key in r.versions})
        if len(versions) > 1:
            yield f"The runs were made with several versions of {key}: {', '.join(versions)}."
    devices = sorted({r.device for r in records if r.device})
    if len(devices) > 1:
        yield f"The runs were made on several devices ({', '.join(devices)}): times and memory are not comparable."
    for data in result.scopes:
        for name in result.candidates:
            best, last = result.get(data, name, "best"), result.get(data, name, "last")
            words = {c.verdict.word for c in (best, last) if c and c.verdict}
            if {"better", "worse"} <= words:
                yield f"{result.labels[name]} is better at one of the best and the last epoch and worse at the other."
    without = [r for r in records if r.status == "finished" and not (r.folder / "validation.npz").is_file()]
    if without:
        yield (
            f"{len(without)} runs have no validation.npz (runs made by hand have none): the intervals of their pairs "
            "are over seeds alone, and say nothing on other validation images."
        )


def _title(record: RunRecord, labels: Mapping[str, str]) -> str:
    return f"{labels[record.name]} seed {record.seed}"


def pairs(result: Analysis, data: str) -> list[dict[str, Any]]:
    """Return for each seed whether its runs share initial weights and the order of the images; `None`: not recorded."""
    rows = []
    finished = [r for name in result.names for r in result.finished(data, name)]
    for seed in sorted({r.seed for r in finished}):
        own = [r for r in finished if r.seed == seed]
        weights, order = {r.weights_hash for r in own}, {r.order_hash for r in own}
        rows.append(
            {
                "seed": seed,
                "runs": len(own),
                "weights": sorted(weights),
                "order": sorted(order),
                "same_weights": None if "" in weights else len(weights) == 1,
                "same_order": None if "" in order else len(order) == 1,
            }
        )
    return rows


def training_keys(result: Analysis) -> dict[str, dict[str, Any]]:
    """Return the keys of `args.yaml` that differ between configurations: key -> configuration -> value.

    A key that the plugin leaves out of `args.yaml` is at its default.
    """
    import yaml

    from yolo_losses.comparison.record import BOOKKEEPING
    from yolo_losses.config.settings import default_keys

    found: dict[str, dict[str, Any]] = {}
    for name in result.names:
        own = next((r for r in result.records if r.name == name and _args_file(r).is_file()), None)
        if own is not None:
            found[name] = yaml.safe_load(_args_file(own).read_text(encoding="utf-8")) or {}
    defaults = default_keys()
    keys = dict.fromkeys(key for args in found.values() for key in args if key not in BOOKKEEPING)
    table = {key: {name: args.get(key, defaults.get(key)) for name, args in found.items()} for key in keys}
    return {key: values for key, values in table.items() if len(set(map(str, values.values()))) > 1}


def _args_file(record: RunRecord) -> Path:
    return record.folder / "args.yaml"
