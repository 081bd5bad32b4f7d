"""Each example runs as its docstring says and shows what it says; those of more than some seconds in `make long`."""

from __future__ import annotations

import ast
import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Result, start

EXAMPLES = ROOT / "examples"
RUNS = Path("runs/examples")
NOTEBOOK = EXAMPLES / "start_to_verdict.ipynb"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def example(folder: Path, name: str, *words: str) -> Result:
    """Run an example in a folder and return how it ended; it writes to `runs/examples` there."""
    return start(sys.executable, EXAMPLES / name, *words, cwd=folder, timeout=1800)().check()


def cells(kind: str) -> list[dict[str, Any]]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_readme_lists_every_example() -> None:
    rows = re.findall(r"^\| \[(\S+)\]\((\S+)\) \| .+ \| .+ \|$", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert all(text == target for text, target in rows)
    assert sorted(target for _, target in rows) == sorted(path.name for path in [*SCRIPTS, NOTEBOOK])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_docstring_says_what_it_shows_and_the_command(path: Path) -> None:
    summary, _, rest = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n\n")
    assert summary.endswith(".")
    assert f"    python examples/{path.name}" in rest


@pytest.mark.slow
def test_train_shows_the_proof_and_resumes_with_the_same_loss(tmp_path: Path) -> None:
    done = example(tmp_path, "train.py")
    printed = done.text.partition("The log, of both trainings:")[2]
    assert printed.count("cls_loss=slide SlideLoss(delta=0.15, min_iou=0.2)") == 2
    assert printed.count("ran in the first batch with objects: class; class term ") == 2
    assert done.saying("args.yaml: cls_loss=slide slide_delta=0.15")
    assert done.saying("best.pt: cls_loss=slide slide_delta=0.15")
    assert done.saying("Resuming with cls_loss=focal: resume keeps cls_loss=slide")
    epochs = (tmp_path / RUNS / "train" / "run" / "results.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[0]) for line in epochs] == [1, 2]


@pytest.mark.slow
def test_own_loop_s_loss_falls_with_the_chosen_criterion(tmp_path: Path) -> None:
    done = example(tmp_path, "own_loop.py")
    losses = [float(line.rpartition(" ")[2]) for line in done.saying(": loss ")]
    assert len(losses) == 10
    assert losses[-1] < losses[0] / 2
    (criterion,) = done.saying("criterion: ")
    assert "DetectionLoss, class term SlideLoss(" in criterion
    assert "box term SIoULoss(" in criterion
    assert done.saying("called in 40 batches")


@pytest.mark.slow
@pytest.mark.long
def test_classify_trains_each_choice_three_times_and_has_its_table(tmp_path: Path) -> None:
    done = example(tmp_path, "classify.py", "runs.csv")
    rows = list(csv.DictReader((tmp_path / "runs.csv").open(encoding="utf-8")))
    assert len({(row["keys"], row["seed"]) for row in rows}) == len(rows) == 9
    for row in rows:
        shares = [float(row[name]) for name in ("disc", "tile", "star")]
        assert float(row["top-1"]) == pytest.approx(sum(shares) / 3, abs=1e-4)
    assert len(done.saying("yolo_losses: cls_loss=focal SoftmaxFocalLoss(gamma=1.5)")) == 3
    assert done.saying("Images for training: 403 disc, 162 tile, 35 star")
    kept = csv.DictReader((EXAMPLES / "evidence" / "classify.csv").open(encoding="utf-8"))
    assert [(row["keys"], row["seed"]) for row in rows] == [(row["keys"], row["seed"]) for row in kept]


@pytest.mark.slow
@pytest.mark.long
def test_tune_trains_with_every_value_it_tries(tmp_path: Path) -> None:
    done = example(tmp_path, "tune.py")
    tried = [float(value) for value in re.findall(r"yolo_losses: cls_loss=focal FocalLoss\(gamma=([\d.]+),", done.text)]
    assert len(tried) == len(set(tried)) == 3
    assert all(0.5 <= gamma <= 3 for gamma in tried)
    (best,) = (tmp_path / RUNS / "tune").glob("search*/best_hyperparameters.yaml")
    assert yaml.safe_load(best.read_text(encoding="utf-8"))["focal_gamma"] in tried


@pytest.mark.slow
@pytest.mark.long
def test_tune_ray_trains_each_trial_with_its_choice(tmp_path: Path) -> None:
    pytest.importorskip("ray.tune")
    done = example(tmp_path, "tune_ray.py")
    told = re.findall(r"^cls_loss=(\w+) focal_gamma=([\d.]+): mAP50-95 [\d.]+ ?$", done.text, re.MULTILINE)
    runs = [yaml.safe_load(path.read_text()) for path in (tmp_path / RUNS / "tune_ray").glob("search_*/args.yaml")]
    assert len(told) == 3
    trained = [(run["cls_loss"], f"{run.get('focal_gamma', 0):.2f}") for run in runs]
    assert sorted(loss for loss, _ in told) == sorted(loss for loss, _ in trained)
    assert {pair for pair in told if pair[0] == "focal"} == {pair for pair in trained if pair[0] == "focal"}


@pytest.mark.slow
@pytest.mark.long
def test_compare_writes_a_report_with_a_verdict(tmp_path: Path) -> None:
    done = example(tmp_path, "compare.py", "epochs=1", "imgsz=64", "fraction=0.2")
    assert done.saying("report: ")
    assert re.search("better|worse|practically equal|inconclusive|no result", done.saying("cls_loss=focal: ")[-1])
    out = tmp_path / RUNS / "compare" / "out"
    assert "# 1 configuration compared with bce" in (out / "report.md").read_text(encoding="utf-8")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in out.rglob("record.json")]
    assert len(records) == 4
    assert {record["status"] for record in records} == {"finished"}


def test_the_notebook_has_ten_sections_and_opens_on_colab() -> None:
    first, *others = ("".join(cell["source"]) for cell in cells("markdown"))
    assert len([text for text in others if text.startswith("## ")]) == 10
    assert "colab.research.google.com/github/yolo-losses/yolo-losses/blob/main/examples/start_to_verdict.ipynb" in first
    install = "".join(cells("code")[0]["source"])
    assert "%pip install" in install
    assert "raw.githubusercontent.com" in install
    assert "make_dataset.py" in install


def test_the_notebook_holds_what_its_cells_showed() -> None:
    shown = ["".join(map(str, _stored(cell))) for cell in cells("code")]
    check_shown(shown)
    assert [cell["execution_count"] for cell in cells("code")] == list(range(1, len(shown) + 1))
    assert not any(re.search(r"/(tmp|work|home|root)/", text) for text in shown)


def _stored(cell: dict[str, Any]) -> list[Any]:
    parts: list[Any] = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        parts += [*output.get("text", ""), *data.get("text/plain", ""), *(k for k in data if k.startswith("image/"))]
    return parts


@pytest.mark.slow
@pytest.mark.long
def test_the_notebook_runs_from_start_to_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.delenv("MPLBACKEND")  # the notebook's own draws into it
    (tmp_path / "make_dataset.py").write_bytes((EXAMPLES / "make_dataset.py").read_bytes())
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()

    check_shown([shown_by(cell) for cell in notebook.cells if cell.cell_type == "code"])
    assert len(list(tmp_path.rglob("record.json"))) == 4


def check_shown(shown: list[str]) -> None:
    """Check what the cells of the notebook show, the cells of code in order."""
    assert "slide_delta" in shown[3]
    assert "yolo-losses compare model=yolov8n.yaml" in shown[4]
    assert "Did you mean 'slide'?" in shown[5]
    assert shown[7].count("yolo_losses: cls_loss=slide SlideLoss(delta=0.1, min_iou=0.2)") == 1
    assert shown[7].count("yolo_losses: ran in the first batch with objects: class; class term ") == 1
    assert "'cls_loss': 'slide'" in shown[7]
    assert "4/4" in shown[8] or "4 of 4" in shown[8], "the progress of the comparison"
    assert "cls_loss=slide" in shown[9]
    assert re.search("better|worse|practically equal|inconclusive", shown[9])
    assert "image/svg+xml" in shown[10]
    assert "image/png" in shown[11]


def shown_by(cell: Any) -> str:
    """Return a cell's outputs as text, pictures by their type."""
    parts = [str(output.get("text", "")) for output in cell.outputs]
    for output in cell.outputs:
        data = output.get("data", {})
        parts += [str(data.get("text/plain", "")), *(kind for kind in data if kind.startswith("image/"))]
    return "\n".join(parts)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: 1/2\x1b[K\ra: 2/2\n", "a: 2/2\n"),
        ("\x1b[Ka: 1/2\r\x1b[Ka: 2/2\n\n", "a: 2/2\n"),
        ("runs 1/2\nrun 3/6\r\x1b[2K\x1b[1A\x1b[2Kruns \x1b[32m2/2\x1b[0m\n", "runs 2/2\n"),
        ("", ""),
    ],
)
def test_what_a_cell_showed_is_stored_as_a_terminal_would_show_it_last(text: str, wanted: str) -> None:
    run_notebook = pytest.importorskip("run_notebook")
    assert run_notebook.last_state(text) == wanted
