"""`examples/evidence/noise.py` on made-up curves whose spreads are known."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def noise() -> ModuleType:
    spec = importlib.util.spec_from_file_location("noise", ROOT / "examples" / "evidence" / "noise.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def curves(epochs: int = 50, seeds: int = 40, run: float = 0.01, epoch: float = 0.03) -> pl.DataFrame:
    """Return flat curves: each run has an offset of its own, and each epoch is noisy about it."""
    rng = np.random.default_rng(0)
    rows = []
    for name, level in (("a", 0.4), ("b", 0.42), ("c", 0.44)):
        for seed in range(seeds):
            offset = level + rng.normal(0, run)
            rows += [
                {"data": "d", "name": name, "seed": seed, "epoch": i + 1, "map50_95": offset + rng.normal(0, epoch)}
                for i in range(epochs)
            ]
    return pl.DataFrame(rows)


def test_the_spread_of_each_way_is_what_it_was_made_with(noise: ModuleType) -> None:
    rows = {row["epochs"]: row for row in noise.measure(curves(), "map50_95").iter_rows(named=True)}
    assert rows["last"]["sd"] == pytest.approx((0.01**2 + 0.03**2) ** 0.5, rel=0.15)
    assert rows["mean"]["sd"] == pytest.approx((0.01**2 + 0.03**2 / 5) ** 0.5, rel=0.15)
    assert rows["last"]["mean"] == pytest.approx(0.42, abs=0.01)
    assert rows["best"]["mean"] > 0.46, "the best of many noisy epochs is too good"
    assert rows["mean"]["F"] > rows["last"]["F"]
    assert rows["best"]["ratio to best"] == rows["best"]["low"] == rows["best"]["high"] == 1


def test_it_prints_a_table_for_each_folder(
    noise: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curves(epochs=5, seeds=3).write_csv(tmp_path / "curves.csv")
    noise.main([str(tmp_path)])
    assert "mean of a fifth" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no configuration has two seeds"):
        noise.measure(curves(epochs=5, seeds=1), "map50_95")
