"""What would make the numbers mean less than they seem to, and what the runs have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from yolo_losses.comparison.record import BOOKKEEPING, RunRecord
from yolo_losses.comparison.stats.analysis import Analysis
from yolo_losses.comparison.stats.verdict import points

UNEQUAL = 4.0  # degrees of freedom of the prior, below which spreads differ much


def notes(result: Analysis) -> list[str]:
    """Return what a reader has to know before the numbers."""
    return [*_on_runs(result), *_on_pairs(result), *_on_spreads(result)]


def _on_runs(result: Analysis) -> Iterator[str]:
    records = result.records
    failed = [r for r in records if r.status != "finished"]
    if failed:
        titles = ", ".join(_title(r, result) + _on(result, r.data) for r in failed)
        yield f"{len(failed)} of {len(records)} runs failed and are left out: {titles}."
    for key in ("ultralytics", "torch", "yolo_losses", "python"):
        versions = sorted({str(r.versions[key]) for r in records if key in r.versions})
        if len(versions) > 1:
            yield f"The runs were made with several versions of {key}: {', '.join(versions)}."
    devices = sorted({r.device for r in records if r.device})
    if len(devices) > 1:
        yield f"The runs were made on several devices ({', '.join(devices)}): times and memory are not comparable."
    for data in result.scopes:
        for name in result.candidates:
            found = [result.get(data, name, which) for which in ("best", "last")]
            if {"better", "worse"} <= {c.verdict.word for c in found if c and c.verdict}:
                yield f"{result.labels[name]} is better at one of the best and the last epoch and worse at the other."
    without = [r for r in records if r.status == "finished" and not (r.folder / "validation.npz").is_file()]
    if without:
        yield (
            f"{len(without)} runs have no validation.npz (runs made by hand have none): the intervals are over seeds "
            "alone, and say nothing on other validation images."
        )


def _on_pairs(result: Analysis) -> Iterator[str]:
    fewest = []
    for data in result.sets:
        where = _on(result, data)
        own = [r for r in result.records if r.data == data]
        fewest.append(min(len(result.finished(data, name)) for name in result.names))
        hashes = {r.data_hash for r in own if r.data_hash}
        if len(hashes) > 1:
            yield f"The data set{where} changed between runs ({len(hashes)} hashes): the runs are not comparable."
        for name in result.names:
            orders = {r.seed: r.order_hash for r in own if r.name == name and r.order_hash}
            if len(set(orders.values())) < len(orders):
                yield (
                    f"Seeds of {result.labels[name]}{where} saw the same images in the same order: they are not "
                    "independent samples, and the intervals are too narrow."
                )
        finished = [r for r in own if r.status == "finished"]
        for what, key in (("start from the same weights", "weights_hash"), ("see the same batches", "order_hash")):
            found: dict[int, set[str]] = {}
            for r in finished:
                found.setdefault(r.seed, set()).add(getattr(r, key))
            if loose := [str(seed) for seed, each in sorted(found.items()) if "" not in each and len(each) > 1]:
                yield (
                    f"The runs of seed {', '.join(loose)}{where} do not all {what}: they are pairs by number only, "
                    "which widens the intervals but leaves them valid."
                )
    if min(fewest) < 3:
        yield (
            "A configuration has fewer than three seeds: one gives no interval, and with two up to 11 of 100 "
            "comparisons err where spreads differ."
        )


def _on_spreads(result: Analysis) -> Iterator[str]:
    for scope, spreads in result.spreads.items():
        where = _on(result, scope)
        if result.baseline in spreads.apart and len(result.names) > 2:
            yield (
                f"The runs of the baseline{where} vary more than the others (standard deviation "
                f"{points(spreads.apart[result.baseline], sign=False)} points, overall "
                f"{points(spreads.pooled, sign=False)}): that widens every interval, and up to 8 of 100 comparisons "
                "err where it is so. More seeds of the baseline help most."
            )
        elif spreads.prior_df < UNEQUAL:
            yield (
                f"Some configurations vary more over seeds than others{where}: each is judged more by its own runs, "
                "which takes more of them."
            )
        for name, seed in spreads.outliers:
            yield (
                f"{result.labels[name]} {'on' if scope not in result.sets else 'seed'} {seed}{where} lies far from "
                "what the other runs make one expect: has it collapsed? Look at its curve before you trust the mean."
            )


def _on(result: Analysis, data: str) -> str:
    return f" on {result.titles[data]}" if len(result.sets) > 1 else ""


def _title(record: RunRecord, result: Analysis) -> str:
    return f"{result.labels[record.name]} seed {record.seed}"


def pairing(result: Analysis) -> str:
    """Return in words what the runs of one seed have in common."""
    finished = [r for r in result.records if r.status == "finished"]
    said = []
    for what, key in (("initial weights", "weights_hash"), ("order of the images", "order_hash")):
        found: dict[tuple[str, int], set[str]] = {}
        for r in finished:
            found.setdefault((r.data, r.seed), set()).add(getattr(r, key))
        recorded = bool(found) and all("" not in each for each in found.values())
        same = all(len(each) == 1 for each in found.values())
        said.append(f"{what} {'the same' if recorded and same else 'not all the same' if recorded else 'not recorded'}")
    return f"Runs of one seed: {', '.join(said)}."


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


def half_width(result: Analysis, scope: str) -> float:
    """Return the middle one of the intervals' half widths: about what differences these runs can tell."""
    estimates = [c.estimate for name in result.candidates if (c := result.get(scope, name))]
    halves = sorted(e.critical * e.se for e in estimates if e is not None and e.se > 0)
    return halves[len(halves) // 2] if halves else math.nan
