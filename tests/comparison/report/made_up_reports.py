"""Reports of made-up runs."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
from made_up_runs import write_run

SKILLS = {"bce": 1.0, "focal": 0.4, "slide": 1.0}
ERROR = 'Traceback (most recent call last):\n  File "<string>"\ntorch.OutOfMemoryError: out of memory'


def fill(folder: Path, seeds: int = 3, **options) -> Path:
    for loss, skill in SKILLS.items():
        for seed in range(seeds):
            write_run(folder, {"cls_loss": loss}, seed, skill=skill, **options)
    cells = [{"name": f"cls_loss={loss}", "data": options.get("data", "my.yaml")} for loss in SKILLS]
    plan = {"command": "yolo-losses compare data=my.yaml cls_loss=bce,focal,slide", "cells": cells, "options": {}}
    (folder / "comparison.json").write_text(json.dumps({**plan, "options": {"baseline": {"cls_loss": "bce"}}}))
    return folder


def text(folder: Path, name: str = "report.md") -> str:
    return (folder / name).read_text(encoding="utf-8")


def summary(folder: Path) -> dict:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text(folder, "summary.json"), parse_constant=refuse)


def verdict(table: pl.DataFrame, name: str, data: str = "my.yaml", weights: str = "best") -> dict:
    return table.row(
        by_predicate=(pl.col("configuration") == name) & (pl.col("data") == data) & (pl.col("weights") == weights),
        named=True,
    )
