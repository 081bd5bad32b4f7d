"""`yolo_losses.compare(...)`: repeated calls, more seeds, an interrupted call, a notebook."""

from __future__ import annotations

import _thread
import json
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import KEYS, wait_for

import yolo_losses
from yolo_losses.comparison.reader import read_runs

pytest.importorskip("rich")
pytest.importorskip("scipy")
pytestmark = pytest.mark.slow

SMALL = {**KEYS, "model": "yolov8n.yaml", "imgsz": 32, "nbs": 4, "close_mosaic": 0}


def times(out: Path) -> dict[str, int]:
    """Return when each record was written, by the run's folder."""
    return {str(p.parent.relative_to(out)): p.stat().st_mtime_ns for p in sorted(out.rglob("record.json"))}


def test_repeated_calls_train_only_new_runs(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys: dict[str, Any] = {**SMALL, "data": data, "out": tmp_path, "jobs": 2}
    first = yolo_losses.compare(cls_loss="slide", seed=0, **keys)
    names = ["cls_loss=stock", "cls_loss=slide"]
    assert list(dict.fromkeys(first["configuration"])) == names
    assert "cls_loss=stock is added as the baseline" in capsys.readouterr().out
    before = times(tmp_path)
    assert len(before) == 2

    assert yolo_losses.compare(cls_loss="slide", seed=0, **keys).equals(first)
    assert times(tmp_path) == before
    assert "2 of 2 runs are finished already" in capsys.readouterr().out

    more = yolo_losses.compare(cls_loss=["stock", "slide"], seed=range(2), **keys)
    assert times(tmp_path).items() > before.items()
    assert len(times(tmp_path)) == 4
    assert more.filter(weights="best")["runs"].to_list() == [2, 2]
    assert yolo_losses.compare(report_only=True, out=tmp_path).equals(more)
    assert {r.planned_epochs for r in read_runs(tmp_path).records} == {SMALL["epochs"]}
    assert not read_runs(tmp_path).problems


def test_a_repeated_call_continues_an_interrupted_one(tmp_path: Path, data: Path) -> None:
    keys: dict[str, Any] = {**SMALL, "data": data, "out": tmp_path, "epochs": 4, "seed": 0}

    def interrupt() -> None:
        wait_for(lambda: list(tmp_path.rglob("snapshot.pt")))
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            yolo_losses.compare(cls_loss="stock", **keys)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert not [p for p in psutil.Process().children(recursive=True) if "yolo_losses.comparison.worker" in p.cmdline()]
    assert not times(tmp_path)

    table = yolo_losses.compare(cls_loss="stock", **keys)
    assert table.filter(weights="last")["runs"].to_list() == [1]
    assert "Continuing after epoch" in next(tmp_path.rglob("log.txt")).read_text()


@pytest.mark.long
def test_it_runs_in_a_notebook(tmp_path: Path, data: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    call = f"yolo_losses.compare(cls_loss='slide', seed=SEED, out='out', data={str(data)!r}, **{SMALL!r})"
    cells = [
        f"import yolo_losses\ntable = {call.replace('SEED', '0')}",
        f"table = {call.replace('SEED', '[0, 1]')}\nprint(table.filter(weights='best')['runs'].to_list())",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    texts = ["".join(output.get("text", "") for output in cell["outputs"]) for cell in notebook["cells"]]
    assert "[2/2] finished" in texts[0]
    assert texts[1].splitlines()[-1].endswith("[2, 2]")  # after the live table's escape sequences
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["seeds"] == [0, 1]
