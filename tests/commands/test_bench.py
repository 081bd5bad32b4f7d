"""`yolo-losses bench`: its tables, and that they measure what their titles say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import compat
import pytest
import torch

from yolo_losses.benchmark import measurement, workloads
from yolo_losses.commands import bench, main


@pytest.mark.slow
def test_measures_what_was_asked_for_and_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "SIZES", ((1, 64, 1), (2, 64, 3)))
    monkeypatch.setattr(bench, "STEP", (2, 32, 3))
    monkeypatch.setattr(bench, "GROWTH", {"classes": (1, 3), "imgsz": (64, 96), "batch": (1, 2)})
    small = ["--batch", "1", "--imgsz", "64", "--classes", "2", "--repeats", "1"]
    assert main(["bench", *small, "--losses", "Slide,siou", "--growth", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "bench.json").read_text())
    assert set(result["tables"]["class term alone, 1 x 64 x 2"]) == {"stock", "slide", "slide as typed"}
    assert set(result["tables"]["whole criterion, 1 x 64 x 2"]) == {"stock", "slide", "slide as typed", "siou"}
    assert set(result["criterion"]) == {" x ".join(map(str, size)) for size in bench.SIZES}
    assert set(result["tables"]["training step, 2 x 32 x 3"]) == {"stock", "slide"}
    assert result["tables"]["import ultralytics"]["with the plugin"]["ms"] > 0
    assert {key: set(map(int, at)) for key, at in result["growth"].items()} == {
        key: set(values) for key, values in bench.GROWTH.items()
    }
    assert result["machine"]["torch"] == torch.__version__
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    assert "slide as typed" in capsys.readouterr().out


STEPS_OF_A_CRITERION = """
import torch
from yolo_losses.benchmark.workloads import criteria
runs = criteria(1, 64, 2, torch.device("cpu"), {"focal": "cls_loss", "siou": "box_loss"})
for run in runs.values():
    run()
print(*runs, sep=", ")
"""


@pytest.mark.slow
def test_measures_on_the_oldest_ultralytics_too(tmp_path: Path) -> None:
    """Whose criterion takes the predictions in another form."""
    try:
        environment = compat.prepare(compat.VERSIONS[0], tmp_path)
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Ultralytics {compat.VERSIONS[0]} cannot be fetched: {compat.last_line(error.stderr)}")
    command = [sys.executable, "-c", STEPS_OF_A_CRITERION]
    code, output = compat.run(command, tmp_path, environment, "bench.log")
    assert code == 0, output
    assert compat.last_line(output) == "stock, focal, focal as typed, siou"


@pytest.mark.parametrize("name", ["slid", "dice", "kld", "inner_kld", "innr_siou"])
def test_a_loss_that_cannot_be_measured_is_refused_by_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--losses", name]) == 1
    assert f"'--losses={name}' is not valid: allowed are" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("kld", "'kld' is a loss of rotated boxes, which is not measured"),
        ("Dice", "'dice' is a mask loss, which is not measured"),
        ("inner", "'inner' is a modifier of box losses, which is not measured"),
    ],
)
def test_a_loss_of_another_kind_is_refused_with_its_kind(
    name: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--losses", name]) == 1
    assert capsys.readouterr().err.strip().endswith(reason)


def test_losses_are_chosen_by_any_of_their_names() -> None:
    chosen = {"vfl": "cls_loss", "focal": "cls_loss", "inner_siou": "box_loss"}
    assert bench.parse_losses("VarifocalLoss,focal,inner-siou") == chosen
    assert set(bench.parse_losses("")) >= {"slide", "siou"}


@pytest.mark.parametrize(
    "option", ["--device=99", "--device=gpu", "--repeats=0", "--batch=0", "--imgsz=16", "--classes=0"]
)
def test_a_size_or_device_that_cannot_be_is_one_line(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", option]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"'{option}' is not valid: allowed is ")


def test_the_criterion_of_each_name_has_that_loss_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    from yolo_losses.integration import criteria

    equipped = []
    equip = criteria.equip
    monkeypatch.setattr(criteria, "equip", lambda it, keys: equipped.extend(equip(it, keys).values()))
    names = {"slide": "cls_loss", "focal": "cls_loss", "siou": "box_loss"}
    runs = workloads.criteria(1, 64, 2, torch.device("cpu"), names)
    assert list(runs) == ["stock", "slide", "slide as typed", "focal", "focal as typed", "siou"]
    for branch, name in zip(equipped, names, strict=True):
        chosen = branch.box if name == "siou" else branch.cls
        assert chosen is not None
        assert chosen.registered_name == name
        runs[name]()
        assert branch.calls == 1
        assert branch.expected == (("box",) if name == "siou" else ("class",))


def test_the_peak_counts_all_that_a_run_holds_at_once() -> None:
    held: list[torch.Tensor] = []

    def once() -> None:
        held.clear()
        held.append(torch.ones(1_000_000))
        torch.ones(500_000)

    assert 6_000_000 <= measurement.peak_bytes(once, torch.device("cpu")) < 6_100_000
