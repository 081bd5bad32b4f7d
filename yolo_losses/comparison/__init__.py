"""Trains several losses over several seeds and compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


def compare(
    *,
    also: Sequence[str | Mapping[str, Any]] = (),
    baseline: str | Mapping[str, Any] | None = None,
    metric: str = "map50_95",
    rope: float = 0.005,
    jobs: int | None = None,
    devices: str | Sequence[int | str] = (),
    engine: str = "local",
    address: str | None = None,
    out: str | Path = "runs/compare",
    paper: str | Path | None = None,
    until_decided: bool = False,
    max_seeds: int = 12,
    language: str = "en",
    report_only: bool = False,
    **keys: Any,
) -> pl.DataFrame:
    """Train a grid of configurations over several seeds, and report how each compares with the baseline.

    Runs in `out` that are finished are not trained again: a call that was stopped continues, and a call with more seeds
    or losses adds runs.

    Args:
        also: configurations beside the grid, each `"cls_loss=focal cls_scale=auto"` or a mapping. An axis that it does
            not name has its first value.
        baseline: a configuration of the grid, `cls_loss=bce` or a mapping; `None`: the one stored in
            `out`, or the first one. A single configuration is compared with the stock losses.
        metric: the metric of the verdict: `map50_95`, `map50`, `map75`, `precision` or `recall` of the best epoch;
            `map50_95@last` for the last epoch, `map50_95@mean` for the mean over the last tenth of the epochs.
        rope: difference of the metric, from 0 to 1, up to which two configurations count as equal.
        jobs: number of runs at a time, which share the cores; one per device by default.
        devices: GPUs, `"0,1"` or `[0, 1]`, with one run on each at a time.
        engine: `local`, or `ray` for a Ray cluster.
        address: address of the Ray cluster; by default that in `RAY_ADDRESS`, or a cluster on this machine.
        out: folder of the comparison.
        paper: a folder for the material of a paper: table, figure, methods and bibliography.
        until_decided: add seeds in rounds, until a configuration is decided or cannot be expected to be.
        max_seeds: maximum number of seeds of a configuration with `until_decided`.
        language: language of the report, `en` or `zh`; the returned table is in English.
        report_only: rebuild the report of the folder without training.
        **keys: as for `YOLO.train`. A list, or text with commas, is an axis of the grid. `seed` is the axis that is
            averaged over; `"0-4"` stands for five seeds. Put a single value that is a list into a list:
            `classes=[[0, 1]]`.

    Returns:
        The table of verdicts, one row per configuration and metric.

    Raises:
        ValueError: if a value is invalid, before the first run; the message names the key, its value and the allowed
            values.
        RuntimeError: if no run of the grid finished.
    """
    from yolo_losses.comparison import driver
    from yolo_losses.comparison.options import Options
    from yolo_losses.comparison.words import read_configuration, read_keywords

    folder = None if paper is None else Path(paper)
    options = Options(
        baseline,
        metric,
        rope,
        jobs,
        devices,
        engine,
        address,
        Path(out),
        folder,
        until_decided=until_decided,
        max_seeds=max_seeds,
        language=language,
    )
    if report_only:
        return driver.write_report(options)
    request = read_keywords(keys)
    also = [also] if isinstance(also, str | Mapping) else also
    request.also += map(read_configuration, also)
    given = {**keys, "also": list(also)} if also else keys
    text = " ".join(f"{key}={value!r}" for key, value in given.items())
    driver.train(request, options, f"yolo_losses.compare: {text}")
    return driver.write_report(options)
