"""Caveats of a report's numbers, and what its runs have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from yolo_losses.comparison.language import Text
from yolo_losses.comparison.record import BOOKKEEPING, RunRecord
from yolo_losses.comparison.stats.analysis import Analysis
from yolo_losses.comparison.stats.differences import Estimate
from yolo_losses.comparison.stats.verdict import format_points

UNEQUAL = 4.0  # degrees of freedom of the prior, below which spreads differ much


def notes(result: Analysis) -> list[str]:
    """Return what a reader should know before reading the numbers."""
    return [*_on_runs(result), *_on_pairs(result), *_on_spreads(result)]


def _on_runs(result: Analysis) -> Iterator[str]:
    records = result.records
    failed = [r for r in records if r.status != "finished"]
    if failed:
        titles = [Text("{title}{where}", title=_title(r, result), where=on_data_set(result, r.data)) for r in failed]
        text = "{n} of {total} runs failed and are left out: {titles}."
        yield Text(text, n=len(failed), total=len(records), titles=titles)
    for key in ("ultralytics", "torch", "yolo_losses", "python"):
        versions = sorted({str(r.versions[key]) for r in records if key in r.versions})
        if len(versions) > 1:
            yield Text("The runs were made with several versions of {key}: {versions}.", key=key, versions=versions)
    devices = sorted({r.device for r in records if r.device})
    if len(devices) > 1:
        text = "The runs were made on several devices ({devices}): times and memory are not comparable."
        yield Text(text, devices=devices)
    for data in result.scopes:
        for name in result.candidates:
            found = [result.get(data, name, which) for which in ("best", "last")]
            if {"better", "worse"} <= {c.verdict.word for c in found if c and c.verdict}:
                text = "{label} is better at one of the best and the last epoch and worse at the other."
                yield Text(text, label=result.labels[name])
    without = [r for r in records if r.status == "finished" and not (r.folder / "validation.npz").is_file()]
    if without:
        text = (
            "{n} runs have no validation.npz (runs made by hand have none): the intervals cover new seeds, but not"
            " other validation images."
        )
        yield Text(text, n=len(without))


def _on_pairs(result: Analysis) -> Iterator[str]:
    fewest = []
    for data in result.sets:
        where = on_data_set(result, data)
        own = [r for r in result.records if r.data == data]
        running = [name for name in result.names if name not in result.failed(data)]
        fewest += [len(result.finished(data, name)) for name in running]
        hashes = {r.data_hash for r in own if r.data_hash}
        if len(hashes) > 1:
            text = "The data set{where} changed between runs ({n} hashes): the runs are not comparable."
            yield Text(text, where=where, n=len(hashes))
        for name in result.names:
            orders = {r.seed: r.order_hash for r in own if r.name == name and r.order_hash}
            if len(set(orders.values())) < len(orders):
                text = (
                    "Seeds of {label}{where} saw the same images in the same order: they are not independent samples,"
                    " and the intervals are too narrow."
                )
                yield Text(text, label=result.labels[name], where=where)
        finished = [r for r in own if r.status == "finished"]
        for what, key in (("start from the same weights", "weights_hash"), ("see the same batches", "order_hash")):
            found: dict[int, set[str]] = {}
            for r in finished:
                found.setdefault(r.seed, set()).add(getattr(r, key))
            if loose := [str(seed) for seed, each in sorted(found.items()) if "" not in each and len(each) > 1]:
                text = (
                    "The runs of seed {seeds}{where} do not all {what}: they are paired by number only, which widens"
                    " the intervals but leaves them valid."
                )
                yield Text(text, seeds=loose, where=where, what=Text(what))
    if min(fewest, default=3) < 3:
        yield Text(
            "A configuration has fewer than three seeds: one gives no interval, and with two up to 11 of 100"
            " comparisons are wrong if spreads differ."
        )


def _on_spreads(result: Analysis) -> Iterator[str]:
    for scope, spreads in result.spreads.items():
        where = on_data_set(result, scope)
        if result.baseline in spreads.apart and len(result.names) > 2:
            text = (
                "The runs of the baseline{where} vary more than the others (standard deviation {own} points, overall"
                " {all}): this widens every interval, and up to 8 of 100 such comparisons are wrong. More seeds of the"
                " baseline help most."
            )
            own, pooled = (format_points(sd, sign=False) for sd in (spreads.apart[result.baseline], spreads.pooled))
            yield Text(text, where=where, own=own, all=pooled)
        elif spreads.prior_df < UNEQUAL:
            text = (
                "Some configurations vary more over seeds than others{where}: each is judged more by its own runs,"
                " so more runs are needed."
            )
            yield Text(text, where=where)
        for name, seed in spreads.outliers:
            text = (
                "{label} {of} {seed}{where} is far from what the other runs suggest: did it collapse? Look at its"
                " curve before you trust the mean."
            )
            of = Text("on" if scope not in result.sets else "seed")
            yield Text(text, label=result.labels[name], of=of, seed=seed, where=where)


def on_data_set(result: Analysis, data: str) -> str:
    """Return ` on DATA`, or an empty string if the comparison has a single data set."""
    return Text(" on {data}", data=result.titles[data]) if len(result.sets) > 1 else ""


def _title(record: RunRecord, result: Analysis) -> str:
    return Text("{label} seed {seed}", label=result.labels[record.name], seed=record.seed)


def have_same_hash(result: Analysis, key: str) -> bool | None:
    """Return whether all runs of a seed have the same value of a hash, `None` if some have none."""
    found: dict[tuple[str, int], set[str]] = {}
    for r in result.records:
        if r.status == "finished":
            found.setdefault((r.data, r.seed), set()).add(getattr(r, key))
    if not found or any("" in each for each in found.values()):
        return None
    return all(len(each) == 1 for each in found.values())


def pairing(result: Analysis) -> str:
    """Return a sentence on what the runs of one seed have in common."""
    said = []
    for what, key in (("initial weights", "weights_hash"), ("order of the images", "order_hash")):
        how = {True: "the same", False: "not all the same", None: "not recorded"}[have_same_hash(result, key)]
        said.append(Text(f"{what} {how}"))
    return Text("Runs of one seed: {what}.", what=said)


def training_keys(result: Analysis) -> dict[str, dict[str, Any]]:
    """Return the keys of `args.yaml` that differ between configurations: key -> configuration -> value.

    A key that the plugin leaves out of `args.yaml` is at its default.
    """
    from yolo_losses.config.settings import default_keys

    found = {}
    for name in result.names:
        own = next((r.arguments for r in result.records if r.name == name and r.arguments), None)
        if own is not None:
            found[name] = own
    defaults = default_keys()
    keys = dict.fromkeys(key for args in found.values() for key in args if key not in BOOKKEEPING)
    table = {key: {name: args.get(key, defaults.get(key)) for name, args in found.items()} for key in keys}
    return {key: values for key, values in table.items() if len(set(map(str, values.values()))) > 1}


def with_interval(result: Analysis, scope: str) -> list[Estimate]:
    """Return the estimates that have an interval, which those of failed configurations, among others, do not."""
    estimates = [c.estimate for name in result.candidates if (c := result.get(scope, name))]
    return [estimate for estimate in estimates if estimate is not None and estimate.se > 0]


def half_width(result: Analysis, scope: str) -> float:
    """Return the median of the intervals' half widths: about the smallest difference that these runs can show."""
    halves = sorted(estimate.critical * estimate.se for estimate in with_interval(result, scope))
    return halves[len(halves) // 2] if halves else math.nan
