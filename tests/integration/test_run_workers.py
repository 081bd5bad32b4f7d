"""Several processes: each rank does stock's arithmetic with the chosen loss, and all hold one state."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import ddp_worker
import pytest
import torch

from yolo_losses.integration.criteria import equip
from yolo_losses.monitor.gather import read

Results = list[dict[tuple[str, str], dict[str, Any]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Run the worker in two processes and return what each rank wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, ddp_worker.__file__, str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("case", ddp_worker.CASES)
@pytest.mark.parametrize("name", ddp_worker.KEYS)
def test_every_rank_holds_the_state_that_one_process_has_on_the_joined_batch(
    ranks: Results, case: str, name: str
) -> None:
    joined = ddp_worker.criterion()
    branch = equip(joined, ddp_worker.KEYS[name])[""]
    for step in range(ddp_worker.STEPS):
        ddp_worker.step(joined, ddp_worker.batch(case, step))
    wanted = ddp_worker.state_of(branch)
    assert bool(wanted) == (name in ("ema_slide", "ghm", "ghm in pieces", "wiou", "auto"))
    for rank in (0, 1):
        state = ranks[rank][case, name]["state"]
        assert state.keys() == wanted.keys()
        for key, value in wanted.items():
            torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-6)


def test_ranks_hold_one_state_where_the_batch_of_one_of_them_overflowed(ranks: Results) -> None:
    one, other = (rank["overflow", "ghm"]["state"] for rank in ranks)
    assert one["cls.counts"].any()
    for key, value in one.items():
        assert torch.equal(value, other[key])


@pytest.mark.parametrize("case", ddp_worker.CASES)
@pytest.mark.parametrize("name", ["slide", "qfl"])
def test_a_ranks_loss_is_that_of_its_share_alone(ranks: Results, case: str, name: str) -> None:
    for rank in (0, 1):
        alone = ddp_worker.criterion()
        equip(alone, ddp_worker.KEYS[name])
        for step in range(ddp_worker.STEPS):
            loss, gradient = ddp_worker.step(alone, ddp_worker.batch(case, step, rank))
        torch.testing.assert_close(ranks[rank][case, name]["loss"], loss)
        torch.testing.assert_close(ranks[rank][case, name]["gradient"], gradient)


@pytest.mark.parametrize("case", ddp_worker.CASES)
def test_the_statistics_of_an_epoch_are_summed_over_ranks(ranks: Results, case: str) -> None:
    joined = ddp_worker.criterion()
    branches = equip(joined, ddp_worker.KEYS["statistics"])
    ddp_worker.step(joined, ddp_worker.batch(case, 0))
    wanted = {name: value for name, value in read(branches).items() if not name.startswith("share/")}
    assert wanted.pop("batches") == 1
    for rank in (0, 1):
        found = ranks[rank][case, "statistics"]["columns"]
        assert found["batches"] == 2
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-5, nan_ok=True)
        assert not ranks[rank][case, "slide"]["columns"]


def test_classify_has_one_rank_s_loss_on_its_share_and_the_statistics_of_all(ranks: Results) -> None:
    joined = ddp_worker.classify()
    assert sum(joined["weights"]) / len(joined["weights"]) == pytest.approx(1, abs=1e-5)
    assert joined["weights"][2] > joined["weights"][1] > joined["weights"][0]
    for rank in (0, 1):
        found, alone = ranks[rank]["classify", "focal"], ddp_worker.classify(rank)
        assert found["weights"] == joined["weights"]
        torch.testing.assert_close(found["loss"], alone["loss"])
        torch.testing.assert_close(found["gradient"], alone["gradient"])
        by_class = {name: value for name, value in joined["columns"].items() if name.startswith("by_class/")}
        assert len(by_class) == ddp_worker.CLASSES
        assert {name: found["columns"][name] for name in by_class} == pytest.approx(by_class, rel=1e-5)
        assert alone["columns"] != pytest.approx(found["columns"], rel=1e-3, nan_ok=True)
